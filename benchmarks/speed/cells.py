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


def agent(
    kind: str,
    algorithm: str,
    env: str,
    width: int = 256,
    normalize: bool = False,
    hidden: int = 2,
    batch: int = 256,
    **own: Any,
) -> dict[str, Any]:
    """
    Describe an agent, for ``tasks.make``.

    :param kind: ``"rlx2"`` (our algorithm), ``"parts"`` (our parts in SB3's), ``"dense"`` (SB3's) or ``"sbx"``
    :param algorithm: name of SB3's or sb3-contrib's algorithm
    :param env: environment
    :param width: width of the hidden layers
    :param normalize: whether the environment is wrapped in SB3's ``VecNormalize``
    :param hidden: number of hidden layers
    :param batch: minibatch size
    :param own: sparsities, if not the paper's
    """
    own = own or (sparsities(algorithm, env) if kind in ("rlx2", "parts") else {})
    sizes = {"net_arch": [width] * hidden, "batch": batch}
    return {"kind": kind, "algorithm": algorithm, "env": env, "normalize": normalize, **sizes, **own}
