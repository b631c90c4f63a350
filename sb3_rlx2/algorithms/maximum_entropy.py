"""Gradient steps of maximum-entropy algorithms."""

import math

import numpy as np
import torch as th

from sb3_rlx2.backends.csr import structure_of
from sb3_rlx2.fast.actor_critic import ActorCriticSteps
from sb3_rlx2.fast.adam import PlainAdam
from sb3_rlx2.fast.steps import Sums
from sb3_rlx2.kernels.maximum_entropy import ACTOR, CRITICS, ON_THE_WAY, Draw, MaximumEntropyArrays
from sb3_rlx2.kernels.tiling import FLOAT, array, tiled, tiles
from sb3_rlx2.updater import check_gradients


class MaximumEntropySteps(ActorCriticSteps):
    """
    Gradient steps of SAC, or an algorithm like it.

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
                self._move_targets()
        model._n_updates += gradient_steps
        return losses

    def _allocate(self, size: int) -> None:
        super()._allocate(size)
        self.critic_activations = tuple(self._tiled(structure_of(critic.mlp).outputs) for critic in self.critics)
        self.alpha, self.actions = np.zeros(1), self._tiled(self.n_actions)
        self.now, self.then, self.on_the_way = (DrawMemory(count, self.n_actions) for count in (size, size, 0))
        self.way_obs, self.way_actions = self._tiled(self.obs_dim), self._tiled(self.n_actions)
        self.grad_raw, self.grad_by_critic = self._tiled(2 * self.n_actions), self._tiled(self.n_actions)

    def _arrays(self, part: int) -> MaximumEntropyArrays:
        batch, scratch = self.batch, self._scratch(self.actor.mlp)
        return MaximumEntropyArrays(
            **self._common_arrays(part),
            critic_activations=self.critic_activations,
            draws=(
                self.now.draw(self.actions, 0, batch.inputs, self.actor_activations),
                self.then.draw(batch.next_inputs, self.obs_dim, batch.next_inputs, scratch),
                self.on_the_way.draw(self.way_actions, 0, self.way_obs, scratch),
            ),
            alpha=self.alpha,
            grad_by_critic=self.grad_by_critic,
            grad_raw=self.grad_raw,
        )

    def _update(self, losses: dict[str, list[float]]) -> None:
        model = self.model
        learned = model.ent_coef_optimizer is not None
        alpha = math.exp(model.log_ent_coef.item()) if learned else model.ent_coef_tensor.item()
        self.alpha[0] = alpha
        self._add_entropy_bonus()
        work = self._fit_critics()
        log_prob = work.log_probs / self.size
        if learned:
            losses["ent_coef_loss"].append(self._update_entropy_coefficient(log_prob))
        self._step("critic", work)
        value = self._update_actor()
        losses["ent_coef"].append(alpha)
        losses["critic_loss"].append(work.total / self.size)
        losses["actor_loss"].append(alpha * log_prob - value / self.size)

    def _add_entropy_bonus(self) -> None:
        buffer, batch = self.buffer, self.batch
        count = int(batch.lengths.sum()) - self.size
        if count == 0 or not buffer.uses_entropy_bonus:
            return
        buffer.lent_entropy_bonus()  # this computes it faster, but not where SB3's `train` would refuse
        if count > self.on_the_way.size:
            room = self.size * (buffer.n_steps - 1)
            self.on_the_way = DrawMemory(room, self.n_actions)
            self.way_obs, self.way_actions = (
                tiled(tiles(room, FLOAT), each, FLOAT) for each in (self.obs_dim, self.n_actions)
            )
            self.samples, self.discounts = np.empty(room, np.int64), np.empty(room, np.float32)
            self._equip(anew=True)
        samples, discounts = self.samples[:count], self.discounts[:count]
        buffer.gather_on_the_way(batch, self.way_obs, samples, discounts, self.model._vec_normalize_env)
        self.on_the_way.fill(count)
        self._do(ON_THE_WAY, tiles(count, FLOAT))
        self.kernels.add_entropy(samples, discounts, self.on_the_way.log_prob, self.alpha[0], batch.returns)

    def _fit_critics(self) -> Sums:
        self.now.fill(self.size)
        self.then.fill(self.size)
        work = self._do(CRITICS)
        self._record("critic", self.structs[0].arrays.critics)
        return work

    def _update_actor(self) -> float:
        work = self._do(ACTOR)
        self._record("actor", [self.structs[0].arrays.actor])
        self._step("actor", work)
        return work.total

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
            self.ent_coef_adam.step([[log_alpha.grad.data_ptr()]])
        else:
            model.ent_coef_optimizer.step()
        return float(loss)


class DrawMemory:
    """
    Memory to draw actions in, and their noise.

    :param size: number of samples
    :param n_actions: number of actions
    """

    def __init__(self, size: int, n_actions: int) -> None:
        self.size, count = size, tiles(size, FLOAT)
        self.noise = th.zeros(size, n_actions)
        self.raw, self.log_prob = tiled(count, 2 * n_actions, FLOAT), tiled(count, 1, FLOAT)

    def fill(self, count: int) -> None:
        """
        Fill the noise with the numbers that ``Normal.rsample`` draws.

        :param count: number of samples
        """
        self.noise[:count].normal_()

    def draw(self, actions: np.ndarray, row: int, obs: np.ndarray, activations: np.ndarray) -> Draw:
        """
        Say how actions are drawn; see :class:`Draw`.

        :param actions: receives the actions
        :param row: where they begin
        :param obs: observations
        :param activations: memory for the actor's layers
        """
        return Draw(obs, activations, array(self.noise), self.raw, actions, row, self.log_prob)
