"""The grid as data: what is trained, and in which order."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from gymnasium import spaces

from benchmarks.returns import interplay
from sb3_rlx2 import minatar  # noqa: F401 registers its games
from sb3_rlx2.plan import LEAST, is_share, steps_of

HYPERPARAMS = Path(__file__).parents[2] / "hyperparams"
EPISODES = 10  # of each evaluation, as in the paper
MILLION = 1_000_000
UNLIMITED = 3 * MILLION  # transitions: as many as the longest run has steps; memory is taken as they come


@dataclass(frozen=True)
class Method:
    """
    A way to train an agent: a plain configuration of the public classes.

    :param label: its name in tables
    :param arguments: arguments of the algorithm that differ from the environment's (``hyperparams/``); those of the Interplay
        suite are in ``interplay.py``
    :param network: ``"sparse"``; ``"tiny"``, two narrow dense layers with as many weights; or ``"dense"``, stock SB3; for the
        Interplay suite one of those of ``interplay.Structure``
    :param taught: whether a trained agent's frozen critic gives the bootstrap values, see ``teacher.py``
    :param needs: method whose trained agent, of the same environment, seed and length, comes first: it gives the links, or is
        what a distilled student learns from
    :param distilled: whether it learns from that agent in place of the environment, see ``distilling.py``
    :param anew: whether its seed is another one than that of the agent which gives the links, and so its first weights
    :param size: number of links relative to the paper's sparsities
    :param way: how far on the way from dense to that number the links are, in equal ratios: half of the way has the square
        root of the density
    """

    label: str
    arguments: dict[str, Any] = field(default_factory=dict)
    network: str = "sparse"
    taught: bool = False
    needs: str | None = None
    distilled: bool = False
    anew: bool = False
    size: float = 1.0
    way: float = 1.0


ONE_STEP = {"n_steps": 1}
NO_DYNAMIC_BUFFER = {"policy_distance_threshold": math.inf}
TOPOLOGY_ONLY = ONE_STEP | NO_DYNAMIC_BUFFER
STATIC = {"topology": "static", "init": "random"}  # the paper's "SS": links drawn at random that stay
SET = {"topology": "set", "init": "magnitude"}
RIGL = {"topology": "rigl", "init": "magnitude"}


def _fixed_buffer(transitions: int) -> dict[str, Any]:
    return RIGL | NO_DYNAMIC_BUFFER | {"buffer_size": transitions, "buffer_min_size": min(transitions, 100_000)}


# The factors of PROTOCOL.md at +, and the combinations that are run, in the order in which they are: four blocks of four.
FACTORS: dict[str, dict[str, Any]] = {
    "S": {"weight_scale": "live"},
    "P": {"drop_dead_links": True},
    "G": {"actor_start_sparsity": 0.85, "critic_start_sparsity": 0.85, "prune_begin": 0.2, "prune_end": 0.8},
    "L": {"learning_rate": 1e-3},
    "U": {"gradient_steps": 2, "update_interval": 20_000},
}
COMBINATIONS = ("", "SP", "SGLU", "PGLU", "GL", "SPGL", "SU", "PU", "GU", "SPGU", "SL", "PL", "LU", "SPLU", "SG", "PG")


def _with_factors(letters: str) -> dict[str, Any]:
    return RIGL | {name: value for letter in letters for name, value in FACTORS[letter].items()}


THRESHOLDS = (0.5, math.inf)  # of ALGORITHMS.md, beside the default for discrete actions

LIVE = "SP"  # the recipe: the setting of PROTOCOL.md (A2), which is this one where the screening accepts nothing

# DENSE_FIRST.md. Tickets are pruned in so many rounds; the first agent is the dense one.
TICKET = {"topology": "static", "init": interplay.AGENT} | TOPOLOGY_ONLY
ROUNDS = (1, 4, 11)


def _tickets(rounds: int) -> dict[str, Method]:
    """Give the methods of a ticket: one for each round, then the last one's links with other weights."""
    names = ["dense", *(f"ticket-{rounds}-round-{number}" for number in range(1, rounds)), f"ticket-{rounds}"]
    label = "Ticket, one shot" if rounds == 1 else f"Ticket, {rounds} rounds"
    found = {
        name: Method(
            label if number == rounds else f"{label}, after {number}", TICKET, needs=names[number - 1], way=number / rounds
        )
        for number, name in enumerate(names)
        if number > 0
    }
    return found | {f"ticket-{rounds}-anew": Method(f"{label}, other weights", TICKET, needs=names[-2], anew=True)}


TICKETS = {rounds: _tickets(rounds) for rounds in ROUNDS}

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
    # PROTOCOL.md
    **{
        f"screening-{letters or 'none'}": Method(f"screening: {letters or 'none'}", _with_factors(letters))
        for letters in COMBINATIONS
    },
    "diagnosis-actor": Method("S and P, actor at 85%", _with_factors("SP") | {"actor_sparsity": 0.85}),
    "diagnosis-critic": Method("S and P, critics at 85%", _with_factors("SP") | {"critic_sparsity": 0.85}),
    "live": Method("RLx2-live", _with_factors(LIVE)),
    "live-half": Method("RLx2-live, half the size", _with_factors(LIVE), size=0.5),
    # dense at first, links of small magnitude go, none grows
    "pruning": Method(
        "Pruning", {"topology": "static", "actor_start_sparsity": 0.0, "critic_start_sparsity": 0.0} | TOPOLOGY_ONLY
    ),
    # DENSE_FIRST.md
    "snip": Method("SNIP", {"topology": "snip", "actor_start_sparsity": 0.0, "critic_start_sparsity": 0.0} | TOPOLOGY_ONLY),
    "distilled": Method("Distilled", RIGL | TOPOLOGY_ONLY | {"update_interval": 0.01}, needs="dense", distilled=True),
    **{name: method for methods in TICKETS.values() for name, method in methods.items()},
    # ALGORITHMS.md
    **{
        f"threshold-{threshold}": Method(f"threshold {threshold}", RIGL | {"policy_distance_threshold": threshold})
        for threshold in THRESHOLDS
    },
    "tqc-85": Method("RLx2, critics at 85%", RIGL | {"critic_sparsity": 0.85}),
    "dense-arrays": Method(
        "Dense, in arrays", STATIC | TOPOLOGY_ONLY | {"actor_sparsity": 0.0, "critic_sparsity": 0.0, "backend": "csr"}
    ),
    # INTERPLAY.md
    **{name: Method(run.arm.label, network=run.arm.about.network, needs=run.needs) for name, run in interplay.RUNS.items()},
}


@dataclass(frozen=True)
class Cell:
    """
    One run.

    :param method: key of ``METHODS``
    :param algorithm: name of the host, such as ``"td3"``
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
        env = self.env.replace("/", "-")
        return f"{self.algorithm}_{env}_{self.method.replace('*', 'star')}{density}_{self.steps}_seed{self.seed}"

    @property
    def arguments(self) -> dict[str, Any]:
        """What the method and the environment say, flat; what is not in it has the class's default."""
        if self.method in interplay.RUNS:
            return interplay.RUNS[self.method].arguments(self.env) | interplay.schedule(self.steps)
        own = hyperparams(self.algorithm, self.env)
        if self.algorithm not in PAPER:
            own = {name: steps_of(name, value, self.steps) if name in LEAST else value for name, value in own.items()}
        if self.sparsity is not None:
            own |= {"actor_sparsity": self.sparsity, "critic_sparsity": self.sparsity}
        method = METHODS[self.method]
        if (method.size, method.way) != (1.0, 1.0):
            densities = {name: 1 - own[name] for name in ("actor_sparsity", "critic_sparsity")}
            own |= {name: round(1 - method.size * density**method.way, 6) for name, density in densities.items()}
        own |= method.arguments
        # A schedule that would begin at or above its end is none.
        ends = {name: name.replace("start_sparsity", "sparsity") for name in own if "start_sparsity" in name}
        return {name: value for name, value in own.items() if name not in ends or value is None or value < own[ends[name]]}

    @property
    def fingerprint(self) -> str:
        """Digest of all that the grid says about it: results of another one are not this cell's."""
        about = asdict(self) | {"arguments": self.arguments, "network": METHODS[self.method].network}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Give what is stored with a result."""
        return asdict(self)


# What the paper counts in steps, where the zoo's files have shares; cells of all lengths have these.
PAPER = {
    "td3": {"learning_starts": 25_000, "buffer_min_size": 100_000},
    "sac": {"learning_starts": 25_000, "buffer_min_size": 200_000},
}
INTERVALS = {"update_interval": 10_000, "buffer_check_interval": 10_000}  # the same; not written into a cell


def hyperparams(algorithm: str, env: str) -> dict[str, Any]:
    """
    Read an environment's hyper-parameters from the zoo's file, without what the zoo itself consumes.

    :param algorithm: name of the host, such as ``"td3"``
    :param env: environment
    """
    stored = yaml.safe_load((HYPERPARAMS / f"rlx2{algorithm}.yml").read_text())[env]
    own = {name: value for name, value in stored.items() if name not in ("n_timesteps", "policy", "noise_type", "noise_std")}
    if algorithm not in PAPER:
        return own
    shares = {name for name, value in own.items() if name in LEAST and is_share(value)}
    paper = PAPER[algorithm]
    return {
        name: paper.get(name) if name in shares else value for name, value in own.items() if name not in shares - paper.keys()
    }


def cells(
    methods: Sequence[str],
    env: str,
    seeds: Iterable[int],
    steps: int = MILLION,
    algorithm: str = "td3",
    eval_every: int | None = None,
    sparsity: float | None = None,
) -> list[Cell]:
    """
    Lay out cells, all methods of a seed before the next seed.

    :param methods: keys of ``METHODS``
    :param env: environment
    :param seeds: seeds
    :param steps: environment steps
    :param algorithm: name of the host, such as ``"td3"``
    :param eval_every: steps between evaluations; by default 10,000, and the paper's 5,000 in its 3M steps
    :param sparsity: see ``Cell``
    """
    eval_every = eval_every or (5_000 if steps >= 3 * MILLION else 10_000)
    return [Cell(method, algorithm, env, seed, steps, eval_every, sparsity) for seed in seeds for method in methods]


MUJOCO = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4")
OURS = ("live", "live-half", "pruning")  # beside the paper's methods in tables
TABLE_2 = ("dense", "tiny", "static", "set", "rigl", "rlx2")
ABLATIONS = tuple(method for method in METHODS if method.startswith("rlx2-"))
SCREENING = tuple(method for method in METHODS if method.startswith("screening-"))
THRESHOLD_METHODS = tuple(method for method in METHODS if method.startswith("threshold-"))
DENSE_FIRST = ("static", "snip", "pruning", "distilled", *TICKETS[1], *TICKETS[4])  # beside dense and RLx2
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
    "smoke": cells(["rlx2", "static"], "Pendulum-v1", range(2), 1_400, eval_every=200),
    # short runs that show whether a change still learns
    "learning": [
        *cells(["rlx2"], "Pendulum-v1", range(2), 15_000, eval_every=1_000),
        *cells(["rlx2"], "HalfCheetah-v4", range(2), 300_000),
        *cells(["rlx2", "static"], "Hopper-v4", range(2), 500_000),
    ],
    # the paper's motivating figure, and the search for its sparsity
    "pendulum-search": [
        cell
        for sparsity in PENDULUM_SEARCH
        for cell in cells(["static", "rlx2"], seeds=range(3), sparsity=sparsity, **PENDULUM)
    ],
    "pendulum": [
        *cells(PENDULUM_METHODS, seeds=range(5), sparsity=PENDULUM_SPARSITY, **PENDULUM),
        *cells(["dense"], seeds=range(1), **(PENDULUM | TEACHER)),
        *cells(["dense"], seeds=range(3), **PENDULUM),
    ],
    # Table 2, a third of its steps
    "table-2": [
        cell
        for group in (
            [cells(["rlx2", "rigl", "static"], env, range(3)) for env in ("Hopper-v4", "HalfCheetah-v4")]
            + [cells(["dense", "set", "tiny"], env, range(2)) for env in ("Hopper-v4", "HalfCheetah-v4")]
        )
        for cell in group
    ],
    # the ablations that carry the paper's argument
    "table-3": cells(
        ["rlx2-n1", "rlx2-n5", "rlx2-static", "rlx2-buffer-100k", "rlx2-buffer-unlimited"], "Hopper-v4", range(2)
    ),
    "walker": [*cells(["rlx2", "rigl", "static"], "Walker2d-v4", range(2)), *cells(["dense"], "Walker2d-v4", range(1))],
    # what RLx2 lacks on Walker2d-v4: luck, one of its parts, links, or steps
    "walker-causes": [
        *cells(["rlx2"], "Walker2d-v4", range(3)),
        *cells(["rlx2-n1", "rlx2-static", "rlx2-buffer-unlimited"], "Walker2d-v4", range(2)),
        *cells(["rlx2"], "Walker2d-v4", range(2), sparsity=0.85),
        *cells(["rlx2"], "Walker2d-v4", range(2), 3 * MILLION),
    ],
    # PROTOCOL.md, in the order in which it is run
    "screening": cells(SCREENING, "Walker2d-v4", (10, 11)),
    "diagnosis": cells(["diagnosis-actor", "diagnosis-critic"], "Walker2d-v4", (10, 11)),
    "confirmation": [
        cell
        for seed in range(20, 25)
        for env in ("Walker2d-v4", "Hopper-v4", "HalfCheetah-v4", "Ant-v4")
        for cell in cells(["live", "rlx2"] if seed < 23 and env in ("Walker2d-v4", "Hopper-v4") else ["live"], env, [seed])
    ],
    "dense-partners": [
        *(cell for seed in range(3) for env in reversed(MUJOCO) for cell in cells(["dense"], env, [seed])),
        # those of 0 to 2 on these that had been trained before deployed policies were scored have no part in that score
        *(
            cell
            for seed in (3, 4)
            for env in ("Walker2d-v4", "Hopper-v4", "HalfCheetah-v4")
            for cell in cells(["dense"], env, [seed])
        ),
    ],
    "ant": cells(["rlx2", "rigl", "static"], "Ant-v4", range(3)),
    "sac": [
        cell
        for env in ("Hopper-v4", "Walker2d-v4", "HalfCheetah-v4", "Ant-v4")
        for cell in cells(["live"], env, range(20, 23), algorithm="sac")
        + cells(["rlx2", "dense"], env, range(3), algorithm="sac")
    ],
    "pruning": [cell for env in ("Walker2d-v4", "Hopper-v4") for cell in cells(["pruning"], env, range(2))],
    "table-2-rest": [cell for env in ("Walker2d-v4", "Ant-v4") for cell in cells(["set", "tiny"], env, range(2))],
    "half-size": [cell for env in MUJOCO for cell in cells(["live-half"], env, (20, 21))],
    # DENSE_FIRST.md; cells that follow each other need nothing of each other, so that two workers do not wait
    "dense-first": [
        cell
        for method in ("dense", "rlx2", *DENSE_FIRST)
        for seed in range(2)
        for env in ("Hopper-v4", "HalfCheetah-v4")
        for cell in cells([method], env, [seed])
    ],
    # RLx2-live, which is what the screening decides, on seeds of its own; part of the confirmation
    "dense-first-live": [cell for env in ("Hopper-v4", "HalfCheetah-v4") for cell in cells(["live"], env, (20, 21))],
    "dense-first-slow": [cell for env in ("Hopper-v4", "HalfCheetah-v4") for cell in cells([*TICKETS[11]], env, range(2))],
    "dense-first-smoke": cells(["dense", "rlx2", *DENSE_FIRST], "Pendulum-v1", [0], 1_200, eval_every=400),
    # ALGORITHMS.md; what takes longest first
    "algorithms": [
        *cells(["dense", "tqc-85", "rlx2", "dense-arrays"], "HalfCheetah-v4", range(2), 300_000, "tqc", 5_000),
        *cells(["rlx2", "dense", *THRESHOLD_METHODS], "LunarLander-v3", range(3), 200_000, "dqn", 2_500),
        *cells(["rlx2", "dense", *THRESHOLD_METHODS], "CartPole-v1", range(3), 50_000, "dqn", 1_000),
        *cells(["rlx2", "dense"], "CartPole-v1", range(3), 50_000, "qrdqn", 1_000),
        *(
            cell
            for algorithm in ("tqc", "ddpg", "crossq")
            for cell in cells(["rlx2"], "Pendulum-v1", range(3), 15_000, algorithm, 250)
        ),
    ],
    # what is left of the tables at a million steps
    "table-3-rest": [
        *cells([*TABLE_3_TOPOLOGY, *TABLE_3_N, *BUFFERS, *DELAYS], "Hopper-v4", range(2)),
        *(
            cell
            for env in ("HalfCheetah-v4", "Walker2d-v4", "Ant-v4")
            for cell in cells([*TABLE_3_TOPOLOGY, *TABLE_3_N], env, range(2))
        ),
    ],
    # the paper's own: 3M steps, eight seeds
    "paper-table-2": [
        cell
        for algorithm in ("td3", "sac")
        for env in MUJOCO
        for cell in cells(TABLE_2, env, range(8), 3 * MILLION, algorithm)
    ],
    "paper-table-3": [
        cell
        for env in MUJOCO
        for cell in cells([*TABLE_3_TOPOLOGY, *TABLE_3_N, *BUFFERS, *DELAYS], env, range(8), 3 * MILLION)
    ],
}


def interplay_sets(env: str | None = None, has_grid: bool = True) -> dict[str, list[Cell]]:
    """
    Give the sets of the Interplay suite, all methods of a game and seed before the next game, all games before the next seed.

    :param env: an environment to run it on in place of the games
    :param has_grid: whether its observations have the shape (height, width, channels)
    """
    return {
        name: [
            cell
            for plan in plans
            for seed in plan.seeds
            for env in plan.envs
            for cell in cells(plan.methods, env, [seed], plan.steps, "dqn", plan.eval_every)
        ]
        for name, plans in interplay.plans(env, has_grid).items()
    }


SETS |= interplay_sets()
CELLS = {cell.name: cell for group in SETS.values() for cell in group}


def use_env(env: str) -> None:
    """
    Have the sets of the Interplay suite be about another environment.

    :param env: the environment
    :raises ValueError: if its actions are not discrete, or its observations no arrays
    """
    one = gym.make(env)
    if not isinstance(one.action_space, spaces.Discrete) or not isinstance(one.observation_space, spaces.Box):
        raise ValueError("the suite is for DQN and its layers: actions must be Discrete and observations a Box")
    SETS.update(interplay_sets(env, has_grid=len(one.observation_space.shape) == 3))
    CELLS.update({cell.name: cell for group in SETS.values() for cell in group})
