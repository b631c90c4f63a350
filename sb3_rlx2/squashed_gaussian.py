"""SAC's action distribution in arrays, with its gradient."""

import numpy as np
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN

from sb3_rlx2.backends.csr import Pass, run_forward
from sb3_rlx2.networks import EPSILON, LOG_SQRT_2_PI
from sb3_rlx2.sparse_mlp import SparseMLP


class SquashedGaussian:
    """
    Actions of SAC's actor, ``tanh(mean + std * noise)``, with their log-probability and its gradient.

    :param mlp: the actor
    :param obs: observations, ``[batch, D]``
    :param noise: standard normal, ``[batch, A]``
    :param keep: whether to go backward later
    """

    def __init__(self, mlp: SparseMLP, obs: np.ndarray, noise: np.ndarray, keep: bool = False) -> None:
        self.raw = np.empty((len(obs), 2 * noise.shape[1]), np.float32)
        self.done: Pass = run_forward(mlp, obs, self.raw, keep)
        n_actions = noise.shape[1]
        mean, self.log_std = self.raw[:, :n_actions], self.raw[:, n_actions:]
        log_std = self.log_std.clip(LOG_STD_MIN, LOG_STD_MAX)
        self.scaled_noise = np.exp(log_std) * noise
        self.actions = np.tanh(mean + self.scaled_noise)
        self.slope = 1 - self.actions**2
        log_density = noise**2 / -2 - log_std - np.log(self.slope + EPSILON)
        self.log_prob = log_density.sum(axis=1, keepdims=True) - n_actions * LOG_SQRT_2_PI

    def backward(self, grad_actions: np.ndarray, grad_log_prob: float) -> np.ndarray:
        """
        Give the gradient by the actor's output.

        :param grad_actions: gradient by the actions, ``[batch, A]``
        :param grad_log_prob: gradient by the log-probability of each sample
        :return: gradient by mean and log standard deviation, ``[batch, 2A]``
        """
        grad_mean = grad_actions * self.slope
        grad_mean += 2 * grad_log_prob * self.actions * self.slope / (self.slope + EPSILON)
        grad_log_std = grad_mean * self.scaled_noise - grad_log_prob
        grad_log_std[(self.log_std < LOG_STD_MIN) | (self.log_std > LOG_STD_MAX)] = 0
        return np.concatenate([grad_mean, grad_log_std], axis=1)
