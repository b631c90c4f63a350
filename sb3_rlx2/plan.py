"""
What of a run is counted in steps, for runs of any length.

What the paper counts in steps may be a share of the planned ones here, and is by default: runs of a million steps and more
have the paper's numbers, and a shorter one goes through the same phases, with numbers as much smaller as it is. A whole number
is taken as it is.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any

from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rlx2.environment_guard import innermost
from sb3_rlx2.validation import check_integer

# A share is one of the planned steps, but of no more than these: the paper trains three times as long, but its numbers serve
# runs of this length (docs/results/returns.md), and as shares of it the short ones (docs/results/budgets.md).
FULL_LENGTH = 1_000_000
LEARNING_STARTS = 25_000 / FULL_LENGTH
UPDATE_INTERVAL = BUFFER_CHECK_INTERVAL = 10_000 / FULL_LENGTH
BUFFER_MIN_SIZE = 100_000 / FULL_LENGTH

# Nor is it ever less. The first is SB3's default for runs of any length; the others are about those of hyperparams/ for
# tasks of 20,000 to 50,000 steps.
LEAST = {"learning_starts": 100, "update_interval": 500, "buffer_check_interval": 1_000, "buffer_min_size": 1_000}


def is_share(value: Any) -> bool:
    """
    Tell whether an amount is a share of the planned steps, and not a number of steps.

    :param value: the amount
    """
    return isinstance(value, Real) and 0 < float(value) < 1


def check_amount(argument: str, value: Any, minimum: int) -> int | float:
    """
    Check a number of steps, or a share of the planned ones.

    :param argument: the argument's name, for the error
    :param value: the value to check
    :param minimum: smallest number of steps
    :return: the value, as ``int`` if it is a number of steps
    :raises ValueError: if it is neither
    """
    if is_share(value):
        return float(value)
    try:
        return check_integer(argument, value, minimum)
    except ValueError as error:
        raise ValueError(f"{error}, or a share of the planned steps between 0 and 1") from None


def steps_of(argument: str, value: int | float, planned: float) -> int:
    """
    Give a number of steps.

    :param argument: the argument's name
    :param value: a number of steps, or a share
    :param planned: the steps that it is a share of, as far as they are no more than ``FULL_LENGTH``
    """
    return max(round(value * min(planned, FULL_LENGTH)), LEAST[argument]) if is_share(value) else int(value)


def gradient_steps_per_step(model: OffPolicyAlgorithm, episode: int | None) -> float:
    """
    Give the gradient steps that a model does for each environment step.

    :param model: the model, or what holds its arguments
    :param episode: environment steps of an episode at most, None if nobody knows
    """
    frequency: Any = model.train_freq
    steps = episode if frequency.unit is TrainFrequencyUnit.EPISODE else 1
    if model.gradient_steps < 0 or steps is None:  # of a length that nobody knows
        return 1.0
    return float(model.gradient_steps / (frequency.frequency * steps * model.n_envs))


def episode_steps(env: VecEnv) -> int | None:
    """
    Give the steps of an episode at most, if a wrapper says them; environments in other processes are not asked.

    :param env: environments, with their wrappers
    """
    base = innermost(env)
    limit = unwrap_wrapper(base.envs[0], TimeLimit) if isinstance(base, DummyVecEnv) else None
    return None if limit is None else int(limit._max_episode_steps)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Plan:
    """
    What a run is going to do.

    :param total: environment steps at its end
    :param starts: environment steps of warm-up
    :param gradient_steps: number of gradient steps
    :param gradient_steps_begin: environment step at which they begin
    :param update_interval: optimizer steps of a network between its topology updates
    :param updates: number of topology updates of each network, by name; empty if the topology is static
    :param n_steps: length of the n-step return at the end, None if the buffer is not ours
    :param n_steps_begin: environment step at which it begins
    :param checks: number of looks at the policy distance, None if the buffer keeps its size
    :param min_size: transitions that the buffer keeps at least
    :param buffer_size: transitions that it has room for
    :param batch_size: transitions of a batch
    :param episode_steps: steps after which environments end an episode, None if nobody knows
    """

    total: int
    starts: int
    gradient_steps: int
    gradient_steps_begin: int
    update_interval: int
    updates: dict[str, int]
    n_steps: int | None
    n_steps_begin: int
    checks: int | None
    min_size: int
    buffer_size: int
    batch_size: int
    episode_steps: int | None

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.updates.items())
        parts = [
            f"{self.gradient_steps:,} gradient steps, from step {self.gradient_steps_begin:,} on",
            f"a topology update every {self.update_interval:,} ({counts})" if counts else "a static topology",
            *([f"{self.n_steps}-step targets from step {self.n_steps_begin:,} on"] if self.n_steps else []),
            *([f"{self.checks:,} looks at the policy distance"] if self.checks is not None else []),
        ]
        return f"Plan for {self.total:,} steps: {'; '.join(parts)}"

    def idle(self) -> list[str]:
        """Say which parts of RLx2 would never act."""
        found = [
            f"links of the {name} never move (update_interval={self.update_interval:,} of its optimizer steps)"
            for name, count in self.updates.items()
            if count == 0
        ]
        if self.n_steps is not None and self.n_steps > 1 and self.n_steps_begin >= self.total:
            found.append(f"{self.n_steps}-step targets never begin (n_steps_delay)")
        if self.checks == 0:
            found.append("the replay buffer never shrinks (buffer_check_interval)")
        elif self.checks is not None and self.min_size >= min(self.total, self.buffer_size):
            found.append(f"the replay buffer never shrinks (buffer_min_size={self.min_size:,})")
        return found

    def doubts(self) -> list[str]:
        """Say which arguments are hardly meant to go together."""
        found = []
        if self.buffer_size < self.batch_size:
            found.append(f"batch_size={self.batch_size:,} draws from buffer_size={self.buffer_size:,} transitions at most")
        if self.buffer_size < self.starts:
            found.append(f"learning_starts={self.starts:,} is more than buffer_size={self.buffer_size:,} can hold")
        if self.n_steps is not None and self.episode_steps is not None and self.n_steps > self.episode_steps:
            found.append(f"n_steps={self.n_steps:,} is more than an episode has, {self.episode_steps:,}")
        return found
