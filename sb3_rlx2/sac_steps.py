"""SAC's gradient step in arrays and kernels."""

import math
from functools import partial

import numpy as np
import torch as th

from sb3_rlx2.adam import PlainAdam
from sb3_rlx2.backends.csr import FLOAT, Workspace, array, structure_of, tiles
from sb3_rlx2.gradient_steps import GradientSteps, Tiles
from sb3_rlx2.updater import check_gradients


class SACSteps(GradientSteps):
    """
    Gradient steps of SAC.

    :param model: the algorithm
    """

    kernel_group = "sac"
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
        total = self._run(partial(self._critic_section, noise, next_noise, alpha), split)
        log_prob = self.kernels.batch_sum(self.log_prob, size, 0, self.tiles) / size
        if learned:
            losses["ent_coef_loss"].append(self._update_entropy_coefficient(log_prob))
        self._step("critic", self.critics, len(split))
        value = self._run(partial(self._actor_section, noise, alpha), split)
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
        noise, network = self._noise(count), structure_of(self.actor.mlp).network

        def section(some: Tiles, part: int) -> float:
            scratch = self._memory("activations", self.actor.mlp, part)
            self.kernels.sac_log_prob(
                network, scratch, next_obs.array, noise, raw.array, actions.array, log_prob.array, *some
            )  # fmt: skip
            return 0.0

        self._run(section, self._split(n_tiles))
        self.kernels.add_entropy(samples, discounts, log_prob.array, alpha, batch.returns)

    def _critic_section(self, noise: np.ndarray, next_noise: np.ndarray, alpha: float, some: Tiles, part: int) -> float:
        batch, targets = self.batch, self.critic_targets
        critics = tuple(self._learner(critic, part) for critic in self.critics)
        total: float = self.kernels.sac_critics(
            self._learner(self.actor, part, keep=True), self._memory("activations", self.actor.mlp, part),
            tuple(structure_of(target).network for target in targets), self._memory("activations", targets[0], part),
            critics, batch.inputs, batch.next_inputs, noise, next_noise, alpha,
            batch.returns, batch.terminated, batch.discounts, self.raw, self.actions, self.log_prob,
            self.next_raw, self.next_log_prob, self.values, self.target, *some,
        )  # fmt: skip
        for critic, learner in zip(self.critics, critics, strict=True):
            self._record(critic, learner)
        return total

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
            self.ent_coef_adam = PlainAdam(model.ent_coef_optimizer)
        if self.ent_coef_adam.has_hooks(1, 0) and self.ent_coef_adam.serves():
            self.ent_coef_adam.step([gradient])
        else:
            model.ent_coef_optimizer.step()
        return float(loss)

    def _actor_section(self, noise: np.ndarray, alpha: float, some: Tiles, part: int) -> float:
        actor, critics = self._learner(self.actor, part, keep=True), [critic.mlp for critic in self.critics]
        total: float = self.kernels.sac_actor(
            actor, tuple(structure_of(critic).network for critic in critics),
            tuple(self._memory("activations", critic, part, keep=True) for critic in critics),
            self._memory("gradients", critics[0], part), self.batch.inputs, noise, alpha, self.raw, self.actions,
            self.values, self.grad_value, self.grad_by_critic, self.grad_actions, self.grad_raw, *some,
        )  # fmt: skip
        self._record(self.actor, actor)
        return total
