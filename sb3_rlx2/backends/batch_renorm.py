"""Batch renormalisation (Ioffe, 2017, https://arxiv.org/abs/1702.03275), apart from where the batch's moments come from."""

from typing import TYPE_CHECKING

import torch as th
from torch import nn

ROUNDING = 1e-6  # share of a number that is lost when float32 sums a batch of it

if TYPE_CHECKING:
    RenormHost = nn.Module
else:
    RenormHost = object


class Renorm(RenormHost):
    """
    Goes before sb3-contrib's ``BatchRenorm1d`` and computes the same, but for one gradient: of a feature that is the same in
    the whole batch, contrib's is NaN or noise after its warm-up, because it goes through the root of the batch's variance.
    Where links are few there are such features: a unit that no link leads to.
    """

    ra_mean: th.Tensor
    ra_var: th.Tensor
    steps: th.Tensor
    scale: nn.Parameter
    bias: nn.Parameter
    eps: float
    momentum: float
    rmax: float
    dmax: float
    warmup_steps: int
    affine: bool

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        Normalise.

        :param x: features, ``[batch, features]``
        :return: likewise
        """
        if self.training:
            mean, variance = self.renormalise(x.mean(dim=0), x.var(dim=0))
        else:
            mean, variance = self.ra_mean, self.ra_var
        x = (x - mean) / (variance + self.eps).sqrt()
        return self.scale * x + self.bias if self.affine else x

    def renormalise(self, mean: th.Tensor, variance: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Give what to normalise with in training mode, and let the running statistics follow.

        :param mean: the batch's mean, ``[features]``
        :param variance: its variance, ``[features]``
        :return: mean and variance to normalise with, whose gradients flow back to the batch's
        """
        batch_mean, batch_variance = mean, variance
        if self.steps > self.warmup_steps:
            running = (self.ra_var + self.eps).sqrt()
            r = ((variance + self.eps).sqrt() / running).detach().clamp(1 / self.rmax, self.rmax)
            d = ((mean - self.ra_mean) / running).detach().clamp(-self.dmax, self.dmax)
            varies = variance > (ROUNDING * mean) ** 2
            deviation = variance.where(varies, 1.0).sqrt().where(varies, 0.0)
            mean, variance = mean - d * deviation / r, variance / r**2
        with th.no_grad():
            self.ra_mean += self.momentum * (batch_mean - self.ra_mean)
            self.ra_var += self.momentum * (batch_variance - self.ra_var)
            self.steps += 1
        return mean, variance

    def affinity(
        self, mean: th.Tensor, variance: th.Tensor, scale: th.Tensor, bias: th.Tensor, origin: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        Give the normalisation as ``gain * (x - origin) + offset``.

        :param mean: what to normalise with, ``[features]``
        :param variance: likewise
        :param scale: the parameter, ``[features]``
        :param bias: likewise
        :param origin: any point; near the mean it keeps precision
        :return: gain and offset, ``[features]`` each
        """
        gain = (variance + self.eps).rsqrt()
        if not self.affine:
            return gain, (origin - mean) * gain
        gain = scale * gain
        return gain, bias + (origin - mean) * gain
