"""Moves the topology of a policy's sparse networks in place of some of their optimizer steps."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch as th
from torch import nn

from sb3_rlx2.paths import Paths, find_paths
from sb3_rlx2.schedules import cosine_decay
from sb3_rlx2.sparse_mlp import SparseMLP, remap
from sb3_rlx2.topology import (
    TOPOLOGIES,
    Topology,
    drop_and_grow,
    drop_scores,
    live_links,
    prunes_at_once,
    strongest,
    warm_up_links,
)
from sb3_rlx2.validation import check_integer, check_number, lookup
from sb3_rlx2.warning import warn


@dataclass
class EvolvingNetwork:
    """
    What one optimizer trains, with its counters.

    :param name: ``"actor"`` or ``"critic"``
    :param mlps: the sparse networks (one, or each of the twin critics)
    :param targets: their target networks, in the same order; empty if there are none
    :param optimizer: the optimizer of ``mlps``
    :param steps: optimizer steps so far, topology updates included
    :param updates: topology updates so far
    :param churn: share of the links that the latest topology update changed
    :param nesting: how many ``step`` methods of the optimizer are running, one inside the other
    :param moves_next: whether links move in the next optimizer step
    :param prunes_next: whether links are chosen in the next optimizer step to leave without others in their place
    :param leaving: positions of those that wait to leave, for each of ``mlps``; None if none do
    """

    name: str
    mlps: Sequence[SparseMLP]
    targets: Sequence[SparseMLP]
    optimizer: th.optim.Optimizer
    steps: int = 0
    updates: int = 0
    churn: float = 0.0
    nesting: int = 0
    moves_next: bool = False
    prunes_next: bool = False
    leaving: Sequence[th.Tensor] | None = None

    @property
    def shrinks(self) -> bool:
        """Whether links are still to leave for good; a frozen network keeps them."""
        return any(
            mlp.start_nnz != mlp.final_nnz and mlp.nnz > sum(mlp.final_nnz) and mlp.values.requires_grad for mlp in self.mlps
        )


@dataclass(frozen=True)
class TopologyUpdate:
    """
    What one topology update did.

    :param network: ``"actor"`` or ``"critic"``
    :param number: how many there have been of this network
    :param drop_fraction: share of each layer's links that it could move
    :param churn: share of the network's links that changed
    :param layer_churn: share of each layer's links that changed, for each of the network's ``mlps``
    """

    network: str
    number: int
    drop_fraction: float
    churn: float
    layer_churn: Sequence[Sequence[float]]


class TopologyUpdater(nn.Module):
    """
    Hangs on the optimizers of a policy and, every ``update_interval`` steps of each of them, replaces the step with a
    topology update: drop, grow, move the state of the links, then clear the gradients, which makes the optimizer's step
    an exact no-op. It rests, and the topology stays fixed, until :meth:`configure` gives it a method.

    Networks that begin with more links than they are to have lose them between two shares of training: an update chooses
    the weakest, beside those that it moves, and :meth:`prune` takes them away.

    Counters, progress and generator are part of the policy's ``state_dict``.

    :param generator: CPU generator for random growth
    :param l1: coefficient of the sum of the hidden weights' magnitudes, whose sub-gradient is added to that of the loss (so it
        is in no logged loss, and in no gradient by which links grow or that is clipped)
    """

    def __init__(self, generator: th.Generator, l1: float = 0.0) -> None:
        super().__init__()
        self.generator = generator
        self.l1 = l1
        self.networks: dict[str, EvolvingNetwork] = {}
        self.method: Topology | None = None
        self.initial_drop_fraction = 0.0
        self.update_interval = 1
        self.drop_dead_links = False
        self.prune_begin, self.prune_end = 0.0, 0.0
        self.progress = 0.0
        self.begin = 0  # the environment step from which on progress is counted
        self.has_warm_up_links = False
        self.latest_updates: list[TopologyUpdate] = []  # since the callback last took them, for its log
        self._warned = False

    def register(
        self, name: str, mlps: Sequence[SparseMLP], targets: Sequence[SparseMLP], optimizer: th.optim.Optimizer
    ) -> None:
        """
        Take charge of the networks that one optimizer trains.

        :param name: name for errors, logs and ``state_dict``
        :param mlps: sparse networks
        :param targets: their target networks, which share their topology at all times; may be empty
        :param optimizer: any element-wise optimizer
        """
        network = EvolvingNetwork(name, tuple(mlps), tuple(targets), optimizer)
        self.networks[name] = network
        self._share(network)
        self._hang_on(network)

    @staticmethod
    def _share(network: EvolvingNetwork) -> None:
        for mlp, target in zip(network.mlps, network.targets, strict=False):  # SAC has no target actor
            target.share_index(mlp)

    def follow(self, name: str, optimizer: th.optim.Optimizer) -> None:
        """
        Hang on another optimizer, if somebody has put it in the place of a network's.

        :param name: of the network
        :param optimizer: the optimizer that it has now
        """
        network = self.networks[name]
        if network.optimizer is not optimizer:
            network.optimizer = optimizer
            self._hang_on(network)

    def _hang_on(self, network: EvolvingNetwork) -> None:
        own = network.optimizer  # of a network that has had another since, this one does nothing
        own.register_step_pre_hook(lambda *_: self.before_step(network) if network.optimizer is own else None)
        own.register_step_post_hook(lambda *_: self.after_step(network) if network.optimizer is own else None)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for network in self.networks.values():  # copies come without hooks of optimizers, and do not know their targets
            self._share(network)
            self._hang_on(network)

    def configure(
        self,
        topology: str,
        drop_fraction: float,
        update_interval: int,
        drop_dead_links: bool = False,
        prune_begin: float = 0.2,
        prune_end: float = 0.8,
    ) -> None:
        """
        Start to evolve the topology.

        :param topology: a key of :data:`sb3_rlx2.topology.TOPOLOGIES`
        :param drop_fraction: share of each layer's links that an update at progress 0 moves, in ``[0, 1]``
        :param update_interval: optimizer steps of a network between its topology updates, at least 1
        :param drop_dead_links: whether an update drops first all links that lie on no path from an input to an output (see
            :mod:`sb3_rlx2.paths`), however many, and grows none from a unit that no input reaches while there are others to
            grow. Paths are those before the update: a link whose path it cuts goes at the next. A layer that has all its
            links never moves, so its dead links stay
        :param prune_begin: share of training after which the number of links falls, of networks that begin with more than
            they are to have
        :param prune_end: share of training after which it is what it is to be, above ``prune_begin`` and below 1, so that
            steps follow
        """
        self.method = lookup("topology", topology, TOPOLOGIES)
        self.initial_drop_fraction = check_number("drop_fraction", drop_fraction, 0.0, 1.0)
        self.update_interval = check_integer("update_interval", update_interval, minimum=1)
        self.drop_dead_links = drop_dead_links
        self.prune_begin, self.prune_end = check_prune(prune_begin, prune_end)
        for network in self.networks.values():
            network.nesting = 0  # a step that raised did not count itself out
        self._arm_all()

    def rest(self) -> None:
        """Stop to evolve the topology."""
        self.method = None
        self._warned = False
        self._arm_all()

    def advance(self, progress: float) -> None:
        """
        Set the training progress. It never falls: a continued run whose step count starts again at 0 does not go back to
        a large drop fraction.

        :param progress: share of training done, in ``[0, 1]``
        """
        if progress > self.progress:
            self.__dict__["progress"] = progress  # every step: torch's own assignment is slow

    def restart(self, step: int) -> None:
        """
        Begin a schedule of its own.

        :param step: environment step from which on progress is counted
        """
        self.progress, self.begin = 0.0, step

    @property
    def drop_fraction(self) -> float:
        """Share of a layer's links that an update would move now."""
        return cosine_decay(self.progress, self.initial_drop_fraction)

    def before_step(self, network: EvolvingNetwork, known_finite: bool = False) -> None:
        """
        Called before each optimizer step: checks the gradients and, if an update is due, does it and clears them.

        :param network: the network whose optimizer steps
        :param known_finite: whether the caller knows that the gradients are finite
        """
        if network.nesting == 0:  # torch calls the hooks again for a `step` that calls its parent class's
            if not known_finite:
                check_gradients(network.name, network.optimizer, f" at its optimizer step {network.steps + 1}")
            self._prepare_step(network)
        network.nesting += 1

    def _prepare_step(self, network: EvolvingNetwork) -> None:
        if self.method is None and not self._warned:
            self._warned = True
            warn("no RLx2Callback drives this sparse policy: its topology stays fixed")
        network.steps += 1
        waits = network.leaving is not None and prunes_at_once(self.method)
        if waits or ((network.moves_next or network.prunes_next) and self._update(network)):
            network.optimizer.zero_grad(set_to_none=True)
        elif self.l1 > 0.0:
            self._penalise(network)
        self._arm(network)

    @th.no_grad()
    def _penalise(self, network: EvolvingNetwork) -> None:
        for mlp in network.mlps:
            if mlp.values.grad is not None:
                mlp.values.grad[: mlp.hidden_nnz] += self.l1 * mlp.values[: mlp.hidden_nnz].sign()

    def after_step(self, network: EvolvingNetwork) -> None:
        """
        Called after each optimizer step.

        :param network: the network whose optimizer has stepped
        """
        network.nesting -= 1

    def _arm_all(self) -> None:
        for network in self.networks.values():
            self._arm(network)

    def _arm(self, network: EvolvingNetwork) -> None:
        """
        Decide what happens in the next step, and have the backward pass before it recorded if that is done by gradient.
        Links leave at topology updates; the last do at the end of the pruning, however long the interval is. Where the method
        says so, all leave at once.
        """
        method, due = self.method, (network.steps + 1) % self.update_interval == 0
        late = (self.progress >= self.prune_end or prunes_at_once(method)) and network.leaving is None
        network.moves_next = method is not None and method.evolves and due
        network.prunes_next = method is not None and (due or late) and network.shrinks
        records = method is not None and method.uses_gradient and (network.moves_next or network.prunes_next)
        for mlp in network.mlps:
            if mlp.records_dense_gradient != records:
                mlp.forget_dense_gradients()
                mlp.records_dense_gradient = records

    @th.no_grad()
    def _update(self, network: EvolvingNetwork) -> bool:
        """Return whether this takes the place of the optimizer's step."""
        if prunes_at_once(self.method):
            network.leaving = [self._weakest(mlp) for mlp in network.mlps]
            return True
        evolved = [self._evolve(mlp, network) for mlp in network.mlps]
        indices, leaving = [index for index, _ in evolved], [chosen for _, chosen in evolved]
        network.leaving = leaving if any(map(len, leaving)) else None
        moves = any(index is not None for index in indices)
        if not moves and network.leaving is None:
            return False
        moments = [_moments(network.optimizer, mlp.values) for mlp in network.mlps]  # raises before anything has moved
        if not moves:
            return False
        grown = [[0] * len(mlp.layers) for mlp in network.mlps]
        for i, (mlp, index) in enumerate(zip(network.mlps, indices, strict=True)):
            if index is None:
                continue
            old = mlp.index.clone()
            new = ~th.isin(index, old)
            grown[i] = [int(new[part].sum()) for part in mlp.slices]
            for state in (mlp.values, *(target.values for target in network.targets[i : i + 1]), *moments[i].values()):
                state.copy_(remap(old, index, state))
            for holder in (mlp, *network.targets[i : i + 1]):  # both: a move to another device gives each an index of its own
                holder.set_index(index)
        network.updates += 1
        network.churn = sum(map(sum, grown)) / sum(mlp.nnz for mlp in network.mlps)
        shares = [
            [count / layer.nnz for count, layer in zip(counts, mlp.layers, strict=True)]
            for counts, mlp in zip(grown, network.mlps, strict=True)
        ]
        self.latest_updates.append(TopologyUpdate(network.name, network.updates, self.drop_fraction, network.churn, shares))
        return True

    def _weakest(self, mlp: SparseMLP) -> th.Tensor:
        """Give the links that are too many of all that a network has; the best of each layer is not among them."""
        assert self.method is not None
        scores = [
            drop_scores(
                self.method, mlp.values[part], mlp.layer_index(number), partial(mlp.dense_gradient, number), self.generator
            )
            for number, part in enumerate(mlp.slices)
        ]
        for own in scores:
            own[own.argmax()] = th.inf
        return mlp.index[~strongest(th.cat(scores), sum(mlp.final_nnz))]

    def _evolve(self, mlp: SparseMLP, network: EvolvingNetwork) -> tuple[th.Tensor | None, th.Tensor]:
        """Give the network's new index, None if no link moves, and which of its links are to leave."""
        surplus = self._surplus(mlp) if network.prunes_next else [0] * len(mlp.layers)
        paths = find_paths(mlp) if self.drop_dead_links else None
        moving = self._moving(mlp, surplus, paths) if network.moves_next else [0] * len(mlp.layers)
        if not (any(surplus) or any(moving)) or not mlp.values.requires_grad:  # a frozen network keeps its links too
            return None, mlp.index[:0]
        layers = [
            [part + mlp.offsets[number] for part in self._evolve_layer(mlp, number, *counts, paths)]
            for number, counts in enumerate(zip(surplus, moving, strict=True))
        ]
        index, leaving = (th.cat(parts).to(mlp.index.dtype) for parts in zip(*layers, strict=True))
        return (index if any(moving) else None), leaving

    def _surplus(self, mlp: SparseMLP) -> list[int]:
        """Give the number of links by which each layer has more than it should have by now."""
        assert self.method is not None
        done = min(max((self.progress - self.prune_begin) / (self.prune_end - self.prune_begin), 0.0), 1.0)
        counts = [
            final if done == 1.0 else max(final, live_links(self.method, start, final, done))
            for start, final in zip(mlp.start_nnz, mlp.final_nnz, strict=True)
        ]
        return [max(layer.nnz - count, 0) for layer, count in zip(mlp.layers, counts, strict=True)]

    def _moving(self, mlp: SparseMLP, surplus: Sequence[int], paths: Paths | None) -> list[int]:
        """Give the number of links that move in each layer, among those that do not leave."""
        dead = [0] * len(mlp.layers) if paths is None else paths.dead
        return [
            0
            if layer.nnz == layer.size or number < mlp.frozen_layers
            else max(int(self.drop_fraction * (layer.nnz - left)), least - left)
            for number, (layer, left, least) in enumerate(zip(mlp.layers, surplus, dead, strict=True))
        ]

    def _evolve_layer(
        self, mlp: SparseMLP, number: int, surplus: int, k: int, paths: Paths | None
    ) -> tuple[th.Tensor, th.Tensor]:
        """Give a layer's new index, after ``k`` of its links have moved, and the ``surplus`` links of it that are to leave."""
        assert self.method is not None
        layer, index, gradient = mlp.layers[number], mlp.layer_index(number), partial(mlp.dense_gradient, number)
        if surplus == k == 0:
            return index, index[:0]
        to_drop = drop_scores(self.method, mlp.values[mlp.slices[number]], index, gradient, self.generator)
        if paths is not None:
            to_drop = to_drop.masked_fill(~paths.alive[number], -th.inf)
        stays = strongest(to_drop, layer.nnz - surplus)
        leaving = index[~stays]
        if k > 0:
            to_grow = self.method.grow_scores(layer.size, gradient, self.generator).to(index.device)
            if paths is not None:
                to_grow = to_grow.view(layer.shape).masked_fill(~paths.reached[number], -th.inf).flatten()
            index = th.cat([drop_and_grow(index[stays], to_drop[stays], to_grow, k, leaving), leaving]).sort().values
        return index, leaving

    def prune(self) -> None:
        """
        Take away the links that topology updates have chosen to leave. To be called between two calls of ``train``, not
        inside: there a loss may wait for its backward pass, and what it computed with has the old number of links.
        """
        for network in self.networks.values():
            if network.leaving is not None:
                leaving, network.leaving = network.leaving, None
                self._take_away(network, leaving)

    @staticmethod
    @th.no_grad()
    def _take_away(network: EvolvingNetwork, leaving: Sequence[th.Tensor]) -> None:
        for i, positions in enumerate(leaving):
            mlp = network.mlps[i]
            stays = ~th.isin(mlp.index, positions)
            for name, moment in _moments(network.optimizer, mlp.values).items():
                network.optimizer.state[mlp.values][name] = moment[stays]
            index = mlp.index[stays]
            for holder in (mlp, *network.targets[i : i + 1]):
                holder.set_links(index, holder.values[stays])

    @property
    def wants_warm_up_links(self) -> bool:
        """Whether the method is still to be asked which links the first layers have, once the warm-up is over."""
        return self.method is not None and warm_up_links(self.method) is not None and not self.has_warm_up_links

    @th.no_grad()
    def take_warm_up_links(self, read: Callable[[SparseMLP], tuple[th.Tensor, th.Tensor]]) -> None:
        """
        Have the method choose the links of the first layers. To be called before the first gradient step, and once.

        :param read: gives what a network's first layer has read in the warm-up, and where episodes ended, see
            :func:`sb3_rlx2.topology.warm_up_links`
        """
        assert self.method is not None
        choose = warm_up_links(self.method)
        assert choose is not None
        for network in self.networks.values():
            for i, mlp in enumerate(network.mlps):
                layer = mlp.layers[0]
                links = th.bincount(mlp.layer_index(0).cpu() // layer.in_features, minlength=layer.out_features).tolist()
                index = mlp.index.clone()
                index[mlp.slices[0]] = choose(*read(mlp), links, self.generator).to(index)
                for holder in (mlp, *network.targets[i : i + 1]):
                    holder.set_index(index)
        self.has_warm_up_links = True

    def get_extra_state(self) -> th.Tensor:
        """
        Give what ``state_dict`` holds: JSON, a new line and the state of the generator, as bytes. A tensor, since who exports
        or saves a ``state_dict`` (torch's exporter for ONNX, safetensors) takes it to hold nothing else.
        """
        state = {
            "progress": self.progress,
            "begin": self.begin,
            "counters": {name: [net.steps, net.updates, net.churn] for name, net in self.networks.items()},
            "has_warm_up_links": self.has_warm_up_links,
        }
        data = json.dumps(state).encode() + b"\n" + self.generator.get_state().numpy().tobytes()
        return th.frombuffer(bytearray(data), dtype=th.uint8)

    def set_extra_state(self, state: th.Tensor | dict[str, Any]) -> None:
        """
        Restore what :meth:`get_extra_state` gave.

        :param state: the saved state; of earlier versions a dict
        """
        if isinstance(state, th.Tensor):
            text, _, generator = state.cpu().numpy().tobytes().partition(b"\n")
            self.set_extra_state(json.loads(text) | {"generator": th.frombuffer(bytearray(generator), dtype=th.uint8)})
            return
        self.progress, self.begin = state["progress"], state.get("begin", 0)  # which earlier versions did not have
        self.has_warm_up_links = state.get("has_warm_up_links", False)  # earlier versions had no such topology
        self.generator.set_state(state["generator"].cpu())
        for name, counters in state["counters"].items():
            network = self.networks[name]
            network.steps, network.updates, network.churn = counters
            network.nesting = 0
            network.leaving = None
        self._arm_all()


def check_prune(begin: float, end: float) -> tuple[float, float]:
    """
    Check between which shares of training the number of links falls.

    :param begin: argument ``prune_begin``
    :param end: argument ``prune_end``
    :raises ValueError: if they are no shares, or in the wrong order
    """
    begin = check_number("prune_begin", begin, 0.0, 1.0)
    end = check_number("prune_end", end, 0.0, 1.0, high_included=False)
    if begin >= end:
        raise ValueError(f"prune_begin={begin} must be < prune_end={end}")
    return begin, end


def check_gradients(name: str, optimizer: th.optim.Optimizer, when: str = "") -> None:
    """
    Stop training before a step with a broken gradient.

    :param name: what the optimizer trains, for the error
    :param optimizer: the optimizer that is about to step
    :param when: added to the error
    :raises ValueError: if a gradient holds NaN or infinity
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # The sum is the cheap test; finite numbers can overflow it, so it does not decide.
            gradient = parameter.grad
            if gradient is not None and not math.isfinite(gradient.sum().item()) and not th.isfinite(gradient).all():
                raise ValueError(
                    f"the gradient of the {name} holds NaN or infinity{when}; training stops before the step, "
                    "go back to the last checkpoint"
                )


def _moments(optimizer: th.optim.Optimizer, parameter: th.Tensor) -> dict[str, th.Tensor]:
    """Give the optimizer's per-weight state, which moves with the links. Scalars (step counts) stay."""
    moments = {}
    for name, state in optimizer.state[parameter].items():
        if isinstance(state, th.Tensor) and state.shape == parameter.shape:
            moments[name] = state
        elif (isinstance(state, th.Tensor) and state.numel() > 1) or not isinstance(state, th.Tensor | int | float | None):
            raise ValueError(
                f"{type(optimizer).__name__} keeps {name!r} for the live weights, which cannot be moved to a new topology; "
                "optimizer_class must be element-wise, as Adam, AdamW, RMSprop or SGD are"
            )
    return moments
