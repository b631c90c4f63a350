"""The targets, and whether the stored results meet them."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.speed.kernel_rates import dense_rate, rate
from benchmarks.speed.results import Section, faster_way, geometric_mean, line_fit, median, ratio
from benchmarks.speed.sections import DENSITIES, NNZ_MULTIPLES, PRODUCTS


@dataclass(frozen=True)
class Check:
    """
    A target.

    :param what: what is measured
    :param value: the result
    :param target: the limit
    :param unit: what stands behind both numbers
    :param least: whether the limit is the least that will do, else it is the most
    """

    what: str
    value: float
    target: float
    unit: str = "x"
    least: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.least else self.value <= self.target

    @property
    def row(self) -> list[str]:
        limit = f"{'at least' if self.least else 'at most'} {self.target:g}{self.unit}"
        return [self.what, f"{self.value:.3g}{self.unit}", limit, "met" if self.met else "**not met**"]


def target_against_sb3(algorithm: str, env: str) -> float:
    densest = algorithm == "SAC" and env in ("HalfCheetah-v4", "Ant-v4")
    return 3.0 if densest else 4.0


TARGET_AGAINST_SBX = 2.0
MEAN_TARGETS = {"dense": 7.0, "sbx": 3.5}
PLACES = {"one layer alone": "single", "inside a network": "inside"}
OPPONENTS = {"dense": "stock SB3", "sbx": "SBX"}


def of_end_to_end(section: Section) -> Iterator[Check]:
    for opponent, name in OPPONENTS.items():
        rows = [row for row in section.rows if opponent in row["seconds"]]
        if rows:
            mean = geometric_mean([ratio(row, opponent, "rlx2") for row in rows])
            yield Check(f"end to end against {name}, geometric mean", mean, MEAN_TARGETS[opponent])


def of_earlier(section: Section) -> Iterator[Check]:
    for row in section.rows:
        name = f"end to end against {row['commit']}, {row['algorithm']}, {row['env']}"
        yield Check(name, ratio(row, "earlier", "now"), 0.97)


def of_vec_normalize(section: Section) -> Iterator[Check]:
    for row in section.rows:
        name = f"end to end with VecNormalize against without, {row['algorithm']}, {row['env']}"
        yield Check(name, ratio(row, "plain", "normalized"), 0.9)


def of_gradient_step(section: Section) -> Iterator[Check]:
    targets = {
        ("TD3", "HalfCheetah-v4"): 3.5,
        ("TD3", "Hopper-v4"): 5.0,
        ("SAC", "HalfCheetah-v4"): 3.0,
        ("SAC", "Hopper-v4"): 4.5,
    }
    for (algorithm, env), target in targets.items():
        row = section.one(algorithm=algorithm, env=env)
        yield Check(f"gradient step of the parts in SB3's {algorithm}, {env}", ratio(row, "dense", "parts"), target)


def of_algorithms(section: Section) -> Iterator[Check]:
    for algorithm, opponent, target in (
        ("TQC", "dense", 5.0),
        ("QRDQN", "dense", 6.0),
        ("DQN", "dense", 8.0),
        ("DQN", "small dense", 2.5),
        ("CrossQ", "dense", 2.5),
    ):
        row, size = section.one(algorithm=algorithm), ", as many parameters" if opponent == "small dense" else ""
        name = f"gradient step of {algorithm} on {row['env']}, against dense{size}"
        yield Check(name, ratio(row, faster_way(row, opponent), "rlx2"), target)


def of_threads(section: Section) -> Iterator[Check]:
    for task, target in (("gradient_step", 1.5), ("end_to_end", 1.3)) if section.rows else ():
        name = task.replace("_", " ")
        for row in section.where(task=task, env="HalfCheetah-v4"):
            yield Check(f"two threads, {name}, {row['algorithm']}, HalfCheetah-v4", ratio(row, "1", "2"), target)
        slowest = min(ratio(row, "1", "2") for row in section.where(task=task))
        yield Check(f"two threads, {name}, least of all cells", slowest, 1.0)


def of_predict(section: Section) -> Iterator[Check]:
    slowest = min(ratio(row, "dense", "rlx2") for row in section.where(task="predict"))
    yield Check("`predict` of one observation, least of all cells", slowest, 4.0)
    yield Check("bare forward of HalfCheetah's actor, batch 1", ratio(section.one(task="bare_forward"), "dense", "rlx2"), 4.0)


def of_kernels(section: Section) -> Iterator[Check]:
    dense = dense_rate(section, 256)
    for product, (place, of) in itertools.product(PRODUCTS, PLACES.items()):
        rates = {(row["batch"], row["density"]): getattr(rate(row, product), of) for row in section.rows}
        share = np.min([rates[256, density] for density in DENSITIES]) / dense  # unlike min(), lets no NaN pass
        slower = np.max([rates[256, density] / rates[batch, density] for batch in (32, 100, 1024) for density in DENSITIES])
        yield Check(f"{product}, {place}: share of the dense rate, batch 256", 100 * share, 50, " %")
        yield Check(f"{product}, {place}: time per FLOP, worst of batch 32, 100, 1024 over 256", slower, 2.0, least=False)


def of_scaling(section: Section) -> Iterator[Check]:
    sparse = section.one(what="sparse")
    for width, target in (("1024", 4.0), ("2048", 8.0)):
        yield Check(f"gradient step, width {width} against 256, same links", ratio(sparse, width, "256"), target, least=False)
    links = section.one(what="links")
    names = [str(multiple) for multiple in NNZ_MULTIPLES]
    _, off = line_fit([links["bytes"][name]["nnz"] for name in names], [median(links, name) for name in names])
    yield Check(
        f"gradient step at width {links['width']}, largest distance from a line in nnz", 100 * off, 15, " %", least=False
    )
    for width, target in (("256", 0.5), ("2048", 2.0)):
        share = 100 * update_share(section, width)
        yield Check(f"topology updates every 10,000 steps, width {width}", share, target, " %", least=False)


def update_share(section: Section, width: str) -> float:
    """Give the cost of topology updates every 10,000 steps of each network, as a share of those steps."""
    plain = median(section.one(what="sparse"), width)
    return (median(section.one(what="topology update"), width) - plain) / (10_000 * plain)


def of_startup(section: Section) -> Iterator[Check]:
    slower = ratio(section.one(what="import"), "sb3_rlx2", "stable_baselines3")
    yield Check("`import sb3_rlx2` against stable_baselines3", slower, 1.15, least=False)
    for row in section.rows:
        if "cold" in row["seconds"]:
            yield Check(f"{row['what']}, cold", median(row, "cold"), 8.0, " s", least=False)
            yield Check("the same from the disk cache", median(row, "warm"), 2.0, " s", least=False)


OF: dict[str, Callable[[Section], Iterator[Check]]] = {
    "end_to_end": of_end_to_end,
    "earlier": of_earlier,
    "vec_normalize": of_vec_normalize,
    "gradient_step": of_gradient_step,
    "algorithms": of_algorithms,
    "threads": of_threads,
    "predict": of_predict,
    "kernels": of_kernels,
    "scaling": of_scaling,
    "startup": of_startup,
}
