"""An MLP that stores only its live weights."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, NoReturn
from weakref import ReferenceType, ref

import torch as th
from torch import nn

from sb3_rlx2 import backends
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.inits import Place, Surroundings, find_init
from sb3_rlx2.validation import lookup


def dense_scale(weight: th.Tensor, index: th.Tensor) -> th.Tensor:
    """
    Leave the weights as the dense initialisation has them, as the released RLx2 does.

    :param weight: dense weights, ``[out, in]``
    :param index: flat positions of the live ones, ``[nnz]``
    :return: live weights, ``[nnz]``
    """
    return weight.flatten()[index]


def live_scale(weight: th.Tensor, index: th.Tensor) -> th.Tensor:
    """
    Scale each unit's live incoming weights so that their sum of squares is what that of all its weights was, so the unit
    starts with outputs of the dense network's size however few its links are. The dense initialisation sets that sum: with
    torch's own it is 1/3 in expectation (``in`` weights that are uniform in ``+-1/sqrt(in)``). After the sparsity-aware
    initialisation of Evci et al., 2022 ("Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win"), which draws
    with the live in place of the dense fan-in.

    :param weight: dense weights, ``[out, in]``
    :param index: flat positions of the live ones, ``[nnz]``
    :return: live weights, ``[nnz]``
    """
    live = th.zeros_like(weight)
    live.view(-1)[index] = weight.flatten()[index]
    dense, kept = weight.square().sum(1), live.square().sum(1)
    factors = (dense / kept).sqrt().where(kept > 0, 1.0)
    return live.flatten()[index] * factors[index // weight.shape[1]]


INDEX = th.int32  # half of what torch's own 64 bits would add to a link; no dense network has 2^31 weights

WEIGHT_SCALES: dict[str, Callable[[th.Tensor, th.Tensor], th.Tensor]] = {"dense": dense_scale, "live": live_scale}


def is_normalisation(module: nn.Module) -> bool:
    """
    Tell a normalisation (torch's BatchNorm, sb3-contrib's BatchRenorm) from linear layers and activations.

    :param module: part of a network
    """
    return hasattr(module, "num_features")


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

    The number of links may fall from what the network is built with to ``final_nnz``: :meth:`set_links`.

    A normalisation may stand before each layer, as in CrossQ's networks. It learns by itself, and is not counted as a layer.

    :param layers: sizes of the layers, from input to output
    :param values: live weights, ``[nnz]``
    :param bias: biases, ``[sum of out_features]``
    :param index: sorted positions, ``[nnz]``
    :param hidden_activation: element-wise activation after each layer but the last
    :param output_activation: element-wise activation after the last layer
    :param backend: ``"auto"``, ``"csr"`` or ``"masked"``
    :param final_nnz: number of live weights that each layer will have at last, by default those that it has
    :param norms: modules that normalise each layer's inputs, ``[..., in_features]``; none by default
    :raises ValueError: if a layer has no links, or more than a dense one, or all together are too many for 32 bits
    """

    index: th.Tensor
    norms: nn.ModuleList | None

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        values: th.Tensor,
        bias: th.Tensor,
        index: th.Tensor,
        hidden_activation: nn.Module,
        output_activation: nn.Module,
        backend: str = "auto",
        final_nnz: Sequence[int] | None = None,
        norms: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            if not 1 <= layer.nnz <= layer.size:
                raise ValueError(
                    f"nnz={layer.nnz} of layer {number} must lie in [1, {layer.size}]: a layer of shape {layer.shape} may not "
                    "be left without a link"
                )
        self._lay_out(layers)
        self.start_nnz = tuple(layer.nnz for layer in layers)
        self.final_nnz = self.start_nnz if final_nnz is None else tuple(final_nnz)
        for number, (start, final) in enumerate(zip(self.start_nnz, self.final_nnz, strict=True)):
            if not 1 <= final <= start:
                raise ValueError(
                    f"final_nnz={final} of layer {number} must lie in [1, {start}], the links that it has at first"
                )
        self.offsets = list(accumulate((layer.size for layer in self.layers), initial=0))
        self.values = nn.Parameter(values.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        if self.offsets[-1] > th.iinfo(INDEX).max:
            raise ValueError(f"the dense network has {self.offsets[-1]} weights, of which there may be {th.iinfo(INDEX).max}")
        self.register_buffer("index", index.detach().to(INDEX, copy=True))
        self._sharing: tuple[ReferenceType[SparseMLP], ...] = ()  # networks that have the same index, as targets do
        self.hidden_activation = hidden_activation
        self.output_activation = output_activation
        self.register_module("norms", nn.ModuleList(norms) if norms else None)
        self.backend = lookup("backend", backend, backends.BACKENDS)
        self.frozen_layers = 0
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
        weight_scale: str = "dense",
        final_nnz: Sequence[int] | None = None,
        norms: Sequence[nn.Module] = (),
        surroundings: Surroundings = Surroundings(),  # noqa: B008 immutable
    ) -> "SparseMLP":
        """
        Thin dense layers out.

        :param linears: dense layers, from input to output
        :param nnz: number of live weights to keep of each layer
        :param hidden_activation: element-wise activation after each layer but the last
        :param output_activation: element-wise activation after the last layer, none by default
        :param init: which links live at first, see :mod:`sb3_rlx2.inits`
        :param generator: CPU generator for random draws, see :func:`spawn_generator`
        :param backend: ``"auto"``, ``"csr"`` or ``"masked"``
        :param weight_scale: whether the weights start as in the dense network (``"dense"``), or each unit's live ones scaled
            to the sum of squares of all its dense ones (``"live"``), see :func:`live_scale`
        :param final_nnz: number of live weights that each layer will have at last, by default ``nnz``
        :param norms: modules that normalise each layer's inputs; none by default
        :param surroundings: where the network is, for inits that ask
        """
        choose = find_init(init)
        scale = lookup("weight_scale", weight_scale, WEIGHT_SCALES)
        generator = generator or spawn_generator()
        layers = [LayerSpec(lin.in_features, lin.out_features, count) for lin, count in zip(linears, nnz, strict=True)]
        weights = [linear.weight.detach() for linear in linears]
        offsets = accumulate((layer.size for layer in layers), initial=0)
        places = [Place(number, weights, layer.nnz, generator, surroundings) for number, layer in enumerate(layers)]
        live = [choose(place).sort().values for place in places]
        values = th.cat([scale(weight, index) for weight, index in zip(weights, live, strict=True)])
        index = th.cat([index + offset for index, offset in zip(live, offsets, strict=False)])
        bias = th.cat([linear.bias.detach() for linear in linears])
        output_activation = output_activation or nn.Identity()
        return cls(layers, values, bias, index, hidden_activation, output_activation, backend, final_nnz, norms)

    @classmethod
    def from_sequential(cls, net: nn.Sequential, nnz: Sequence[int], **kwargs: Any) -> "SparseMLP":
        """
        Thin out what SB3's ``create_mlp`` builds: linear layers with one activation between them, and perhaps one behind.
        A normalisation may stand before each linear layer.

        :param net: the dense network
        :param nnz: number of live weights to keep of each linear layer
        :param kwargs: see :meth:`from_linears`
        :raises ValueError: if the network holds anything else, or different activations
        """
        norms = [module for module in net if is_normalisation(module)]
        if norms and list(net)[0::3] != norms:
            raise ValueError(f"expected a normalisation before each linear layer or before none, got {net}")
        modules = [module for module in net if module not in norms]
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
        activations = hidden[0] if hidden else nn.Identity(), output[0] if output else None
        return cls.from_linears(linears, nnz, *activations, norms=norms, **kwargs)

    def _lay_out(self, layers: Sequence[LayerSpec]) -> None:
        self.layers = tuple(layers)
        self.slices = [slice(*ends) for ends in pairwise(accumulate((layer.nnz for layer in self.layers), initial=0))]

    @property
    def nnz(self) -> int:
        """Number of live weights."""
        return self.values.numel()

    @property
    def size(self) -> int:
        """Number of weights that the dense network has."""
        return self.offsets[-1]

    @property
    def hidden_nnz(self) -> int:
        """Number of live weights of all layers but the last."""
        return self.slices[-1].start

    def freeze(self, layers: int) -> None:
        """
        Keep weights, biases and links of the first layers as they are: the gradients by them are 0.

        :param layers: how many layers
        """
        self.frozen_layers = layers
        self.compute_cache = None  # which says where a backward pass may stop

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        Compute the network's output.

        :param x: input, ``[..., in_features]``
        :return: output, ``[..., out_features]``
        """
        return backends.forward([self], x)[0]

    def __getitem__(self, key: Any) -> NoReturn:
        raise TypeError(
            f"a SparseMLP has no module [{key!r}]: dense_weights() gives the layers' matrices, layer_index(number) the places "
            "of their links, values and bias the numbers themselves"
        )

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
        :raises RuntimeError: if no backward pass recorded it
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

    def set_links(self, index: th.Tensor, values: th.Tensor) -> None:
        """
        Take other links, also another number of them, in place: an optimizer goes on with the same parameter, and a network
        that shares the index sees the new one (it is to be given values of its own). Moments are the caller's to cut.

        Not while a loss, or anything else with a graph, is held: torch would go on to expect gradients of the old shape.

        :param index: sorted positions, at least one in each layer, ``[new nnz]``
        :param values: the live weights, ``[new nnz]``
        """
        counts = self._layer_counts(index)
        self._lay_out([replace(layer, nnz=count) for layer, count in zip(self.layers, counts, strict=True)])
        self.values.data, self.values.grad = values.detach().to(self.values, copy=True), None
        self.index.data = index.to(self.index, copy=True)
        self.compute_cache = None  # holds the old memory

    def set_layers(self, layers: Sequence[LayerSpec], index: th.Tensor, values: th.Tensor, bias: th.Tensor) -> None:
        """
        Take layers of other widths, in place, as :meth:`set_links` takes other links.

        :param layers: their sizes
        :param index: sorted positions, ``[new nnz]``
        :param values: the live weights, ``[new nnz]``
        :param bias: biases, ``[sum of the new out_features]``
        """
        self._lay_out(layers)
        self.start_nnz = self.final_nnz = tuple(layer.nnz for layer in layers)
        self.offsets = list(accumulate((layer.size for layer in layers), initial=0))
        self.bias.data, self.bias.grad = bias.detach().to(self.bias, copy=True), None
        self.forget_dense_gradients()
        self.set_links(index, values)

    def _layer_counts(self, index: th.Tensor) -> list[int]:
        counts: list[int] = th.searchsorted(index.cpu().long(), th.tensor(self.offsets)).diff().tolist()
        return counts

    def share_index(self, other: "SparseMLP") -> None:
        """
        Read another network's index from now on, as a target network does: it then exists once, in memory and in saved agents.

        :param other: network with the same links
        """
        self.index = other.index
        self._sharing = (*other._sharing, ref(other))
        other._sharing = (*other._sharing, ref(self))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "SparseMLP":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        backends.check(self)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # SB3's `load` swallows a ValueError at this place, so the errors are RuntimeErrors.
        if any(name.startswith(prefix) and name.endswith(".weight") for name in state_dict):
            raise RuntimeError(
                f"'{prefix}index' is missing: the saved network is not sparse. A dense agent cannot be loaded into a sparse "
                "policy; load it with the algorithm that saved it, or train a sparse one from scratch."
            )
        if f"{prefix}index" not in state_dict:  # torch knows whether that is an error; if not, the topology stays
            super()._load_from_state_dict(state_dict, prefix, *args)
            return
        index = state_dict[f"{prefix}index"]
        saved, own = self._layer_counts(index), [layer.nnz for layer in self.layers]
        before = self.index.clone()
        if len(index) != self.nnz or saved != own:
            if len(index) != sum(saved) or not self._may_have(saved):
                raise RuntimeError(
                    f"'{prefix}index' holds {len(index)} live weights, {saved} in the layers of this network, which has "
                    f"{own}: the sparsity, start_sparsity, distribution or net_arch differs from the saved agent's. Leave "
                    "them out to take the saved ones."
                )
            self.set_links(index, self.values.new_zeros(len(index)))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not th.equal(before, self.index):
            self._move_sharing(before)

    def _move_sharing(self, before: th.Tensor) -> None:
        """Have networks with the same index keep the links that stay, where ``actor.load_state_dict`` loads this one alone."""
        for each in self._sharing:
            other = each()
            if other is not None and other.index is self.index and other.nnz == len(before):
                other.set_links(self.index, remap(before, self.index, other.values.detach()))
        self.compute_cache = None  # holds the index where it was

    def _may_have(self, counts: Sequence[int]) -> bool:
        """Tell whether the network may have these numbers of links at some time of its training."""
        at_most = all(count <= start for count, start in zip(counts, self.start_nnz, strict=True))
        return at_most and sum(counts) >= sum(self.final_nnz)  # all together: some methods choose over the whole network

    def __getstate__(self) -> dict[str, Any]:
        # Derived arrays and recorded passes hold views that neither pickle nor deep copies should carry along.
        return self.__dict__ | {"compute_cache": None, "_dense_gradients": {}, "_sharing": ()}

    def extra_repr(self) -> str:
        """Show sizes as ``in x out (nnz)``, and what ``"auto"`` takes."""
        sizes = ", ".join(f"{layer.in_features}x{layer.out_features} ({layer.nnz})" for layer in self.layers)
        taken = "" if self.backend != "auto" else " (csr)" if backends.why_masked(self) is None else " (masked)"
        return f"{sizes}, nnz={self.nnz} of {self.size}, backend={self.backend!r}{taken}"


def spawn_generator() -> th.Generator:
    """
    Make a CPU generator that is determined by torch's current state (so by the model's seed) but neither draws from it
    nor repeats its numbers.
    """
    copy = th.Generator()
    copy.set_state(th.get_rng_state())
    return th.Generator().manual_seed(int(th.randint(2**62, (), generator=copy)))


def sparse_mlps(module: nn.Module | None) -> list[SparseMLP]:
    """
    Find the sparse networks inside a module.

    :param module: a policy, an actor, a critic
    :return: its sparse networks
    """
    return [] if module is None else [mlp for mlp in module.modules() if isinstance(mlp, SparseMLP)]
