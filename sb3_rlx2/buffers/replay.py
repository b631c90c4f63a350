"""Replay buffer with a live window whose capacity shrinks, n-step returns, and the policy's noise-free actions."""

from collections.abc import Callable
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2.buffers import gather
from sb3_rlx2.buffers.samples import Batch, Windows
from sb3_rlx2.plan import BUFFER_MIN_SIZE, FULL_LENGTH, check_amount, steps_of
from sb3_rlx2.validation import check_integer, check_number

DEFAULT_MIN_SIZE = BUFFER_MIN_SIZE
FORMER_MIN_SIZE = 100_000  # the default of agents saved by earlier versions, which follows a smaller buffer

# Gives the entropy bonus, -alpha * log pi of a fresh action, of each observation.
EntropyBonus = Callable[[th.Tensor], th.Tensor]


class RLx2ReplayBuffer(NStepReplayBuffer):
    """
    SB3's n-step buffer plus RLx2's dynamic capacity (Tan et al., 2023, section 4.2).

    The transitions that can be sampled form a live window in the ring: the ``live`` rows up to the newest one.
    :meth:`shrink` drops the oldest of them; the ring then fills up again. Rows hold one transition per environment.

    An n-step window is cut at a termination (no bootstrap), at a time limit and at the newest transition (bootstrap there).

    :param buffer_size: capacity in transitions. A buffer of size 1 is SB3's way to load an agent only to play.
    :param observation_space: observation space, not a dict
    :param action_space: action space, a Box or Discrete
    :param device: device of the samples
    :param n_envs: number of environments
    :param optimize_memory_usage: not supported
    :param handle_timeout_termination: treat time limits as truncation, not as termination
    :param n_steps: length of the n-step return; :class:`RLx2Callback` holds the attribute ``n_steps``, which is the
        length in force, at 1 until its delay has passed
    :param gamma: discount factor; the callback copies the algorithm's
    :param buffer_min_size: transitions below which :meth:`shrink` does not go, at most ``buffer_size``; or a share of the
        steps that are planned, as the callback knows them, of which a million count at most
    :raises ValueError: if an argument is not supported or out of its range
    """

    planned_timesteps: int = FULL_LENGTH  # until the callback knows

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        n_steps: int = 3,
        gamma: float = 0.99,
        buffer_min_size: int | float = DEFAULT_MIN_SIZE,
    ) -> None:
        buffer_size = check_integer("buffer_size", buffer_size, minimum=1)
        n_envs = check_integer("n_envs", n_envs, minimum=1)
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True must be False: n-step returns need all next observations")
        if isinstance(observation_space, spaces.Dict):
            raise ValueError(f"observation_space={observation_space} must not be a Dict; use SB3's DictReplayBuffer")
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            handle_timeout_termination=handle_timeout_termination,
        )
        self.capacity = buffer_size
        self.configure(n_steps, gamma, buffer_min_size)
        self.live = 0
        self.policy_actions = np.zeros(self.actions.shape, self.actions.dtype)  # unlike zeros_like, takes memory as it fills
        self._policy_action: np.ndarray | None = None
        self.uses_entropy_bonus = False
        self.entropy_bonus: EntropyBonus | None = None

    def configure(self, n_steps: int, gamma: float, buffer_min_size: int | float) -> None:
        """
        Set what can change without touching what is stored; see the class for the arguments.

        :param n_steps: length of the n-step return
        :param gamma: discount factor
        :param buffer_min_size: transitions below which :meth:`shrink` does not go
        :raises ValueError: if one is out of its range
        """
        self.n_steps = self.final_n_steps = check_integer("n_steps", n_steps, minimum=1)
        self.gamma = check_number("gamma", gamma, 0.0, 1.0)
        buffer_min_size = check_amount("buffer_min_size", buffer_min_size, minimum=0)
        if 1 < self.capacity < buffer_min_size != FORMER_MIN_SIZE:
            raise ValueError(f"buffer_min_size={buffer_min_size} must be <= buffer_size={self.capacity}")
        self.buffer_min_size = buffer_min_size

    def check(self) -> None:
        """
        Check that counters and arrays fit each other, as kernels do not: a file may hold others.

        :raises ValueError: if they do not
        """
        size, counters = self.buffer_size, (self.buffer_size, self.pos, self.live)
        if not all(isinstance(each, Integral) for each in counters) or not (0 <= self.pos < size and 0 <= self.live <= size):
            raise ValueError(f"buffer_size={size!r}, pos={self.pos!r} and live={self.live!r} do not fit each other")
        rows: dict[str, tuple[Any, ...]] = dict.fromkeys(("observations", "next_observations"), self.obs_shape)
        rows |= dict.fromkeys(("actions", "policy_actions"), (self.action_dim,))
        rows |= dict.fromkeys(("rewards", "dones", "timeouts"), ())
        for name, row in rows.items():
            shape, wanted = np.shape(getattr(self, name)), (size, self.n_envs, *row)
            if shape != wanted:
                raise ValueError(f"{name} of shape {shape} must be {wanted}")

    @property
    def min_size(self) -> int:
        """Transitions below which :meth:`shrink` does not go."""
        return min(steps_of("buffer_min_size", self.buffer_min_size, self.planned_timesteps), self.capacity)

    @property
    def start(self) -> int:
        """Row of the oldest live transitions."""
        return (self.pos - self.live) % self.buffer_size

    def size(self) -> int:
        """Return the number of live rows (as SB3's, which counts rows and not transitions)."""
        return self.live

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.live = 0
        self._policy_action = None

    def set_policy_action(self, action: np.ndarray) -> None:
        """
        Tell what the policy would have done without exploration noise in the transition that is added next.

        :param action: noise-free action, that of a Box in ``[-1, 1]``, ``[n_envs, A]``; a discrete one ``[n_envs]``
        """
        self._policy_action = action

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Add one transition per environment. Where :meth:`set_policy_action` was not called before, the executed action
        counts as the noise-free one.

        :param obs: observations, ``[n_envs, ...]``
        :param next_obs: next observations, ``[n_envs, ...]``
        :param action: executed actions in ``[-1, 1]``, ``[n_envs, A]``
        :param reward: rewards, ``[n_envs]``
        :param done: whether the episode ended, ``[n_envs]``
        :param infos: the environments' infos; ``TimeLimit.truncated`` is read
        """
        row = self.pos
        self.timeouts[row] = 0.0  # SB3 leaves it alone without timeout handling, and a mark of `cut_last` may lie there
        super().add(obs, next_obs, action, reward, done, infos)
        policy_action = self.actions[row] if self._policy_action is None else self._policy_action
        self.policy_actions[row] = policy_action.reshape(self.n_envs, self.action_dim)
        self._policy_action = None
        self.live = min(self.live + 1, self.buffer_size)

    def shrink(self, fraction: float = 0.1) -> int:
        """
        Drop the oldest live transitions, but none of the newest ``min_size``. Nothing moves in memory.

        :param fraction: share of the live transitions to drop
        :return: number of transitions dropped
        """
        check_number("fraction", fraction, 0.0, 1.0)
        rows = min(int(fraction * self.live), max(self.live - -(-self.min_size // self.n_envs), 0))
        self.live -= rows
        return rows * self.n_envs

    def oldest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Give the oldest live transitions.

        :param count: number of transitions; all there are if there are fewer
        :return: observations as stored (not normalised), ``[count, ...]``, and noise-free actions, ``[count, A]``
        """
        rows = (self.start + np.arange(min(-(-count // self.n_envs), self.live))) % self.buffer_size
        observations = self.observations[rows].reshape(-1, *self.obs_shape)[:count]
        return observations, self.policy_actions[rows].reshape(-1, self.action_dim)[:count]

    def in_order(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Give all live transitions, the oldest first.

        :return: observations as stored (not normalised), ``[rows, n_envs, ...]``, executed actions, ``[rows, n_envs, A]``, and
            whether the episode ended, ``[rows, n_envs]``
        """
        rows = (self.start + np.arange(self.live)) % self.buffer_size
        ends = (self.dones[rows] > 0) | (self.timeouts[rows] > 0)
        return self.observations[rows], self.actions[rows], ends

    def cut_last(self, environments: np.ndarray) -> None:
        """
        Mark that the newest transitions have no successor in the buffer, because the environment was reset by hand
        (a new ``learn()``, a loaded buffer). Else n-step windows would run on into another episode.

        :param environments: which environments' transitions to mark, booleans, ``[n_envs]``
        """
        cut_last(self, environments)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        Sample live transitions, each equally likely.

        :param batch_size: number of transitions
        :param env: normalises observations and rewards
        :return: the samples; ``rewards`` are n-step returns, ``discounts`` belong to the bootstrap
        """
        return self._get_samples(self._draw_rows(batch_size), env=env)

    def sample_into(self, batch: Batch, env: VecNormalize | None = None) -> None:
        """
        Sample by kernel as :meth:`sample` does (with the same random draws), but leave the entropy bonus out.

        :param batch: receives the samples
        :param env: normalises observations and rewards; :meth:`why_no_kernel` must be content with it
        """
        batch.rows = self._draw_rows(len(batch.lengths))
        batch.environments = self._draw_environments(len(batch.rows))
        gather.gather_batch(self._ring(), gather.make_normalizer(env, self.obs_shape), batch)

    def why_no_kernel(self, env: VecNormalize | None = None) -> str | None:
        """
        Say why :meth:`sample_into` and :meth:`gather_on_the_way` cannot serve.

        :param env: normalises observations and rewards
        :return: the reason, None if they can
        """
        return gather.why_no_kernel(self.observations, self.actions, env)

    def _draw_rows(self, batch_size: int) -> np.ndarray:
        if self.live == 0:
            raise ValueError(f"batch_size={batch_size} must be 0: the replay buffer is empty")
        return (self.start + np.random.randint(0, self.live, size=batch_size)) % self.buffer_size  # noqa: NPY002 as SB3

    def _draw_environments(self, batch_size: int) -> np.ndarray:
        if self.n_envs == 1:
            return np.zeros(batch_size, np.int64)  # which would draw nothing
        return np.random.randint(0, self.n_envs, size=batch_size)  # noqa: NPY002 as SB3

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        windows = self._gather(batch_inds, self._draw_environments(len(batch_inds)), env)
        if self.n_steps > 1 and self.uses_entropy_bonus:
            self._add_entropy_bonus(windows, env)
        return ReplayBufferSamples(
            observations=self._to_device(windows.obs),
            actions=self._to_device(windows.actions),
            next_observations=self._to_device(windows.next_obs),
            dones=self._to_device(windows.terminated),
            rewards=self._to_device(windows.returns),
            discounts=self._to_device(windows.discounts),
        )

    def _to_device(self, fresh: np.ndarray) -> th.Tensor:
        return th.from_numpy(fresh).to(self.device)

    def _gather(self, rows: np.ndarray, environments: np.ndarray, env: VecNormalize | None) -> Windows:
        # Samples of whole numbers stay such, as in SB3, whose policies cast them; kernels give floats.
        if self.observations.dtype.kind != "f" or self.why_no_kernel(env) is not None:
            return self._gather_any(rows, environments, env)
        return gather.gather_windows(
            self._ring(), gather.make_normalizer(env, self.obs_shape), rows, environments, self.obs_shape
        )

    def _ring(self) -> gather.Ring:
        """Give the arrays as kernels read them."""
        return gather.Ring(
            newest=(self.pos - 1) % self.buffer_size,
            n_steps=self.n_steps,
            powers=self._powers(),
            observations=_flat(self.observations),
            next_observations=_flat(self.next_observations),
            rewards=self.rewards,
            dones=self.dones,
            timeouts=self.timeouts,
            actions=_flat(self.actions),
        )

    def _gather_any(self, rows: np.ndarray, environments: np.ndarray, env: VecNormalize | None) -> Windows:
        """Gather observations of any dtype, normalised by anything: the definition of what is sampled."""
        columns = environments[:, None]
        inside = self._inside(rows, columns)
        lengths, powers = inside.sum(axis=1), self._powers()
        steps = (rows[:, None] + np.arange(self.n_steps)) % self.buffer_size  # [batch, n_steps]
        rewards = np.asarray(self._normalize_reward(self.rewards[steps, columns], env))
        last = steps[np.arange(len(rows)), lengths - 1]
        return Windows(
            rows=rows,
            environments=environments,
            obs=self._normalized(self.observations[rows, environments], env),
            actions=self.actions[rows, environments],
            next_obs=self._normalized(self.next_observations[last, environments], env),
            returns=(rewards * powers[:-1] * inside).sum(axis=1, keepdims=True).astype(np.float32),
            terminated=(self.dones[last, environments] * (1.0 - self.timeouts[last, environments])).reshape(-1, 1),
            discounts=powers[lengths].reshape(-1, 1),
            lengths=lengths,
        )

    def _inside(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """
        Lay an n-step window over each sampled transition.

        :return: whether each of the next rows is inside, a non-empty prefix, ``[batch, n_steps]``
        """
        steps = (rows[:, None] + np.arange(self.n_steps)) % self.buffer_size
        ends = (self.dones[steps, columns] > 0) | (self.timeouts[steps, columns] > 0)
        ends |= steps == (self.pos - 1) % self.buffer_size  # behind the newest transition lies the window's oldest edge
        inside: np.ndarray = np.ones_like(ends)
        inside[:, 1:] = ~np.logical_or.accumulate(ends[:, :-1], axis=1)
        return inside

    def _powers(self) -> np.ndarray:
        return _powers(self.gamma, self.n_steps)

    def _normalized(self, obs: np.ndarray, env: VecNormalize | None) -> np.ndarray:
        return np.asarray(self._normalize_obs(obs, env))

    def states_on_the_way(self, windows: Windows, env: VecNormalize | None = None) -> tuple[np.ndarray, ...]:
        """
        Give the next states inside windows, without the last ones, at which the target bootstraps.

        :param windows: sampled windows
        :param env: normalises observations
        :return: sample that each state belongs to, its discount, and its observation, ``[states]`` and ``[states, ...]``
        """
        samples, steps = np.nonzero(np.arange(self.n_steps - 1) < windows.lengths[:, None] - 1)
        rows = (windows.rows[samples] + steps) % self.buffer_size
        next_obs = self._normalized(self.next_observations[rows, windows.environments[samples]], env)
        return samples, self._powers()[steps + 1], next_obs

    def gather_on_the_way(
        self,
        batch: Batch | Windows,
        next_obs: np.ndarray,
        samples: np.ndarray,
        discounts: np.ndarray,
        env: VecNormalize | None = None,
    ) -> None:
        """
        Gather by kernel what :meth:`states_on_the_way` gives.

        :param batch: sampled windows
        :param next_obs: receives the states, ``[tiles, D, lanes]``
        :param samples: receives the sample that each belongs to, ``[states]``
        :param discounts: receives the discount of each, ``[states]``
        :param env: normalises observations; :meth:`why_no_kernel` must be content with it
        """
        normalizer = gather.make_normalizer(env, self.obs_shape)
        gather.gather_on_the_way(self._ring(), normalizer, batch, next_obs, samples, discounts)

    def _gather_on_the_way(self, windows: Windows, env: VecNormalize | None) -> tuple[np.ndarray, ...]:
        if self.why_no_kernel(env) is not None:
            return self.states_on_the_way(windows, env)
        return gather.states_on_the_way(self._ring(), gather.make_normalizer(env, self.obs_shape), windows)

    def lent_entropy_bonus(self) -> EntropyBonus:
        """
        Give the entropy bonus.

        :raises RuntimeError: if no training lends it now
        """
        if self.entropy_bonus is None:
            raise RuntimeError(
                f"n_steps={self.n_steps} with maximum entropy needs the entropy of the states on the way, and nobody lends it "
                "to the buffer; train with RLx2Callback (soft_n_step=False gives SB3's form, entropy at the bootstrap only)"
            )
        return self.entropy_bonus

    def _add_entropy_bonus(self, windows: Windows, env: VecNormalize | None) -> None:
        """Add the discounted entropy of the states on the way; SAC itself adds the bootstrap state's."""
        entropy_bonus = self.lent_entropy_bonus()
        samples, discounts, next_obs = self._gather_on_the_way(windows, env)
        if len(samples) > 0:
            entropy = entropy_bonus(self._to_device(next_obs)).cpu().numpy().reshape(-1)
            windows.returns[:, 0] += np.bincount(samples, discounts * entropy, minlength=len(windows.rows))

    def __getstate__(self) -> dict[str, Any]:
        # The lent function belongs to a live model: pickling it would carry the model along.
        return self.__dict__ | {"entropy_bonus": None}


def cut_last(buffer: ReplayBuffer, environments: np.ndarray) -> None:
    """
    Do to any buffer what :meth:`RLx2ReplayBuffer.cut_last` does.

    :param buffer: the buffer
    :param environments: which environments' transitions to mark, booleans, ``[n_envs]``
    """
    if buffer.size() > 0:
        newest = buffer.pos - 1
        terminated = buffer.dones[newest] * (1.0 - buffer.timeouts[newest]) > 0
        buffer.timeouts[newest, environments & ~terminated] = 1.0


@lru_cache(maxsize=8)
def _powers(gamma: float, n_steps: int) -> np.ndarray:
    powers: np.ndarray = np.float32(gamma) ** np.arange(n_steps + 1, dtype=np.float32)
    return powers


def _flat(array: np.ndarray) -> np.ndarray:
    """View what is stored as one vector of numbers per row and environment."""
    flat = array.reshape(array.shape[0] * array.shape[1], -1)
    return flat.view(np.uint8) if flat.dtype == bool else flat
