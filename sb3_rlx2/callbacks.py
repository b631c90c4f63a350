"""The callback that drives RLx2 during training: topology updates, the n-step switch, the buffer's capacity, logging."""

import math
import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_rlx2 import metrics
from sb3_rlx2.buffers import RLx2ReplayBuffer
from sb3_rlx2.recording import write_row
from sb3_rlx2.topology import TOPOLOGIES
from sb3_rlx2.updater import TopologyUpdater
from sb3_rlx2.validation import check_integer, check_number, lookup

OLDEST_BATCHES = 8  # the policy distance looks at this many batches of the oldest transitions, as released


class RLx2Callback(BaseCallback):
    """
    Drives RLx2 on a sparse policy, with SB3's own TD3 and SAC or with ``RLx2TD3`` and ``RLx2SAC`` (which add it themselves).

    It keeps no state that a run needs: counters and progress live in the policy's updater, the window in the buffer.

    :param topology: how links grow: by gradient (``"rigl"``), at random (``"set"``) or not at all (``"static"``)
    :param drop_fraction: share of each layer's links that an update moves at first, in ``[0, 1]``; cosine-annealed to 0
    :param update_interval: optimizer steps of a network between its topology updates
    :param n_steps_delay: share of training after ``learning_starts`` with one-step targets, in ``[0, 1]``
    :param policy_distance_threshold: policy distance above which the oldest transitions leave; infinity keeps everything
    :param buffer_check_interval: environment steps between looks at the policy distance
    :param soft_n_step: for SAC with n > 1, add the entropy of every state on the way (as released); else only the
        bootstrap state's, as SB3 does
    :param verbose: 1 prints when the buffer shrinks and when n-step targets begin
    """

    model: OffPolicyAlgorithm

    def __init__(
        self,
        topology: str = "rigl",
        drop_fraction: float = 0.5,
        update_interval: int = 10_000,
        n_steps_delay: float = 0.1,
        policy_distance_threshold: float = 0.2,
        buffer_check_interval: int = 10_000,
        soft_n_step: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        lookup("topology", topology, TOPOLOGIES)
        self.topology = topology
        self.drop_fraction = check_number("drop_fraction", drop_fraction, 0.0, 1.0)
        self.update_interval = check_integer("update_interval", update_interval, minimum=1)
        self.n_steps_delay = check_number("n_steps_delay", n_steps_delay, 0.0, 1.0)
        self.policy_distance_threshold = check_number("policy_distance_threshold", policy_distance_threshold, 0.0, math.inf)
        self.buffer_check_interval = check_integer("buffer_check_interval", buffer_check_interval, minimum=1)
        self.soft_n_step = soft_n_step
        self.policy_distance = math.nan
        self._next_check = 0

    @property
    def updater(self) -> TopologyUpdater:
        """The policy's topology updater."""
        return self.model.policy.topology_updater  # type: ignore[return-value]

    @property
    def buffer(self) -> RLx2ReplayBuffer | None:
        """The model's replay buffer, None if it is not ours."""
        buffer = self.model.replay_buffer
        return buffer if isinstance(buffer, RLx2ReplayBuffer) else None

    def _on_training_start(self) -> None:
        if not isinstance(getattr(self.model.policy, "topology_updater", None), TopologyUpdater):
            raise ValueError(
                f"policy={type(self.model.policy).__name__} is not sparse: RLx2Callback needs a model with "
                "SparseTD3Policy or SparseSACPolicy"
            )
        if _count_rlx2_callbacks(self.locals.get("callback")) > 1:
            raise ValueError(
                "callback holds more than one RLx2Callback: RLx2TD3 and RLx2SAC bring their own, pass its arguments to them"
            )
        self.updater.configure(self.topology, self.drop_fraction, self.update_interval)
        self.policy_distance = math.nan
        # Multiples of the interval, so that a continued run checks at the steps at which one run would.
        self._next_check = (self.model.num_timesteps // self.buffer_check_interval + 1) * self.buffer_check_interval
        self._require_finite("an observation", self._first_obs())
        self._warn_of_the_end()
        self._warn_of_warm_up()
        self._adopt_buffer()
        self._advance()

    def _warn_of_warm_up(self) -> None:
        starts, total = self.model.learning_starts, self.model._total_timesteps
        if self.model.num_timesteps < total <= starts:
            warnings.warn(f"learning_starts={starts} is not below total_timesteps={total}: nothing is trained", stacklevel=2)

    def _warn_of_the_end(self) -> None:
        if self.updater.progress == 1.0 and self.topology != "static":
            warnings.warn(
                "progress=1 since an earlier learn() came to its last step: links no longer move, and n is final. If more "
                "steps were planned from the start, call learn() once with all; callbacks can save and evaluate on the way",
                stacklevel=2,
            )

    def _first_obs(self) -> Any:
        """Give the observation that training starts from, as the environment gave it."""
        return self.model._last_obs if self.model._vec_normalize_env is None else self.model._last_original_obs

    def _adopt_buffer(self) -> None:
        buffer = self.buffer
        if buffer is None:
            warnings.warn(
                f"replay buffer {type(self.model.replay_buffer).__name__} is not an RLx2ReplayBuffer (which takes no dict "
                "observations): only the topology evolves; n-step targets are the buffer's own, its capacity is fixed",
                stacklevel=2,
            )
            return
        buffer.gamma = self.model.gamma  # the zoo's tuning changes the algorithm's gamma alone
        buffer.uses_entropy_bonus = self.soft_n_step and isinstance(self.model, SAC)
        buffer.entropy_bonus = self._entropy_bonus if buffer.uses_entropy_bonus else None
        newest = buffer.next_observations[buffer.pos - 1].reshape(buffer.n_envs, -1)
        buffer.cut_last((newest != np.reshape(self._first_obs(), newest.shape)).any(axis=1))

    def _on_rollout_start(self) -> None:
        self._log_updates()

    def _on_step(self) -> bool:
        self._check_finite()
        self._advance()
        if self.buffer is not None:
            self.buffer.set_policy_action(self._policy_action())
            if self.model.num_timesteps >= self._next_check:
                self._next_check += self.buffer_check_interval
                self._check_distance(self.buffer)
        if self.locals["dones"].any():  # SB3 dumps the log at episode ends, right after this
            self._log()
        return True

    def _advance(self) -> None:
        """Bring progress up to date, and n with it."""
        starts, total = self.model.learning_starts, self.model._total_timesteps
        if total > starts:  # else this `learn` ends within the warm-up
            self.updater.advance(min(max((self.model.num_timesteps - starts) / (total - starts), 0.0), 1.0))
        if self.buffer is not None:
            n_steps = self.buffer.final_n_steps if self.updater.progress >= self.n_steps_delay else 1
            if n_steps > self.buffer.n_steps:
                write_row(self.logger, {"rlx2/n_steps": n_steps}, self.model.num_timesteps)
                if self.verbose > 0:
                    self.logger.info(f"n-step targets begin at step {self.model.num_timesteps}, n={n_steps}")
            self.buffer.n_steps = n_steps

    def _policy_action(self) -> np.ndarray:
        """Give the noise-free action of this step, in [-1, 1]; during warm-up the random action counts as that."""
        steps_before = self.model.num_timesteps - self.training_env.num_envs
        if steps_before < self.model.learning_starts:
            return np.asarray(self.locals["buffer_actions"])
        assert self.model._last_obs is not None
        return self.model.policy.noise_free_action(self.model._last_obs)  # type: ignore[operator, no-any-return]

    def _act(self, obs: Any) -> np.ndarray:
        return self.model.policy.act(obs)  # type: ignore[operator, no-any-return]

    def _check_distance(self, buffer: RLx2ReplayBuffer) -> None:
        """Compare what the policy does now with what it did in the oldest transitions (Eq. 6, in the released form)."""
        if self.model.num_timesteps <= self.model.learning_starts or buffer.live == 0:
            return
        observations, actions = buffer.oldest(OLDEST_BATCHES * self.model.batch_size)
        shape = self.model.observation_space.shape
        assert shape is not None
        observations = observations.reshape(-1, *shape)  # Discrete ones are kept as [n, 1], and SB3's policies take [n]
        observations = np.asarray(buffer._normalize_obs(observations, self.model._vec_normalize_env))
        self.policy_distance = float(0.5 * np.mean((self._act(observations) - actions) ** 2))
        write_row(self.logger, self._buffer_values(buffer), self.model.num_timesteps)
        if self.policy_distance > self.policy_distance_threshold:
            dropped = buffer.shrink()
            write_row(self.logger, self._buffer_values(buffer), self.model.num_timesteps)
            if self.verbose > 0 and dropped > 0:
                self.logger.info(
                    f"policy distance {self.policy_distance:.3f} at step {self.model.num_timesteps}: dropped the oldest "
                    f"{dropped} transitions, {buffer.live * buffer.n_envs} left"
                )

    def _entropy_bonus(self, next_obs: th.Tensor) -> th.Tensor:
        """Give ``-alpha * log pi(a | s)`` of fresh actions, which the soft n-step return adds on its way."""
        model = self.model
        assert isinstance(model, SAC)
        alpha = model.ent_coef_tensor if model.log_ent_coef is None else model.log_ent_coef.exp()
        with th.no_grad():
            _, log_prob = model.actor.action_log_prob(next_obs)
            return -alpha * log_prob

    def _check_finite(self) -> None:
        """Stop before a broken transition gets into the buffer."""
        normalizer = self.model._vec_normalize_env
        self._require_finite("a reward", self.locals["rewards"] if normalizer is None else normalizer.get_original_reward())
        self._require_finite("an observation", self.locals["new_obs"] if normalizer is None else normalizer.get_original_obs())
        for info in self.locals["infos"]:
            if "terminal_observation" in info:
                self._require_finite("an observation", info["terminal_observation"])

    def _require_finite(self, what: str, value: Any) -> None:
        for part in value.values() if isinstance(value, dict) else (value,):
            if not np.isfinite(part).all():
                raise ValueError(
                    f"the environment gave {what} with NaN or infinity at step {self.model.num_timesteps}: {part}; "
                    "training stops before it is stored, go back to the last checkpoint"
                )

    def _log_updates(self) -> None:
        """Write a row for each topology update since the last call: several may fall between two dumps of the log."""
        updates, self.updater.latest_updates = self.updater.latest_updates, []
        for update in updates:
            row = {
                f"rlx2/{update.network}_updates": update.number,
                f"rlx2/{update.network}_churn": update.churn,
                "rlx2/drop_fraction": update.drop_fraction,
            }
            for mlp, shares in enumerate(update.layer_churn):
                row |= {f"rlx2/{update.network}_churn/{mlp}.{layer}": share for layer, share in enumerate(shares)}
            write_row(self.logger, row, self.model.num_timesteps)

    def _log(self) -> None:
        record = self.logger.record
        for name, network in self.updater.networks.items():
            record(f"rlx2/{name}_density", metrics.density(getattr(self.model.policy, name)))
            record(f"rlx2/{name}_updates", network.updates)
            record(f"rlx2/{name}_churn", network.churn)
        record("rlx2/drop_fraction", self.updater.drop_fraction)
        if self.buffer is not None:
            for name, value in self._buffer_values(self.buffer).items():
                record(name, value)
        record("rlx2/flops_ratio", metrics.step_flops(self.model) / metrics.step_flops(self.model, dense=True))

    def _buffer_values(self, buffer: RLx2ReplayBuffer) -> dict[str, float]:
        return {
            "rlx2/policy_distance": self.policy_distance,
            "rlx2/buffer_size": buffer.live * buffer.n_envs,
            "rlx2/n_steps": buffer.n_steps,
        }

    def _on_training_end(self) -> None:
        # May be called twice (the zoo does) and not at all (after an exception); the next training start resets it all.
        self._log_updates()
        self.updater.rest()


def _count_rlx2_callbacks(callback: Any) -> int:
    if isinstance(callback, CallbackList):
        return sum(map(_count_rlx2_callbacks, callback.callbacks))
    nested = getattr(callback, "callback", None) if isinstance(callback, EventCallback) else None
    return isinstance(callback, RLx2Callback) + (_count_rlx2_callbacks(nested) if nested is not None else 0)
