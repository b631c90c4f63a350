"""
The gradient steps of SB3's ``TD3.train`` and ``SAC.train`` in arrays and kernels, without autograd's bookkeeping.

They compute what SB3 computes, from the same random numbers (``tests/test_gradient_steps.py``), for policies whose heads
the ``csr`` backend serves. They leave out two things that SB3 throws away: the gradient of the actor's loss by the
critics' weights, and the walks through module trees. The batch may be split over threads; every thread then runs whole
networks on its own samples, and only the gradients are added up.
"""

import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th

from sb3_rlx2.adam import PlainAdam
from sb3_rlx2.backends import uses_csr
from sb3_rlx2.backends.compile import load_kernels
from sb3_rlx2.backends.csr import FLOAT, array, record_dense_gradients, structure_of, tiled, tiles
from sb3_rlx2.backends.networks import Learner
from sb3_rlx2.backends.optimizer_kernels import PolyakArrays, lines
from sb3_rlx2.backends.structs import Struct
from sb3_rlx2.buffers import RLx2ReplayBuffer
from sb3_rlx2.metrics import sparse_mlps
from sb3_rlx2.networks import has_hooks, hooks
from sb3_rlx2.samples import Batch
from sb3_rlx2.sparse_mlp import SparseMLP
from sb3_rlx2.team import Share, Team, usable_threads

NETWORKS = ("actor", "critic", "actor_target", "critic_target")  # SAC has no target actor


def serves(model: Any) -> bool:
    """
    Tell whether these steps can take the place of SB3's.

    :param model: SB3's TD3 or SAC with a sparse policy
    """
    policy, buffer = model.policy, model.replay_buffer
    networks = [getattr(policy, name) for name in NETWORKS if hasattr(policy, name)]
    return (
        type(buffer) is RLx2ReplayBuffer
        and buffer.has_gather_kernel
        and len(buffer.obs_shape) == 1
        and model._vec_normalize_env is None
        and policy.computes_in_arrays(networks)
        and policy.actor.sparse_heads()[0].values.dtype == th.float32
        and _takes_plain_gradients([*policy.actor.parameters(), *policy.critic.parameters()])
        and not any(has_hooks(module) for network in networks for module in network.modules())
    )


def _takes_plain_gradients(parameters: Sequence[th.Tensor]) -> bool:
    """Tell whether a backward pass would give each parameter its gradient and do nothing else: none is frozen or hooked."""
    return all(
        parameter.requires_grad and not (parameter._backward_hooks or parameter._post_accumulate_grad_hooks)
        for parameter in parameters
    )


class TrainedNetwork:
    """
    A network with the arrays that receive its gradients, one pair per thread.

    :param mlp: the network
    """

    def __init__(self, mlp: SparseMLP) -> None:
        self.mlp = mlp
        self.values, self.bias = mlp.values, mlp.bias
        self.gradients: list[tuple[th.Tensor, th.Tensor]] = []
        self.arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self.addresses: tuple[list[int], list[int]] = [], []

    def reserve(self, threads: int) -> None:
        """
        Make room for threads' gradients.

        :param threads: number of threads
        """
        for _ in range(len(self.gradients), threads):
            values, bias = th.zeros_like(self.values), th.zeros_like(self.bias)
            self.gradients.append((values, bias))
            self.arrays.append((array(values), array(bias)))
            for addresses, gradient in zip(self.addresses, (values, bias), strict=True):
                addresses.append(gradient.data_ptr())

    def publish_gradients(self) -> None:
        """Hand the optimizer the first thread's gradients."""
        if self.values.grad is not self.gradients[0][0]:
            self.values.grad, self.bias.grad = self.gradients[0]

    def add_gradients(self, threads: int) -> None:
        """
        Add up what the threads found.

        :param threads: number of threads that have worked
        """
        total = self.arrays[0]
        for values, bias in self.arrays[1:threads]:
            np.add(total[0], values, out=total[0])
            np.add(total[1], bias, out=total[1])


class Work(NamedTuple):
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
    """What both algorithms share."""

    kernel: ClassVar[str]  # its name, and its group's

    def __init__(self, model: Any) -> None:
        self.model = model
        self.policy = model.policy
        self.buffer: RLx2ReplayBuffer = model.replay_buffer
        self.threads = th.get_num_threads()
        self.actor = TrainedNetwork(sparse_mlps(self.policy.actor)[0])
        self.critics = [TrainedNetwork(mlp) for mlp in sparse_mlps(self.policy.critic)]
        self.critic_targets = sparse_mlps(self.policy.critic_target)
        self.n_actions = self.buffer.action_dim
        self.adams = {name: PlainAdam(getattr(self.policy, name).optimizer) for name in ("actor", "critic")}
        self.optimized = [(self.adams[name], getattr(self.policy, name)) for name in ("actor", "critic")]
        networks = [getattr(self.policy, name) for name in NETWORKS if hasattr(self.policy, name)]
        self.mlps = [mlp for network in networks for mlp in sparse_mlps(network)]
        self.hooks = [each for module in (*networks, *self.mlps) for each in hooks(module)]
        self.parameters = [each for trained in (self.actor, *self.critics) for each in (trained.values, trained.bias)]
        self.kernels = load_kernels(self.kernel, critics=len(self.critics))
        self.team = Team()
        self.structs: list[Struct] = []
        self.tau = np.zeros(1)
        self.size = 0
        self._equipped_for: list[Any] = []

    def still_fits(self, model: Any) -> bool:
        """
        Tell whether they were made for the model as it stands. What may change between two steps is looked at anew, at less
        cost than :func:`serves`.

        :param model: the algorithm
        """
        return (
            self.policy is model.policy
            and self.buffer is model.replay_buffer
            and model._vec_normalize_env is None
            and self.threads == th.get_num_threads()
            and self.actor.values.dtype == th.float32
            and not any(self.hooks)
            and _takes_plain_gradients(self.parameters)
            and all(map(uses_csr, self.mlps))
            and all(adam.optimizer is network.optimizer for adam, network in self.optimized)
        )

    def _sample(self, size: int) -> None:
        """Sample a batch; memory for it and what is computed from it is kept from step to step."""
        if size != self.size:
            self._allocate(size)
        self._equip(anew=size != self.size)
        self.size = size
        self.buffer.sample_into(self.batch)

    def _allocate(self, size: int) -> None:
        """Make room for what all threads share."""
        self.tiles = tiles(size, FLOAT)
        self.obs_dim = self.critics[0].mlp.layers[0].in_features - self.n_actions
        self.batch = Batch(self._tiled(self.obs_dim + self.n_actions), self._tiled(self.obs_dim + self.n_actions), size)
        self.actor_activations = self._tiled(structure_of(self.actor.mlp).outputs)
        self.values, self.target, self.grad_value = map(self._tiled, (len(self.critics), 1, 1))
        self.grad_actions = self._tiled(self.n_actions)

    def _equip(self, anew: bool = False) -> None:
        """Give the threads their arrays, also anew if a network has moved or its topology has changed."""
        networks = [structure_of(mlp).network for mlp in self.mlps]
        now = [*networks, *(trained.mlp.records_dense_gradient for trained in (self.actor, *self.critics))]
        if anew or not all(map(operator.is_, now, self._equipped_for)):
            self._equipped_for = now
            parts = min(usable_threads(self.threads), self.tiles)
            for trained in (self.actor, *self.critics):
                trained.reserve(parts)
            self.structs = [Struct(self._arrays(part)) for part in range(parts)]
            self.moves = Struct(tuple(self._moves()))

    def _arrays(self, part: int) -> Any:
        """Give what a thread works on."""
        raise NotImplementedError

    def _common_arrays(self, part: int) -> dict[str, Any]:
        """Give what it has in both algorithms, by field of ``TD3Arrays`` and ``SACArrays``."""
        batch = self.batch
        return {
            "actor": self._learner(self.actor, part, self.actor_activations),
            "critics": tuple(self._learner(critic, part) for critic in self.critics),
            "critic_targets": tuple(structure_of(target).network for target in self.critic_targets),
            "critic_scratch": self._scratch(self.critic_targets[0]),
            **{name: getattr(batch, name) for name in ("inputs", "next_inputs", "returns", "terminated", "discounts")},
            **{name: getattr(self, name) for name in ("values", "target", "grad_value", "grad_actions")},
            "found": np.zeros(3),
        }

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

    def _do(self, job: int, count: int | None = None) -> Work:
        """
        Have the team do a job.

        :param job: code of the job
        :param count: number of tiles, by default those of the batch
        """
        split = self._split(self.tiles if count is None else count)
        self.team.do(getattr(self.kernels, self.kernel), self.structs, job, split)
        total, gradients, log_probs = sum(struct.arrays.found for struct in self.structs[: len(split)]).tolist()
        return Work(total, math.isfinite(gradients), log_probs, len(split))

    def _split(self, count: int) -> list[Share]:
        """Share tiles out to threads."""
        parts = max(1, min(len(self.structs), count))
        if parts > 1 and any(network.mlp.records_dense_gradient for network in (self.actor, *self.critics)):
            parts = 1  # what is recorded is one pass over the whole batch
        return _portions(count, parts)

    def _run_shared(self, name: str, struct: Struct, job: int, count: int) -> None:
        """Run a kernel of the group ``"optimizer"``, see :func:`sb3_rlx2.adam.run_alone`."""
        parts = len(self.structs)
        self.team.do(getattr(load_kernels("optimizer"), name), [struct] * parts, job, _portions(count, parts))

    def _record(self, networks: Sequence[TrainedNetwork], learners: Sequence[Learner]) -> None:
        """Tell networks where their dense gradients lie, if the next optimizer step is a topology update."""
        for network, learner in zip(networks, learners, strict=True):
            if network.mlp.records_dense_gradient:
                record_dense_gradients(network.mlp, self.batch.inputs, learner.activations, learner.gradients)

    def _step(self, name: str, networks: Sequence[TrainedNetwork], work: Work) -> None:
        """Let the optimizer step; plain Adam's own arithmetic is done by kernel."""
        updater, adam = self.policy.topology_updater, self.adams[name]
        by_kernel = adam.has_hooks(1, 1) and adam.serves()
        for network in networks:
            network.publish_gradients()
            if not (by_kernel and work.finite):
                network.add_gradients(work.threads)
        if not by_kernel:
            adam.optimizer.step()
            self._equip()
            return
        updater.before_step(updater.networks[name], work.finite)
        if networks[0].values.grad is not None:  # else a topology update has taken the step's place
            gradients = [addresses for network in networks for addresses in network.addresses]
            adam.step(gradients, work.threads if work.finite else 1, self._run_shared)
        else:
            self._equip()
        updater.after_step(updater.networks[name])

    def _move_targets(self) -> None:
        """As SB3's ``polyak_update``."""
        self.tau[0] = self.model.tau
        self._run_shared("polyak", self.moves, 0, lines([arrays.values for arrays in self.moves.arrays]))

    def _moves(self) -> list[PolyakArrays]:
        """Give all parameters that have a target, and their targets."""
        pairs = [(structure_of(mlp).network, structure_of(target).network) for mlp, target in self._targets()]
        return [
            PolyakArrays(a, b, self.tau)
            for online, behind in pairs
            for a, b in ((online.values, behind.values), (online.bias, behind.bias))
        ]

    def _targets(self) -> list[tuple[SparseMLP, SparseMLP]]:
        """Give the networks that have a target, and their targets."""
        return [(critic.mlp, target) for critic, target in zip(self.critics, self.critic_targets, strict=True)]


def _portions(count: int, parts: int) -> list[Share]:
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
