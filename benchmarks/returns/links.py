"""Says where the links of an agent are."""

from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_rlx2 import metrics

SMALL = 1e-3  # a weight of at most this size counts as none where L1 makes them small: its sub-gradient never makes them 0


def topology(model: Any) -> list[dict[str, Any]]:
    """Say how many links the trained agent has, and what has none; nothing for a dense agent."""
    rows = []
    for part in getattr(model.policy, "networks", ()):
        for number, mlp in enumerate(metrics.sparse_mlps(getattr(model.policy, part))):
            weights = [weight.detach() for weight in mlp.dense_weights()]
            for at, (layer, weight) in enumerate(zip(mlp.layers, weights, strict=True)):
                live = weight != 0
                used = weights[at + 1].any(dim=0) if at + 1 < len(weights) else th.ones(layer.out_features, dtype=th.bool)
                rows.append(
                    {
                        "layer": f"{part}.{number}.{at}",
                        "shape": list(layer.shape),
                        "links": layer.nnz,
                        "links_above_0.001": int((weight.abs() > SMALL).sum()),
                        "inputs_without_links": int((~live.any(dim=0)).sum()),
                        "units_without_links": int((~(live.any(dim=1) & used)).sum()),
                    }
                )
    return rows


def trained_parameters(model: Any) -> int:
    """Count the weights and biases that learn, without those of target networks."""
    count = 0
    for part in model.policy.networks:
        network = getattr(model.policy, part)
        count += sum(parameter.numel() for parameter in network.parameters())
        for mlp in metrics.sparse_mlps(network):
            frozen = mlp.layers[: mlp.frozen_layers]
            count -= sum(layer.nnz + layer.out_features for layer in frozen)
    return count


def large_before(model: Any, earlier: Any) -> int:
    """
    Count the links of the first layer that are no small weights of the agent that they come from.

    :param model: the agent that has them
    :param earlier: the agent that comes first
    """
    own, before = (metrics.sparse_mlps(each.policy.q_net)[0].dense_weights()[0].detach() for each in (model, earlier))
    return int(((own != 0) & (before.abs() > SMALL)).sum())


def connections(model: Any) -> list[Any] | None:
    """
    Give the share of the first layer's links that each input has; None where a network of several reads actions or features
    too, or observations are no images.

    :param model: an agent
    :return: as nested lists, ``[height, width, channels]``
    """
    networks = getattr(model.policy, "networks", {})
    shape = model.observation_space.shape
    network = getattr(model.policy, next(iter(networks)), None) if len(networks) == 1 else None
    if network is None or len(shape) != 3 or type(network.features_extractor) is not FlattenExtractor:
        return None
    weight = metrics.sparse_mlps(network)[0].dense_weights()[0].detach()
    counts = (weight.abs() > (SMALL if model.l1 > 0 else 0.0)).sum(dim=0).float()
    shares: list[Any] = (counts / counts.sum().clamp(min=1)).view(shape).tolist()
    return _rounded(shares)


def _rounded(nested: list[Any]) -> list[Any]:
    return [_rounded(each) if isinstance(each, list) else round(each, 5) for each in nested]
