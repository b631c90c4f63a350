"""SAC's gradient step in arrays and kernels."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.adam import PlainAdam
from sb3_rlx2.backends.csr import FLOAT, Workspace, array, tiles
from sb3_rlx2.gradient_steps import GradientSteps, Tiles
from sb3_rlx2.updater import check_gradients


class SACSteps(GradientSteps):
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
            self._sample(batch_size)
            self._update(losses)
            if step % model.target_update_interval == 0:
                self._move_targets(self.critics, self.critic_targets)
        model._n_updates += gradient_steps
        return losses

    def _allocate(self, size: int) -> None:
        super()._allocate(size)
        self.raw, self.next_raw, self.grad_raw = (self._tiled(2 * self.n_actions) for _ in range(3))
        self.log_prob, self.next_log_prob = self._tiled(1), self._tiled(1)
        self.actions, self.grad_by_critic = self._tiled(self.n_actions), self._tiled(self.n_actions)

    def _update(self, losses: dict[str, list[float]]) -> None:
        model, size = self.model, self.size
        learned = model.ent_coef_optimizer is not None
        alpha = math.exp(model.log_ent_coef.item()) if learned else model.ent_coef_tensor.item()
        self._add_entropy_bonus(alpha)
        noise, next_noise = self._noise(size), self._noise(size)
        split = self._split()
        passes: list[Any] = [None] * len(split)  # each thread's, from one section to the other
        total = self._run(partial(self._critic_section, noise, next_noise, alpha, passes), split)
        log_prob = self.step_kernels.batch_sum(self.log_prob, size, 0, self.tiles) / size
        if learned:
            losses["ent_coef_loss"].append(self._update_entropy_coefficient(log_prob))
        self._step("critic", self.critics, len(split))
        value = self._run(partial(self._actor_section, noise, alpha, passes), split)
        self._step("actor", [self.actor], len(split))
        losses["ent_coef"].append(alpha)
        losses["critic_loss"].append(0.5 * total / size)
        losses["actor_loss"].append(alpha * log_prob - value / size)

    def _noise(self, count: int) -> np.ndarray:
        """Draw the numbers that ``Normal.rsample`` draws."""
        return th.randn(count, self.n_actions).numpy()

    def _add_entropy_bonus(self, alpha: float) -> None:
        buffer, batch = self.buffer, self.batch
        count = int(batch.lengths.sum()) - self.size
        if count == 0 or not buffer.uses_entropy_bonus:
            return
        n_tiles = tiles(count, FLOAT)
        next_obs, raw, actions, log_prob = (
            Workspace(n_tiles, features, FLOAT) for features in (self.obs_dim, 2 * self.n_actions, self.n_actions, 1)
        )
        samples, discounts = np.empty(count, np.int64), np.empty(count, np.float32)
        buffer.gather_on_the_way(batch, next_obs.array, samples, discounts)
        noise = self._noise(count)
        self._forward(self.actor.mlp, next_obs.array, raw.array, 0, (0, n_tiles), 0)
        self.step_kernels.squash(raw.array, noise, actions.array, 0, log_prob.array, 0, n_tiles)
        self.step_kernels.add_entropy(samples, discounts, log_prob.array, alpha, batch.returns)

    def _critic_section(
        self, noise: np.ndarray, next_noise: np.ndarray, alpha: float, passes: list[Any], some: Tiles, part: int
    ) -> float:
        batch, kernels, actor = self.batch, self.step_kernels, self.actor.mlp
        passes[part] = self._forward(actor, batch.inputs, self.raw, 0, some, part, keep=True)
        kernels.squash(self.raw, noise, self.actions, 0, self.log_prob, *some)
        self._forward(actor, batch.next_inputs, self.next_raw, 0, some, part)
        kernels.squash(self.next_raw, next_noise, batch.next_inputs, self.obs_dim, self.next_log_prob, *some)
        self._value_next_states(some, part)
        kernels.bellman(
            self.values, self.next_log_prob, alpha, batch.returns, batch.terminated, batch.discounts, self.target, *some
        )
        return self._fit_critics(1 / self.size, some, part)

    def _update_entropy_coefficient(self, log_prob: float) -> float:
        model = self.model
        log_alpha, excess = model.log_ent_coef, log_prob + float(model.target_entropy)
        loss = -log_alpha.item() * excess
        if log_alpha.grad is None:
            log_alpha.grad = th.empty_like(log_alpha)
        gradient = array(log_alpha.grad)
        gradient[:] = -excess
        if not math.isfinite(excess):
            check_gradients("entropy coefficient", model.ent_coef_optimizer)
        if self.ent_coef_adam is None or self.ent_coef_adam.optimizer is not model.ent_coef_optimizer:
            self.ent_coef_adam = PlainAdam(model.ent_coef_optimizer, own_hooks=(1, 0))
        if self.ent_coef_adam.serves():
            self.ent_coef_adam.step([gradient])
        else:
            model.ent_coef_optimizer.step()
        return float(loss)

    def _actor_section(self, noise: np.ndarray, alpha: float, passes: list[Any], some: Tiles, part: int) -> float:
        x, own = self.batch.inputs, slice(*some)
        x[own, self.obs_dim :] = self.actions[own]
        critics = [critic.mlp for critic in self.critics]
        done = [self._forward(mlp, x, self.values, critic, some, part, keep=True) for critic, mlp in enumerate(critics)]
        total = 0.0
        self.grad_actions[own] = 0
        for critic, mlp in enumerate(critics):
            total += self.step_kernels.mean_gradient(self.values, critic, self.size, self.grad_value, *some)
            self._backward_to_actions(mlp, done[critic], self.grad_by_critic, some, part)
            self.grad_actions[own] += self.grad_by_critic[own]
        self.step_kernels.squash_gradient(
            self.raw, noise, self.actions, 0, self.grad_actions, alpha / self.size, self.grad_raw, *some
        )
        self._backward(self.actor, passes[part], self.grad_raw, some, part)
        return total
