"""
Which links live at first. All functions here have the signature ``(place) -> positions``; what they may look at is in the
:class:`Place`. A new one gets a line in ``INITS``. Besides, the path of a saved agent stands for the links of that agent.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch as th

from sb3_rlx2.saved_objects import why_no_agent_zip
from sb3_rlx2.validation import lookup

Shape = tuple[int, int]  # (out_features, in_features)


@dataclass(frozen=True)
class Surroundings:
    """
    Where a network is.

    :param name: its name in the policy's ``state_dict``, as ``"q_net.q_net"``; empty outside a policy
    :param grid: if it reads flattened images, the number of each input, ``[height, width, channels]``
    :param reads: what it reads, for errors
    """

    name: str = ""
    grid: th.Tensor | None = None
    reads: str = "what is no observation"


@dataclass(frozen=True)
class Place:
    """
    Where links are to be chosen: one layer of a network.

    :param layer: number of the layer
    :param weights: the dense initialisation of all layers, ``[out, in]`` each
    :param nnz: number of links to choose in this layer
    :param generator: CPU generator for random draws
    :param network: where the network is
    """

    layer: int
    weights: Sequence[th.Tensor]
    nnz: int
    generator: th.Generator
    network: Surroundings = Surroundings()

    @property
    def weight(self) -> th.Tensor:
        """Dense initialisation of the layer, ``[out, in]``."""
        return self.weights[self.layer]

    @property
    def shapes(self) -> list[Shape]:
        """Shapes of all layers."""
        return [(weight.shape[0], weight.shape[1]) for weight in self.weights]

    def links_of_units(self) -> list[int]:
        """Share the links out to the units evenly; the first units get one more if that is not even."""
        out = len(self.weight)
        each, rest = divmod(self.nnz, out)
        return [each + (unit < rest) for unit in range(out)]


Init = Callable[[Place], th.Tensor]


def magnitude(place: Place) -> th.Tensor:
    """
    Keep the largest weights of the dense initialisation, as the released RLx2 does.

    :param place: the layer
    :return: flat positions of the links, ``[nnz]``
    """
    return th.argsort(place.weight.abs().flatten(), descending=True, stable=True)[: place.nnz]


def random(place: Place) -> th.Tensor:
    """
    Keep random weights of the dense initialisation.

    :param place: the layer
    :return: flat positions of the links, ``[nnz]``
    """
    return th.randperm(place.weight.numel(), generator=place.generator)[: place.nnz]


def fan_in(place: Place) -> th.Tensor:
    """
    Give every unit as many links as any other, from inputs drawn at random.

    :param place: the layer
    :return: flat positions of the links, ``[nnz]``
    """
    return best_of_each_unit(th.rand(place.weight.shape, generator=place.generator), place.links_of_units())


def spatial(place: Place) -> th.Tensor:
    """
    Connect the first layer's units as a convolution with square patches and stride 1 would: unit ``u`` reads patch ``u mod
    P`` of the ``P`` patches that lie inside the image, in all channels. Units of one patch are not tied to each other. With
    as many units as a convolution has outputs, flattened, and its values, the layer is that convolution. A layer that has all
    its links, as an output layer may, is left as it is.

    :param place: the layer
    :return: flat positions of the links, ``[nnz]``
    :raises ValueError: if the layer reads no image, or its units' links make no square patch
    """
    (out, into), grid = place.weight.shape, place.network.grid
    if place.nnz == out * into:
        return th.arange(place.nnz)
    if grid is None or place.layer > 0:
        reads = place.network.reads if place.layer == 0 else "hidden units"
        raise ValueError(
            f"init='spatial' needs a flat image: layer {place.layer} reads {into} features of {reads}, not observations of "
            "shape (height, width, channels)"
        )
    height, width, channels = grid.shape
    side = min(max(round((place.nnz / out / channels) ** 0.5), 1), height, width)
    if place.nnz != out * channels * side**2:
        share = 1 - side**2 / (height * width)
        raise ValueError(
            f"init='spatial' gives each of {out} units {place.nnz / out:g} links, which is no square patch of a "
            f"{height}x{width}x{channels} grid; distribution='dense_output' with sparsity={share:g} gives {side}x{side}"
        )
    patches = grid.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, channels * side**2)
    units = th.arange(out)
    return (units[:, None] * into + patches[units % len(patches)]).flatten()


INITS: dict[str, Init] = {"magnitude": magnitude, "random": random, "fan_in": fan_in, "spatial": spatial}


def best_of_each_unit(scores: th.Tensor, counts: Sequence[int]) -> th.Tensor:
    """
    Choose the best-scored inputs of every unit.

    :param scores: higher is better, ``[out, in]``
    :param counts: number of links of each unit, ``[out]``
    :return: sorted flat positions, ``[sum of counts]``
    """
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (ranks < th.tensor(counts, device=scores.device)[:, None]).flatten().nonzero().squeeze(1)


@dataclass(frozen=True)
class SavedLinks:
    """
    The links of a saved agent's network of the same name. With the same seed they get the weights of that agent's own
    initialisation, with another one new weights ("lottery tickets", Frankle & Carbin, 2019). Of a layer in which that agent
    has all links, each unit keeps the largest.

    :param path: the agent's zip
    """

    path: str

    def __call__(self, place: Place) -> th.Tensor:
        """
        Give the agent's links.

        :param place: the layer
        :return: flat positions of the links, ``[nnz]``
        :raises ValueError: if the file is not there, or the agent has no such links
        """
        index, values, units = self._read(place.network.name)
        sizes = [out * into for out, into in place.shapes]
        begin, (out, into) = sum(sizes[: place.layer]), place.shapes[place.layer]
        own = (index >= begin) & (index < begin + out * into)
        positions = index[own] - begin
        fits = units == sum(shape[0] for shape in place.shapes) and int(index[-1]) < sum(sizes)
        if fits and len(positions) == place.nnz:
            return positions
        if fits and len(positions) == out * into:
            return best_of_each_unit(values[own].abs().view(out, into), place.links_of_units())
        raise ValueError(
            f"init={self.path} has {len(positions)} links in layer {place.layer} of {place.network.name}, where this network, "
            f"{into}x{out} there, has {place.nnz}: use the same env, net_arch, sparsity and distribution"
        )

    def _read(self, network: str) -> tuple[th.Tensor, th.Tensor, int]:
        """Give the positions of all links of a network, their values, and the number of its units."""
        reason = why_no_agent_zip(Path(self.path))
        if reason is not None:
            raise ValueError(f"init={self.path} {reason}")
        with zipfile.ZipFile(self.path) as archive:
            policy = io.BytesIO(archive.read("policy.pth"))
        state: dict[str, th.Tensor] = th.load(policy, map_location="cpu", weights_only=True)
        if f"{network}.index" in state:
            return state[f"{network}.index"].long(), state[f"{network}.values"], len(state[f"{network}.bias"])
        dense = any(name.startswith(network.partition(".")[0]) for name in state)
        what = "a dense agent, which has no links" if dense else f"no network {network}"
        raise ValueError(f"init={self.path} holds {what}")


def find_init(name: str) -> Init:
    """
    Find an init.

    :param name: a key of ``INITS``, or the path of a saved agent's zip
    :raises ValueError: if there is none of this name
    """
    return SavedLinks(name) if is_path(name) else lookup("init", name, INITS)


def is_path(name: str) -> bool:
    """
    Tell whether an init is the path of a saved agent.

    :param name: argument ``init``
    """
    return isinstance(name, str) and name.endswith(".zip")
