"""
The README's results are what the reports make of the stored results, and what measures them still runs.

See test_returns_report.py for the returns.
"""

import pytest

from benchmarks import readme, summary
from benchmarks.returns.results import Results
from benchmarks.speed import mkl, report
from benchmarks.speed.cells import agent
from benchmarks.speed.measure import Job, Worker
from benchmarks.speed.results import latest, load, median
from benchmarks.speed.sections import PRODUCTS
from benchmarks.speed.tasks import TASKS, make
from sb3_rlx2.backends import MASKED_FROM, MASKED_FROM_WEIGHTS
from sb3_rlx2.fast.eligible import why_not
from sb3_rlx2.fast.team import usable_threads


def test_readme_shows_what_is_stored():
    shown = readme.README.read_text()
    assert readme.splice("results", summary.table(), shown) == shown


def test_cells_that_are_not_there(monkeypatch):
    monkeypatch.setattr(summary, "load_speed", lambda _: {})
    rows = summary.table().split("\n\n")[0].splitlines()[2:]
    assert rows
    assert all(row.count("|") == 5 for row in rows)  # no column for what was not measured
    monkeypatch.setattr(summary, "load_returns", lambda: Results([]))
    assert len(summary.table().splitlines()) == 4  # two of the header, one empty, how to read it


def test_auto_takes_the_backend_that_was_faster():
    rows = latest(load(report.RESULTS))["crossover"].rows
    live = {(row["width"], row["density"]): row["density"] * row["width"] * (row["width"] + 24) for row in rows}  # a critic's
    wide = [density for (width, density), links in live.items() if links > MASKED_FROM_WEIGHTS]
    assert min(wide) < MASKED_FROM < max(wide) > 0.99 < max(density for width, density in live if width < 256)
    for row in rows:
        dense = row["density"] > MASKED_FROM and live[row["width"], row["density"]] > MASKED_FROM_WEIGHTS
        if row["density"] != MASKED_FROM:
            assert (median(row, "parts, masked") < median(row, "parts, csr")) == dense


def test_mkl_is_made_to_use_its_vector_code():
    variables = mkl.as_on_intel()
    if variables is None:
        pytest.skip("MKL does by itself, or nothing can be done about it")
    assert mkl.VECTOR_CODE not in mkl._what_mkl_says({})
    assert mkl.VECTOR_CODE in mkl._what_mkl_says(variables)
    jobs = mkl.both_ways({"dense": Job("dense_product", 1, {"width": 8, "batch": 1})}, "dense")
    assert list(jobs) == ["dense", "dense, MKL as on Intel"]
    assert [job.variables for job in jobs.values()] == [{}, variables]
    assert jobs["dense"].arguments == jobs["dense, MKL as on Intel"].arguments
    with jobs["dense, MKL as on Intel"].start() as worker:
        assert worker.run("dense_product", 1, jobs["dense"].arguments)[0] > 0


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


SPARSE, DENSE = (agent(kind, "TD3", "Pendulum-v1", 8, actor_sparsity=0.5, critic_sparsity=0.5) for kind in ("rlx2", "dense"))
TRAINED = [{"warm_up": 3} | each for each in (SPARSE, DENSE)]
ARGUMENTS = {
    "end_to_end": TRAINED,
    "gradient_step": TRAINED,
    "topology_update": TRAINED[:1],
    "predict": [SPARSE, DENSE],
    "bare_forward": [SPARSE, DENSE],
    "line_transfer": [],  # needs two cores, below
    "arithmetic": [{"threads": 1}],
    "memory": TRAINED,
    "dense_product": [{"width": 8, "batch": 2}],
    "sparse_product": [{"product": name, "width": 8, "layers": 1, "density": 0.5, "batch": 2} for name in PRODUCTS],
    "bandwidth": [{"numbers": 8}],
    "stages": TRAINED[:1],
    "stage_work": [SPARSE],
}


def test_every_task_runs(worker):
    assert ARGUMENTS.keys() == TASKS.keys()
    for task, cases in ARGUMENTS.items():
        for arguments in cases:
            assert worker.run(task, 1, arguments)[0] > 0


@pytest.mark.parametrize("algorithm", ["TD3", "SAC"])
def test_all_stages_are_found(worker, algorithm):
    _, seconds = worker.run("stages", 3, {"warm_up": 3} | agent("rlx2", algorithm, "Hopper-v4"))
    idle = {name for name, spent in seconds.items() if spent == 0}
    assert idle == (set() if algorithm == "SAC" else {"entropy on the way"})


def test_arrays_serve_the_normalised_agent():
    sparsity = {"actor_sparsity": 0.5, "critic_sparsity": 0.5}
    model = make(**agent("rlx2", "SAC", "Pendulum-v1", normalize=True, **sparsity))
    assert model.get_vec_normalize_env() is not None
    assert why_not(model) is None


@pytest.mark.skipif(usable_threads(2) < 2, reason="needs two cores")
def test_a_line_takes_its_time():
    with Worker(threads=2) as worker:
        seconds, _ = worker.run("line_transfer", 10_000, {})
    assert seconds > 10_000 * 1e-8  # no cores are so close
