"""Moves the topology of a policy's sparse networks in place of some of their optimizer steps."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch as th
from torch import nn

from sb3_rlx2.schedules import cosine_decay
from sb3_rlx2.sparse_mlp import SparseMLP, remap
from sb3_rlx2.topology import TOPOLOGIES, Topology, drop_and_grow
from sb3_rlx2.validation import check_integer, check_number, lookup


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
    """

    name: str
    mlps: Sequence[SparseMLP]
    targets: Sequence[SparseMLP]
    optimizer: th.optim.Optimizer
    steps: int = 0
    updates: int = 0
    churn: float = 0.0
    nesting: int = 0


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

    Counters, progress and generator are part of the policy's ``state_dict``.

    :param generator: CPU generator for random growth
    """

    def __init__(self, generator: th.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.networks: dict[str, EvolvingNetwork] = {}
        self.method: Topology | None = None
        self.initial_drop_fraction = 0.0
        self.update_interval = 1
        self.progress = 0.0
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
        for mlp, target in zip(mlps, targets, strict=False):  # SAC has no target actor
            target.share_index(mlp)
        self._hang_on(network)

    def _hang_on(self, network: EvolvingNetwork) -> None:
        network.optimizer.register_step_pre_hook(lambda *_: self.before_step(network))
        network.optimizer.register_step_post_hook(lambda *_: self.after_step(network))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for network in self.networks.values():  # copies of optimizers come without their hooks
            self._hang_on(network)

    def configure(self, topology: str, drop_fraction: float, update_interval: int) -> None:
        """
        Start to evolve the topology.

        :param topology: ``"rigl"``, ``"set"`` or ``"static"``
        :param drop_fraction: share of each layer's links that an update at progress 0 moves, in ``[0, 1]``
        :param update_interval: optimizer steps of a network between its topology updates, at least 1
        """
        self.method = lookup("topology", topology, TOPOLOGIES)
        self.initial_drop_fraction = check_number("drop_fraction", drop_fraction, 0.0, 1.0)
        self.update_interval = check_integer("update_interval", update_interval, minimum=1)
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
            warnings.warn("no RLx2Callback drives this sparse policy: its topology stays fixed", stacklevel=2)
        network.steps += 1
        if self._is_due(network.steps) and self._update(network):
            network.optimizer.zero_grad(set_to_none=True)
        self._arm(network)

    def after_step(self, network: EvolvingNetwork) -> None:
        """
        Called after each optimizer step.

        :param network: the network whose optimizer has stepped
        """
        network.nesting -= 1

    def _is_due(self, step: int) -> bool:
        return self.method is not None and self.method.evolves and step % self.update_interval == 0

    def _arm_all(self) -> None:
        for network in self.networks.values():
            self._arm(network)

    def _arm(self, network: EvolvingNetwork) -> None:
        """Have the backward pass before the next step recorded if that step is a topology update by gradient."""
        records = self.method is not None and self.method.uses_gradient and self._is_due(network.steps + 1)
        for mlp in network.mlps:
            if mlp.records_dense_gradient != records:
                mlp.forget_dense_gradients()
                mlp.records_dense_gradient = records

    @th.no_grad()
    def _update(self, network: EvolvingNetwork) -> bool:
        """Return whether there was anything to move."""
        indices = [self._evolve(mlp) for mlp in network.mlps]
        if all(index is None for index in indices):
            return False
        moments = [_moments(network.optimizer, mlp.values) for mlp in network.mlps]  # raises before anything has moved
        grown = [[0] * len(mlp.layers) for mlp in network.mlps]
        for i, (mlp, index) in enumerate(zip(network.mlps, indices, strict=True)):
            if index is None:
                continue
            old = mlp.index.clone()
            new = ~th.isin(index, old)
            grown[i] = [int(new[part].sum()) for part in mlp.slices]
            for state in (mlp.values, *(target.values for target in network.targets[i : i + 1]), *moments[i]):
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

    def _evolve(self, mlp: SparseMLP) -> th.Tensor | None:
        """Give the network's new index, None if no link moves."""
        assert self.method is not None
        counts = [0 if layer.nnz == layer.size else int(self.drop_fraction * layer.nnz) for layer in mlp.layers]
        if not (any(counts) and mlp.values.requires_grad):  # a frozen network keeps its links too
            return None
        parts = []
        for number, (layer, k) in enumerate(zip(mlp.layers, counts, strict=True)):
            index = mlp.layer_index(number)
            if k > 0:
                scores = self.method.grow_scores(layer.size, partial(mlp.dense_gradient, number), self.generator)
                index = drop_and_grow(index, mlp.values[mlp.slices[number]].abs(), scores.to(index.device), k)
            parts.append(index + mlp.offsets[number])
        return th.cat(parts).to(mlp.index.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """Give what ``state_dict`` holds: plain numbers and the generator's state."""
        counters = {name: [net.steps, net.updates, net.churn] for name, net in self.networks.items()}
        return {"progress": self.progress, "counters": counters, "generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """
        Restore what :meth:`get_extra_state` gave.

        :param state: the saved state
        """
        self.progress = state["progress"]
        self.generator.set_state(state["generator"].cpu())
        for name, counters in state["counters"].items():
            network = self.networks[name]
            network.steps, network.updates, network.churn = counters
            network.nesting = 0
        self._arm_all()


def check_gradients(name: str, optimizer: th.optim.Optimizer, when: str = "") -> None:
    """
    Stop training before a step with a broken gradient.

    :param name: what the optimizer trains, for the error
    :param optimizer: the optimizer that is about to step
    :param when: added to the error
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


def _moments(optimizer: th.optim.Optimizer, parameter: th.Tensor) -> list[th.Tensor]:
    """Give the optimizer's per-weight state, which moves with the links. Scalars (step counts) stay."""
    moments = []
    for name, state in optimizer.state[parameter].items():
        if isinstance(state, th.Tensor) and state.shape == parameter.shape:
            moments.append(state)
        elif (isinstance(state, th.Tensor) and state.numel() > 1) or not isinstance(state, th.Tensor | int | float | None):
            raise ValueError(
                f"{type(optimizer).__name__} keeps {name!r} for the live weights, which cannot be moved to a new topology; "
                "optimizer_class must be element-wise, as Adam, AdamW, RMSprop or SGD are"
            )
    return moments
