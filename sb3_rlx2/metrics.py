"""What an agent weighs and what its training costs, for itself and relative to the dense agent of the same shape."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_rlx2.sparse_mlp import LayerSpec, SparseMLP

# FLOPs of training in Table 2 of the paper are those of the actor and of both critics, weighted like this. The paper does
# not say so: it is what gives TD3's four figures from the sparsities. SAC's figures follow no weighting of the two.
PAPER_TRAINING_WEIGHTS = (2, 3)


def sparse_mlps(module: nn.Module | None) -> list[SparseMLP]:
    """
    Find the sparse networks inside a module.

    :param module: a policy, an actor, a critic
    :return: its sparse networks
    """
    return [] if module is None else [mlp for mlp in module.modules() if isinstance(mlp, SparseMLP)]


def density(module: nn.Module) -> float:
    """
    Share of live weights in the sparse networks of a module, 1 if it has none; biases are not counted.

    :param module: a policy, an actor, a critic
    """
    mlps = sparse_mlps(module)
    return sum(mlp.nnz for mlp in mlps) / sum(mlp.size for mlp in mlps) if mlps else 1.0


def parameter_bytes(module: nn.Module) -> tuple[int, int]:
    """
    Bytes of a module's parameters and of what they would be if its sparse networks were dense. Indices are not counted.

    :param module: a policy, an actor, a critic
    :return: bytes as it is, bytes as dense
    """
    sparse = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    zeros = sum((mlp.size - mlp.nnz) * mlp.values.element_size() for mlp in sparse_mlps(module))
    return sparse, sparse + zeros


class DenseHead(NamedTuple):
    """
    Stands for a network of SB3's own, which holds all its links.

    :param layers: sizes of its layers
    """

    layers: Sequence[LayerSpec]


def heads(module: nn.Module) -> Sequence[SparseMLP | DenseHead]:
    """
    Find the networks of an actor or of critics behind their features extractor, sparse or SB3's own.

    :param module: an actor, or a critic that may hold several Q-networks
    """
    return sparse_mlps(module) or [
        DenseHead([LayerSpec(linear.in_features, linear.out_features, linear.weight.numel()) for linear in _linears(net)])
        for net in getattr(module, "q_networks", [module])
    ]


def _linears(module: nn.Module) -> list[nn.Linear]:
    named = module.named_modules()
    return [part for name, part in named if isinstance(part, nn.Linear) and not name.startswith("features_extractor")]


@dataclass(frozen=True)
class PassFlops:
    """
    FLOPs of one network for one sample; a multiplication and an addition are two. Activations and biases are not counted.

    :param forward: the forward pass
    :param grad_weights: gradient by the weights
    :param grad_hidden: gradient by the inputs of all layers but the first
    :param grad_input: gradient by the network's input
    """

    forward: float
    grad_weights: float
    grad_hidden: float
    grad_input: float

    @property
    def training(self) -> float:
        """Forward and backward, where nothing needs the gradient by the input."""
        return self.forward + self.grad_weights + self.grad_hidden


def pass_flops(mlp: SparseMLP | DenseHead, dense: bool = False) -> PassFlops:
    """
    Count one network.

    :param mlp: the network, see :func:`heads`
    :param dense: count it as if it were dense
    """
    counts = [layer.size if dense else layer.nnz for layer in mlp.layers]
    return PassFlops(2 * sum(counts), 2 * sum(counts), 2 * sum(counts[1:]), 2 * counts[0])


def inference_flops(actor: nn.Module, dense: bool = False) -> float:
    """
    FLOPs to choose one action.

    :param actor: the actor
    :param dense: count it as if it were dense
    """
    return _sum(_count(actor, dense), "forward")


def td3_step_flops(
    actor: nn.Module, critic: nn.Module, policy_delay: float = 2, dense: bool = False, discards: bool = True
) -> float:
    """
    FLOPs of a gradient step of SB3's TD3, per sample, in the heads (features extractors are dense in both).

    :param actor: the actor
    :param critic: the critics
    :param policy_delay: critic updates per actor update
    :param dense: count it as if all heads were dense
    :param discards: whether the actor's loss also computes the gradient by the critic's weights and throws it away, as SB3
    """
    pi, q = _count(actor, dense), _count(critic, dense)
    critic_update = _sum(pi, "forward") + _sum(q, "forward") + _sum(q, "training")
    actor_update = _sum(pi, "training") + q[0].training + q[0].grad_input - (0 if discards else q[0].grad_weights)
    return critic_update + actor_update / policy_delay


def sac_step_flops(
    actor: nn.Module, critic: nn.Module, entropy_states: float = 0.0, dense: bool = False, discards: bool = True
) -> float:
    """
    FLOPs of a gradient step of SB3's SAC, per sample, in the heads (features extractors are dense in both).

    :param actor: the actor
    :param critic: the critics
    :param entropy_states: states on the way whose entropy the soft n-step return asks for, ``n_steps - 1``
    :param dense: count it as if all heads were dense
    :param discards: whether the actor's loss also computes the gradient by the critic's weights and throws it away, as SB3
    """
    pi, q = _count(actor, dense), _count(critic, dense)
    critic_update = _sum(pi, "forward") + _sum(q, "forward") + _sum(q, "training")
    actor_update = _sum(pi, "training") + _sum(q, "training") + _sum(q, "grad_input")
    actor_update -= 0 if discards else _sum(q, "grad_weights")
    return critic_update + actor_update + entropy_states * _sum(pi, "forward")


def step_flops(model: Any, dense: bool = False) -> float:
    """
    FLOPs of one gradient step, per sample, of a model as it stands (its n in force included).

    :param model: SB3's TD3 (which has a ``policy_delay``) or SAC, sparse or not
    :param dense: count it as if all heads were dense
    """
    discards = dense or getattr(model, "_steps", None) is None  # gradient steps in arrays do not
    if hasattr(model, "policy_delay"):
        return td3_step_flops(model.actor, model.critic, model.policy_delay, dense, discards)
    soft = getattr(model.replay_buffer, "uses_entropy_bonus", False)
    return sac_step_flops(model.actor, model.critic, model.replay_buffer.n_steps - 1 if soft else 0, dense, discards)


def paper_training_flops(actor_weights: float, critic_weights: float) -> float:
    """
    FLOPs of training under the counting of the paper's Table 2, in a unit that only ratios are free of.

    :param actor_weights: live weights of TD3's actor
    :param critic_weights: live weights of both critics
    """
    return PAPER_TRAINING_WEIGHTS[0] * actor_weights + PAPER_TRAINING_WEIGHTS[1] * critic_weights


@dataclass(frozen=True)
class Cost:
    """
    What an agent costs, in absolute numbers; the paper's figures are ratios of two of these.

    :param weights: live weights with their targets, biases not counted: the paper's "total size"
    :param paper_training_flops: the paper's training FLOPs, see :func:`paper_training_flops`; None for SAC
    :param training_flops: FLOPs of a gradient step, per sample, as it is really done
    :param inference_flops: FLOPs to choose one action
    :param memory_bytes: what training holds in memory for the networks: parameters, indices, targets, moments
    :param disk_bytes: size of the saved agent
    """

    weights: int
    paper_training_flops: float | None
    training_flops: float
    inference_flops: float
    memory_bytes: int
    disk_bytes: int


def cost(model: Any) -> Cost:
    """
    Measure an agent.

    :param model: SB3's TD3 or SAC, sparse or not
    """
    parts = ("actor", "actor_target", "critic", "critic_target")
    weights = {name: _weights(getattr(model, name)) for name in parts if isinstance(getattr(model, name, None), nn.Module)}
    saved = io.BytesIO()
    model.save(saved)
    return Cost(
        weights=sum(weights.values()),
        paper_training_flops=paper_training_flops(weights["actor"], weights["critic"]) if "actor_target" in weights else None,
        training_flops=step_flops(model),
        inference_flops=inference_flops(model.actor),
        memory_bytes=memory_bytes(model.policy),
        disk_bytes=saved.getbuffer().nbytes,
    )


def memory_bytes(policy: Any) -> int:
    """
    Bytes that training holds for a policy's networks: parameters, indices, targets and the optimizers' state.

    :param policy: SB3's TD3 or SAC policy, sparse or not
    """
    tensors = [*policy.parameters(), *policy.buffers()]
    for network in (policy.actor, policy.critic):
        tensors += [state for of_one in network.optimizer.state.values() for state in of_one.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, th.Tensor))


def _weights(module: nn.Module) -> int:
    return sum(layer.nnz for head in heads(module) for layer in head.layers)


def summary(model: Any) -> str:
    """
    Lay out a model's sparse networks as text: a row per layer, then size and FLOPs against dense.

    :param model: SB3's TD3 or SAC with a sparse policy
    """
    rows = []
    for name, mlp in [*model.actor.named_modules(prefix="actor"), *model.critic.named_modules(prefix="critic")]:
        if isinstance(mlp, SparseMLP):
            for number, layer in enumerate(mlp.layers):
                shape = f"{layer.out_features} x {layer.in_features}"
                rows.append((f"{name}.{number}", shape, f"{layer.nnz:,}", f"{1 - layer.nnz / layer.size:.1%}"))
    size, dense_size = parameter_bytes(model.policy)
    totals = [
        ("parameters, with targets", size / 1e3, dense_size / 1e3, "kB"),
        ("inference", inference_flops(model.actor) / 1e3, inference_flops(model.actor, dense=True) / 1e3, "kFLOP"),
        ("training, per sample", step_flops(model) / 1e3, step_flops(model, dense=True) / 1e3, "kFLOP"),
    ]
    lines = [f"{'layer':<28}{'shape':>12}{'nnz':>10}{'sparsity':>10}"]
    lines += [f"{name:<28}{shape:>12}{nnz:>10}{sparsity:>10}" for name, shape, nnz, sparsity in rows]
    lines += [f"{name}: {own:,.1f} {unit}, {own / dense:.1%} of the dense {dense:,.1f}" for name, own, dense, unit in totals]
    return "\n".join(lines)


def _count(module: nn.Module, dense: bool) -> list[PassFlops]:
    return [pass_flops(mlp, dense) for mlp in heads(module)]


def _sum(passes: Sequence[PassFlops], field: str) -> float:
    return float(sum(getattr(one, field) for one in passes))
