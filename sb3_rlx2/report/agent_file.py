"""A saved agent, read for its networks alone: no environment, no replay buffer, no optimizer."""

import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_rlx2 import metrics
from sb3_rlx2.algorithms import POLICY_KEYWORDS
from sb3_rlx2.sparse_mlp import SparseMLP

CHECKPOINT = re.compile(r".*_(\d+)_steps")  # as SB3's CheckpointCallback names them


@dataclass(frozen=True)
class Network:
    """
    A head of an agent.

    :param name: ``"actor"``, ``"critic 1"``
    :param weights: weights of each layer, ``[out, in]``; NaN where there is no link
    """

    name: str
    weights: Sequence[np.ndarray]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Number of links of each layer, and of a dense one's."""
        return [(int(np.isfinite(weight).sum()), weight.size) for weight in self.weights]

    @property
    def input_links(self) -> np.ndarray:
        """Number of links of each input."""
        return np.asarray(np.isfinite(self.weights[0]).sum(axis=0))


@dataclass(frozen=True)
class Agent:
    """
    A saved agent.

    :param path: its file
    :param algorithm: name of the class of its policy
    :param steps: environment steps of training when it was saved
    :param total_steps: environment steps that its training was to have
    :param networks: actor and critics; empty if it is neither TD3's nor SAC's
    :param is_sparse: whether its networks are sparse
    :param observations: number of observation dimensions, None if a features extractor comes before the networks
    :param parameter_bytes: bytes of all parameters with targets, and of a dense agent's
    :param index_bytes: bytes of the positions of the links
    :param inference_flops: FLOPs for one action, and a dense agent's; None if it is dense
    :param settings: RLx2's settings that it was saved with
    """

    path: Path
    algorithm: str
    steps: int
    total_steps: int
    networks: Sequence[Network]
    is_sparse: bool
    observations: int | None
    parameter_bytes: tuple[int, int]
    index_bytes: int
    inference_flops: tuple[float, float] | None
    settings: dict[str, Any]

    @property
    def is_final(self) -> bool:
        """Whether this is what training saved at its end."""
        return self.path.stem != "best_model" and CHECKPOINT.fullmatch(self.path.stem) is None


SETTINGS = ("buffer_size", "buffer_min_size", "policy_distance_threshold", "n_steps", "topology", "update_interval", "seed")


def holds_agent(path: Path) -> bool:
    """
    Tell whether a file is an archive with the parts of an agent.

    :param path: the file
    """
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return {"data", "policy.pth"} <= set(archive.namelist())
    return False


def read_agent(path: Path) -> Agent:
    """
    Read a saved agent.

    :param path: the file
    :raise ValueError: if it is no saved agent or damaged
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} is damaged")
    if not holds_agent(path):  # a torn file may open as the archive inside it
        raise ValueError("it is not an agent saved by Stable-Baselines3")
    constants = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0}  # code that another Python may not be able to load
    data, parameters, _ = load_from_zip_file(path, device="cpu", custom_objects=constants)
    assert data is not None
    policy = _build_policy(data)
    if policy is not None:
        policy.load_state_dict(parameters["policy"])
    sparse = metrics.sparse_mlps(policy)
    flat = policy is not None and isinstance(policy.actor.features_extractor, FlattenExtractor)
    return Agent(
        path=path,
        algorithm=data["policy_class"].__name__.removesuffix("Policy"),
        steps=int(data["num_timesteps"]),
        total_steps=int(data.get("_total_timesteps") or 0),
        networks=[] if policy is None else _networks(policy),
        is_sparse=bool(sparse),
        observations=get_flattened_obs_dim(data["observation_space"]) if flat else None,
        parameter_bytes=(0, 0) if policy is None else metrics.parameter_bytes(policy),
        index_bytes=sum(index.nbytes for index in {mlp.index.data_ptr(): mlp.index for mlp in sparse}.values()),
        inference_flops=_inference_flops(policy) if sparse else None,
        settings={name: data[name] for name in SETTINGS if name in data},
    )


def _build_policy(data: dict[str, Any]) -> Any:
    """Build the policy as the algorithm does, which would ask for an environment or a buffer's memory."""
    policy_class = data["policy_class"]
    if not issubclass(policy_class, TD3Policy | SACPolicy):
        return None
    keywords = data["policy_kwargs"] | {name: data[name] for name in POLICY_KEYWORDS if name in data}
    return policy_class(data["observation_space"], data["action_space"], lambda _: 0.0, **keywords)


def _inference_flops(policy: Any) -> tuple[float, float]:
    return metrics.inference_flops(policy.actor), metrics.inference_flops(policy.actor, dense=True)


def _networks(policy: Any) -> list[Network]:
    critics = [Network(f"critic {number}", _weights(net)) for number, net in enumerate(policy.critic.q_networks, 1)]
    return [Network("actor", _actor_weights(policy.actor)), *critics]


def _actor_weights(actor: Any) -> list[np.ndarray]:
    heads = metrics.sparse_mlps(actor)
    if heads:
        return _weights(heads[0])
    if hasattr(actor, "latent_pi"):  # dense SAC: its two last layers together, as our sparse one has them
        last = [_weights(layer)[0] for layer in (actor.mu, actor.log_std) if not isinstance(layer, nn.Parameter)]
        return [*_weights(actor.latent_pi), np.concatenate(last)]
    return _weights(actor.mu)


def _weights(net: nn.Module) -> list[np.ndarray]:
    if not isinstance(net, SparseMLP):
        return [layer.weight.detach().numpy() for layer in net.modules() if isinstance(layer, nn.Linear)]
    values = net.values.detach().numpy()
    weights = [np.full(layer.size, np.nan, values.dtype) for layer in net.layers]
    for number, (layer, weight) in enumerate(zip(net.layers, weights, strict=True)):
        weight[net.layer_index(number).numpy()] = values[net.slices[number]]
        weights[number] = weight.reshape(layer.shape)
    return weights
