"""An MLP that stores only its live weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch as th
from torch import nn

from sb3_rlx2 import backends
from sb3_rlx2.validation import lookup


@dataclass(frozen=True)
class LayerSpec:
    """
    Size of one sparse linear layer.

    :param in_features: number of inputs
    :param out_features: number of outputs
    :param nnz: number of live weights
    """

    in_features: int
    out_features: int
    nnz: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(out, in)`` of the dense weight matrix."""
        return self.out_features, self.in_features

    @property
    def size(self) -> int:
        """Number of weights of the dense layer."""
        return self.out_features * self.in_features


def magnitude_init(weight: th.Tensor, nnz: int, generator: th.Generator) -> th.Tensor:
    """
    Keep the largest weights of the dense initialisation, as the released RLx2 does.

    :param weight: dense weights, ``[out, in]``
    :param nnz: number of links to keep
    :param generator: not used
    :return: flat positions of the kept links, ``[nnz]``
    """
    return th.argsort(weight.abs().flatten(), descending=True, stable=True)[:nnz]


def random_init(weight: th.Tensor, nnz: int, generator: th.Generator) -> th.Tensor:
    """
    Keep random weights of the dense initialisation.

    :param weight: dense weights, ``[out, in]``
    :param nnz: number of links to keep
    :param generator: CPU generator that draws the positions
    :return: flat positions of the kept links, ``[nnz]``
    """
    return th.randperm(weight.numel(), generator=generator)[:nnz]


INDEX = th.int32  # half of what torch's own 64 bits would add to a link; no dense network has 2^31 weights

INITS: dict[str, Callable[[th.Tensor, int, th.Generator], th.Tensor]] = {"magnitude": magnitude_init, "random": random_init}


def remap(old_index: th.Tensor, new_index: th.Tensor, x: th.Tensor) -> th.Tensor:
    """
    Move per-link state to a new topology: links that stay keep their entry, grown links start at 0.

    :param old_index: sorted positions before the update, ``[nnz]``
    :param new_index: sorted positions after the update, ``[nnz]``
    :param x: state of the links of ``old_index`` (weights, target weights, an optimizer's moments), ``[nnz]``
    :return: state of the links of ``new_index``, ``[nnz]``
    """
    position = th.searchsorted(old_index, new_index).clamp_(max=len(old_index) - 1)
    return th.where(old_index[position] == new_index, x[position], x.new_zeros(()))


class SparseMLP(nn.Module):
    """
    Multi-layer perceptron of sparse linear layers; biases are dense. All layers are packed into three tensors:

    - ``values``: live weights, parameter of shape ``[nnz]``
    - ``bias``: biases, parameter of shape ``[sum of out_features]``
    - ``index``: sorted positions of the live weights in the concatenation of all flattened dense layers, buffer of 32-bit
      integers of shape ``[nnz]``; layer ``l`` owns the slice ``slices[l]`` of ``values`` and ``index``

    An inactive weight has no place to exist, so nothing is ever masked after the fact, and optimizer moments, Polyak
    averaging and ``state_dict`` are sparse with no code of their own.

    :param layers: sizes of the layers, from input to output
    :param values: live weights, ``[nnz]``
    :param bias: biases, ``[sum of out_features]``
    :param index: sorted positions, ``[nnz]``
    :param hidden_activation: element-wise activation after each layer but the last
    :param output_activation: element-wise activation after the last layer
    :param backend: ``"auto"``, ``"csr"`` or ``"masked"``
    """

    index: th.Tensor

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        values: th.Tensor,
        bias: th.Tensor,
        index: th.Tensor,
        hidden_activation: nn.Module,
        output_activation: nn.Module,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            if not 1 <= layer.nnz <= layer.size:
                raise ValueError(
                    f"nnz={layer.nnz} of layer {number} must lie in [1, {layer.size}]: a layer of shape {layer.shape} may not "
                    "be left without a link"
                )
        self.layers = tuple(layers)
        self.slices = [slice(*ends) for ends in pairwise(accumulate((layer.nnz for layer in self.layers), initial=0))]
        self.offsets = list(accumulate((layer.size for layer in self.layers), initial=0))
        self.values = nn.Parameter(values.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        if self.offsets[-1] > th.iinfo(INDEX).max:
            raise ValueError(f"the dense network has {self.offsets[-1]} weights, of which there may be {th.iinfo(INDEX).max}")
        self.register_buffer("index", index.detach().to(INDEX, copy=True))
        self.hidden_activation = hidden_activation
        self.output_activation = output_activation
        self.backend = lookup("backend", backend, backends.BACKENDS)
        self.records_dense_gradient = False
        self._dense_gradients: dict[int, Callable[[], th.Tensor]] = {}
        self.compute_cache: Any = None  # whatever the backend derives from `index`
        backends.check(self)

    @classmethod
    def from_linears(
        cls,
        linears: Sequence[nn.Linear],
        nnz: Sequence[int],
        hidden_activation: nn.Module,
        output_activation: nn.Module | None = None,
        init: str = "magnitude",
        generator: th.Generator | None = None,
        backend: str = "auto",
    ) -> "SparseMLP":
        """
        Thin dense layers out.

        :param linears: dense layers, from input to output
        :param nnz: number of live weights to keep of each layer
        :param hidden_activation: element-wise activation after each layer but the last
        :param output_activation: element-wise activation after the last layer, none by default
        :param init: which links live at first, ``"magnitude"`` or ``"random"``
        :param generator: CPU generator for random draws, see :func:`spawn_generator`
        :param backend: ``"auto"``, ``"csr"`` or ``"masked"``
        """
        choose = lookup("init", init, INITS)
        generator = generator or spawn_generator()
        layers = [LayerSpec(lin.in_features, lin.out_features, count) for lin, count in zip(linears, nnz, strict=True)]
        weights = [linear.weight.detach() for linear in linears]
        offsets = accumulate((layer.size for layer in layers), initial=0)
        index = th.cat(
            [
                choose(weight, layer.nnz, generator).sort().values + offset
                for weight, layer, offset in zip(weights, layers, offsets, strict=False)
            ]
        )
        dense = th.cat([weight.flatten() for weight in weights])
        bias = th.cat([linear.bias.detach() for linear in linears])
        return cls(layers, dense[index], bias, index, hidden_activation, output_activation or nn.Identity(), backend)

    @classmethod
    def from_sequential(cls, net: nn.Sequential, nnz: Sequence[int], **kwargs: Any) -> "SparseMLP":
        """
        Thin out what SB3's ``create_mlp`` builds: linear layers with one activation between them, and perhaps one behind.

        :param net: the dense network
        :param nnz: number of live weights to keep of each linear layer
        :param kwargs: see :meth:`from_linears`
        """
        modules = list(net)
        linears = [module for module in modules[0::2] if isinstance(module, nn.Linear)]
        hidden = modules[1 : 2 * len(linears) - 1 : 2]
        output = modules[2 * len(linears) - 1 :]
        if len(linears) != len(modules[0::2]) or any(linear.bias is None for linear in linears):
            raise ValueError(f"expected linear layers with bias, one activation after each, got {net}")
        for module in (*hidden, *output):
            if any(True for _ in module.parameters()):
                raise ValueError(f"activation_fn={type(module).__name__} must have no parameters of its own")
        if len({str(module) for module in hidden}) > 1:
            raise ValueError(f"hidden activations must all be the same, got {', '.join(map(str, hidden))}")
        return cls.from_linears(linears, nnz, hidden[0] if hidden else nn.Identity(), output[0] if output else None, **kwargs)

    @property
    def nnz(self) -> int:
        """Number of live weights."""
        return self.values.numel()

    @property
    def size(self) -> int:
        """Number of weights that the dense network has."""
        return self.offsets[-1]

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        Compute the network's output.

        :param x: input, ``[..., in_features]``
        :return: output, ``[..., out_features]``
        """
        return backends.forward([self], x)[0]

    def dense_weights(self) -> list[th.Tensor]:
        """
        Scatter the live weights into zeros; gradients flow back to ``values``.

        :return: dense weight matrix of each layer, ``[out, in]``
        """
        dense = self.values.new_zeros(self.size).scatter(0, self.index.long(), self.values)
        flat = th.split(dense, [layer.size for layer in self.layers])
        return [weight.view(layer.shape) for weight, layer in zip(flat, self.layers, strict=True)]

    def layer_index(self, layer: int) -> th.Tensor:
        """
        Positions of one layer's live weights in its own flattened dense matrix.

        :param layer: number of the layer
        :return: sorted positions, 64-bit integers as torch indexes with, ``[nnz of the layer]``
        """
        return self.index[self.slices[layer]].long() - self.offsets[layer]

    def record_dense_gradient(self, layer: int, compute: Callable[[], th.Tensor]) -> None:
        """
        Called by the backend in each backward pass while ``records_dense_gradient`` is set; the latest pass counts.

        :param layer: number of the layer
        :param compute: gives the gradient by the dense weight matrix, ``[out, in]``
        """
        self._dense_gradients[layer] = compute

    def dense_gradient(self, layer: int) -> th.Tensor:
        """
        Gradient of the latest loss by all weights of one layer, live or not.

        :param layer: number of the layer
        :return: gradient, ``[out, in]``
        """
        if layer not in self._dense_gradients:
            raise RuntimeError(f"no backward pass was recorded for layer {layer}; set `records_dense_gradient` before it")
        return self._dense_gradients[layer]()

    def forget_dense_gradients(self) -> None:
        """Free what the backward passes have recorded."""
        self._dense_gradients.clear()

    def set_index(self, index: th.Tensor) -> None:
        """
        Change the topology. What belongs to the links (values, moments) is the caller's to move, see :func:`remap`.

        :param index: sorted positions, ``[nnz]``
        """
        self.index.copy_(index)

    def share_index(self, other: "SparseMLP") -> None:
        """
        Read another network's index from now on, as a target network does: it then exists once, in memory and in saved agents.

        :param other: network with the same links
        """
        self.index = other.index

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "SparseMLP":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        backends.check(self)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # SB3's `load` swallows a ValueError at this place, so the errors are RuntimeErrors.
        if any(name.startswith(prefix) and name.endswith(".weight") for name in state_dict):
            raise RuntimeError(
                f"'{prefix}index' is missing: the saved network is not sparse. A dense agent cannot be loaded into a sparse "
                "policy; load it with the algorithm that saved it (TD3, SAC), or train a sparse one from scratch."
            )
        if f"{prefix}index" not in state_dict:  # torch knows whether that is an error; if not, the topology stays
            super()._load_from_state_dict(state_dict, prefix, *args)
            return
        index = state_dict[f"{prefix}index"].cpu().long()
        saved = th.searchsorted(index, th.tensor(self.offsets)).diff().tolist()
        own = [layer.nnz for layer in self.layers]
        if len(index) != self.nnz or saved != own:
            raise RuntimeError(
                f"'{prefix}index' holds {len(index)} live weights, {saved} in the layers of this network, which has {own}: "
                "the sparsity, its distribution or net_arch differs from the saved agent's. Leave them out to take the saved "
                "ones."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        # Derived arrays and recorded passes hold views that neither pickle nor deep copies should carry along.
        return self.__dict__ | {"compute_cache": None, "_dense_gradients": {}}

    def extra_repr(self) -> str:
        """Show sizes as ``in x out (nnz)``."""
        sizes = ", ".join(f"{layer.in_features}x{layer.out_features} ({layer.nnz})" for layer in self.layers)
        return f"{sizes}, nnz={self.nnz} of {self.size}, backend={self.backend!r}"


def spawn_generator() -> th.Generator:
    """
    Make a CPU generator that is determined by torch's current state (so by the model's seed) but neither draws from it
    nor repeats its numbers.
    """
    copy = th.Generator()
    copy.set_state(th.get_rng_state())
    return th.Generator().manual_seed(int(th.randint(2**62, (), generator=copy)))
