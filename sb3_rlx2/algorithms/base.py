"""What the algorithms share: SB3's, put together with the sparse parts."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, TrainFreq
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.goal_selection_strategy import KEY_TO_GOAL_STRATEGY
from typing_extensions import Self

from sb3_rlx2 import metrics
from sb3_rlx2.algorithms.keywords import BufferOptions, NetworkOptions, defaults, names, show
from sb3_rlx2.algorithms.noise import exploration_noise
from sb3_rlx2.algorithms.policies import SparsePolicy, start_keyword
from sb3_rlx2.algorithms.save_load import AT_FIRST, SavedSafely
from sb3_rlx2.algorithms.smaller import remove_dead_units
from sb3_rlx2.algorithms.values import check_switch, check_values, warn_of_idle
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.callbacks import RLx2Callback, check_dense_start
from sb3_rlx2.deploy import ATTRIBUTE as DEPLOYED
from sb3_rlx2.environment_guard import check_statistics, guard, unguard
from sb3_rlx2.fast.eligible import TrainingWatch, is_own, uses_masked, why_not
from sb3_rlx2.patching import patched
from sb3_rlx2.plan import check_amount, is_share, steps_of
from sb3_rlx2.progress_log import ARRAYS
from sb3_rlx2.validation import check_arguments, check_integer, check_number, known_arguments, lookup
from sb3_rlx2.warning import warn


class _Callbacks(CallbackList):
    """Callbacks of which one that forgets to answer does not end training without a word, as with SB3."""

    def _on_step(self) -> bool:
        goes_on = True
        for callback in self.callbacks:
            answer = callback.on_step()
            if answer is None:
                asked = callback.callback if isinstance(callback, ConvertCallback) else callback
                name = getattr(asked, "__name__", type(asked).__name__)
                raise ValueError(f"callback={name} gives None at a step; it must be True to go on, or False to end training")
            goes_on = answer and goes_on
        return goes_on


class RLx2Algorithm(SavedSafely):
    """
    Goes before an off-policy algorithm of SB3.

    RLx2's keyword arguments become attributes, as SB3's do: so they are saved, and ``load`` can replace them. In
    ``_setup_model`` the parts are made from them.
    """

    sparse_policy_class: ClassVar[type[SparsePolicy]]
    own_defaults: ClassVar[Mapping[str, Any]] = {}  # RLx2's keyword arguments whose defaults are the algorithm's own
    # Arguments of which SB3 makes something at once that it does not look at again, and what that is.
    made_once: ClassVar[Mapping[str, str]] = {"buffer_size": "the buffer"}

    planned_timesteps: int | None
    backend: str
    topology: str
    policy_distance_threshold: float
    action_noise: Any
    replay_buffer_class: Any
    arrays: Any
    _is_loading = False  # SB3's `load` has made it and will give it a saved agent's state
    _steps: Any = None
    _watch: Any = None  # the TrainingWatch that looks after them
    _made_of: Mapping[str, Any]  # what arguments were when something was made of them
    _lr_made: tuple[Any, Any]  # the learning rate, and the schedule that was made of it
    _said: str | None = None  # why gradient steps are SB3's own, as the user was told

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_own(cls) and "__init__" in vars(cls):  # a user's may take what it likes
            show(cls.__init__, cls.rlx2_defaults())

    @classmethod
    def rlx2_defaults(cls) -> dict[str, Any]:
        """Give the keyword arguments that are RLx2's, with their defaults."""
        threshold = {"policy_distance_threshold": cls.sparse_policy_class.distance_threshold}
        return defaults() | threshold | dict(cls.own_defaults)

    @classmethod
    def rlx2_keywords(cls) -> set[str]:
        """Give the names of all arguments that SB3's own algorithm does not have, or means something else by."""
        return {*cls.rlx2_defaults(), *cls.sparse_policy_class.sparsity_keywords()}

    @classmethod
    def _split(cls, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give RLx2's own keyword arguments, all of them, and the host's."""
        own = cls.rlx2_defaults()
        for name in kwargs.keys() - known_arguments(cls._own()) & known_arguments(cls.sparse_policy_class):
            raise TypeError(f"{cls.__name__} has no argument {name}: it goes into policy_kwargs")
        check_arguments(cls._own(), kwargs)
        check_values(kwargs)  # of some of these SB3's constructor makes something at once
        others = {name: value for name, value in kwargs.items() if name not in own}
        if others.get("policy_kwargs") is not None:
            others["policy_kwargs"] = dict(
                others["policy_kwargs"]
            )  # SB3 writes into it, and the next algorithm may get it too
        return own | {name: kwargs[name] for name in kwargs if name in own}, others

    def _configure(self, keywords: Mapping[str, Any], setup_model: bool) -> None:
        """
        Finish construction.

        :param keywords: RLx2's arguments
        :param setup_model: SB3's ``_init_setup_model``, False while loading
        """
        self._check_policy(loading=not setup_model)
        for name, value in keywords.items():
            setattr(self, name, value)
        if setup_model:
            if self.env is None:
                raise ValueError("env=None must be an environment, or the name of one")
            vars(self).update(check_values(vars(self)))
            warn_of_idle(vars(self))
            self._check_observations()
        check_number("policy_distance_threshold", self.policy_distance_threshold, 0.0, math.inf)  # None is for callbacks alone
        check_amount("learning_starts", self.learning_starts, minimum=0)
        self._make_callback()  # checks its arguments now and not at the first `learn`
        self._is_loading = not setup_model
        if setup_model:
            self._setup_model()
            self.policy.check_connected()  # type: ignore[operator]
            check_dense_start(self.policy, self.topology)
            if self.verbose > 0:
                print(metrics.summary(self))

    def _check_policy(self, loading: bool) -> None:
        given = self.policy_class
        if isinstance(given, type) and issubclass(given, self.sparse_policy_class):
            return
        own, needed = type(self).__name__, self.sparse_policy_class.__name__
        name = given.__name__ if isinstance(given, type) else repr(given)
        if loading:
            kind = "another algorithm's" if issubclass(given, SparsePolicy) else "dense"
            raise RuntimeError(
                f"policy={name} of the saved agent is {kind}, {own}.load needs a {needed}: load it with the algorithm "
                f"that saved it, or train a sparse one from scratch with {own}"
            )
        aliases = ", ".join(map(repr, self.policy_aliases))
        raise ValueError(f"policy={name} must be {aliases} or a {needed}")

    def _check_observations(self) -> None:
        """Check that a policy that reads dicts will get some; an extractor of the user's may read what it likes."""
        of_dicts = self.policy_aliases.get("MultiInputPolicy", ())
        own = "features_extractor_class" in self.policy_kwargs
        if issubclass(self.policy_class, of_dicts) and not own and not isinstance(self.observation_space, spaces.Dict):
            raise ValueError(
                f"policy='MultiInputPolicy' must be 'MlpPolicy': observations are no Dict, but {self.observation_space}"
            )

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return lookup("policy", policy_name, self.policy_aliases)

    def _setup_model(self) -> None:
        if self.arrays != "auto" and not isinstance(self.arrays, bool):
            raise ValueError(f"arrays={self.arrays!r} must be 'auto', True or False")
        self.action_noise = exploration_noise(self.action_noise, self.action_space, self.n_envs)
        if self.replay_buffer_class is None and not isinstance(self.observation_space, spaces.Dict):
            self.replay_buffer_class = RLx2ReplayBuffer
        # The merged arguments are for the constructors only. What is saved is the user's own, which `load` merges again.
        merged = {"policy_kwargs": self._merge("policy_kwargs", self.sparse_policy_class.keywords())}
        self._check_buffer_arguments()
        if self.replay_buffer_class is not None and issubclass(self.replay_buffer_class, RLx2ReplayBuffer):
            merged["replay_buffer_kwargs"] = self._merge("replay_buffer_kwargs", (*names(BufferOptions), "gamma"))
        if self._is_loading:  # links come from the file, and what they were chosen by at first may be gone
            merged["policy_kwargs"]["init"] = NetworkOptions.init
        with patched(self, n_steps=1, **merged):  # SB3's argument of this name would only warn next to a buffer class
            super()._setup_model()
        self._made_of = {name: getattr(self, name) for name in self.made_once if hasattr(self, name)}
        self._lr_made = self.learning_rate, self.lr_schedule
        if self.arrays is True:
            self._choose_steps()  # says now, and not at the first `train`, what is in the way

    def _check_buffer_arguments(self) -> None:
        if self.replay_buffer_class is not None:
            check_arguments(self.replay_buffer_class, self.replay_buffer_kwargs, " (in replay_buffer_kwargs)")
        strategy = self.replay_buffer_kwargs.get("goal_selection_strategy")
        if isinstance(strategy, str):  # of HER, which takes any case
            lookup("goal_selection_strategy", strategy.lower(), KEY_TO_GOAL_STRATEGY)

    def _merge(self, argument: str, keywords: tuple[str, ...]) -> dict[str, Any]:
        """Add flat keywords to one of SB3's nested dicts."""
        given: dict[str, Any] = getattr(self, argument)
        flat = {name: getattr(self, name) for name in keywords}
        for name in flat.keys() & given.keys():
            if given[name] != flat[name]:
                raise ValueError(
                    f"{argument} holds {name}={given[name]!r}, but {name} is an argument of {type(self).__name__} itself "
                    f"(now {flat[name]!r}); give it there only"
                )
        return given | flat

    def _make_callback(self) -> RLx2Callback:
        known = inspect.signature(RLx2Callback).parameters
        arguments = {name: getattr(self, name) for name in self.rlx2_defaults() if name in known}
        return RLx2Callback(verbose=self.verbose, **arguments)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        given: Any = [] if callback is None else callback if isinstance(callback, list | tuple) else [callback]
        for each in given:
            if isinstance(each, type) or not (isinstance(each, BaseCallback) or callable(each)):
                raise ValueError(f"callback={each!r} must be a callback (not its class), a function, or a list of these")
        others = [each if isinstance(each, BaseCallback) else ConvertCallback(each) for each in given]
        return super()._init_callback(_Callbacks([*self._own_callbacks(), *others]), progress_bar)

    def _own_callbacks(self) -> list[BaseCallback]:
        """Make the callbacks that go before those of the user."""
        return [self._make_callback()]

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """
        Do gradient steps: SB3's ``train``, in arrays and kernels where they serve (see the argument ``arrays``).

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        :raises ValueError: if ``arrays`` is True and something is in the way, or there is no logger yet
        """
        self._check_logger()
        steps = self._choose_steps()
        self.logger.record(ARRAYS, float(steps is not None))
        if steps is None:
            super().train(gradient_steps, batch_size)
            return
        self.policy.set_training_mode(True)
        optimizers = [*self._watch.optimizers, getattr(self, "ent_coef_optimizer", None)]
        self._update_learning_rate([optimizer for optimizer in optimizers if optimizer is not None])
        self._log_losses(steps.train(gradient_steps, batch_size))

    def _log_losses(self, losses: Mapping[str, Sequence[float]]) -> None:
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in losses.items():
            if values:
                self.logger.record(f"train/{name}", sum(values) / len(values))

    def _check_logger(self) -> None:
        if not hasattr(self, "_logger"):
            raise ValueError("train() logs: learn() brings a logger, or set_logger(configure(None, [])) one that is silent")

    def _choose_steps(self) -> Any:
        """Give the gradient steps in arrays, None where SB3's own are to be done."""
        if self.arrays is False:
            self._steps = self._watch = None
            return None
        if self._steps is not None and self._watch is not None and self._watch.sees_the_same(self):
            return self._steps
        self._steps = self._watch = None
        has_any = type(self)._make_steps is not RLx2Algorithm._make_steps
        reason = why_not(self) if has_any else f"{type(self).__name__} has no such steps yet"
        if reason is None:
            self._steps, self._watch = self._make_steps(), TrainingWatch(self)
        elif self.arrays is True:
            raise ValueError(f"arrays=True cannot be served: {reason}; arrays='auto' takes SB3's own gradient steps instead")
        elif has_any and reason != self._said and not uses_masked(self.policy):  # of that the backend warns
            self._said = reason
            warn(f"gradient steps are SB3's own, and not in arrays, because {reason}")
        return self._steps

    def choose_steps_anew(self, now: bool) -> None:
        """
        Forget the gradient steps in arrays, which look at parameters and moments where they were.

        :param now: whether to choose them now, and not only when they are next done: what is logged before depends on them
        """
        self._steps = self._watch = None
        if now:
            self._choose_steps()

    def _make_steps(self) -> Any:
        """Make the algorithm's gradient steps in arrays, if it has any; here, because they import numba."""
        raise NotImplementedError

    def _check_built(self) -> None:
        """Notice arguments that somebody has set, as if networks would follow."""
        policy: Any = self.policy
        for name in names(NetworkOptions):
            given, built = getattr(self, name), getattr(policy.options, name)
            if given != built and name != "init":  # a saved agent brings its links
                advice = "" if name in AT_FIRST else f", or have load(path, {name}=...) build it"
                raise ValueError(
                    f"{name}={given!r} must be {built!r}, with which the networks were built: for another make a new agent"
                    f"{advice}"
                )
        for name, keyword in policy.networks.items():
            start = start_keyword(keyword)
            if getattr(self, start) != policy.sparsities[name].start:
                raise ValueError(
                    f"{start}={getattr(self, start)!r} must be {policy.sparsities[name].start!r}, with which the {name} was "
                    "built: for another make a new agent"
                )
            given, built = getattr(self, keyword), policy.sparsities[name].share
            if given != built:
                raise ValueError(
                    f"{keyword}={given!r} must be {built!r}, with which the {name} was built: for another make a new agent, "
                    f"or one that loses links on its way ({start_keyword(keyword)})"
                )

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_steps",
            "_watch",
            "_said",
            "_is_loading",
            "_made_of",
            "_lr_made",
            "_as_given",
        ]

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        env = maybe_make_env(env, verbose)  # which SB3 does for its constructor, and not for `load`
        if not hasattr(env, "action_space") or isinstance(env, type | gym.vector.VectorEnv):
            name = env.__name__ if isinstance(env, type) else repr(env)
            raise ValueError(
                f"env={name} must be an environment (not its class), its name, or a VecEnv of SB3, as make_vec_env gives"
            )
        cls.sparse_policy_class.check_action_space(env.action_space, f"env has action_space={env.action_space}, which", cls)
        env = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        check_statistics(env)
        return env

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """
        Train as SB3 does.

        :param total_timesteps: number of environment steps
        :param callback: called at every step, besides the :class:`RLx2Callback` that the algorithm brings
        :param log_interval: episodes between two logs
        :param tb_log_name: name of the run in TensorBoard, by default the name of the class
        :param reset_num_timesteps: whether to count steps from 0
        :param progress_bar: whether to show a progress bar
        :raises ValueError: if an argument is none, or a sparsity is not that of the networks any more
        """
        total_timesteps = check_integer("total_timesteps", total_timesteps, minimum=0)
        check_switch("reset_num_timesteps", reset_num_timesteps)
        self._check_training(log_interval, progress_bar)
        name = tb_log_name or type(self).__name__
        total = total_timesteps if reset_num_timesteps else total_timesteps + self.num_timesteps
        warm_up = steps_of("learning_starts", self.learning_starts, max(total, self.planned_timesteps or 0))
        if not reset_num_timesteps and self._n_updates > 0 and is_share(self.learning_starts):
            warm_up = min(warm_up, self.num_timesteps)  # it was over, however long the run has become since
        try:
            self._as_given = {"learning_starts": self.learning_starts}
            with patched(self, learning_starts=warm_up):
                return super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)
        finally:
            self._as_given = {}
            self._leave_environments()

    def _leave_environments(self) -> None:
        if self.env is not None:
            unguard(self.env)

    def _check_training(self, log_interval: int | None, progress_bar: bool) -> None:
        """Check what training is called with, and what somebody has set since construction."""
        if self.env is None:
            raise ValueError("env=None must be an environment: load(path, env) or set_env(env) gives a loaded agent one")
        if log_interval is not None:
            check_integer("log_interval", log_interval, minimum=1)
        check_switch("progress_bar", progress_bar)
        self._check_built()
        own = known_arguments(self._own())
        check_values({name: value for name, value in vars(self).items() if name in own})
        self._follow()
        self._warn_of_late()

    def _follow(self) -> None:
        """Have what was made of arguments follow those that somebody has set since, as all others do."""
        if not isinstance(self.train_freq, TrainFreq):
            self._convert_train_freq()
        self.action_noise = exploration_noise(self.action_noise, self.action_space, self.n_envs)
        buffer = self.replay_buffer
        if isinstance(buffer, RLx2ReplayBuffer) and (self.n_steps, self.buffer_min_size) != (
            buffer.final_n_steps,
            buffer.buffer_min_size,
        ):
            buffer.configure(self.n_steps, self.gamma, self.buffer_min_size)

    def _warn_of_late(self) -> None:
        """Tell who has set what SB3 does not look at again."""
        rate, schedule = self._lr_made
        if self.learning_rate != rate and self.lr_schedule is schedule:
            warn(
                f"learning_rate={self.learning_rate} was set after construction, and training takes lr_schedule, made of "
                f"{rate}: set that one, or have load(path, learning_rate=...) make it"
            )
        for name, made_of in self._made_of.items():
            if getattr(self, name) != made_of:
                warn(
                    f"{name}={getattr(self, name)} was set after construction, and training goes on with "
                    f"{self.made_once[name]} that is there, made of {made_of}: have load(path, {name}=...) make it"
                )

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.env is not None:
            guard(self)  # before it is reset
        total, callback = super()._setup_learn(total_timesteps, *args, **kwargs)
        self._total_timesteps = max(total, self.planned_timesteps or 0)  # for schedules; `learn` ends at its own
        return total, callback

    def set_logger(self, logger: Logger) -> None:
        """
        Log elsewhere.

        :param logger: what SB3's ``configure`` makes of a folder
        :raises ValueError: if it is something else
        """
        if not isinstance(logger, Logger):
            raise ValueError(
                f"logger={logger!r} must be a Logger, as configure(folder) of stable_baselines3.common.logger gives"
            )
        super().set_logger(logger)

    def restart_topology(self) -> None:
        """
        Have the next ``learn`` begin a schedule of its own: links move as at the start of a run, one-step targets come first.
        Otherwise a trained agent's topology stays as it is, for instance when it is tuned to another environment.
        """
        policy: Any = self.policy
        policy.topology_updater.restart(self.num_timesteps)

    def prune_dead_units(self) -> Self:
        """
        Remove all units on no path from an input to an output, in place: the agent acts as before (but for rounding), and is
        smaller. What units that no input reaches hand on goes into biases. Such units could have come back to life: links can
        grow only among those that are left. Not to be called while it trains.

        :raises ValueError: if a network is still to lose links by ``prune_end``
        """
        arguments = remove_dead_units(self.policy)  # type: ignore[arg-type]
        if vars(self).pop(DEPLOYED, None) is not None:
            warn("the actor that was chosen to be deployed had the units that are gone, so none is chosen now")
        self.policy_kwargs = {name: value for name, value in self.policy_kwargs.items() if name not in arguments}
        self.policy_kwargs["net_arch"] = arguments.pop("net_arch")
        for name, value in arguments.items():
            setattr(self, name, value)
        self.choose_steps_anew(now=False)
        return self

    def __repr__(self) -> str:
        name, policy = type(self).__name__, getattr(self, "policy", None)
        if policy is None:
            return f"{name}(not set up)"
        links = [f"{name} {live:,} of {size:,} links" for name, (live, size) in metrics.live_weights(policy).items()]
        steps = f"{self.num_timesteps:,} steps"
        return f"{name}({', '.join([type(policy).__name__, *links, f'topology={self.topology!r}', steps])})"

    def _repr_html_(self) -> str:
        return metrics.summary_html(self)

    def __getstate__(self) -> dict[str, Any]:
        # Its arrays share memory with tensors, which copies would tear apart.
        return self.__dict__ | {"_steps": None, "_watch": None}
