"""
The one place that chooses how sparse networks are computed.

``masked`` defines what is computed, on any device and with any activation. ``csr`` computes the same with kernels that
touch live weights only, on CPU, for the activations that it has.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch as th
from torch import nn

from sb3_rlx2.backends import masked

if TYPE_CHECKING:
    from sb3_rlx2.sparse_mlp import SparseMLP

BACKENDS: dict[str, str] = {name: name for name in ("auto", "csr", "masked")}

CSR_DTYPES = (th.float32, th.float64)
CSR_HIDDEN: tuple[type[nn.Module], ...] = (nn.ReLU,)
CSR_OUTPUT: tuple[type[nn.Module], ...] = (nn.Identity, nn.ReLU, nn.Tanh)

# The share of live weights, and the number of them, above which "auto" takes dense arithmetic on the CPU: there the two cross
# in SB3's own gradient step of TD3 (benchmarks/speed, section crossover). Small networks wait for Python and not for
# arithmetic, and csr needs less of it.
MASKED_FROM = 0.8
MASKED_FROM_WEIGHTS = 30_000

_warned: set[str] = set()


def forward(networks: Sequence["SparseMLP"], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input (such as twin critics).

    :param networks: sparse networks of one backend setting, on one device
    :param x: input, ``[..., in_features]``
    :return: output of each network, ``[..., out_features]``
    """
    if uses_csr(networks[0]):
        from sb3_rlx2.backends import csr  # late, because importing numba costs more than the rest of the package

        return csr.forward(networks, x)
    return masked.forward(networks, x)


def squash(raw: th.Tensor, noise: th.Tensor, network: "SparseMLP") -> tuple[th.Tensor, th.Tensor]:
    """
    Compute a squashed Gaussian's actions ``tanh(mean + std * noise)`` and their log-probability, as SB3's distribution does.

    :param raw: mean and log standard deviation, ``[batch, 2A]``
    :param noise: standard normal, ``[batch, A]``
    :param network: the network that gave ``raw``; its backend computes this, too
    :return: actions, ``[batch, A]``, and their log-probability, ``[batch]``
    """
    if raw.dtype == th.float32 and uses_csr(network):
        from sb3_rlx2.backends import gaussian  # late, as above

        return gaussian.squash(raw, noise)
    return masked.squash(raw, noise)


def uses_csr(network: "SparseMLP") -> bool:
    """
    Tell which backend serves a network.

    :param network: the network; its values decide on the device
    :return: True for ``csr``, False for ``masked``
    """
    if network.backend == "masked":
        return False
    # Asked at every step, and torch's own attribute access is slow.
    values, modules = network._parameters["values"], network._modules
    if (
        values.is_cpu  # type: ignore[union-attr]
        and values.dtype in CSR_DTYPES  # type: ignore[union-attr]
        and type(modules["hidden_activation"]) in CSR_HIDDEN
        and type(modules["output_activation"]) in CSR_OUTPUT
        and (
            values.numel() <= max(MASKED_FROM * network.size, MASKED_FROM_WEIGHTS)  # type: ignore[union-attr]
            or network.backend == "csr"
        )
    ):
        return True
    reason = why_not_csr(network) or _why_not_worth_it(network)
    if reason is None:
        return True
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"backend='auto' takes 'masked' (dense arithmetic) because {reason}", stacklevel=2)
    return False


def why_not_csr(network: "SparseMLP") -> str | None:
    """
    Say what keeps ``csr`` from serving a network.

    :param network: the network
    :return: the reason, or None if it can
    """
    if network.values.device.type != "cpu":
        return f"'csr' has kernels for the CPU, not for device {network.values.device.type!r}"
    if network.values.dtype not in CSR_DTYPES:
        return f"'csr' has kernels for float32 and float64, not for {network.values.dtype}"
    if len(network.layers) > 1 and type(network.hidden_activation) not in CSR_HIDDEN:
        return f"'csr' has kernels for ReLU hidden layers, not for {network.hidden_activation}"
    if type(network.output_activation) not in CSR_OUTPUT:
        return f"'csr' has kernels for identity, ReLU and tanh outputs, not for {network.output_activation}"
    return None


def _why_not_worth_it(network: "SparseMLP") -> str | None:
    if network.backend == "csr" or network.nnz <= max(MASKED_FROM * network.size, MASKED_FROM_WEIGHTS):
        return None
    return (
        f"{network.nnz / network.size:.0%} of a network's {network.size:,} weights are live, and above "
        f"{MASKED_FROM:.0%} and {MASKED_FROM_WEIGHTS:,} live weights that is faster"
    )


def check(network: "SparseMLP") -> None:
    """
    Refuse an explicit ``csr`` that cannot be served.

    :param network: the network
    """
    reason = why_not_csr(network) if network.backend == "csr" else None
    if reason is not None:
        raise ValueError(f"backend='csr' cannot be used: {reason}; choose backend='auto' or 'masked'")
