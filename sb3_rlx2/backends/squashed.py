"""SAC's squashed Gaussian in kernels."""

from typing import Any

import numpy as np
import torch as th
from torch.autograd.function import once_differentiable

from sb3_rlx2 import kernels
from sb3_rlx2.kernels.tiling import FLOAT, Workspace, array, tiles


def squash(raw: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute a squashed Gaussian's actions and their log-probability, see :func:`sb3_rlx2.backends.squash`.

    :param raw: mean and log standard deviation, float32, ``[batch, 2A]``
    :param noise: standard normal, ``[batch, A]``
    """
    return _Squash.apply(raw, noise)  # type: ignore[no-untyped-call, no-any-return]


class _Squash(th.autograd.Function):
    """As :func:`sb3_rlx2.backends.masked.squash`, in two calls instead of some twenty operations of torch."""

    @staticmethod
    def forward(ctx: Any, raw: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        (batch, n_actions), count = noise.shape, tiles(len(noise), FLOAT)
        ctx.tiles = [Workspace(count, features, FLOAT) for features in (2 * n_actions, n_actions, 1)]
        ctx.noise = array(noise)
        inputs, squashed, log_prob = (workspace.array for workspace in ctx.tiles)
        convert = kernels.load(".mlp:FORWARD", "float32")
        convert.to_tiles(array(raw.contiguous()), inputs)
        kernels.load(".gaussian:SQUASH").squash(inputs, ctx.noise, squashed, 0, log_prob, 0, count)
        actions, densities = np.empty((batch, n_actions), FLOAT), np.empty((batch, 1), FLOAT)
        convert.from_tiles(squashed, actions)
        convert.from_tiles(log_prob, densities)
        return th.from_numpy(actions), th.from_numpy(densities[:, 0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_actions: th.Tensor, grad_log_prob: th.Tensor) -> tuple[th.Tensor, None]:
        (batch, n_actions), count = ctx.noise.shape, len(ctx.tiles[0].array)
        inputs, squashed, _ = (workspace.array for workspace in ctx.tiles)
        borrowed = [Workspace(count, features, FLOAT) for features in (n_actions, 1, 2 * n_actions)]
        by_actions, by_log_prob, by_raw = (workspace.array for workspace in borrowed)
        convert, grad_raw = kernels.load(".mlp:FORWARD", "float32"), np.empty((batch, 2 * n_actions), FLOAT)
        convert.to_tiles(array(grad_actions.contiguous()), by_actions)
        convert.to_tiles(array(grad_log_prob.contiguous()).reshape(-1, 1), by_log_prob)
        kernels.load(".gaussian:SQUASH").squash_gradient(
            inputs, ctx.noise, squashed, 0, by_actions, by_log_prob, by_raw, 0, count
        )
        convert.from_tiles(by_raw, grad_raw)
        return th.from_numpy(grad_raw), None
