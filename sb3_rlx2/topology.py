"""
Which links live: the weakest are dropped, then others grow. A topology method answers one question, *how do I score growth?*

To add a method, write a frozen dataclass with ``grow_scores`` and give it a line in ``TOPOLOGIES``. It may answer four more
questions, *what makes a link weak?*, *how many links are there by now?*, *do all that are too many leave at once?* and *which
inputs belong together, by the data of the warm-up?*, with methods ``drop_scores``, ``live_links`` and ``warm_up_links`` and an
attribute ``prunes_at_once``; the functions of these names say how they are called, and what holds without them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch as th

from sb3_rlx2.inits import best_of_each_unit
from sb3_rlx2.predictive import learn_predictions, varying
from sb3_rlx2.schedules import cubic_decay


def drop_and_grow(
    index: th.Tensor, drop_scores: th.Tensor, grow_scores: th.Tensor, k: int, taken: th.Tensor | None = None
) -> th.Tensor:
    """
    Drop the ``k`` lowest-scored live links, then grow the ``k`` best-scored links among all that are not kept.
    A link that was just dropped may grow back.

    :param index: sorted flat positions of one layer's live links, ``[nnz]``
    :param drop_scores: score of every live link, such as its weight's magnitude, ``[nnz]``; lower drops first
    :param grow_scores: score of every position of the layer, ``[out * in]``; higher grows first
    :param k: number of links to move, ``0 <= k <= nnz``
    :param taken: positions outside ``index`` where nothing may grow, none by default
    :return: the new sorted index, ``[nnz]``
    :raises ValueError: if ``k`` is out of this range
    """
    if not 0 <= k <= len(index):
        raise ValueError(f"k={k} must lie in [0, {len(index)}], the number of live links")
    kept = index[strongest(drop_scores, len(index) - k)]
    candidates = th.ones_like(grow_scores, dtype=th.bool)
    candidates[kept] = False
    if taken is not None:
        candidates[taken] = False
    return th.cat([kept, _largest(grow_scores, candidates, k)]).sort().values


def strongest(scores: th.Tensor, count: int) -> th.Tensor:
    """
    Mark the ``count`` best-scored of some links; of equals the first ones.

    :param scores: their scores, ``[links]``
    :param count: how many to mark
    :return: bool, ``[links]``
    """
    marks = th.zeros_like(scores, dtype=th.bool)
    marks[_largest(scores, ~marks, count)] = True
    return marks


def _largest(scores: th.Tensor, candidates: th.Tensor, k: int) -> th.Tensor:
    """
    Give the positions of the ``k`` largest scores among the candidates. Equal scores (such as two zeros) fall to the lower
    position, on every run; sorting all scores would do that too, but takes seconds for a wide layer.
    """
    if k == 0:
        return th.empty(0, dtype=th.int64, device=scores.device)
    scores = scores.masked_fill(~candidates, -th.inf)
    threshold = scores.topk(k).values[-1]
    above = (scores > threshold).nonzero().squeeze(1)
    # By mask and not by score: a candidate's own score may be -inf.
    ties = ((scores == threshold) & candidates).nonzero().squeeze(1)
    return th.cat([above, ties[: k - len(above)]])


class Topology(Protocol):
    """What the updater asks of a topology method."""

    evolves: ClassVar[bool]
    uses_gradient: ClassVar[bool]

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """
        Score all positions of one layer for growth.

        :param size: number of positions, ``out * in``
        :param dense_gradient: gives the gradient of the network's own loss by the dense weight matrix, ``[out, in]``
        :param generator: CPU generator for random draws
        :return: scores, ``[size]``
        """
        ...


def drop_scores(
    topology: Topology,
    weights: th.Tensor,
    index: th.Tensor,
    dense_gradient: Callable[[], th.Tensor],
    generator: th.Generator,
) -> th.Tensor:
    """
    Score the live links of one layer for dropping: as the method's own ``drop_scores`` does, which is called with all
    arguments but the first; by magnitude if it has none.

    :param topology: the method
    :param weights: live weights, ``[nnz]``
    :param index: their sorted flat positions in the layer, ``[nnz]``
    :param dense_gradient: as for :meth:`Topology.grow_scores`
    :param generator: CPU generator for random draws
    :return: scores, ``[nnz]``; lower drops first
    """
    own = getattr(topology, "drop_scores", None)
    scores: th.Tensor = weights.abs() if own is None else own(weights, index, dense_gradient, generator)
    return scores


def live_links(topology: Topology, start: int, final: int, progress: float) -> int:
    """
    Say how many links a layer has whose number falls: as the method's own ``live_links`` says, which is called with all
    arguments but the first; along a cubic if it has none. The updater holds the number between ``final`` and the present one.

    :param topology: the method
    :param start: number of links that the layer began with
    :param final: number of links that it will have at progress 1, whatever a method says
    :param progress: share of the pruning done, in ``[0, 1)``
    """
    own = getattr(topology, "live_links", None)
    count: int = round(cubic_decay(progress, start, final)) if own is None else own(start, final, progress)
    return count


def prunes_at_once(topology: Topology | None) -> bool:
    """
    Say whether a network that begins with more links than it is to have loses them at its first optimizer step, in the step's
    place, and those of the lowest scores whatever their layer; as the method's own ``prunes_at_once`` says. If it has none,
    they leave on the way, each layer its own.

    :param topology: the method, if there is one
    """
    return getattr(topology, "prunes_at_once", False)


WarmUpLinks = Callable[[th.Tensor, th.Tensor, Sequence[int], th.Generator], th.Tensor]


def warm_up_links(topology: Topology) -> WarmUpLinks | None:
    """
    Give the method's own ``warm_up_links``, None if the links that a network begins with stay until others grow. It is called
    once for each network, after the warm-up and before the first gradient step, with what the network's first layer has read,
    ``[steps, environments, inputs]``, whether an episode ended after each step, ``[steps, environments]``, the number of links
    of each unit, and a CPU generator; it gives the layer's sorted flat positions. Units keep their weights.

    :param topology: the method
    """
    own: WarmUpLinks | None = getattr(topology, "warm_up_links", None)
    return own


@dataclass(frozen=True)
class Static:
    """The initial topology stays."""

    evolves: ClassVar[bool] = False
    uses_gradient: ClassVar[bool] = False

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """Never asked for: a static topology does not evolve."""
        raise NotImplementedError("a static topology grows no links")


@dataclass(frozen=True)
class SET:
    """Random growth (Mocanu et al., 2018)."""

    evolves: ClassVar[bool] = True
    uses_gradient: ClassVar[bool] = False

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """Score every position at random."""
        return th.rand(size, generator=generator)


@dataclass(frozen=True)
class RigL:
    """Growth where the loss gradient is largest (Evci et al., 2020; RLx2, section 4.1)."""

    evolves: ClassVar[bool] = True
    uses_gradient: ClassVar[bool] = True

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """Score every position by the magnitude of its gradient."""
        return dense_gradient().abs().flatten()


@dataclass(frozen=True)
class SNIP(Static):
    """
    Those links stay by whose absence the loss would change most, to first order (Lee et al., 2019, "SNIP: Single-shot Network
    Pruning based on Connection Sensitivity", https://arxiv.org/abs/1810.02340): chosen once, of all that a dense network has.
    """

    uses_gradient: ClassVar[bool] = True
    prunes_at_once: ClassVar[bool] = True

    def drop_scores(
        self, weights: th.Tensor, index: th.Tensor, dense_gradient: Callable[[], th.Tensor], generator: th.Generator
    ) -> th.Tensor:
        """Score a link by its weight times the gradient by it."""
        return (weights * dense_gradient().flatten()[index]).abs()


@dataclass(frozen=True)
class Active(Static):
    """Each unit of the first layer reads random inputs of those that were ever other than 0 in the warm-up."""

    def warm_up_links(self, inputs: th.Tensor, ends: th.Tensor, links: Sequence[int], generator: th.Generator) -> th.Tensor:
        """See :func:`warm_up_links`."""
        active = (inputs != 0).flatten(0, 1).any(dim=0)
        scores = th.rand(len(links), len(active), generator=generator)
        return best_of_each_unit(scores + active, links)


@dataclass(frozen=True)
class Predictive(Static):
    """
    Each unit of the first layer reads the inputs that best predict one of them; the units take these signals in turn. See
    :mod:`sb3_rlx2.predictive`.

    :param gamma: discount of the predictions
    :param trace: their lambda
    :param step: their step size, relative to the one at which a prediction would jump to its target
    :param rarest: share of the data in which an input must differ from its median to be of use
    """

    gamma: float = 0.9
    trace: float = 0.8
    step: float = 0.05
    rarest: float = 0.001

    def warm_up_links(self, inputs: th.Tensor, ends: th.Tensor, links: Sequence[int], generator: th.Generator) -> th.Tensor:
        """See :func:`warm_up_links`."""
        useful = varying(inputs, self.rarest)
        scores = -th.rand(len(links), len(useful), generator=generator)  # where useful inputs are too few, any others follow
        if useful.any():
            weights = learn_predictions(inputs[..., useful], ends, self.gamma, self.trace, self.step).abs()
            scores[:, useful] = weights[th.arange(len(links)) % len(weights)]
        return best_of_each_unit(scores, links)


# For editors and mypy. A name that a user adds to the table needs a ``# type: ignore[arg-type]`` where it is given.
TopologyName = Literal["rigl", "set", "static", "snip", "active", "predictive"]
TOPOLOGIES: dict[str, Topology] = {
    "rigl": RigL(),
    "set": SET(),
    "static": Static(),
    "snip": SNIP(),
    "active": Active(),
    "predictive": Predictive(),
}
