"""The callback that drives RLx2 during training: topology updates, the n-step switch, the buffer's capacity, logging."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_rlx2 import metrics
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.environment_guard import guard, require_finite, unguard
from sb3_rlx2.paths import dead_links
from sb3_rlx2.plan import (
    BUFFER_CHECK_INTERVAL,
    UPDATE_INTERVAL,
    Plan,
    check_amount,
    episode_steps,
    gradient_steps_per_step,
    steps_of,
)
from sb3_rlx2.progress_log import (
    BUFFER_SIZE,
    DROP_FRACTION,
    FLOPS_RATIO,
    N_STEPS,
    POLICY_DISTANCE,
    column,
    layer_column,
    write_row,
)
from sb3_rlx2.sparse_mlp import SparseMLP
from sb3_rlx2.topology import TOPOLOGIES, TopologyName, prunes_at_once
from sb3_rlx2.updater import EvolvingNetwork, TopologyUpdater, check_prune
from sb3_rlx2.validation import check_integer, check_number, lookup
from sb3_rlx2.warning import warn

WARM_UP = 1_000  # steps: the fewest of which a topology can tell which inputs belong together
OLDEST_BATCHES = 8  # the policy distance looks at this many batches of the oldest transitions, as released


class RLx2Callback(BaseCallback):
    """
    Drives RLx2 on a sparse policy, with SB3's own algorithms or with the ``RLx2`` classes (which add it themselves).

    It keeps no state that a run needs: counters and progress live in the policy's updater, the window in the buffer.

    :param topology: how links grow: by gradient (``"rigl"``), at random (``"set"``) or not at all (``"static"``);
        ``"snip"``, which chooses the links of a dense start once, by gradient, in its first step; or where the first layers'
        links are once the warm-up is over, ``"predictive"`` or ``"active"`` (see :mod:`sb3_rlx2.topology`)
    :param drop_fraction: share of each layer's links that an update moves at first, in ``[0, 1]``; cosine-annealed to 0
    :param update_interval: optimizer steps of a network between its topology updates, or a share of the planned gradient
        steps, of which a million count at most; the default is the paper's 10,000 from there on, in shorter runs as much
        smaller as the run is
    :param n_steps_delay: share of training after ``learning_starts`` with one-step targets, in ``[0, 1]``
    :param policy_distance_threshold: policy distance above which the oldest transitions leave; infinity keeps everything, None
        takes the policy's default, 0.2 for continuous actions and 0.9 for discrete ones
    :param buffer_check_interval: environment steps between looks at the policy distance, or a share of the planned ones,
        of a million at most
    :param soft_n_step: for SAC, TQC and CrossQ with n > 1, add the entropy of every state on the way (as released for SAC);
        else only the bootstrap state's, as SB3 does
    :param verbose: 1 prints the plan, when the buffer shrinks and when n-step targets begin
    :param drop_dead_links: whether updates drop first all links on no path from an input to an output, and grow none from a
        unit that no input reaches (see :mod:`sb3_rlx2.paths`)
    :param prune_begin: share of training after which the number of links falls, of networks that begin with more than they
        are to have (arguments ``..._start_sparsity`` of the policy)
    :param prune_end: share of training after which it is what it is to be, above ``prune_begin`` and below 1
    :param planned_timesteps: steps that several calls of ``learn`` (with ``reset_num_timesteps=False``) will have done
        together, so that they are one run; by default each is a run of its own
    """

    model: OffPolicyAlgorithm

    def __init__(
        self,
        topology: TopologyName = "rigl",
        drop_fraction: float = 0.5,
        update_interval: int | float = UPDATE_INTERVAL,
        n_steps_delay: float = 0.1,
        policy_distance_threshold: float | None = None,
        buffer_check_interval: int | float = BUFFER_CHECK_INTERVAL,
        soft_n_step: bool = True,
        verbose: int = 0,
        drop_dead_links: bool = False,
        prune_begin: float = 0.2,
        prune_end: float = 0.8,
        planned_timesteps: int | None = None,
    ) -> None:
        super().__init__(verbose)
        lookup("topology", topology, TOPOLOGIES)
        self.topology = topology
        self.drop_fraction = check_number("drop_fraction", drop_fraction, 0.0, 1.0)
        self.update_interval = check_amount("update_interval", update_interval, minimum=1)
        self.drop_dead_links = drop_dead_links
        self.prune_begin, self.prune_end = check_prune(prune_begin, prune_end)
        self.n_steps_delay = check_number("n_steps_delay", n_steps_delay, 0.0, 1.0)
        if policy_distance_threshold is not None:
            check_number("policy_distance_threshold", policy_distance_threshold, 0.0, math.inf)
        self.policy_distance_threshold = policy_distance_threshold
        self.buffer_check_interval = check_amount("buffer_check_interval", buffer_check_interval, minimum=1)
        if planned_timesteps is not None:
            planned_timesteps = check_integer("planned_timesteps", planned_timesteps, minimum=1)
        self.planned_timesteps = planned_timesteps
        self.soft_n_step = soft_n_step
        self._counted: dict[str, tuple[Any, int]] = {}
        self.policy_distance = math.nan
        self._check_every = self._next_check = 0

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
                "one, such as SparseTD3Policy"
            )
        given = self.locals.get("callback")
        if given is not None and sum(isinstance(each, RLx2Callback) for each in all_callbacks(given)) > 1:
            raise ValueError(
                "callback holds more than one RLx2Callback: the RLx2 classes bring their own, pass its arguments to them"
            )
        for name in self.updater.networks:
            self.updater.follow(name, self.model.policy.optimizer_of(name))  # type: ignore[operator]
        self.updater.configure(
            self.topology,
            self.drop_fraction,
            steps_of("update_interval", self.update_interval, self._total * self._gradient_steps_per_step),
            self.drop_dead_links,
            self.prune_begin,
            self.prune_end,
        )
        if self.model.num_timesteps < self.updater.begin:  # counted anew
            self.updater.begin = 0
        self.policy_distance = math.nan
        # Multiples of the interval, so that a continued run checks at the steps at which one run would.
        self._check_every = steps_of("buffer_check_interval", self.buffer_check_interval, self._total)
        self._next_check = (self.model.num_timesteps // self._check_every + 1) * self._check_every
        if self.model.num_timesteps == 0:
            self.model.policy.check_connected()  # type: ignore[operator]
        require_finite("an observation", self._first_obs(), self.model.num_timesteps, self.training_env.num_envs)
        guard(self.model)
        self._warn_of_the_end()
        self._warn_of_warm_up()
        if self.updater.wants_warm_up_links:
            self._check_warm_up()
        check_dense_start(self.model.policy, self.topology)
        self._warn_of_lost_steps()
        self._adopt_buffer()
        self._advance()
        self._tell_plan()

    @property
    def _total(self) -> int:
        """Environment steps that are planned."""
        return max(self.model._total_timesteps, self.planned_timesteps or 0)

    @property
    def _gradient_steps_per_step(self) -> float:
        return gradient_steps_per_step(self.model, episode_steps(self.training_env))

    def _tell_plan(self) -> None:
        plan = self._make_plan()
        if self.verbose > 0:
            self.logger.info(str(plan))
        notable = [*plan.idle(), *plan.doubts()]
        if notable and plan.gradient_steps > 0:
            warn(f"in this run of {plan.total:,} steps {'; '.join(notable)}")

    def _make_plan(self) -> Plan:
        total, starts, now = self._total, int(self.model.learning_starts), self.model.num_timesteps
        trains_from = max(starts, now)
        gradient_steps = round(max(total - trains_from, 0) * self._gradient_steps_per_step)
        begin = max(starts, self.updater.begin)
        ended = self.updater.progress == 1.0
        evolves = self.updater.method is not None and self.updater.method.evolves and not ended
        buffer, threshold = self.buffer, self.policy_distance_threshold
        shrinks = buffer is not None and threshold != math.inf
        return Plan(
            total=total,
            starts=starts,
            gradient_steps=gradient_steps,
            gradient_steps_begin=trains_from,
            update_interval=self.updater.update_interval,
            updates={name: self._updates(name, gradient_steps) for name in self.updater.networks} if evolves else {},
            n_steps=None if buffer is None else buffer.final_n_steps,
            n_steps_begin=now if ended else round(begin + self.n_steps_delay * (total - begin)),
            checks=max(total // self._check_every - trains_from // self._check_every, 0) if shrinks else None,
            min_size=0 if buffer is None else buffer.min_size,
            buffer_size=self.model.buffer_size if buffer is None else buffer.capacity,  # of one that was loaded, its own
            batch_size=self.model.batch_size,
            episode_steps=episode_steps(self.training_env),
        )

    def _updates(self, name: str, gradient_steps: int) -> int:
        """Count the topology updates that a network has ahead of it."""
        is_actor = len(self.updater.networks) > 1 and name == next(iter(self.updater.networks))
        steps = self.updater.networks[name].steps
        new = gradient_steps // (getattr(self.model, "policy_delay", 1) if is_actor else 1)
        return (steps + new) // self.updater.update_interval - steps // self.updater.update_interval

    def _warn_of_warm_up(self) -> None:
        starts, total = self.model.learning_starts, self.model._total_timesteps
        if self.model.num_timesteps < total <= starts:
            warn(f"learning_starts={starts} is not below total_timesteps={total}: nothing is trained")

    def _check_warm_up(self) -> None:
        """Check that the warm-up will give what the topology learns from."""
        asked, buffer = f"topology={self.topology!r}", self.buffer
        if buffer is None or len(buffer.obs_shape) == 0:
            raise ValueError(f"{asked} learns from an RLx2ReplayBuffer, whose observations are arrays")
        trained = [f"{name} has had {network.steps}" for name, network in self.updater.networks.items() if network.steps]
        if trained:
            raise ValueError(f"{asked} chooses links before the first gradient step, and {trained[0]}: train from scratch")
        starts = self.model.learning_starts
        if starts + buffer.live * buffer.n_envs < WARM_UP:
            raise ValueError(f"learning_starts={starts} must be >= {WARM_UP}: {asked} learns from the warm-up")
        sizes = self._input_sizes(buffer)
        for name, network in self.updater.networks.items():
            for mlp in network.mlps:
                if mlp.layers[0].in_features not in sizes:
                    raise ValueError(
                        f"{asked} needs networks that read observations as they are, and the {name} reads "
                        f"{mlp.layers[0].in_features} features of them"
                    )

    @staticmethod
    def _input_sizes(buffer: RLx2ReplayBuffer) -> tuple[int, int]:
        """Give the number of inputs of a network that reads observations, and of one that reads actions behind them."""
        observations = math.prod(buffer.obs_shape)
        return observations, observations + buffer.action_dim

    def _warn_of_the_end(self) -> None:
        if self.updater.progress == 1.0 and TOPOLOGIES[self.topology].evolves:
            warn(
                "progress=1 since an earlier learn() came to its last step: links no longer move, and n is final. Give "
                "planned_timesteps, if several calls of learn() are one run; call restart_topology() for a new schedule"
            )

    def _warn_of_lost_steps(self) -> None:
        """Links leave between two calls of ``train``; a method that scores them once takes no step before they have."""
        waits = prunes_at_once(TOPOLOGIES[self.topology]) and any(net.shrinks for net in self.updater.networks.values())
        if waits and self.model.gradient_steps != 1:
            count = f"{self.model.gradient_steps:,} " if self.model.gradient_steps > 0 else ""
            warn(f"topology={self.topology!r} takes links away behind the first train(): its {count}gradient steps are lost")

    def _first_obs(self) -> Any:
        """Give the observation that training starts from, as the environment gave it."""
        return self.model._last_obs if self.model._vec_normalize_env is None else self.model._last_original_obs

    def _adopt_buffer(self) -> None:
        buffer = self.buffer
        if buffer is None:
            warn(
                f"replay buffer {type(self.model.replay_buffer).__name__} is not an RLx2ReplayBuffer (which takes no dict "
                "observations): only the topology evolves; n-step targets are the buffer's own, its capacity is fixed"
            )
            return
        buffer.planned_timesteps = self._total
        buffer.gamma = self.model.gamma  # the zoo's tuning changes the algorithm's gamma alone
        bonus = getattr(self.model.policy, "entropy_bonus", None) if self.soft_n_step else None
        buffer.uses_entropy_bonus = bonus is not None
        buffer.entropy_bonus = None if bonus is None else partial(bonus, self.model)
        newest = buffer.next_observations[buffer.pos - 1].reshape(buffer.n_envs, -1)
        buffer.cut_last((newest != np.reshape(self._first_obs(), newest.shape)).any(axis=1))

    def _on_rollout_start(self) -> None:
        self.updater.prune()
        write_updates(self.model)

    def _on_rollout_end(self) -> None:
        buffer = self.buffer
        if self.updater.wants_warm_up_links and buffer is not None and self.model.num_timesteps >= self.model.learning_starts:
            observations, actions, ends = buffer.in_order()
            observations = np.asarray(buffer._normalize_obs(observations, self.model._vec_normalize_env))
            observations = observations.reshape(*ends.shape, -1)

            def read(mlp: SparseMLP) -> tuple[th.Tensor, th.Tensor]:
                alone = mlp.layers[0].in_features == observations.shape[2]
                inputs = observations if alone else np.concatenate([observations, actions], axis=2)
                return th.from_numpy(inputs), th.from_numpy(ends)

            self.updater.take_warm_up_links(read)
            if self.verbose > 0:
                self.logger.info(
                    f"links of the first layers chosen at step {self.model.num_timesteps}, topology={self.topology}"
                )

    def _on_step(self) -> bool:
        self._advance()
        if self.buffer is not None:
            self.buffer.set_policy_action(self._policy_action())
            if self.model.num_timesteps >= self._next_check:
                self._next_check += self._check_every
                self._check_distance(self.buffer)
        if self.locals["dones"].any():  # SB3 dumps the log at episode ends, right after this
            self._log()
        return True

    def _advance(self) -> None:
        """Bring progress up to date, and n with it."""
        starts, total = max(self.model.learning_starts, self.updater.begin), self._total
        if total > starts:  # else this `learn` ends within the warm-up
            self.updater.advance(min(max((self.model.num_timesteps - starts) / (total - starts), 0.0), 1.0))
        if self.buffer is not None:
            n_steps = self.buffer.final_n_steps if self.updater.progress >= self.n_steps_delay else 1
            if n_steps > self.buffer.n_steps:
                write_row(self.logger, {N_STEPS: n_steps}, self.model.num_timesteps)
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
        policy: Any = self.model.policy
        self.policy_distance = policy.distance(self._act(observations), actions)
        write_row(self.logger, self._buffer_values(buffer), self.model.num_timesteps)
        threshold = self.policy_distance_threshold
        if self.policy_distance > (policy.distance_threshold if threshold is None else threshold):
            dropped = buffer.shrink()
            write_row(self.logger, self._buffer_values(buffer), self.model.num_timesteps)
            if self.verbose > 0 and dropped > 0:
                self.logger.info(
                    f"policy distance {self.policy_distance:.3f} at step {self.model.num_timesteps}: dropped the oldest "
                    f"{dropped} transitions, {buffer.live * buffer.n_envs} left"
                )

    def _log(self) -> None:
        record = self.logger.record
        for name, network in self.updater.networks.items():
            record(column(name, "density"), metrics.density(getattr(self.model.policy, name)))
            record(column(name, "updates"), network.updates)
            record(column(name, "churn"), network.churn)
            record(column(name, "dead_links"), self._dead_links(network))
        record(DROP_FRACTION, self.updater.drop_fraction)
        if self.buffer is not None:
            for name, value in self._buffer_values(self.buffer).items():
                record(name, value)
        if metrics.step_formula(self.model) is not None:  # else an algorithm of the user's own
            record(FLOPS_RATIO, metrics.step_flops(self.model) / metrics.step_flops(self.model, dense=True))

    def _dead_links(self, network: EvolvingNetwork) -> int:
        """Count the links on no path, again only if some have moved or left."""
        moved = network.updates, sum(mlp.nnz for mlp in network.mlps)
        before, count = self._counted.get(network.name, (None, 0))
        if before != moved:
            count = sum(sum(dead_links(mlp)) for mlp in network.mlps)
            self._counted[network.name] = moved, count
        return count

    def _buffer_values(self, buffer: RLx2ReplayBuffer) -> dict[str, float]:
        return {
            POLICY_DISTANCE: self.policy_distance,
            BUFFER_SIZE: buffer.live * buffer.n_envs,
            N_STEPS: buffer.n_steps,
        }

    def _on_training_end(self) -> None:
        # May be called twice (the zoo does) and not at all (after an exception); the next training start resets it all.
        self.updater.prune()
        write_updates(self.model)
        self.updater.rest()
        unguard(self.training_env)


def write_updates(model: Any) -> None:
    """
    Write a row for each topology update since the last call: several may fall between two dumps of the log.

    :param model: what is trained, with a sparse policy
    """
    updater: TopologyUpdater = model.policy.topology_updater
    updates, updater.latest_updates = updater.latest_updates, []
    for update in updates:
        row = {
            column(update.network, "updates"): update.number,
            column(update.network, "churn"): update.churn,
            DROP_FRACTION: update.drop_fraction,
        }
        for mlp, shares in enumerate(update.layer_churn):
            row |= {layer_column(update.network, mlp, layer): share for layer, share in enumerate(shares)}
        write_row(model.logger, row, model.num_timesteps)


def check_dense_start(policy: Any, topology: str) -> None:
    """
    Check that a topology that prunes at once has all links to choose from.

    :param policy: a sparse policy
    :param topology: a key of ``TOPOLOGIES``
    :raises ValueError: if it has not
    """
    starts = policy.sparsity_keywords()[len(policy.networks) :]
    for keyword, network in zip(starts, policy.topology_updater.networks.values(), strict=True):
        if prunes_at_once(TOPOLOGIES[topology]) and any(sum(mlp.start_nnz) < mlp.size for mlp in network.mlps):
            raise ValueError(f"topology={topology!r} needs {keyword}=0.0: it chooses among all links")


def all_callbacks(callback: BaseCallback) -> list[BaseCallback]:
    """
    Give a callback and those inside it, however deep, each once and in an order that is always the same.

    :param callback: the callback
    """
    found: dict[int, BaseCallback] = {}  # by identity: those of a user may be equal, or not say whether they are
    waiting = [callback]
    while waiting:
        one = waiting.pop()
        if id(one) not in found:
            found[id(one)] = one
            held = [value for name, value in vars(one).items() if name != "parent"]
            parts = [part for value in held for part in (value if isinstance(value, list) else [value])]
            waiting += [part for part in reversed(parts) if isinstance(part, BaseCallback)]
    return list(found.values())
