"""What an agent weighs and what its training costs, for itself and relative to the dense agent of the same shape."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.sparse_mlp import SparseMLP, is_normalisation, sparse_mlps
from sb3_rlx2.summary import LayerRow as LayerRow
from sb3_rlx2.summary import Total, as_html, as_text

# FLOPs of training in Table 2 of the paper are those of the actor and of both critics, weighted like this. The paper does
# not say so: it is what gives TD3's four figures from the sparsities. SAC's figures follow no weighting of the two.
PAPER_TRAINING_WEIGHTS = (2, 3)


# Networks that SB3's off-policy algorithms train, by the attribute of their policy; the first one that is there acts.
HOST_NETWORKS = ("actor", "critic", "q_net", "quantile_net")


def trained_networks(policy: Any) -> dict[str, nn.Module]:
    """
    Give the networks that an algorithm trains, by the attribute of its policy. The first one acts.

    :param policy: a policy, sparse or SB3's own
    """
    names = getattr(policy, "networks", HOST_NETWORKS)
    return {name: policy._modules[name] for name in names if name in policy._modules}


def acting_network(policy: Any) -> nn.Module:
    """
    Give the network that chooses actions.

    :param policy: a policy, sparse or SB3's own
    """
    return next(iter(trained_networks(policy).values()))


def density(module: nn.Module) -> float:
    """
    Share of live weights in the sparse networks of a module, 1 if it has none; biases are not counted.

    :param module: a policy, an actor, a critic
    """
    mlps = sparse_mlps(module)
    return sum(mlp.nnz for mlp in mlps) / sum(mlp.size for mlp in mlps) if mlps else 1.0


def live_weights(policy: Any) -> dict[str, tuple[int, int]]:
    """
    Count the live weights of each sparse network, and all that it would have as a dense one; biases are not counted.

    :param policy: a policy; one without sparse networks gives nothing
    """
    networks = {name: sparse_mlps(network) for name, network in trained_networks(policy).items()}
    return {name: (sum(mlp.nnz for mlp in mlps), sum(mlp.size for mlp in mlps)) for name, mlps in networks.items() if mlps}


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
    :param norms: normalisations before them, None if there are none
    :param frozen_layers: number of layers that do not learn
    """

    layers: Sequence[LayerSpec]
    norms: Sequence[nn.Module] | None = None
    frozen_layers: int = 0


def heads(module: nn.Module) -> Sequence[SparseMLP | DenseHead]:
    """
    Find the networks of an actor or of critics behind their features extractor, sparse or SB3's own.

    :param module: an actor, or a critic that may hold several Q-networks
    """
    return sparse_mlps(module) or [_dense_head(net) for net in getattr(module, "q_networks", [module])]


def _dense_head(network: nn.Module) -> DenseHead:
    parts = [part for name, part in network.named_modules() if not name.startswith("features_extractor")]
    linears = [*wide_layer(network), *(part for part in parts if isinstance(part, nn.Linear))]
    layers = [LayerSpec(linear.in_features, linear.out_features, linear.weight.numel()) for linear in linears]
    return DenseHead(layers, [part for part in parts if is_normalisation(part)] or None)


def wide_layer(network: nn.Module) -> list[nn.Linear]:
    """
    Give the layer behind the convolutions of SB3's ``NatureCNN`` in a network that values actions: it counts as the first one
    of the head, because in our networks, behind a ``ConvExtractor``, it is.

    :param network: a network of SB3's own
    :return: the layer, or nothing
    """
    extractor = getattr(network, "features_extractor", None)
    values_actions = any(hasattr(network, name) for name in ("q_net", "quantile_net"))
    if not values_actions or not isinstance(extractor, NatureCNN):
        return []
    return [layer for layer in extractor.linear if isinstance(layer, nn.Linear)]


@dataclass(frozen=True)
class PassFlops:
    """
    FLOPs of one network for one sample; a multiplication and an addition are two. Activations, biases and normalisations
    are not counted.

    :param forward: the forward pass
    :param grad_weights: gradient by the weights that learn
    :param grad_hidden: gradient by the inputs of all layers but the first that learns; also of that, if a normalisation before
        it learns
    :param grad_input: gradient by the network's input, from there on down
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
    frozen = 0 if dense else mlp.frozen_layers
    down_to = frozen + (mlp.norms is None)
    return PassFlops(2 * sum(counts), 2 * sum(counts[frozen:]), 2 * sum(counts[down_to:]), 2 * sum(counts[:down_to]))


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


def crossq_step_flops(
    actor: nn.Module, critic: nn.Module, policy_delay: float = 3, entropy_states: float = 0.0, dense: bool = False
) -> float:
    """
    FLOPs of a gradient step of sb3-contrib's CrossQ, per sample, in the heads (features extractors are dense in both). There
    are no targets: the critics compute states and next states together, forward and backward.

    :param actor: the actor
    :param critic: the critics
    :param policy_delay: critic updates per actor update
    :param entropy_states: states on the way whose entropy the soft n-step return asks for, ``n_steps - 1``
    :param dense: count it as if all heads were dense
    """
    pi, q = _count(actor, dense), _count(critic, dense)
    critic_update = (1 + entropy_states) * _sum(pi, "forward") + 2 * _sum(q, "training")
    actor_update = _sum(pi, "training") + _sum(q, "training") + _sum(q, "grad_input")
    return critic_update + actor_update / policy_delay


def value_step_flops(network: nn.Module, dense: bool = False) -> float:
    """
    FLOPs of a gradient step of SB3's DQN or QR-DQN, per sample, behind the features extractor (which is dense in both), and
    with the gradient that it learns from.

    :param network: the Q-network or quantile network
    :param dense: count it as if it were dense
    """
    counted, extractor = _count(network, dense), network.features_extractor
    learns = any(parameter.requires_grad for parameter in extractor.parameters())  # type: ignore[union-attr]
    back = _sum(counted, "grad_input") if learns else 0.0
    return _sum(counted, "forward") + _sum(counted, "training") + back


class StepSettings(NamedTuple):
    """
    What the FLOPs of a gradient step depend on beside the networks.

    :param policy_delay: critic updates per actor update, where there is one
    :param entropy_states: states on the way whose entropy the soft n-step return asks for, ``n_steps - 1``
    :param discards: whether the actor's loss also computes the gradient by the critic's weights and throws it away, as SB3
    """

    policy_delay: float = 1
    entropy_states: float = 0
    discards: bool = True

    @classmethod
    def of(cls, model: Any) -> "StepSettings":
        """
        Take them from a model as it stands.

        :param model: one of SB3's algorithms, sparse or not
        """
        buffer: Any = getattr(model, "replay_buffer", None)
        entropy_states = buffer.n_steps - 1 if getattr(buffer, "uses_entropy_bonus", False) else 0
        discards = getattr(model, "_steps", None) is None  # gradient steps in arrays do not
        return cls(getattr(model, "policy_delay", 1), entropy_states, discards)


# FLOPs of a gradient step, of a policy in training with these settings; whether it is counted as dense.
StepFormula = Callable[[Any, StepSettings, bool], float]


def step_flops(model: Any, dense: bool = False) -> float:
    """
    FLOPs of one gradient step, per sample, of a model as it stands (its n in force included).

    :param model: one of SB3's algorithms that ``STEP_FLOPS`` knows, or a subclass, sparse or not
    :param dense: count it as if all heads were dense
    :raises ValueError: if it is another one
    """
    formula = step_formula(model)
    if formula is None:
        raise ValueError(f"the gradient step of {type(model).__name__} is not known, only those of {', '.join(STEP_FLOPS)}")
    return formula(model.policy, StepSettings.of(model), dense)


def step_formula(model: Any) -> StepFormula | None:
    """
    Find how a model's gradient step is counted.

    :param model: the algorithm; or its policy, whose class SB3 names after it
    :return: a function of the policy, of :class:`StepSettings` and of whether to count it as dense; None if there is none
    """
    names = [cls.__name__.removesuffix("Policy") for cls in type(model).__mro__]
    return next((STEP_FLOPS[name] for name in names if name in STEP_FLOPS), None)


def _td3(policy: Any, settings: StepSettings, dense: bool) -> float:
    discards = dense or settings.discards
    return td3_step_flops(policy.actor, policy.critic, settings.policy_delay, dense, discards)


def _sac(policy: Any, settings: StepSettings, dense: bool) -> float:
    discards = dense or settings.discards
    return sac_step_flops(policy.actor, policy.critic, settings.entropy_states, dense, discards)


def _crossq(policy: Any, settings: StepSettings, dense: bool) -> float:
    return crossq_step_flops(policy.actor, policy.critic, settings.policy_delay, settings.entropy_states, dense)


def _value_based(policy: Any, settings: StepSettings, dense: bool) -> float:
    return value_step_flops(acting_network(policy), dense)


# A gradient step of each of SB3's algorithms, by the name of its class.
STEP_FLOPS: dict[str, StepFormula] = {
    "TD3": _td3,
    "SAC": _sac,
    "TQC": _sac,
    "CrossQ": _crossq,
    "DQN": _value_based,
    "QRDQN": _value_based,
}


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
    :param paper_training_flops: the paper's training FLOPs, see :func:`paper_training_flops`; None without a target actor
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

    :param model: one of SB3's off-policy algorithms, sparse or not
    """
    names = [each for name in trained_networks(model.policy) for each in (name, f"{name}_target")]
    weights = {name: _weights(getattr(model.policy, name)) for name in names if name in model.policy._modules}
    saved = io.BytesIO()
    model.save(saved)
    return Cost(
        weights=sum(weights.values()),
        paper_training_flops=paper_training_flops(weights["actor"], weights["critic"]) if "actor_target" in weights else None,
        training_flops=step_flops(model),
        inference_flops=inference_flops(acting_network(model.policy)),
        memory_bytes=memory_bytes(model.policy),
        disk_bytes=saved.getbuffer().nbytes,
    )


def memory_bytes(policy: Any) -> int:
    """
    Bytes that training holds for a policy's networks: parameters, indices, targets and the optimizers' state.

    :param policy: a policy, sparse or SB3's own
    """
    tensors = [*policy.parameters(), *policy.buffers()]
    networks = trained_networks(policy).values()
    for optimizer in {getattr(network, "optimizer", None) or policy.optimizer for network in networks}:
        tensors += [state for of_one in optimizer.state.values() for state in of_one.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, th.Tensor))


def _weights(module: nn.Module) -> int:
    return sum(layer.nnz for head in heads(module) for layer in head.layers)


def summary(model: Any) -> str:
    """
    Lay out a model's sparse networks as text: a row per layer, then size and FLOPs against dense.

    :param model: one of SB3's off-policy algorithms with a sparse policy
    """
    return as_text(_parts(model), _totals(model))


def summary_html(model: Any) -> str:
    """
    Lay out the same for notebooks.

    :param model: one of SB3's off-policy algorithms with a sparse policy
    """
    return as_html(repr(model), _parts(model), _totals(model))


def _parts(model: Any) -> dict[str, SparseMLP]:
    """Give a model's sparse networks by their names."""
    networks = trained_networks(model.policy).items()
    named = [each for prefix, network in networks for each in network.named_modules(prefix=prefix)]
    return {name: part for name, part in named if isinstance(part, SparseMLP)}


def _totals(model: Any) -> list[Total]:
    acting = acting_network(model.policy)
    totals = [Total("parameters, with targets", *parameter_bytes(model.policy), "kB")]
    totals += [Total("inference", inference_flops(acting), inference_flops(acting, dense=True), "kFLOP")]
    if step_formula(model) is not None:  # else an algorithm of the user's own
        totals += [Total("training, per sample", step_flops(model), step_flops(model, dense=True), "kFLOP")]
    return totals


def _count(module: nn.Module, dense: bool) -> list[PassFlops]:
    return [pass_flops(mlp, dense) for mlp in heads(module)]


def _sum(passes: Sequence[PassFlops], field: str) -> float:
    return float(sum(getattr(one, field) for one in passes))
