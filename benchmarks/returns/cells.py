"""The grid as data: what is trained, and in which order."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

HYPERPARAMS = Path(__file__).parents[2] / "hyperparams"
EPISODES = 10  # of each evaluation, as in the paper
MILLION = 1_000_000
UNLIMITED = 3 * MILLION  # transitions: as many as the longest run has steps; memory is taken as they come


@dataclass(frozen=True)
class Method:
    """
    A way to train an agent: a plain configuration of the public classes.

    :param label: its name in tables
    :param arguments: arguments of ``RLx2TD3`` or ``RLx2SAC`` that differ from the environment's (``hyperparams/``)
    :param network: ``"sparse"``; ``"tiny"``, two narrow dense layers with as many weights; or ``"dense"``, stock SB3
    :param taught: whether a trained agent's frozen critic gives the bootstrap values, see ``teacher.py``
    """

    label: str
    arguments: dict[str, Any] = field(default_factory=dict)
    network: str = "sparse"
    taught: bool = False


ONE_STEP = {"n_steps": 1}
NO_DYNAMIC_BUFFER = {"policy_distance_threshold": math.inf}
TOPOLOGY_ONLY = ONE_STEP | NO_DYNAMIC_BUFFER
STATIC = {"topology": "static", "init": "random"}  # the paper's "SS": links drawn at random that stay
SET = {"topology": "set", "init": "magnitude"}
RIGL = {"topology": "rigl", "init": "magnitude"}


def _fixed_buffer(transitions: int) -> dict[str, Any]:
    return RIGL | NO_DYNAMIC_BUFFER | {"buffer_size": transitions, "buffer_min_size": min(transitions, 100_000)}


METHODS = {
    # Table 2
    "dense": Method("Dense", network="dense"),
    "tiny": Method("Tiny", {"topology": "static"} | TOPOLOGY_ONLY, network="tiny"),
    "static": Method("SS", STATIC | TOPOLOGY_ONLY),
    "set": Method("SET", SET | TOPOLOGY_ONLY),
    "rigl": Method("RigL", RIGL | TOPOLOGY_ONLY),
    "rlx2": Method("RLx2", RIGL),
    # Table 3: other topologies under RLx2's n-step targets and dynamic buffer
    "rlx2-tiny": Method("RLx2 with Tiny", {"topology": "static"}, network="tiny"),
    "rlx2-static": Method("RLx2 with SS", STATIC),
    "rlx2-set": Method("RLx2 with SET", SET),
    # Table 3: n (3 is RLx2)
    **{f"rlx2-n{n}": Method(f"n={n}", RIGL | {"n_steps": n}) for n in (1, 2, 4, 5)},
    # the buffer and the delay
    **{f"rlx2-buffer-{k}k": Method(f"buffer of {k},000", _fixed_buffer(1_000 * k)) for k in (100, 250, 500)},
    "rlx2-buffer-unlimited": Method("unlimited buffer", _fixed_buffer(UNLIMITED)),
    **{f"rlx2-delay-{delay}": Method(f"delay {delay}", RIGL | {"n_steps_delay": delay}) for delay in (0.0, 0.3)},
    # the motivating figure
    "rigl-q*": Method("RigL + Q*", RIGL | TOPOLOGY_ONLY, taught=True),
}


@dataclass(frozen=True)
class Cell:
    """
    One run.

    :param method: key of ``METHODS``
    :param algorithm: ``"td3"`` or ``"sac"``
    :param env: environment, with its version
    :param seed: seed of the model, of the training environment and of the evaluations
    :param steps: environment steps
    :param eval_every: environment steps between evaluations
    :param sparsity: of actor and critics; by default the paper's for this algorithm and environment
    """

    method: str
    algorithm: str
    env: str
    seed: int
    steps: int
    eval_every: int
    sparsity: float | None = None

    @property
    def name(self) -> str:
        """Name of its files."""
        density = "" if self.sparsity is None else f"_{self.sparsity:g}"
        return f"{self.algorithm}_{self.env}_{self.method.replace('*', 'star')}{density}_{self.steps}_seed{self.seed}"

    @property
    def arguments(self) -> dict[str, Any]:
        """What the method and the environment say, flat; what is not in it has the default of ``RLx2TD3`` or ``RLx2SAC``."""
        own = hyperparams(self.algorithm, self.env)
        if self.sparsity is not None:
            own |= {"actor_sparsity": self.sparsity, "critic_sparsity": self.sparsity}
        return own | METHODS[self.method].arguments

    @property
    def fingerprint(self) -> str:
        """Digest of all that the grid says about it: results of another one are not this cell's."""
        about = asdict(self) | {"arguments": self.arguments, "network": METHODS[self.method].network}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Give what is stored with a result."""
        return asdict(self)


def hyperparams(algorithm: str, env: str) -> dict[str, Any]:
    """
    Read an environment's hyper-parameters from the zoo's file, without what the zoo itself consumes.

    :param algorithm: ``"td3"`` or ``"sac"``
    :param env: environment
    """
    stored = yaml.safe_load((HYPERPARAMS / f"rlx2{algorithm}.yml").read_text())[env]
    return {name: value for name, value in stored.items() if name not in ("n_timesteps", "policy", "noise_type", "noise_std")}


def cells(
    methods: Sequence[str],
    env: str,
    seeds: int,
    steps: int = MILLION,
    algorithm: str = "td3",
    eval_every: int | None = None,
    sparsity: float | None = None,
) -> list[Cell]:
    """
    Lay out cells, all methods of a seed before the next seed.

    :param methods: keys of ``METHODS``
    :param env: environment
    :param seeds: number of seeds, from 0 on
    :param steps: environment steps
    :param algorithm: ``"td3"`` or ``"sac"``
    :param eval_every: steps between evaluations; by default 10,000, and the paper's 5,000 in its 3M steps
    :param sparsity: see ``Cell``
    """
    eval_every = eval_every or (5_000 if steps >= 3 * MILLION else 10_000)
    return [Cell(method, algorithm, env, seed, steps, eval_every, sparsity) for seed in range(seeds) for method in methods]


MUJOCO = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4")
TABLE_2 = ("dense", "tiny", "static", "set", "rigl", "rlx2")
ABLATIONS = tuple(method for method in METHODS if method.startswith("rlx2-"))
TABLE_3_TOPOLOGY = ("rlx2-tiny", "rlx2-static", "rlx2-set")
TABLE_3_N = ("rlx2-n1", "rlx2-n2", "rlx2-n4", "rlx2-n5")
BUFFERS = ("rlx2-buffer-100k", "rlx2-buffer-250k", "rlx2-buffer-500k", "rlx2-buffer-unlimited")
DELAYS = ("rlx2-delay-0.0", "rlx2-delay-0.3")

# The motivating figure. At PENDULUM_SPARSITY a static topology clearly fails; SEARCH is where that was looked for.
PENDULUM = {"env": "InvertedPendulum-v5", "steps": 50_000, "eval_every": 2_000}
# Q* is from a dense agent that has converged: at 50,000 steps its returns have, its values have not.
TEACHER = {"steps": 200_000, "eval_every": 10_000}
PENDULUM_SEARCH = (0.99, 0.98, 0.95)
PENDULUM_SPARSITY = 0.99
PENDULUM_METHODS = ("static", "rigl", "rigl-q*", "rlx2")


SETS: dict[str, list[Cell]] = {
    # seconds, to see whether it runs
    "smoke": cells(["rlx2", "static"], "Pendulum-v1", 2, 1_400, eval_every=200),
    # short runs that show whether a change still learns
    "learning": [
        *cells(["rlx2"], "Pendulum-v1", 2, 15_000, eval_every=1_000),
        *cells(["rlx2"], "HalfCheetah-v4", 2, 300_000),
        *cells(["rlx2", "static"], "Hopper-v4", 2, 500_000),
    ],
    # the paper's motivating figure, and the search for its sparsity
    "pendulum-search": [
        cell for sparsity in PENDULUM_SEARCH for cell in cells(["static", "rlx2"], seeds=3, sparsity=sparsity, **PENDULUM)
    ],
    "pendulum": [
        *cells(PENDULUM_METHODS, seeds=5, sparsity=PENDULUM_SPARSITY, **PENDULUM),
        *cells(["dense"], seeds=1, **(PENDULUM | TEACHER)),
        *cells(["dense"], seeds=3, **PENDULUM),
    ],
    # Table 2, a third of its steps
    "table-2": [
        cell
        for group in (
            [cells(["rlx2", "rigl", "static"], env, 3) for env in ("Hopper-v4", "HalfCheetah-v4")]
            + [cells(["dense", "set", "tiny"], env, 2) for env in ("Hopper-v4", "HalfCheetah-v4")]
        )
        for cell in group
    ],
    # the ablations that carry the paper's argument
    "table-3": cells(["rlx2-n1", "rlx2-n5", "rlx2-static", "rlx2-buffer-100k", "rlx2-buffer-unlimited"], "Hopper-v4", 2),
    "walker": [*cells(["rlx2", "rigl", "static"], "Walker2d-v4", 2), *cells(["dense"], "Walker2d-v4", 1)],
    # what RLx2 lacks on Walker2d-v4: luck, one of its parts, links, or steps
    "walker-causes": [
        *cells(["rlx2"], "Walker2d-v4", 3),
        *cells(["rlx2-n1", "rlx2-static", "rlx2-buffer-unlimited"], "Walker2d-v4", 2),
        *cells(["rlx2"], "Walker2d-v4", 2, sparsity=0.85),
        *cells(["rlx2"], "Walker2d-v4", 2, 3 * MILLION),
    ],
    "sac": [
        cell
        for env in ("Hopper-v4", "HalfCheetah-v4")
        for cell in cells(["rlx2"], env, 2, algorithm="sac") + cells(["rigl", "dense"], env, 1, algorithm="sac")
    ],
    # what is left of the tables at a million steps
    "ant": cells(["rlx2", "rigl", "static", "dense"], "Ant-v4", 2),
    "table-3-rest": [
        *cells([*TABLE_3_TOPOLOGY, *TABLE_3_N, *BUFFERS, *DELAYS], "Hopper-v4", 2),
        *(
            cell
            for env in ("HalfCheetah-v4", "Walker2d-v4", "Ant-v4")
            for cell in cells([*TABLE_3_TOPOLOGY, *TABLE_3_N], env, 2)
        ),
    ],
    # the paper's own: 3M steps, eight seeds
    "paper-table-2": [
        cell for algorithm in ("td3", "sac") for env in MUJOCO for cell in cells(TABLE_2, env, 8, 3 * MILLION, algorithm)
    ],
    "paper-table-3": [
        cell for env in MUJOCO for cell in cells([*TABLE_3_TOPOLOGY, *TABLE_3_N, *BUFFERS, *DELAYS], env, 8, 3 * MILLION)
    ],
}
CELLS = {cell.name: cell for group in SETS.values() for cell in group}
