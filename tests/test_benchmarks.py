"""
The README's speeds are what the report makes of the stored results, and what measures them still runs.

See test_returns_report.py for the returns.
"""

import pytest

from benchmarks import readme
from benchmarks.speed import report
from benchmarks.speed.cells import agent
from benchmarks.speed.measure import Worker
from benchmarks.speed.results import load, median
from sb3_rlx2.backends import MASKED_FROM
from sb3_rlx2.team import usable_threads


def test_readme_shows_the_stored_speeds():
    shown = readme.README.read_text()
    assert readme.splice("speed", report.report(), shown) == shown


def test_auto_takes_the_backend_that_was_faster():
    rows = load(report.RESULTS)["crossover"].rows
    assert min(row["density"] for row in rows) < MASKED_FROM < max(row["density"] for row in rows)
    for row in rows:
        if row["density"] != MASKED_FROM:
            assert (median(row, "parts, masked") < median(row, "parts, csr")) == (row["density"] > MASKED_FROM)


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


@pytest.mark.parametrize("algorithm", ["TD3", "SAC"])
def test_all_stages_are_found(worker, algorithm):
    _, seconds = worker.run("stages", 3, {"warm_up": 3} | agent("rlx2", algorithm, "Hopper-v4"))
    idle = {name for name, spent in seconds.items() if spent == 0}
    assert idle == (set() if algorithm == "SAC" else {"entropy on the way"})


@pytest.mark.skipif(usable_threads(2) < 2, reason="needs two cores")
def test_a_line_takes_its_time():
    with Worker(threads=2) as worker:
        seconds, _ = worker.run("line_transfer", 10_000, {})
    assert seconds > 10_000 * 1e-8  # no cores are so close
