"""
The gradient steps of SB3's ``TD3.train`` and ``SAC.train`` in arrays and kernels, without autograd's bookkeeping.

They compute what SB3 computes, from the same random numbers (``tests/test_gradient_steps.py``), for policies whose heads
the ``csr`` backend serves. They leave out two things that SB3 throws away: the gradient of the actor's loss by the
critics' weights, and the walks through module trees. The batch may be split over threads; every thread then runs whole
networks on its own samples, and only the gradients are added up.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.adam import PlainAdam
from sb3_rlx2.backends.compile import load_kernels
from sb3_rlx2.backends.csr import array, run_backward, run_forward, structure_of
from sb3_rlx2.buffers import RLx2ReplayBuffer, Windows
from sb3_rlx2.metrics import sparse_mlps
from sb3_rlx2.sparse_mlp import SparseMLP
from sb3_rlx2.squashed_gaussian import SquashedGaussian
from sb3_rlx2.updater import check_gradients

SAMPLES_PER_THREAD = 64  # one tile of the kernels
# Critic links times samples below which a second thread costs more than it brings (benchmarks/speed, section threads).
WORTH_SPLITTING = 4_000_000
Rows = slice
Section = Callable[[Rows, int], float]


def serves(model: Any) -> bool:
    """
    Tell whether these steps can take the place of SB3's.

    :param model: SB3's TD3 or SAC with a sparse policy
    """
    policy, buffer = model.policy, model.replay_buffer
    targets = [getattr(policy, name) for name in ("actor_target", "critic_target") if hasattr(policy, name)]
    return (
        type(buffer) is RLx2ReplayBuffer
        and buffer.has_gather_kernel
        and len(buffer.obs_shape) == 1
        and model._vec_normalize_env is None
        and policy.actor.sparse_heads()[0].values.dtype == th.float32
        and policy.computes_in_arrays([policy.actor, policy.critic, *targets])
    )


class TrainedNetwork:
    """
    A network with the arrays that receive its gradients, one pair per thread.

    :param mlp: the network
    :param threads: number of threads
    """

    def __init__(self, mlp: SparseMLP, threads: int) -> None:
        self.mlp = mlp
        self.gradients = [(th.zeros_like(mlp.values), th.zeros_like(mlp.bias)) for _ in range(threads)]
        self.arrays = [(array(values), array(bias)) for values, bias in self.gradients]

    def publish_gradients(self, parts: int) -> None:
        """
        Add up what the threads found, and hand it to the optimizer.

        :param parts: number of threads that have run
        """
        total = self.arrays[0]
        for values, bias in self.arrays[1:parts]:
            np.add(total[0], values, out=total[0])
            np.add(total[1], bias, out=total[1])
        self.mlp.values.grad, self.mlp.bias.grad = self.gradients[0]


class _GradientSteps:
    """What both algorithms share."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.policy = model.policy
        self.buffer: RLx2ReplayBuffer = model.replay_buffer
        self.threads = th.get_num_threads()
        self.actor = TrainedNetwork(sparse_mlps(self.policy.actor)[0], self.threads)
        self.critics = [TrainedNetwork(mlp, self.threads) for mlp in sparse_mlps(self.policy.critic)]
        self.critic_targets = sparse_mlps(self.policy.critic_target)
        self.n_actions = self.buffer.action_dim
        self.adams = {name: PlainAdam(getattr(self.policy, name).optimizer, own_hooks=(1, 1)) for name in ("actor", "critic")}

    def still_fits(self, model: Any) -> bool:
        """
        Tell whether they were made for the model as it stands.

        :param model: the algorithm
        """
        return (
            self.policy is model.policy
            and self.buffer is model.replay_buffer
            and self.threads == th.get_num_threads()
            and all(adam.optimizer is getattr(self.policy, name).optimizer for name, adam in self.adams.items())
        )

    def _split(self, batch: int) -> list[Rows]:
        """Share the samples of a step out to threads."""
        parts = max(1, min(self.threads, batch // SAMPLES_PER_THREAD))
        if batch * sum(critic.mlp.nnz for critic in self.critics) < WORTH_SPLITTING:
            parts = 1
        if any(network.mlp.records_dense_gradient for network in (self.actor, *self.critics)):
            parts = 1  # what is recorded is one pass over the whole batch
        return [slice(batch * part // parts, batch * (part + 1) // parts) for part in range(parts)]

    def _run(self, section: Section, split: list[Rows]) -> float:
        """Run a section on all threads' samples and give the sum of its results."""
        others = [_pool(self.threads).submit(section, rows, part) for part, rows in enumerate(split) if part > 0]
        try:
            total = section(split[0], 0)
        finally:
            wait(others)  # nobody writes into the gradients behind an error
        return total + sum((other.result() for other in others), 0.0)

    def _step(self, name: str, networks: Sequence[TrainedNetwork], parts: int) -> None:
        """Let the optimizer step; plain Adam's own arithmetic is done by kernel."""
        for network in networks:
            network.publish_gradients(parts)
        updater, adam = self.policy.topology_updater, self.adams[name]
        if not adam.serves():
            adam.optimizer.step()
            return
        updater.before_step(updater.networks[name])
        if networks[0].mlp.values.grad is not None:  # None: a topology update has taken the step's place
            adam.step()
        updater.after_step(updater.networks[name])

    def _move_targets(self, networks: Sequence[TrainedNetwork], targets: Sequence[SparseMLP]) -> None:
        """As SB3's ``polyak_update``."""
        polyak = load_kernels("optimizer").polyak
        for network, target in zip(networks, targets, strict=True):
            online, behind = structure_of(network.mlp), structure_of(target)
            polyak(online.values, behind.values, self.model.tau)
            polyak(online.bias, behind.bias, self.model.tau)

    def _least_target_value(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        inputs = np.concatenate([obs, actions], axis=1)
        values = [np.empty((len(obs), 1), np.float32) for _ in self.critic_targets]
        for mlp, value in zip(self.critic_targets, values, strict=True):
            run_forward(mlp, inputs, value, keep=False)
        least: np.ndarray = np.minimum.reduce(values)
        return least

    def _fit_critics(self, inputs: np.ndarray, target: np.ndarray, scale: float, part: int) -> float:
        """Go backward from ``scale / 2 * sum((q - target)^2)`` over all critics; give the sum of squares."""
        total = 0.0
        error = np.empty_like(target)
        for critic in self.critics:
            done = run_forward(critic.mlp, inputs, error)
            error -= target
            total += float(np.vdot(error, error))
            error *= scale
            run_backward(critic.mlp, done, error, critic.arrays[part], None)
        return total


class TD3Steps(_GradientSteps):
    """
    Gradient steps of TD3.

    :param model: the algorithm
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.actor_target = sparse_mlps(self.policy.actor_target)[0]

    def train(self, gradient_steps: int, batch_size: int) -> dict[str, list[float]]:
        """
        Do gradient steps.

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        :return: losses by name
        """
        model = self.model
        losses: dict[str, list[float]] = {"critic_loss": [], "actor_loss": []}
        for _ in range(gradient_steps):
            model._n_updates += 1
            windows = self.buffer.sample_windows(batch_size)
            losses["critic_loss"].append(self._update_critics(windows))
            if model._n_updates % model.policy_delay == 0:
                losses["actor_loss"].append(self._update_actor(windows))
                self._move_targets(self.critics, self.critic_targets)
                self._move_targets([self.actor], [self.actor_target])
        return losses

    def _update_critics(self, windows: Windows) -> float:
        model, batch = self.model, len(windows.rows)
        clip = model.target_noise_clip
        noise = array(th.empty(batch, self.n_actions).normal_(0, model.target_policy_noise).clamp_(-clip, clip))
        split = self._split(batch)
        total = self._run(partial(self._critic_section, windows, noise), split)
        self._step("critic", self.critics, len(split))
        return total / batch

    def _critic_section(self, windows: Windows, noise: np.ndarray, rows: Rows, part: int) -> float:
        next_obs = windows.next_obs[rows]
        next_actions = np.empty((len(next_obs), self.n_actions), np.float32)
        run_forward(self.actor_target, next_obs, next_actions, keep=False)
        next_actions += noise[rows]
        next_actions.clip(-1, 1, out=next_actions)
        target = self._least_target_value(next_obs, next_actions)
        target *= (1 - windows.terminated[rows]) * windows.discounts[rows]
        target += windows.returns[rows]
        inputs = np.concatenate([windows.obs[rows], windows.actions[rows]], axis=1)
        return self._fit_critics(inputs, target, 2 / len(noise), part)

    def _update_actor(self, windows: Windows) -> float:
        split = self._split(len(windows.rows))
        total = self._run(partial(self._actor_section, windows), split)
        self._step("actor", [self.actor], len(split))
        return -total / len(windows.rows)

    def _actor_section(self, windows: Windows, rows: Rows, part: int) -> float:
        obs = windows.obs[rows]
        actions = np.empty((len(obs), self.n_actions), np.float32)
        value = np.empty((len(obs), 1), np.float32)
        done = run_forward(self.actor.mlp, obs, actions)
        inputs = np.concatenate([obs, actions], axis=1)
        critic = self.critics[0].mlp
        critic_done = run_forward(critic, inputs, value)
        run_backward(critic, critic_done, np.full_like(value, -1 / len(windows.rows)), None, inputs)
        run_backward(self.actor.mlp, done, inputs[:, obs.shape[1] :].copy(), self.actor.arrays[part], None)
        return float(value.sum())


class SACSteps(_GradientSteps):
    """
    Gradient steps of SAC.

    :param model: the algorithm
    """

    ent_coef_adam: PlainAdam | None = None

    def train(self, gradient_steps: int, batch_size: int) -> dict[str, list[float]]:
        """
        Do gradient steps.

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        :return: losses and entropy coefficients by name
        """
        model = self.model
        losses: dict[str, list[float]] = {"ent_coef": [], "actor_loss": [], "critic_loss": [], "ent_coef_loss": []}
        for step in range(gradient_steps):
            self._update(self.buffer.sample_windows(batch_size), losses)
            if step % model.target_update_interval == 0:
                self._move_targets(self.critics, self.critic_targets)
        model._n_updates += gradient_steps
        return losses

    def _update(self, windows: Windows, losses: dict[str, list[float]]) -> None:
        model, batch = self.model, len(windows.rows)
        learned = model.ent_coef_optimizer is not None
        alpha = float(model.log_ent_coef.detach().exp() if learned else model.ent_coef_tensor)
        self._add_entropy_bonus(windows, alpha)
        noise, next_noise = self._noise(batch), self._noise(batch)
        split = self._split(batch)
        policies: list[Any] = [None] * len(split)  # each thread's, from one section to the other
        total = self._run(partial(self._critic_section, windows, noise, next_noise, alpha, policies), split)
        log_prob = sum(float(policy.log_prob.sum()) for policy in policies) / batch
        if learned:
            losses["ent_coef_loss"].append(self._update_entropy_coefficient(log_prob))
        self._step("critic", self.critics, len(split))
        value = self._run(partial(self._actor_section, windows, alpha, policies), split)
        self._step("actor", [self.actor], len(split))
        losses["ent_coef"].append(alpha)
        losses["critic_loss"].append(0.5 * total / batch)
        losses["actor_loss"].append(alpha * log_prob - value / batch)

    def _noise(self, batch: int) -> np.ndarray:
        """Draw the numbers that ``Normal.rsample`` draws."""
        return th.randn(batch, self.n_actions).numpy()

    def _add_entropy_bonus(self, windows: Windows, alpha: float) -> None:
        if self.buffer.n_steps == 1 or not self.buffer.uses_entropy_bonus:
            return
        samples, discounts, obs = self.buffer.states_on_the_way(windows)
        if len(samples) > 0:
            log_prob = SquashedGaussian(self.actor.mlp, obs.astype(np.float32), self._noise(len(obs))).log_prob[:, 0]
            np.add.at(windows.returns[:, 0], samples, discounts * (-alpha * log_prob))

    def _critic_section(
        self,
        windows: Windows,
        noise: np.ndarray,
        next_noise: np.ndarray,
        alpha: float,
        policies: list[Any],
        rows: Rows,
        part: int,
    ) -> float:
        obs, next_obs = windows.obs[rows], windows.next_obs[rows]
        policies[part] = SquashedGaussian(self.actor.mlp, obs, noise[rows], keep=True)
        future = SquashedGaussian(self.actor.mlp, next_obs, next_noise[rows])
        target = self._least_target_value(next_obs, future.actions)
        target -= alpha * future.log_prob
        target *= (1 - windows.terminated[rows]) * windows.discounts[rows]
        target += windows.returns[rows]
        inputs = np.concatenate([obs, windows.actions[rows]], axis=1)
        return self._fit_critics(inputs, target, 1 / len(noise), part)

    def _update_entropy_coefficient(self, log_prob: float) -> float:
        model = self.model
        excess = log_prob + float(model.target_entropy)
        loss = -float(model.log_ent_coef.detach()) * excess
        model.log_ent_coef.grad = th.full_like(model.log_ent_coef, -excess)
        if self.ent_coef_adam is None or self.ent_coef_adam.optimizer is not model.ent_coef_optimizer:
            self.ent_coef_adam = PlainAdam(model.ent_coef_optimizer, own_hooks=(1, 0))
        if self.ent_coef_adam.serves():
            check_gradients("entropy coefficient", model.ent_coef_optimizer)
            self.ent_coef_adam.step()
        else:
            model.ent_coef_optimizer.step()
        return loss

    def _actor_section(self, windows: Windows, alpha: float, policies: list[Any], rows: Rows, part: int) -> float:
        policy, obs = policies[part], windows.obs[rows]
        inputs = np.concatenate([obs, policy.actions], axis=1)
        values = [np.empty((len(obs), 1), np.float32) for _ in self.critics]
        passes = [run_forward(critic.mlp, inputs, value) for critic, value in zip(self.critics, values, strict=True)]
        least = np.argmin(np.concatenate(values, axis=1), axis=1)[:, None]
        grad_actions = np.zeros_like(policy.actions)
        for number, (critic, done) in enumerate(zip(self.critics, passes, strict=True)):
            grad_value = np.where(least == number, np.float32(-1 / len(windows.rows)), np.float32(0))
            run_backward(critic.mlp, done, grad_value, None, inputs)
            grad_actions += inputs[:, obs.shape[1] :]
        grad_output = policy.backward(grad_actions, alpha / len(windows.rows))
        run_backward(self.actor.mlp, policy.done, grad_output, self.actor.arrays[part], None)
        least_value: np.ndarray = np.minimum.reduce(values)
        return float(least_value.sum())


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="rlx2")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
