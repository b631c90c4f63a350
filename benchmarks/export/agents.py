"""Agents that are kept: one a file, in full precision."""

from pathlib import Path

import numpy as np

from sb3_rlx2 import zoo
from sb3_rlx2.export import Policy, describe
from sb3_rlx2.export.bin import pack
from sb3_rlx2.export.description import Description, Stage
from sb3_rlx2.export.find import Agent, load
from sb3_rlx2.export.formats import write_files

AGENTS = Path(__file__).parent / "agents"


def add(path: Path, env: str, algo: str | None, statistics: Path | None, note: str) -> Path:
    """Store an agent that Stable-Baselines3 saved."""
    zoo.register()
    model, vecnormalize = load(Agent(path, statistics, {}), algo)
    policy = describe(model, vecnormalize, env=env, note=note, command="python -m benchmarks.export add").policy()
    AGENTS.mkdir(exist_ok=True)
    return write_files(AGENTS, {f"{env}_{policy.about['algorithm'].lower()}.rlx2": pack(policy)})[0]


def described(policy: Policy) -> Description:
    """Give the description of a policy that was written in fp32, to write it in other types."""
    assert policy.about["dtype"] == "fp32", "an agent must be kept in fp32"
    stages = tuple(
        Stage(layer.dense().astype(np.float64), layer.bias.astype(np.float64), layer.activation) for layer in policy.layers
    )
    mean = std = None
    if policy.normaliser is not None:
        mean, std = policy.normaliser[:2].sum(axis=0, dtype=np.float64), 1 / policy.normaliser[2].astype(np.float64)
    bounds = policy.low.astype(np.float64), policy.high.astype(np.float64)
    live, size = policy.about["links_before"], policy.about["weights_of_dense"]
    return Description(stages, policy.output, *bounds, mean, std, policy.clip, live, size, policy.about)
