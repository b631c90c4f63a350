"""What is measured: the paper's sparsities, and the arguments that all agents share."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ALGORITHMS = ("TD3", "SAC")
ENVIRONMENTS = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4")
CELLS = [(algorithm, env) for algorithm in ALGORITHMS for env in ENVIRONMENTS]


def sparsities(algorithm: str, env: str) -> dict[str, float]:
    """Read the paper's sparsities from the zoo's hyper-parameters."""
    parameters = yaml.safe_load((ROOT / "hyperparams" / f"rlx2{algorithm.lower()}.yml").read_text())[env]
    return {name: parameters[name] for name in ("actor_sparsity", "critic_sparsity")}


def agent(kind: str, algorithm: str, env: str, width: int = 256, **own: Any) -> dict[str, Any]:
    """
    Describe an agent, for ``tasks.make``.

    :param kind: ``"rlx2"`` (our algorithm), ``"parts"`` (our parts in SB3's), ``"dense"`` (SB3's) or ``"sbx"``
    :param algorithm: ``"TD3"`` or ``"SAC"``
    :param env: environment
    :param width: width of both hidden layers
    :param own: sparsities, if not the paper's
    """
    own = own or (sparsities(algorithm, env) if kind in ("rlx2", "parts") else {})
    return {"kind": kind, "algorithm": algorithm, "env": env, "width": width, **own}
