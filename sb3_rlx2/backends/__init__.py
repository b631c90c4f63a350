"""
The one place that chooses how sparse networks are computed.

``masked`` defines what is computed, on any device and with any activation. ``csr`` computes the same with kernels that
touch live weights only, on CPU, for the activations that it has.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_rlx2.backends import csr, masked, renormed, squashed
from sb3_rlx2.backends.batch_renorm import Renorm
from sb3_rlx2.backends.network import SparseNetwork
from sb3_rlx2.hooks import has_hooks
from sb3_rlx2.warning import warn

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


def forward(networks: Sequence[SparseNetwork], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input (such as twin critics).

    :param networks: sparse networks of one backend setting, on one device
    :param x: input, ``[..., in_features]``
    :return: output of each network, ``[..., out_features]``
    """
    if _is_recorded() or not uses_csr(networks[0]):
        return masked.forward(networks, x)
    return csr.forward(networks, x) if networks[0].norms is None else renormed.forward(networks, x)


def infer(network: SparseNetwork, x: np.ndarray) -> np.ndarray:
    """
    Run one network that ``csr`` serves, in evaluation mode and not to go backward.

    :param network: the network
    :param x: input, ``[batch, in_features]``
    :return: output, ``[batch, out_features]``
    """
    return csr.infer(csr.structure_of(network), x) if network.norms is None else renormed.infer(network, x)


def squash(raw: th.Tensor, noise: th.Tensor, network: SparseNetwork) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute a squashed Gaussian's actions ``tanh(mean + std * noise)`` and their log-probability, as SB3's distribution does.

    :param raw: mean and log standard deviation, ``[batch, 2A]``
    :param noise: standard normal, ``[batch, A]``
    :param network: the network that gave ``raw``; its backend computes this, too
    :return: actions, ``[batch, A]``, and their log-probability, ``[batch]``
    """
    if raw.dtype == th.float32 and not _is_recorded() and uses_csr(network):
        return squashed.squash(raw, noise)
    return masked.squash(raw, noise)


def _is_recorded() -> bool:
    """Tell whether torch writes down what is computed, for TorchScript, ONNX or its compiler: it knows no kernels of ours."""
    return th.jit.is_tracing() or th.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]


def uses_csr(network: SparseNetwork) -> bool:
    """
    Tell which backend serves a network.

    :param network: the network; its values decide on the device
    :return: True for ``csr``, False for ``masked``
    """
    reason = why_masked(network)
    if reason is None:
        return True
    if network.backend != "masked" and reason not in _warned:
        _warned.add(reason)
        warn(f"backend='auto' takes 'masked' (dense arithmetic) because {reason}")
    return False


def why_masked(network: SparseNetwork) -> str | None:
    """
    Say why dense arithmetic serves a network.

    :param network: the network
    :return: the reason, or None if ``csr`` serves it
    """
    return "backend='masked'" if network.backend == "masked" else why_not_csr(network) or _why_not_worth_it(network)


def why_not_csr(network: SparseNetwork) -> str | None:
    """
    Say what keeps ``csr`` from serving a network.

    :param network: the network
    :return: the reason, or None if it can
    """
    # Asked at every step, and torch's own attribute access is slow.
    values: Any = network._parameters["values"]
    modules: dict[str, Any] = network._modules
    hidden, output = modules["hidden_activation"], modules["output_activation"]
    if not values.is_cpu:
        return f"'csr' has kernels for the CPU, not for device {values.device.type!r}"
    if values.dtype not in CSR_DTYPES:
        return f"'csr' has kernels for float32 and float64, not for {values.dtype}"
    if type(hidden) not in CSR_HIDDEN and len(network.layers) > 1:
        return f"'csr' has kernels for ReLU hidden layers, not for {hidden}"
    if type(output) not in CSR_OUTPUT:
        return f"'csr' has kernels for identity, ReLU and tanh outputs, not for {output}"
    if has_hooks(hidden) or has_hooks(output):
        return "an activation has a hook, which only dense arithmetic calls"
    return None if modules["norms"] is None else _why_not_norms(network)


def _why_not_norms(network: SparseNetwork) -> str | None:
    for norm in network.norms or ():
        if not isinstance(norm, Renorm) or type(norm).forward is not Renorm.forward:
            return f"'csr' has kernels for CrossQ's BatchRenorm1d, not for {norm}"
        if has_hooks(norm):
            return "a normalisation has a hook, which only dense arithmetic calls"
    if type(network.output_activation) is not nn.Identity:
        return f"'csr' has kernels for normalised networks without output activation, not with {network.output_activation}"
    return None


def _why_not_worth_it(network: SparseNetwork) -> str | None:
    values: Any = network._parameters["values"]
    if network.backend == "csr" or values.numel() <= max(MASKED_FROM * network.size, MASKED_FROM_WEIGHTS):
        return None
    return (
        f"{network.nnz / network.size:.0%} of a network's {network.size:,} weights are live, and above "
        f"{MASKED_FROM:.0%} and {MASKED_FROM_WEIGHTS:,} live weights that is faster"
    )


def check(network: SparseNetwork) -> None:
    """
    Refuse an explicit ``csr`` that cannot be served.

    :param network: the network
    :raises ValueError: if it cannot, with the reason
    """
    reason = why_not_csr(network) if network.backend == "csr" else None
    if reason is not None:
        raise ValueError(f"backend='csr' cannot be used: {reason}; choose backend='auto' or 'masked'")
