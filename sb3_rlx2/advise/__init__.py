"""
``rlx2 advise``: how sparse to begin with, for an environment and a number of steps.

What counts is the number of links to a hidden unit, not the percentage: the same sparsity leaves a narrow network hardly any.
``measured.json`` holds how many the stored runs had (``benchmarks/returns``), and how near they came to dense. For each task
that came to dense's return the fewest count with which it did, and of these the most. Tasks that never came to it have no say,
and are named. Few links learn slowly, so a run shorter than these gets twice as many, which is a rule of thumb.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_rlx2.backends.network import LayerSpec

MEASURED = Path(__file__).with_name("measured.json")
ENOUGH = 0.97  # of dense's return
MORE = 2.0  # links, for runs shorter than those measured
LEAST = 0.5  # share of zeros: with fewer, little is gained by sparsity


@dataclass(frozen=True)
class Lesson:
    """
    What stored runs of one task and one sparsity came to.

    :param algorithm: SB3's, in lower case
    :param env: environment
    :param steps: environment steps
    :param actor_sparsity: of the actor
    :param critic_sparsity: of each critic
    :param links_of_a_unit: links to a hidden unit, of ``"actor"`` and ``"critic"``
    :param of_dense: mean score, of the mean score of dense
    :param seeds: number of runs
    :param dense_seeds: number of dense runs
    :param dense_steps: steps of the dense runs, which may be fewer
    """

    algorithm: str
    env: str
    steps: int
    actor_sparsity: float
    critic_sparsity: float
    links_of_a_unit: Mapping[str, float]
    of_dense: float
    seeds: int
    dense_seeds: int
    dense_steps: int


def read_lessons() -> list[Lesson]:
    """Read what was measured."""
    return [Lesson(**row) for row in json.loads(MEASURED.read_text())]


def enough_links(lessons: Sequence[Lesson], network: str) -> float:
    """
    Give the most links to a hidden unit that a task needed to come to dense's return, of those that came to it.

    :param lessons: what was measured
    :param network: ``"actor"`` or ``"critic"``
    """
    return max(min(run.links_of_a_unit[network] for run in runs) for runs in reached(lessons).values() if runs)


def reached(lessons: Sequence[Lesson]) -> dict[str, list[Lesson]]:
    """
    Give for each task what came to dense's return in as many steps, which may be nothing.

    :param lessons: what was measured
    """
    tasks: dict[str, list[Lesson]] = {f"{each.algorithm} {each.env}": [] for each in lessons}
    for each in lessons:
        if each.of_dense >= ENOUGH and each.steps == each.dense_steps:
            tasks[f"{each.algorithm} {each.env}"].append(each)
    return tasks


def basis(lessons: Sequence[Lesson]) -> str:
    """
    Say what the number of links rests on, and what it does not hold for.

    :param lessons: what was measured
    """
    tasks = reached(lessons)
    came, never = (", ".join(name for name, runs in tasks.items() if bool(runs) is came) for came in (True, False))
    text = f"Each unit gets as many links as the most demanding of these tasks needed to reach {ENOUGH:.0%} of dense's return"
    return f"{text}: {came}." + (f" No stored run has reached it on {never}: these may need more." if never else "")


def shortest(lessons: Sequence[Lesson]) -> int:
    """
    Give the steps of the shortest runs that were measured.

    :param lessons: what was measured
    """
    return min(lesson.steps for lesson in lessons)


@dataclass(frozen=True)
class Advice:
    """
    How sparse one network is to be.

    :param keyword: the argument
    :param layers: its layers, dense
    :param links_of_a_unit: links to a hidden unit
    """

    keyword: str
    layers: Sequence[LayerSpec]
    links_of_a_unit: float

    @property
    def size(self) -> int:
        """Number of its weights if it were dense."""
        return sum(layer.size for layer in self.layers)

    @property
    def units(self) -> int:
        """Number of its hidden units."""
        return sum(layer.out_features for layer in self.layers[:-1])

    @property
    def sparsity(self) -> float:
        """Share of zeros, in whole percents, rounded to more links."""
        return max(math.floor(100 * (1 - self.links_of_a_unit * self.units / self.size)) / 100, LEAST)

    @property
    def widths(self) -> str:
        """Its layers, as ``"11-256-256-3"``."""
        return "-".join(map(str, (self.layers[0].in_features, *(layer.out_features for layer in self.layers))))


def advise(networks: Mapping[str, Sequence[LayerSpec]], steps: int, lessons: Sequence[Lesson]) -> list[Advice]:
    """
    Give advice for each network.

    :param networks: layers of a network, by the argument that says how sparse it is; the last one learns values
    :param steps: environment steps that are planned
    :param lessons: what was measured
    """
    more = MORE if steps < shortest(lessons) else 1.0
    return [
        Advice(keyword, layers, more * enough_links(lessons, "actor" if keyword.startswith("actor") else "critic"))
        for keyword, layers in networks.items()
    ]


def command_line(algo: str, env: str, steps: int, settings: Mapping[str, Any], *options: str) -> str:
    """
    Write a command of ``rlx2 train``.

    :param algo: name in the zoo
    :param env: environment
    :param steps: environment steps
    :param settings: hyper-parameters
    :param options: further ones
    """
    pairs = " ".join(f"{name}:{value:g}" for name, value in settings.items())
    return " ".join([f"rlx2 train --algo {algo} --env {env} -n {steps}", *options, f"-params {pairs}"])
