"""How an agent and its replay buffer are saved, whole or not at all, and loaded without running code from their files."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.her import HerReplayBuffer
from typing_extensions import Self

from sb3_rlx2 import safe_pickle
from sb3_rlx2.algorithms.values import check_values
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.fast.eligible import is_own
from sb3_rlx2.files import saving
from sb3_rlx2.patching import patched
from sb3_rlx2.safe_pickle import UnsafePickleError
from sb3_rlx2.saved_objects import add_plain, plain_attributes, read_objects
from sb3_rlx2.validation import check_arguments, known_arguments

if TYPE_CHECKING:
    AlgorithmHost = OffPolicyAlgorithm
else:
    AlgorithmHost = object

AT_FIRST = {"hidden_bias", "weight_scale"}  # arguments that say nothing of an agent that has been trained


class SavedSafely(AlgorithmHost):
    """Goes before an off-policy algorithm of SB3, whose ``save`` and ``load`` it takes the place of."""

    n_steps: int
    buffer_min_size: int | float
    replay_buffer: Any
    _as_given: Mapping[str, Any] = {}  # arguments that hold another value as long as `learn` goes on

    @classmethod
    def _own(cls) -> type:
        """Give the class of this package: a subclass of a user may take what it likes."""
        return next(each for each in cls.__mro__ if is_own(each))

    def _check_built(self) -> None:
        """Notice arguments that somebody has set, as if networks would follow."""
        raise NotImplementedError

    def save(self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Save the agent as SB3 does, but whole or not at all: where it fails, what was there before stays. The file holds what
        SB3 pickles once more without pickles, so that :meth:`load` needs none.

        :param path: file
        :param exclude: see SB3's ``save``
        :param include: see there
        :raises OSError: if there is no room for it
        """
        self._check_built()
        with patched(self, **self._as_given):
            if not isinstance(path, str | Path) or Path(path).is_dir():  # to which SB3 gives another name
                super().save(path, exclude, include)
                return
            with saving(path, ".zip") as unfinished:
                super().save(unfinished, exclude, include)
                with unfinished.open("r+b") as file:
                    add_plain(file, vars(self))

    def save_replay_buffer(self, path: Any) -> None:
        """
        Save the replay buffer as SB3 does, but whole or not at all, and with a checksum: SB3 loads it as well, and
        :meth:`load_replay_buffer` finds damage.

        :param path: file
        :raises OSError: if there is no room for it
        """
        if not isinstance(path, str | Path):
            super().save_replay_buffer(path)
            return
        with saving(path, ".pkl") as unfinished:
            super().save_replay_buffer(unfinished)
            safe_pickle.seal(unfinished)

    @classmethod
    def load(
        cls,
        path: Any,
        env: GymEnv | str | None = None,
        device: Any = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        allow_pickle: bool = False,
        **kwargs: Any,
    ) -> Self:
        """
        Load a saved agent as SB3 does, but run no code from its file: what may be made of it is in a list (spaces, noise,
        schedules and others, see :mod:`sb3_rlx2.safe_pickle`).

        :param path: file
        :param env: environment to go on with, or its name
        :param device: device of the networks
        :param custom_objects: attributes that take the place of saved ones, which then are not read
        :param print_system_info: whether to print where it was saved
        :param force_reset: whether to reset the environment
        :param allow_pickle: whether all that the file names is made from it, which runs code: a schedule that is a function of
            one's own, a class of one's own. Only for files whose author you trust
        :param kwargs: arguments that take the place of saved ones
        :raises ValueError: if the file is damaged, or holds what is made with ``allow_pickle=True`` only, or an argument
            is none
        """
        given = custom_objects or {}
        check_values(kwargs)
        file = open_path(path, "r", suffix="zip")
        try:
            if not allow_pickle:
                replaced = {*given, *(kwargs.keys() - {"policy_kwargs"})}  # with which SB3 compares those of the file
                replaced |= {"lr_schedule"} if "learning_rate" in replaced else set()  # which is made of it
                given = read_objects(file, replaced) | given
            own = known_arguments(cls._own())
            saved = {} if kwargs.keys() <= own - AT_FIRST else plain_attributes(file)
            check_arguments(cls._own(), kwargs.keys() - saved.keys())
            for name in kwargs.keys() & AT_FIRST:
                if kwargs[name] != saved.get(name, kwargs[name]):
                    raise ValueError(
                        f"{name}={kwargs[name]!r} is of the first weights, and these have been trained, with {saved[name]!r}: "
                        "make a new agent"
                    )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        finally:
            file.seek(0) if file is path else file.close()
        # `_wrap_env` makes an environment of a name.
        return super().load(path, env, device, given, print_system_info, force_reset, **kwargs)  # type: ignore[arg-type]

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True, allow_pickle: bool = False) -> None:
        """
        Load a saved buffer with its capacity; otherwise the algorithm's own arguments hold, not those of the saved buffer. No
        code is run from its file, as in :meth:`load`.

        :param path: file, see SB3's ``load_replay_buffer``
        :param truncate_last_traj: for HER, see there
        :param allow_pickle: whether all that the file names is made from it, which runs code
        :raises ValueError: if the buffer is of another environment or fits no arrays, or ``buffer_min_size`` exceeds its
            capacity, or the file holds what is made with ``allow_pickle=True`` only
        """
        own = self.replay_buffer
        if allow_pickle:
            super().load_replay_buffer(path, truncate_last_traj)
            loaded, self.replay_buffer = self.replay_buffer, own
        else:
            loaded = self._read_replay_buffer(path, truncate_last_traj)
        row, own_row = self._row_of(loaded), self._row_of(own)
        if own_row is not None and own_row != row:
            raise ValueError(f"{path} holds a replay buffer of another environment: {row}, where this one has {own_row}")
        if isinstance(loaded, RLx2ReplayBuffer):
            try:
                loaded.check()
            except ValueError as error:
                raise ValueError(f"{path} holds a replay buffer that is none: {error}") from error
            try:
                loaded.configure(self.n_steps, self.gamma, self.buffer_min_size)
            except ValueError as error:
                limit = f"{loaded.capacity}, the capacity of the buffer in {path}"
                raise ValueError(f"buffer_min_size={self.buffer_min_size} must be <= {limit}") from error
        if hasattr(own, "handle_timeout_termination"):
            loaded.handle_timeout_termination = own.handle_timeout_termination
        self.replay_buffer = loaded

    def _read_replay_buffer(self, path: Any, truncate_last_traj: bool) -> ReplayBuffer:
        file = open_path(path, "r", suffix="pkl")
        try:
            buffer = safe_pickle.load(file)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}") from None
        except (EOFError, MemoryError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        finally:
            if file is not path:
                file.close()
        if not isinstance(buffer, ReplayBuffer):
            raise ValueError(f"{path} holds a {type(buffer).__name__}, and no replay buffer")
        if isinstance(buffer, HerReplayBuffer):  # as SB3
            assert self.env is not None, "You must pass an environment at load time when using `HerReplayBuffer`"
            buffer.set_env(self.env)
            if truncate_last_traj:
                buffer.truncate_last_trajectory()
        buffer.device = self.device
        return buffer

    @staticmethod
    def _row_of(buffer: ReplayBuffer | None) -> str | None:
        """Say what a row of a buffer holds."""
        if buffer is None:
            return None
        space = buffer.action_space
        actions = space if isinstance(space, spaces.Discrete) else f"({buffer.action_dim},)"
        return f"observations of {buffer.obs_shape}, actions of {actions}, {buffer.n_envs} environments"
