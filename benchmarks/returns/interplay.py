"""
The Interplay suite: sparse structures of equal capacity in DQN's hidden layer, with hidden weights learned or fixed, after
"On the Interplay Between Sparsity and Training in Deep Reinforcement Learning" (https://arxiv.org/abs/2501.16729). What is
compared, how settings are chosen and what counts as a result is in INTERPLAY.md.

The network is dense in its output, and in its one hidden layer each unit has as many links as any other unless a structure is
about that. A structure is a line in ``STRUCTURES``, in arguments of ``RLx2DQN``.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).parent / "interplay.json"  # what tuning has chosen; `python -m benchmarks.returns choose` writes it
UNITS = 1024  # of the hidden layer; as many as the outputs of MinAtar's convolution: 64 patches, 16 filters
SPARSITY = 0.91  # of the hidden layer: 9 of each 100 inputs, which on a 10x10 grid are a 3x3 patch
REGIMES = ("learned", "fixed")
GAMES = ("MinAtar/Breakout-v0", "MinAtar/SpaceInvaders-v0")
MORE_GAMES = ("MinAtar/Asterix-v0", "MinAtar/Freeway-v0", "MinAtar/Seaquest-v0")
OTHERS = "others"  # in the settings: games that were not tuned on
AGENT = "links of the agent that comes first"  # in place of a path, which depends on the machine


@dataclass(frozen=True)
class Structure:
    """
    A way to connect the hidden layer.

    :param label: its name in tables
    :param arguments: arguments of ``RLx2DQN`` that make it
    :param network: ``"sparse"``; ``"dense-n"``, dense with as many units; ``"dense-p"``, dense with as many parameters; or
        ``"conv"``, the games' own network
    :param regimes: for which it is defined
    :param needs: structure whose agent, with learned weights and the same seed, is trained first
    :param needs_grid: whether it is only defined for observations of shape (height, width, channels)
    """

    label: str
    arguments: dict[str, Any]
    network: str = "sparse"
    regimes: tuple[str, ...] = REGIMES
    needs: str | None = None
    needs_grid: bool = False


STATIC = {"topology": "static"}
LEARNED = ("learned",)

STRUCTURES = {
    "random": Structure("Random", {"init": "fan_in"} | STATIC),
    "active": Structure("Active", {"init": "fan_in", "topology": "active"}),
    "spatial": Structure("Spatial", {"init": "spatial"} | STATIC, needs_grid=True),
    "predictive": Structure("Predictive", {"init": "fan_in", "topology": "predictive"}),
    "l1-penalise": Structure("L1, penalised", {"sparsity": 0.0} | STATIC, network="dense-n", regimes=LEARNED),
    "l1-extract": Structure("L1, extracted", {"init": AGENT} | STATIC, needs="l1-penalise"),
    "rigl": Structure("RigL", {"init": "magnitude", "topology": "rigl", "update_interval": 1_000}, regimes=LEARNED),
    "rlx2": Structure(
        "RLx2",
        {
            "init": "magnitude",
            "topology": "rigl",
            "update_interval": 1_000,
            "n_steps": 3,
            "policy_distance_threshold": 0.9,
            "buffer_min_size": 50_000,
            "buffer_check_interval": 5_000,
        },
        regimes=LEARNED,
    ),
    "dense-p": Structure("Dense, equal parameters", {"sparsity": 0.0} | STATIC, network="dense-p"),
    "dense-n": Structure("Dense, equal units", {"sparsity": 0.0} | STATIC, network="dense-n"),
    "conv": Structure(
        "Convolution", {"sparsity": 0.0, "backend": "auto"} | STATIC, network="conv", regimes=LEARNED, needs_grid=True
    ),
}

# With a gradient step in four frames and Adam as Obando-Ceron & Castro (2021, https://arxiv.org/abs/2011.14826).
FAST: dict[str, Any] = {
    "buffer_size": 100_000,
    "buffer_min_size": 100_000,
    "batch_size": 32,
    "target_update_interval": 1_000,
    "train_freq": 4,
    "exploration_final_eps": 0.1,
    "n_steps": 1,
    "policy_distance_threshold": math.inf,
    "distribution": "dense_output",
    "sparsity": SPARSITY,
    "weight_scale": "live",
    "backend": "csr",  # a step in kernels costs a third of one in torch, at this batch size also where all links are there
    "optimizer": {"class": "Adam", "eps": 3.125e-4},
}
# As the games' authors have it (Young & Tian, 2019, https://arxiv.org/abs/1903.03176).
PUBLISHED = FAST | {
    "train_freq": 1,
    "max_grad_norm": 1e9,
    "optimizer": {"class": "RMSprop", "alpha": 0.95, "centered": True, "eps": 0.01},
}
PUBLISHED_RATE = 2.5e-4
FIXED_FACTOR = 4  # of the step size where only the output layer learns

# What is tuned, one thing at a time from the first of each: the step size by its exponent of two, the bias of fixed hidden
# units in standard deviations of a weight, and L1's coefficient.
RATES = (-11, -12, -10)
BIASES = (0.0, -1.0, -2.0)
COEFFICIENTS = (1e-5, 1e-6, 3e-6, 3e-5)
TUNING_SEEDS, SEEDS, MORE_SEEDS = (100, 101), range(5), range(3)


@dataclass(frozen=True)
class Setting:
    """
    What is tuned.

    :param rate: exponent of two of the learned regime's step size
    :param bias: of hidden units, if they are fixed, in standard deviations of a weight
    :param l1: L1's coefficient, where there is one
    """

    rate: int = RATES[0]
    bias: float = BIASES[0]
    l1: float = COEFFICIENTS[0]

    @property
    def name(self) -> str:
        """Name within those of cells."""
        return f"rate{self.rate}_bias{self.bias:g}_l1-{self.l1:g}"


@dataclass(frozen=True)
class Arm:
    """
    A structure in a regime.

    :param structure: key of ``STRUCTURES``
    :param regime: one of ``REGIMES``
    """

    structure: str
    regime: str

    @property
    def key(self) -> str:
        """Name within those of methods and in ``interplay.json``."""
        return f"{self.structure}-{self.regime}"

    @property
    def about(self) -> Structure:
        """The structure."""
        return STRUCTURES[self.structure]

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.about.label}, {self.regime}"

    def arguments(self, setting: Setting, common: dict[str, Any]) -> dict[str, Any]:
        """
        Give the arguments of ``RLx2DQN``, as JSON can hold them: ``optimizer``, ``bias`` and ``network`` are resolved when the
        agent is made.

        :param setting: what is tuned
        :param common: ``FAST`` or ``PUBLISHED``
        """
        fixed, published = self.regime == "fixed", common is PUBLISHED
        rate = PUBLISHED_RATE if published else 2.0**setting.rate
        own = {"learning_rate": rate * (FIXED_FACTOR if fixed else 1), "hidden_weights": self.regime}
        own["bias"] = setting.bias if fixed else 0.0
        if self.structure == "l1-penalise":
            own["l1"] = setting.l1
        return common | self.about.arguments | own

    def settings(self) -> Iterator[Setting]:
        """Give what tuning tries, the centre first."""
        yield Setting()
        yield from (Setting(rate=rate) for rate in RATES[1:])
        if self.regime == "fixed":
            yield from (Setting(bias=bias) for bias in BIASES[1:])
        if self.structure == "l1-penalise":
            yield from (Setting(l1=l1) for l1 in COEFFICIENTS[1:])


# L1's agents come before those with their links.
ARMS = [Arm(name, regime) for name, structure in STRUCTURES.items() for regime in structure.regimes]
MAIN, AS_PUBLISHED, TUNE = "interplay", "published", "tune"  # kinds of runs


@dataclass(frozen=True)
class Run:
    """
    What a method of the suite is, besides its arm.

    :param arm: the arm
    :param kind: ``MAIN``, ``AS_PUBLISHED``, or ``TUNE``
    :param setting: what is tried; None for what has been chosen for the environment
    """

    arm: Arm
    kind: str
    setting: Setting | None = None

    @property
    def method(self) -> str:
        """Name of the method."""
        parts = [self.kind, self.arm.key, *([] if self.setting is None else [self.setting.name])]
        return "_".join(parts)

    @property
    def needs(self) -> str | None:
        """Name of the method whose agent comes first."""
        before = self.arm.about.needs
        if before is None:
            return None
        return Run(Arm(before, "learned"), self.kind, None if self.setting is None else Setting()).method

    def arguments(self, env: str) -> dict[str, Any]:
        """
        Give the arguments of ``RLx2DQN``, see :meth:`Arm.arguments`.

        :param env: the environment
        """
        return self.arm.arguments(self.setting_for(env), PUBLISHED if self.kind == AS_PUBLISHED else FAST)

    def setting_for(self, env: str) -> Setting:
        """
        Give what is tried, or was chosen; as published there is no tuning, hence the centre.

        :param env: the environment
        """
        return Setting() if self.kind == AS_PUBLISHED else self.setting or chosen(env, self.arm)


RUNS = {
    run.method: run
    for run in (
        *(Run(arm, kind) for kind in (MAIN, AS_PUBLISHED) for arm in ARMS),
        *(Run(arm, TUNE, setting) for arm in ARMS for setting in arm.settings()),
    )
}


def chosen(env: str, arm: Arm) -> Setting:
    """
    Give what tuning has chosen for an environment, or for others, and the centre where nothing has been tuned.

    :param env: the environment
    :param arm: the arm
    """
    return Setting(**_chosen(env).get(arm.key, {}))


def is_tuned(env: str, arm: Arm) -> bool:
    """
    Tell whether settings have been chosen for an environment, or for others.

    :param env: the environment
    :param arm: the arm
    """
    return arm.key in _chosen(env)


def _chosen(env: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    by_arm: dict[str, Any] = stored.get(env, stored.get(OTHERS, {}))
    return by_arm


def schedule(steps: int) -> dict[str, Any]:
    """
    Give the arguments that depend on a run's length: a warm-up of random actions that all structures have alike, as predictive
    ones need its data, and exploration that falls from the first frame on, and counts behind it.

    :param steps: environment steps
    """
    warm_up = min(max(steps // 10, 1_000), 50_000)
    return {"learning_starts": warm_up, "exploration_fraction": min((warm_up + 100_000) / steps, 0.5)}


@dataclass(frozen=True)
class Plan:
    """
    Runs of a set.

    :param methods: names of methods, each of which comes once for each seed
    :param envs: environments
    :param seeds: seeds
    :param steps: environment steps
    :param eval_every: environment steps between evaluations
    """

    methods: list[str]
    envs: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    eval_every: int


def plans(env: str | None = None, has_grid: bool = True) -> dict[str, list[Plan]]:
    """
    Lay out the sets.

    :param env: an environment to run the suite on in place of the games
    :param has_grid: whether its observations have the shape (height, width, channels)
    """
    games = GAMES if env is None else (env,)
    runs = [run for run in RUNS.values() if has_grid or not run.arm.about.needs_grid]
    main, published, tune = ([run.method for run in runs if run.kind == kind] for kind in (MAIN, AS_PUBLISHED, TUNE))
    found = {
        "interplay-smoke": [Plan(main, ("MinAtar/Breakout-v1",) if env is None else games, (0,), 3_000, 1_500)],
        "interplay-tune": [Plan(tune, games, TUNING_SEEDS, 200_000, 50_000)],
        "interplay": [Plan(main, games, tuple(SEEDS), 500_000, 25_000)],
        "interplay-more": [Plan(main, MORE_GAMES, tuple(MORE_SEEDS), 500_000, 25_000)],
        "interplay-published": [Plan(published, games[:1], tuple(MORE_SEEDS), 1_000_000, 50_000)],
    }
    return found if env is None else {name: plan for name, plan in found.items() if name != "interplay-more"}


def equal_parameters(shape: Sequence[int], outputs: int) -> int:
    """
    Give the number of hidden units with which a dense network has as many parameters as the sparse ones.

    :param shape: see :func:`links_of_a_unit`
    :param outputs: number of outputs
    """
    return round(UNITS * (links_of_a_unit(shape) + 1 + outputs) / (math.prod(shape) + 1 + outputs))


def links_of_a_unit(shape: Sequence[int]) -> int:
    """
    Give the number of links of a hidden unit: of an image the square patch, in all channels, that comes nearest.

    :param shape: ``(height, width, channels)`` of an image, or what else observations have
    """
    if len(shape) != 3:
        return max(round((1 - SPARSITY) * math.prod(shape)), 1)
    height, width, channels = shape
    return int(max(round((1 - SPARSITY) ** 0.5 * min(height, width)), 1) ** 2 * channels)
