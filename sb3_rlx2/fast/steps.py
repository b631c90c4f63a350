"""
The gradient steps of SB3's ``train`` in arrays and kernels, without autograd's bookkeeping.

They compute what SB3 computes, from the same random numbers (``tests/test_gradient_steps.py``), for policies whose heads
the ``csr`` backend serves. They leave out two things that SB3 throws away: the gradient of the actor's loss by the
critics' weights, and the walks through module trees. The batch may be split over threads; every thread then runs whole
networks on its own samples, and only the gradients are added up.

Here is what all algorithms share; ``actor_critic.py`` and ``value_based.py`` have what two kinds of them do.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th

from sb3_rlx2 import kernels
from sb3_rlx2.backends.csr import record_dense_gradients, structure_of
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.buffers.samples import Batch
from sb3_rlx2.fast.adam import PlainAdam, address_of
from sb3_rlx2.fast.team import Share, Team, usable_threads
from sb3_rlx2.fast.trained import TrainedNetwork
from sb3_rlx2.kernels.network import Learner
from sb3_rlx2.kernels.parameters import PolyakArrays, lines
from sb3_rlx2.kernels.structs import Struct
from sb3_rlx2.kernels.tiling import FLOAT, tiled, tiles
from sb3_rlx2.sparse_mlp import SparseMLP, sparse_mlps


class Sums(NamedTuple):
    """
    What a job has found.

    :param total: sum over the samples
    :param finite: whether the sum of all gradients is finite; if not, a sum of finite ones may have overflown
    :param log_probs: sum of SAC's log-probabilities over the samples
    :param threads: number of threads that worked
    """

    total: float
    finite: bool
    log_probs: float
    threads: int


class GradientSteps:
    """
    What all algorithms share.

    :param model: the algorithm
    :param length: length of tuples in what the kernel works on, if they have different ones
    """

    group: ClassVar[str]  # of kernels, see :func:`sb3_rlx2.kernels.load`
    kernel: ClassVar[str]  # name of the one that does the jobs

    def __init__(self, model: Any, length: int = 0) -> None:
        self.model = model
        self.policy = policy = model.policy
        self.buffer: RLx2ReplayBuffer = model.replay_buffer
        self.threads = th.get_num_threads()
        networks = {name: sparse_mlps(getattr(policy, name)) for name in policy.networks}
        self.trained = {name: [TrainedNetwork(mlp) for mlp in mlps] for name, mlps in networks.items()}
        self.targets = {name: sparse_mlps(policy.target_of(name)) for name in policy.networks}
        self.n_actions = self.buffer.action_dim
        self.adams = {name: PlainAdam(policy.optimizer_of(name)) for name in policy.networks}
        self.mlps = [mlp for network in policy.all_networks() for mlp in sparse_mlps(network)]
        self.kernels = kernels.load(self.group, length=length)
        self.team = Team()
        self.structs: list[Struct] = []
        self.tau = np.zeros(1)
        self.size = 0
        self._equipped_for: list[Any] = []

    def _sample(self, size: int) -> None:
        """Sample a batch; memory for it and what is computed from it is kept from step to step."""
        fits = self._fits(size)
        if not fits:
            self._allocate(size)
        self._equip(anew=not fits)
        self.size = size
        self.buffer.sample_into(self.batch, self.model._vec_normalize_env)

    def _fits(self, size: int) -> bool:
        """Tell whether the memory that there is serves a batch."""
        return size == self.size

    def _allocate(self, size: int) -> None:
        """Make room for what all threads share."""
        self.tiles = tiles(size, FLOAT)
        self.obs_dim = math.prod(self.buffer.obs_shape)
        self.batch = Batch(self._tiled(self.obs_dim + self.n_actions), self._tiled(self.obs_dim + self.n_actions), size)

    def _equip(self, anew: bool = False) -> None:
        """Give the threads their arrays, also anew if a network has moved or its topology has changed."""
        networks = [structure_of(mlp).network for mlp in self.mlps]
        now = [*networks, *(trained.mlp.records_dense_gradient for trained in self._all_trained())]
        if anew or not all(map(operator.is_, now, self._equipped_for)):
            self._equipped_for = now
            parts = min(usable_threads(self.threads), self.tiles)
            for trained in self._all_trained():
                trained.reserve(parts)
            self.structs = [Struct(self._arrays(part)) for part in range(parts)]
            self.moves = Struct(tuple(self._moves()))

    def _arrays(self, part: int) -> Any:
        """Give what a thread works on."""
        raise NotImplementedError

    def _batch_arrays(self) -> dict[str, np.ndarray]:
        """Give what has been sampled, by field of what a thread works on."""
        return {name: getattr(self.batch, name) for name in ("inputs", "next_inputs", "returns", "terminated", "discounts")}

    def _all_trained(self) -> Iterator[TrainedNetwork]:
        return chain.from_iterable(self.trained.values())

    def _learner(self, trained: TrainedNetwork, part: int, activations: np.ndarray | None = None) -> Learner:
        """
        Give a network with memory for a thread.

        :param trained: the network
        :param part: number of the thread
        :param activations: memory for those of all tiles; by default there is room for one, which stays in cache
        """
        structure, records = structure_of(trained.mlp), trained.mlp.records_dense_gradient
        memory = partial(tiled, self.tiles if records else 1, dtype=FLOAT)
        if activations is None:
            activations = memory(structure.outputs)
        by_column = np.empty_like(structure.network.values)
        return Learner(structure.network, activations, memory(structure.outputs), by_column, *trained.arrays[part])

    def _tiled(self, features: int) -> np.ndarray:
        return tiled(self.tiles, features, FLOAT)

    @staticmethod
    def _scratch(mlp: SparseMLP) -> np.ndarray:
        return tiled(1, structure_of(mlp).outputs, FLOAT)

    def _do(self, job: int, count: int | None = None) -> Sums:
        """
        Have the team do a job.

        :param job: code of the job
        :param count: number of tiles, by default those of the batch
        """
        split = self._split(self.tiles if count is None else count)
        self.team.do(getattr(self.kernels, self.kernel), self.structs, job, split)
        total, gradients, log_probs = sum(struct.arrays.sums for struct in self.structs[: len(split)]).tolist()
        return Sums(total, math.isfinite(gradients), log_probs, len(split))

    def _split(self, count: int) -> list[Share]:
        """Share tiles out to threads."""
        parts = max(1, min(len(self.structs), count))
        if parts > 1 and any(network.mlp.records_dense_gradient for network in self._all_trained()):
            parts = 1  # what is recorded is one pass over the whole batch
        return _portions(count, parts)

    def _run_shared(self, name: str, struct: Struct, job: int, count: int) -> None:
        """Run a kernel that updates parameters, see :func:`sb3_rlx2.fast.adam.run_alone`."""
        parts = len(self.structs)
        self.team.do(address_of(name), [struct] * parts, job, _portions(count, parts))

    def _record(self, name: str, learners: Sequence[Learner]) -> None:
        """
        Tell networks where their dense gradients lie, if the next optimizer step is a topology update.

        :param name: one of the policy's networks
        :param learners: its parts as the first thread has them
        """
        for network, learner in zip(self.trained[name], learners, strict=True):
            if network.mlp.records_dense_gradient:
                record_dense_gradients(network.mlp, self.batch.inputs, learner.activations, learner.gradients)

    def _step(self, name: str, sums: Sums) -> None:
        """
        Let the optimizer of a network step; plain Adam's own arithmetic is done by kernel.

        :param name: one of the policy's networks
        :param sums: the job that has found its gradients
        """
        updater, adam, networks = self.policy.topology_updater, self.adams[name], self.trained[name]
        by_kernel = adam.has_hooks(1, 1) and adam.serves()
        for network in networks:
            network.publish_gradients()
            if not (by_kernel and sums.finite):
                network.add_gradients(sums.threads)
        if not by_kernel:
            adam.optimizer.step()
            self._equip()
            return
        updater.before_step(updater.networks[name], sums.finite)
        if networks[0].values.grad is not None:  # else a topology update has taken the step's place
            gradients = [addresses for network in networks for addresses in network.addresses]
            adam.step(gradients, sums.threads if sums.finite else 1, self._run_shared)
        else:
            self._equip()
        updater.after_step(updater.networks[name])

    def _move_targets(self) -> None:
        """As SB3's ``polyak_update``."""
        self.tau[0] = self.model.tau
        self._run_shared("polyak", self.moves, 0, lines([arrays.values for arrays in self.moves.arrays]))

    def _moves(self) -> list[PolyakArrays]:
        """Give all parameters that have a target, and their targets."""
        pairs = [
            (structure_of(trained.mlp).network, structure_of(target).network)
            for name, targets in self.targets.items()
            for trained, target in zip(self.trained[name], targets, strict=False)  # not all have targets
        ]
        return [
            PolyakArrays(a, b, self.tau)
            for online, behind in pairs
            for a, b in ((online.values, behind.values), (online.bias, behind.bias))
        ]


def _portions(count: int, parts: int) -> list[Share]:
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
