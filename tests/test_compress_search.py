"""The search on landscapes whose optimum is known, with trainings that cost nothing."""

import dataclasses
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from sb3_rlx2.compress import search as search_module
from sb3_rlx2.compress import training
from sb3_rlx2.compress.rows import rows
from sb3_rlx2.compress.sampling import DensitySampler, HopelessPruner
from sb3_rlx2.compress.search import FRESH_SEEDS, LADDER, Findings, Plan, Point, Search
from sb3_rlx2.compress.statistics import Scale
from sb3_rlx2.compress.training import Budget, Sparsities, Task
from sb3_rlx2.studies.storage import open_storage

TASK = Task("rlx2td3", "Pendulum-v1", 1000, 2, 10, "unused.yml")
RANDOM, DENSE = -1200.0, -200.0  # mean returns
TOLERANCE = 0.03
DENSE_SIZE = 211_000


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def pair(actor, critic):
    return Sparsities((("actor_sparsity", actor), ("critic_sparsity", critic)))


def densities_of(sparsities):
    return [1 - share for _, share in sparsities.arguments]


class Landscape:
    """
    Mean scores as a smooth function of two densities, and trainings that are noisy looks at it.

    :param knees: densities of actor and critic below which the score falls to half
    :param noise: standard deviation between seeds
    """

    def __init__(self, knees=(0.02, 0.04), noise=0.0):
        self.knees, self.noise = np.log2(knees), noise
        self.trainings = []  # (sparsities, seed, whether stopped)
        self.interrupt_after = math.inf

    def score(self, actor, critic):
        a, c = (1 / (1 + np.exp(-(np.log2(d) - knee) / 0.5)) for d, knee in zip((actor, critic), self.knees, strict=True))
        return 1.03 * a * c

    @staticmethod
    def size(actor, critic):
        return 70_000 * actor + 140_000 * critic + 1_000

    def best_size(self):
        grid = np.geomspace(0.01, 0.5, 150)
        actor, critic = np.meshgrid(grid, grid)
        return self.size(actor, critic)[self.score(actor, critic) >= 1 - TOLERANCE].min()

    def weigh(self, task, sparsities):
        return round(self.size(*densities_of(sparsities)))

    def train(self, task, seed, sparsities, trial, save_to=None, checkpoints=None):
        rng = np.random.default_rng(
            [seed, 1 if sparsities is None else int(1e5 * sum(share for _, share in sparsities.arguments))]
        )
        densities = (1.0, 1.0) if sparsities is None else densities_of(sparsities)
        trial.set_user_attr("size", DENSE_SIZE if sparsities is None else round(self.size(*densities)))
        trial.set_user_attr("dense_size", DENSE_SIZE)
        if len(self.trainings) >= self.interrupt_after:
            raise KeyboardInterrupt
        score = (1.0 if sparsities is None else self.score(*densities)) + rng.normal(0, self.noise)
        for step in range(1, task.n_evaluations + 1):
            trial.report(RANDOM + (DENSE - RANDOM) * score * step / task.n_evaluations, step)
            if trial.should_prune():
                self.trainings.append((sparsities, seed, True))
                raise optuna.TrialPruned
        self.trainings.append((sparsities, seed, False))
        return RANDOM + (DENSE - RANDOM) * score


ARGUMENTS = {
    **{"n_trials": 30, "n_seeds": 5, "n_finalists": 8, "seed": 0, "dense_returns": (), "study_name": "s"},
    **{"hyperparams": {}, "tolerance": TOLERANCE, "densities": (0.01, 0.5), "models": Path("unused")},
}


@pytest.fixture
def run(monkeypatch):
    """Run a search on a landscape."""
    monkeypatch.setattr(search_module, "random_returns", lambda task, seed: [RANDOM] * 20)
    samplers = itertools.count()
    monkeypatch.setattr(search_module, "DensitySampler", lambda parameters: DensitySampler(parameters, next(samplers)))

    def run(landscape, storage=None, **changes):
        monkeypatch.setattr(search_module, "train", landscape.train)
        return Search(Plan(TASK, **(ARGUMENTS | changes)), storage or open_storage(None)).run()

    return run


def true_score(landscape, point):
    return landscape.score(*densities_of(point.sparsities))


@pytest.mark.parametrize(("noise", "worst"), [(0.0, 1 - TOLERANCE), (0.03, 0.95), (0.1, 0.9)])
def test_finds_a_small_agent_that_is_good(noise, worst, run):
    ratios = []
    for number, knees in enumerate([(0.02, 0.04), (0.05, 0.03), (0.015, 0.05), (0.04, 0.06)]):
        landscape = Landscape(knees, noise)
        findings = run(landscape, seed=10_000 * number)
        assert true_score(landscape, findings.chosen) >= worst
        ratios.append(findings.chosen.size / landscape.best_size())
    assert min(ratios) >= (0.99 if noise == 0 else 0.5)
    assert np.median(ratios) < 2.5


def test_luck_is_not_enough(run):
    """Where every agent is a little too bad, many look good on one seed, and hardly one may pass on five."""
    landscape = Landscape(noise=0.05)
    landscape.score = lambda actor, critic: 1 - TOLERANCE - 1.3 * landscape.noise
    findings = [run(landscape, seed=10_000 * number, dense_returns=(DENSE,)) for number in range(6)]
    assert all(any(point.kind == "finalist" for point in found.points) for found in findings)
    assert sum(found.chosen is not None for found in findings) <= 1


def test_finalists_are_judged_on_fresh_seeds_alone(run):
    landscape = Landscape(noise=0.05)
    findings = run(landscape)
    searched = [point for point in findings.points if point.kind == "search"]
    finalists = [point for point in findings.points if point.kind == "finalist"]
    assert min(seed for point in searched for seed in point.seeds) >= FRESH_SEEDS
    assert findings.chosen is finalists[-1]
    assert findings.chosen.seeds == (0, 1, 2, 3, 4)
    for point in finalists:
        trained = {seed for sparsities, seed, _ in landscape.trainings if sparsities == point.sparsities}
        assert set(point.seeds) == {seed for seed in trained if seed < FRESH_SEEDS}
    for one, other in itertools.pairwise(finalists):
        assert other.size >= LADDER * one.size


def test_a_failed_finalist_ends_early_and_its_followers_are_larger(run):
    landscape = Landscape(noise=0.0)
    score = landscape.score
    landscape.train = _lucky_search(landscape)
    findings = run(landscape, n_trials=12, n_finalists=40)
    failed = [point for point in findings.points if point.kind == "finalist"][:-1]
    assert failed
    assert all(len(point.returns) < 5 for point in failed)
    assert any(len(point.returns) == 1 for point in failed)
    chosen = findings.chosen
    assert score(*densities_of(chosen.sparsities)) >= 1 - TOLERANCE


def _lucky_search(landscape):
    """Let each training of the search, and no other, score 1."""
    train = landscape.train

    def lucky(task, seed, sparsities, trial, save_to=None, checkpoints=None):
        value = train(task, seed, sparsities, trial, save_to)
        return DENSE if sparsities is not None and seed >= FRESH_SEEDS else value

    return lucky


def test_nothing_within_tolerance(run):
    findings = run(Landscape(knees=(0.9, 0.9)))
    assert findings.chosen is None
    assert [point.kind for point in findings.points].count("finalist") == 0


def test_hopeless_trainings_are_stopped_and_good_ones_are_not(run):
    landscape = Landscape()
    findings = run(landscape)
    stopped = [point for point in findings.points if point.stopped]
    assert stopped
    assert all(true_score(landscape, point) < 0.5 for point in stopped)
    assert all(landscape.score(*densities_of(s)) < 0.52 for s, _, was_stopped in landscape.trainings if was_stopped)


def test_pruner_waits_and_compares_with_the_slowest_success():
    curves = [{1: 0.0, 2: 0.8, 3: 0.6, 4: 1.0}, {1: 0.1, 2: 0.2, 3: 0.4, 4: 0.9}]
    pruner = HopelessPruner(9, lambda: curves, lambda value: value)

    def prune(**values):
        trial = optuna.create_trial(value=0.0, intermediate_values={int(step[1:]): value for step, value in values.items()})
        return pruner.prune(optuna.create_study(), trial)

    assert not prune(s1=-5.0, s2=-5.0)  # the first third
    assert prune(s3=0.19)
    assert not prune(s3=0.21)
    assert not prune(s1=0.21, s3=0.0)  # its best counts
    assert not prune(s9=-5.0)  # trained to the end
    curves.append({3: -0.1})
    assert not prune(s3=-5.0)


@pytest.mark.parametrize("done", [1, 4, 20, 36])
def test_interrupted_anywhere_continues_without_doing_anything_twice(done, run):
    landscape, storage = Landscape(noise=0.05), open_storage(None)
    landscape.interrupt_after = done
    with pytest.raises(KeyboardInterrupt):
        run(landscape, storage)
    landscape.interrupt_after = math.inf
    findings = run(landscape, storage)
    keys = [(sparsities, seed) for sparsities, seed, _ in landscape.trainings]
    assert len(set(keys)) == len(keys)
    assert len([point for point in findings.points if point.kind == "search"]) == 30
    assert sorted(seed for _, seed, _ in landscape.trainings if seed >= FRESH_SEEDS) == [*range(FRESH_SEEDS, FRESH_SEEDS + 30)]
    assert findings.chosen.seeds == (0, 1, 2, 3, 4)
    again = run(landscape, storage)
    assert len(landscape.trainings) == len(keys)
    assert again.chosen == findings.chosen


def test_more_trials_and_another_tolerance_keep_what_is_trained(run):
    landscape, storage = Landscape(noise=0.02), open_storage(None)
    run(landscape, storage, n_trials=12)
    done = list(landscape.trainings)
    findings = run(landscape, storage, n_trials=15, tolerance=0.2)
    assert findings.chosen is not None
    assert len([point for point in findings.points if point.kind == "search"]) == 15
    assert len({(s, seed) for s, seed, _ in landscape.trainings}) == len(landscape.trainings)
    assert landscape.trainings[: len(done)] == done


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "seed=0 and not 3"),
        ({"hyperparams": {"gamma": 0.9}}, r"hyperparams=\{\} and not \{'gamma': 0.9\}"),
        ({"densities": (0.02, 0.5)}, r"densities=\[0.01, 0.5\] and not \[0.02, 0.5\]"),
    ],
)
def test_another_search_under_the_same_name(changes, message, run):
    storage = open_storage(None)
    run(Landscape(), storage, n_trials=2, n_seeds=2)
    with pytest.raises(ValueError, match=message):
        run(Landscape(), storage, n_trials=2, n_seeds=2, **changes)


def test_an_agent_whose_training_breaks_down_counts_as_random(run):
    landscape = Landscape()
    train = landscape.train
    landscape.train = lambda task, seed, sparsities, *rest: (
        train(task, seed, sparsities, *rest)
        if sparsities is None or seed % 2
        else train(task, seed, sparsities, *rest) and None
    )
    findings = run(landscape, n_trials=12)
    broken = [point for point in findings.points if point.kind == "search" and point.seeds[0] % 2 == 0 and not point.stopped]
    assert broken
    assert all(point.mean_return == RANDOM for point in broken)
    assert findings.chosen is None


def test_given_dense_returns_are_not_trained(run):
    landscape = Landscape()
    findings = run(landscape, dense_returns=(-210.0, -190.0), n_trials=5)
    assert all(sparsities is not None for sparsities, _, _ in landscape.trainings)
    assert findings.scale == Scale((RANDOM,) * 20, (-210.0, -190.0))


def test_a_refuted_search_result_leaves_the_pareto_front():
    lucky, honest = pair(0.98, 0.98), pair(0.9, 0.9)
    searched = [Point("search", lucky, 20, 1000, (-200.0,), (1000,)), Point("search", honest, 100, 1000, (-220.0,), (1001,))]
    stopped = Point("search", pair(0.99, 0.99), 10, 1000, (-150.0,), (1002,), stopped=True)
    finalists = [
        Point("finalist", lucky, 20, 1000, (-900.0,), (0,)),
        Point("finalist", honest, 100, 1000, (-230.0, -210.0), (0, 1)),
    ]
    dense = Point("dense", None, 1000, 1000, (-200.0,), ())
    table = rows(Findings(Scale((RANDOM,), (DENSE,)), [dense, *searched, stopped, *finalists], finalists[1]), TOLERANCE)
    assert [row.kind for row in table] == ["dense", "stopped", "search", "finalist", "search", "chosen"]
    assert [row.kind for row in table if row.pareto] == ["dense", "finalist", "chosen"]
    assert [row.within for row in table] == [True, False, True, False, True, True]
    assert table[5].score == pytest.approx(0.98)
    assert table[5].compression == pytest.approx(10.0)
    assert math.isnan(table[3].low)
    assert table[5].low < 0.98 < table[5].high


class OneNetwork(Landscape):
    """Scores by one density, whose knee is the first."""

    def score(self, density):
        return 1.03 / (1 + np.exp(-(np.log2(density) - self.knees[0]) / 0.5))

    @staticmethod
    def size(density):
        return 210_000 * density + 1_000

    def train(self, task, seed, sparsities, trial, save_to=None, checkpoints=None):
        if sparsities is None:
            trial.set_user_attr("size", DENSE_SIZE)
            trial.set_user_attr("dense_size", DENSE_SIZE)
            return DENSE
        assert list(dict(sparsities.arguments)) == ["sparsity"]
        return super().train(task, seed, sparsities, trial, save_to)


def test_one_network_has_one_density(run, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "TASK", dataclasses.replace(TASK, algo="rlx2dqn"))
    landscape = OneNetwork()
    findings = run(landscape)
    grid = np.geomspace(0.01, 0.5, 1000)
    best = landscape.size(grid)[landscape.score(grid) >= 1 - TOLERANCE].min()
    assert true_score(landscape, findings.chosen) >= 1 - TOLERANCE
    assert findings.chosen.size < 1.2 * best
    (table, *_) = rows(findings, TOLERANCE)
    assert list(table.columns()) == [
        *("kind", "sparsity", "size", "compression", "seeds", "mean_return", "score", "low", "high", "within", "pareto")
    ]


@pytest.mark.parametrize("parameters", [["density"], ["actor_density", "critic_density"]])
def test_the_start_is_evenly_spread(parameters):
    steps = list(DensitySampler(parameters).steps.values())
    assert steps == pytest.approx([0.6180339887] if len(steps) == 1 else [0.7548776662, 0.5698402910])
    for step in steps:
        points = np.sort([(0.5 + (number + 1) * step) % 1.0 for number in range(10)])
        assert np.diff(points).max() < 0.25


@pytest.mark.parametrize(("share_of_best", "is_found"), [(0.6, False), (1.5, True)])
def test_bytes_may_be_limited(share_of_best, is_found, run, monkeypatch):
    """All that is trained fits, and reaches up to the limit; what fits is judged as ever."""
    landscape = Landscape()
    monkeypatch.setattr(training, "weigh", landscape.weigh)
    max_bytes = round(share_of_best * landscape.best_size())
    budget = Budget.of(TASK, max_bytes, (0.01, 0.5))
    findings = run(landscape, budget=budget, n_finalists=20)
    sizes = [landscape.weigh(TASK, sparsities) for sparsities, _, _ in landscape.trainings if sparsities is not None]
    assert 0.8 * max_bytes < max(sizes) <= max_bytes
    assert (findings.chosen is not None) == is_found
    for point in findings.points[1:]:
        assert point.size == landscape.weigh(TASK, point.sparsities)
        assert all(
            0.00999 <= density <= most + 1e-5
            for density, most in zip(densities_of(point.sparsities), budget.highest, strict=True)
        )


def test_another_limit_goes_on_with_what_is_trained(run, monkeypatch):
    landscape, storage = Landscape(), open_storage(None)
    monkeypatch.setattr(training, "weigh", landscape.weigh)
    first = run(landscape, storage)
    done = len(landscape.trainings)
    budget = Budget.of(TASK, first.chosen.size - 1, (0.01, 0.5))
    second = run(landscape, storage, budget=budget)
    assert len(landscape.trainings) < done + 45
    assert all(landscape.weigh(TASK, s) <= budget.max_bytes for s, _, _ in landscape.trainings[done:])
    assert second.chosen is None or second.chosen.size < first.chosen.size


def test_no_bytes_at_all(monkeypatch):
    landscape = Landscape()
    monkeypatch.setattr(training, "weigh", landscape.weigh)
    least = landscape.size(0.01, 0.01)
    with pytest.raises(ValueError, match=r"--max-bytes 2,000 must be at least 3,100, the bytes of --objective all"):
        Budget.of(TASK, 2_000, (0.01, 0.5))
    exact = Budget.of(TASK, round(least), (0.01, 0.5))
    assert exact.highest == pytest.approx((0.01, 0.01))
    assert exact.fit(pair(0.5, 0.5)) == pair(0.99, 0.99)


def test_chosen_policies_and_last_ones_are_not_compared():
    identities = [Plan(dataclasses.replace(TASK, deployed=deployed), **ARGUMENTS).identity for deployed in (False, True)]
    assert identities[0] != identities[1]
