"""A saved agent, read for its networks alone: no environment, no replay buffer, no optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_rlx2 import metrics
from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.checkpoint.archive import CHECKPOINT, opened, read_pickled, why_no_agent
from sb3_rlx2.paths import find_paths
from sb3_rlx2.plan import LEAST, gradient_steps_per_step, is_share, steps_of
from sb3_rlx2.sparse_mlp import SparseMLP, sparse_mlps


@dataclass(frozen=True)
class Network:
    """
    A head of an agent.

    :param kind: ``"actor"``, ``"critic"``; twins are of one kind
    :param name: ``"actor"``, ``"critic 1"``
    :param attribute: the policy's, as which it is logged, too
    :param weights: weights of each layer, ``[out, in]``; NaN where there is no link
    :param alive: whether a link lies on a path from an input to an output, likewise
    :param units: number of inputs, of units of each layer and of outputs that lie on such a path
    """

    kind: str
    name: str
    attribute: str
    weights: Sequence[np.ndarray]
    alive: Sequence[np.ndarray]
    units: Sequence[int]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Number of links of each layer, and of a dense one's."""
        return [(int(np.isfinite(weight).sum()), weight.size) for weight in self.weights]

    @property
    def shape(self) -> list[int]:
        """Number of inputs, of units of each layer and of outputs."""
        return [self.weights[0].shape[1], *(len(weight) for weight in self.weights)]

    @property
    def idle_links(self) -> int:
        """Number of links on no path."""
        return sum(int((np.isfinite(weight) & ~alive).sum()) for weight, alive in zip(self.weights, self.alive, strict=True))

    @property
    def input_links(self) -> np.ndarray:
        """Number of links of each input."""
        return np.asarray(np.isfinite(self.weights[0]).sum(axis=0))


@dataclass(frozen=True)
class Agent:
    """
    A saved agent.

    :param path: its file, or the folder of its checkpoint
    :param algorithm: name of the class of its policy
    :param steps: environment steps of training when it was saved
    :param total_steps: environment steps that its training was to have
    :param settings: RLx2's settings that it was saved with
    :param networks: those that choose actions first; empty if it is no off-policy agent
    :param is_sparse: whether its networks are sparse
    :param observations: number of observation dimensions, None if a features extractor comes before the networks
    :param counters: optimizer steps and topology updates of each network, by its attribute; empty if it is dense
    :param has_warm_up_links: whether its first layers were chosen by what the warm-up showed
    :param acting_bytes: bytes of the parameters of the network that acts, and of a dense one's
    :param parameter_bytes: bytes of all parameters with targets, likewise
    :param index_bytes: bytes of the positions of the links of the network that acts, and of all
    :param inference_flops: FLOPs for one action, and a dense agent's
    :param dense_step_flops: FLOPs of a dense agent's gradient step, per sample; None if they are not known
    """

    path: Path
    algorithm: str
    steps: int
    total_steps: int
    settings: dict[str, Any]
    networks: Sequence[Network] = ()
    is_sparse: bool = False
    observations: int | None = None
    counters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    has_warm_up_links: bool = False
    acting_bytes: tuple[int, int] = (0, 0)
    parameter_bytes: tuple[int, int] = (0, 0)
    index_bytes: tuple[int, int] = (0, 0)
    inference_flops: tuple[float, float] = (0.0, 0.0)
    dense_step_flops: float | None = None

    @property
    def kinds(self) -> list[list[Network]]:
        """The networks, twins together."""
        kinds = dict.fromkeys(network.kind for network in self.networks)
        return [[network for network in self.networks if network.kind == kind] for kind in kinds]

    @property
    def is_final(self) -> bool:
        """Whether this is what training saved at its end."""
        on_the_way = self.steps < self.total_steps or CHECKPOINT.fullmatch(self.path.stem) is not None
        return self.path.stem != "best_model" and not on_the_way


SETTINGS = (
    *("learning_starts", "buffer_size", "buffer_min_size", "buffer_check_interval", "policy_distance_threshold"),
    *("n_steps", "n_steps_delay", "topology", "update_interval", "hidden_weights", "seed"),
)


def read_agent(path: Path) -> Agent:
    """
    Read a saved agent.

    :param path: the file, or the folder of a checkpoint
    :raises ValueError: if it is no saved agent or damaged
    """
    reason = why_no_agent(path)
    if reason is not None:
        raise ValueError(f"it {reason}")
    constants = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0}  # code that another Python may not be able to load
    with opened(path) as file:
        data, parameters, _ = load_from_zip_file(file, device="cpu", custom_objects=read_pickled(path, constants))
    assert data is not None
    policy = _build_policy(data)
    if policy is not None:
        policy.load_state_dict(parameters["policy"])
    own = {"path": path, "algorithm": data["policy_class"].__name__.removesuffix("Policy")}
    own |= {"steps": int(data["num_timesteps"]), "total_steps": int(data.get("_total_timesteps") or 0)}
    own["settings"] = {name: _setting(name, data) for name in SETTINGS if name in data}
    return Agent(**own, **({} if policy is None else _read_networks(policy, data)))


def _read_networks(policy: Any, data: dict[str, Any]) -> dict[str, Any]:
    sparse, acting = sparse_mlps(policy), metrics.acting_network(policy)
    updater = getattr(policy, "topology_updater", None)
    flattens = isinstance(acting.features_extractor, FlattenExtractor)
    return {
        "networks": _networks(policy),
        "is_sparse": bool(sparse),
        "observations": get_flattened_obs_dim(data["observation_space"]) if flattens else None,
        "counters": {name: (net.steps, net.updates) for name, net in updater.networks.items()} if updater else {},
        "has_warm_up_links": updater is not None and updater.has_warm_up_links,
        "acting_bytes": metrics.parameter_bytes(acting),
        "parameter_bytes": metrics.parameter_bytes(policy),
        "index_bytes": (_index_bytes(sparse_mlps(acting)), _index_bytes(sparse)),
        "inference_flops": (metrics.inference_flops(acting), metrics.inference_flops(acting, dense=True)),
        "dense_step_flops": _dense_step_flops(policy, data),
    }


def _index_bytes(mlps: Sequence[SparseMLP]) -> int:
    return sum(index.nbytes for index in {mlp.index.data_ptr(): mlp.index for mlp in mlps}.values())


def _dense_step_flops(policy: Any, data: dict[str, Any]) -> float | None:
    """Count as the algorithm does, which is not built."""
    formula = metrics.step_formula(policy)
    return None if formula is None else formula(policy, _step_settings(policy, data), True)


def _step_settings(policy: Any, data: dict[str, Any]) -> metrics.StepSettings:
    """Give what a gradient step depends on in training, with the n that is in force at its end."""
    buffer = data.get("replay_buffer_class") or RLx2ReplayBuffer
    lends = issubclass(buffer, RLx2ReplayBuffer) and hasattr(policy, "entropy_bonus") and data.get("soft_n_step", True)
    return metrics.StepSettings(data.get("policy_delay", 1), data.get("n_steps", 1) - 1 if lends else 0)


def _setting(name: str, data: dict[str, Any]) -> Any:
    """Give an argument, in steps where it is a share of the planned ones."""
    value, total = data[name], data.get("_total_timesteps")
    if name not in LEAST or not is_share(value) or not total:
        return value
    per_step = gradient_steps_per_step(SimpleNamespace(**data), None) if name == "update_interval" else 1.0  # type: ignore[arg-type]
    steps = steps_of(name, value, total * per_step)
    return min(steps, data["buffer_size"]) if name == "buffer_min_size" else steps


def _build_policy(data: dict[str, Any]) -> Any:
    """Build the policy as the algorithm does, which would ask for an environment or a buffer's memory."""
    if "buffer_size" not in data:  # as off-policy algorithms have it
        return None
    policy_class = data["policy_class"]
    own = policy_class.keywords() if issubclass(policy_class, SparsePolicy) else ()
    keywords = data["policy_kwargs"] | {name: data[name] for name in own if name in data}
    return policy_class(data["observation_space"], data["action_space"], lambda _: 0.0, **keywords)


def network_name(attribute: str) -> str:
    """
    Say what a network of a policy is.

    :param attribute: the policy's attribute, as which it is logged, too
    """
    return {"q_net": "Q-network", "quantile_net": "quantile network"}.get(attribute, attribute)


def _networks(policy: Any) -> list[Network]:
    networks = []
    for attribute, module in metrics.trained_networks(policy).items():
        name = network_name(attribute)
        twins = [_sparse(mlp) for mlp in sparse_mlps(module)] or [
            _dense(weights) for weights in _dense_weights(attribute, module)
        ]
        for number, parts in enumerate(twins, 1):
            networks.append(Network(name, f"{name} {number}" if attribute == "critic" else name, attribute, *parts))
    return networks


def _sparse(mlp: SparseMLP) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Give weights of each layer, whether they are on a path, and the number of units that are."""
    paths, weights = find_paths(mlp), _weights(mlp)
    alive = [np.zeros(weight.shape, bool) for weight in weights]
    for number, mask in enumerate(alive):
        mask.flat[mlp.layer_index(number).numpy()] = paths.alive[number].numpy()
    return weights, alive, paths.units


def _dense(weights: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    return weights, [np.ones(weight.shape, bool) for weight in weights], [weights[0].shape[1], *map(len, weights)]


def _dense_weights(attribute: str, network: Any) -> list[list[np.ndarray]]:
    if hasattr(network, "q_networks"):
        return [_weights(net) for net in network.q_networks]
    if hasattr(network, "latent_pi"):  # dense SAC: its two last layers together, as our sparse one has them
        last = [_weights(layer)[0] for layer in (network.mu, network.log_std) if not isinstance(layer, nn.Parameter)]
        return [[*_weights(network.latent_pi), np.concatenate(last)]]
    head = _weights(network.mu if attribute == "actor" else getattr(network, attribute))
    return [[*(layer.weight.detach().numpy() for layer in metrics.wide_layer(network)), *head]]


def _weights(net: nn.Module) -> list[np.ndarray]:
    if not isinstance(net, SparseMLP):
        return [layer.weight.detach().numpy() for layer in net.modules() if isinstance(layer, nn.Linear)]
    values = net.values.detach().numpy()
    weights = [np.full(layer.size, np.nan, values.dtype) for layer in net.layers]
    for number, (layer, weight) in enumerate(zip(net.layers, weights, strict=True)):
        weight[net.layer_index(number).numpy()] = values[net.slices[number]]
        weights[number] = weight.reshape(layer.shape)
    return weights
