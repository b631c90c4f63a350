"""The benchmark's runner: what is killed goes on as if nothing had happened, and nothing is trained twice."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from benchmarks.returns import agents, grid, probes, status, training
from benchmarks.returns.__main__ import main, parse
from benchmarks.returns.agents import agent_class
from benchmarks.returns.cells import SETS, Cell
from benchmarks.returns.grid import Grid
from benchmarks.returns.training import BEGUN, CHECKPOINTS, EARLIER, MODEL, PROGRESS, Places
from sb3_rlx2.checkpoint import generations
from sb3_rlx2.studies import timing
from sb3_rlx2.studies.storage import open_storage
from sb3_rlx2.studies.workers import _bury, _retry_dead_trials
from tests import apart, postgres
from tests.checks import assert_equal
from tests.compilers import needs

ROOT = Path(__file__).parent.parent
SMOKE = SETS["smoke"]
TIMING = {"seconds", "checkpoint_seconds", "date", "interruptions", "revision"}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
# Evaluations of few episodes, and small batches: what takes long, and is not what is tested.
FEW, BATCH = 2, 32
SMALL = (
    f"from benchmarks.returns import agents, training; training.EPISODES = {FEW};"
    f"agents.INTERVALS['batch_size'] = agents.STOCK['batch_size'] = {BATCH}\n"
)
QUICK = "from sb3_rlx2.studies import timing; timing.HEARTBEAT_INTERVAL, timing.GRACE_PERIOD = 1, 5"


def places(folder):
    return Places(folder / "work", folder / "results")


def learned(result):
    cost = result["cost"] | {"disk_bytes": None}  # the zip also holds when training began
    curve = [{name: value for name, value in row.items() if name not in TIMING} for row in result["curve"]]
    return {name: value for name, value in result.items() if name not in TIMING} | {"cost": cost, "curve": curve}


def start(folder, *names, cores=1, environment=ENVIRONMENT):
    command = [sys.executable, "-m", "benchmarks.returns", "run", *names, "--cores", str(cores), "--checkpoint-every", "100"]
    command += ["--folder", str(folder / "work"), "--results", str(folder / "results")]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def the_study(folder, names="smoke"):
    return optuna.load_study(study_name=f"{grid.STUDY}{names}", storage=open_storage(str(folder / "work" / "grid.log")))


def children(process):
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(training, "EPISODES", FEW)
    for arguments in (agents.INTERVALS, agents.STOCK):
        monkeypatch.setitem(arguments, "batch_size", BATCH)


def wait_for(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:backend='auto' takes 'masked'")  # pruning begins dense
@pytest.mark.parametrize(
    ("cell", "kills"),
    [
        (Cell("rlx2", "td3", "Pendulum-v1", 0, 3_400, 200), (1, 2_600)),
        (Cell("rlx2-set", "td3", "Pendulum-v1", 0, 2_400, 200), (1_800,)),
        (Cell("pruning", "td3", "Pendulum-v1", 0, 2_000, 200), (1_600,)),
        (Cell("dense", "sac", "Pendulum-v1", 0, 1_250, 200), (1_000,)),
        (Cell("interplay_predictive-fixed", "dqn", "MinAtar/SpaceInvaders-v1", 0, 2_400, 200), (1_800,)),
    ],
    ids=["rlx2", "set", "pruning", "dense", "structure"],
)
def test_a_killed_cell_goes_on_as_if_nothing_had_happened(cell, kills, tmp_path):
    """Killed with SIGKILL behind a checkpoint, and once more in its second process."""
    if cell.env.startswith("MinAtar"):
        needs("minatar")
    expected = training.train(cell, places(tmp_path / "undisturbed"))
    if cell.method in ("rlx2", "rlx2-set"):  # links have moved before the last kill and after it
        kept = [row for row in expected["curve"] if row["step"] <= kills[-1]]
        assert 0 < kept[-1]["critic_updates"] < expected["curve"][-1]["critic_updates"]
    if cell.method == "rlx2":  # the buffer has forgotten before the last kill and after it
        assert kept[-1]["buffer"] < kept[-1]["step"]
        assert expected["curve"][-1]["buffer"] < kept[-1]["buffer"] + cell.steps - kept[-1]["step"]
    code = SMALL + (
        "from pathlib import Path; from benchmarks.returns.cells import Cell; from benchmarks.returns.training import *\n"
        "training.REVISION = 'older';"
        f"train({cell!r}, Places(Path({str(tmp_path / 'work')!r}), Path({str(tmp_path / 'results')!r})), 100)"
    )
    path = tmp_path / "work" / cell.name / CHECKPOINTS
    for at_least in kills:

        def reached(at_least=at_least):
            names = [generations.NAME.fullmatch(each.name) for each in (path.iterdir() if path.exists() else ())]
            return any(name is not None and int(name["step"]) >= at_least for name in names)

        process = apart.Process(code, cwd=ROOT)
        try:
            wait_for(lambda: reached() or process.poll() is not None)  # noqa: B023
        finally:
            process.kill()
        assert process.result().returncode == -signal.SIGKILL, process.result().stderr
    assert not places(tmp_path).result(cell).exists()
    result = training.train(cell, places(tmp_path))
    assert result["interruptions"] == len(kills)
    assert result["revision"] == f"older, {training.REVISION}"
    assert learned(result) == learned(expected)
    assert not path.exists()
    weights, expected_weights = (
        agent_class(cell).load(folder / "work" / cell.name / MODEL).policy.state_dict()
        for folder in (tmp_path, tmp_path / "undisturbed")
    )
    assert_equal(weights, expected_weights)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("method", ["rlx2", "dense"])
def test_other_policies_are_scored_towards_the_end_and_training_does_not_notice(method, tmp_path, monkeypatch):
    cell = Cell(method, "td3", "Pendulum-v1", 0, 2_000, 200)
    result = training.train(cell, places(tmp_path / "scored"))
    assert [row["step"] for row in result["curve"] if "deployed" in row] == [2_000]
    scored = result["curve"][-1]["deployed"]
    assert list(scored) == [*probes.PROBES]
    assert [len(returns) for returns in scored.values()] == [FEW] * len(scored)
    # The fifth episode of the policy's own ended at this step: that checkpoint is the current policy, with the same starts.
    assert [name for name, returns in scored.items() if returns == result["curve"][-1]["returns"]] == ["checkpoint 5"]
    assert np.all(np.diff([row["seconds"] for row in result["curve"]]) >= 0)
    assert not hasattr(agent_class(cell).load(tmp_path / "scored" / "work" / cell.name / MODEL), "deployed_actor")

    monkeypatch.setattr(probes.Probes, "_on_step", lambda _: True)
    monkeypatch.setattr(probes.Probes, "_on_rollout_start", lambda _: None)
    plain = training.train(cell, places(tmp_path / "plain"))
    assert plain["curve"][-1]["deployed"] == {}
    assert [row["returns"] for row in plain["curve"]] == [row["returns"] for row in result["curve"]]
    weights, plain_weights = (
        agent_class(cell).load(tmp_path / name / "work" / cell.name / MODEL).policy.state_dict()
        for name in ("scored", "plain")
    )
    assert_equal(weights, plain_weights)


def test_two_workers_share_a_grid_and_nothing_is_trained_twice(tmp_path):
    run = start(tmp_path, "smoke", cores=2)
    assert run.wait(300) == 0, (tmp_path / "log").read_text()
    trials = the_study(tmp_path).get_trials()
    assert sorted(trial.user_attrs["cell"] for trial in trials) == sorted(cell.name for cell in SMOKE)
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    assert any(a.datetime_start < b.datetime_start < a.datetime_complete for a in trials for b in trials)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert len(before) == len(SMOKE)
    Grid(["smoke"], SMOKE, str(tmp_path / "work" / "grid.log"), places(tmp_path), 100).work()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()} == before

    # Another machine, which shares the storage alone, gets the results from there.
    elsewhere = Places(tmp_path / "elsewhere", tmp_path / "elsewhere" / "results")
    grid.collect(open_storage(str(tmp_path / "work" / "grid.log")), elsewhere)
    assert {path.name: path.read_text() for path in elsewhere.results.iterdir()} == {p.name: p.read_text() for p in before}


def test_workers_do_not_outlive_a_killed_run_and_a_stopped_one_gives_its_cell_back(tmp_path):
    name, place = SMOKE[0].name, tmp_path / "work" / SMOKE[0].name / CHECKPOINTS
    run = start(tmp_path, name)
    wait_for(lambda: any((place).glob("*_step_*")))
    (worker,) = children(run.pid)
    run.kill()
    run.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists())

    run = start(tmp_path, SMOKE[1].name)
    wait_for(lambda: any((tmp_path / "work" / SMOKE[1].name / CHECKPOINTS).glob("*_step_*")))
    run.terminate()
    assert run.wait() == 143
    trials = the_study(tmp_path, SMOKE[1].name).get_trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL]  # at once, without waiting for a heartbeat to stay out


def hold(trial, cell):
    """Make a trial one of this cell."""
    trial.set_user_attr("cell", cell.name)
    trial.set_user_attr("fingerprint", cell.fingerprint)


@pytest.fixture
def trained(monkeypatch):
    """Names of the cells that workers take up, none of which is really trained."""
    names = []
    monkeypatch.setattr(grid, "train", lambda cell, *_: names.append(cell.name) or {"curve": [{"returns": [1.0]}]})
    return names


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # of the trials that are asked for by hand
def test_trials_of_other_cells_leave_none_untrained(tmp_path, trained):
    """Of an earlier version of a set, or of a cell that had other arguments then."""
    shared = Grid(["smoke"], SMOKE[:2], str(tmp_path / "grid.log"), places(tmp_path), 100)
    older = [SMOKE[2], replace(SMOKE[3], steps=10), replace(SMOKE[0], steps=10)]
    for cell in older:
        trial = shared.study.ask()
        hold(trial, cell)
        trial.set_user_attr("cell", SMOKE[0].name if cell is older[-1] else cell.name)
        trial.set_user_attr("result", "other")
        shared.study.tell(trial, 1.0)
    shared.work()
    assert trained == [cell.name for cell in SMOKE[:2]]
    shared.collect()
    assert "curve" in places(tmp_path).result(SMOKE[0]).read_text()
    shared.work()
    assert len(trained) == 2


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_cell_whose_worker_was_stopped_goes_to_one_other_worker_only(tmp_path, trained):
    shared = Grid(["smoke"], SMOKE[:3], str(tmp_path / "grid.log"), places(tmp_path), 100)
    stopped = shared.study.ask()
    hold(stopped, SMOKE[0])
    trials = shared.study.get_trials()
    _bury(shared.storage, stopped._trial_id, worker_died=False)
    assert shared._next(trials)["cell"] == SMOKE[1].name  # whoever looked before
    assert shared._next(shared.study.get_trials())["cell"] == SMOKE[1].name  # and after
    shared.work()
    assert trained == [cell.name for cell in SMOKE[:3]]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_cell_that_kills_its_workers_is_given_up_until_the_next_run(tmp_path, trained, monkeypatch):
    shared = Grid(["smoke"], SMOKE[:2], str(tmp_path / "grid.log"), places(tmp_path), 100)
    for _ in range(timing.MAX_RETRIES + 1):
        deadly = shared.study.ask()  # the retry, if there is one
        hold(deadly, SMOKE[0])
        _bury(shared.storage, deadly._trial_id, worker_died=True)
        with shared.storage.exclusive(shared.study._study_id) as held:
            _retry_dead_trials(shared.study, held)
    shared.work()
    assert trained == [SMOKE[1].name]
    assert shared.failures() == {SMOKE[0].name: "its workers died, time and again"}
    shared._forgive()
    shared.work()
    assert trained == [SMOKE[1].name, SMOKE[0].name]
    assert shared.failures() == {}


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(QUICK)  # which every Python begins with
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    run = start(tmp_path, SMOKE[0].name, environment=ENVIRONMENT | {"PYTHONPATH": paths})
    wait_for(lambda: any((tmp_path / "work" / SMOKE[0].name / CHECKPOINTS).glob("*_step_*")))
    (worker,) = children(run.pid)
    os.kill(worker, signal.SIGKILL)
    assert run.wait(300) == 0, (tmp_path / "log").read_text()
    assert json.loads(places(tmp_path).result(SMOKE[0]).read_text())["interruptions"] == 1


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # of the trial that is asked for by hand
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_a_lost_workers_cell_is_taken_over(kind, tmp_path, monkeypatch, trained):
    monkeypatch.setattr("sb3_rlx2.studies.timing.GRACE_PERIOD", 1)
    with contextlib.nullcontext(str(tmp_path / "grid.log")) if kind == "journal" else postgres.server() as storage:
        shared = Grid(["smoke"], SMOKE[:1], storage, places(tmp_path), 100)
        lost = shared.study.ask()  # of a worker that dies while it trains
        shared.storage.record_heartbeat(lost._trial_id)
        hold(lost, SMOKE[0])
        time.sleep(2.5)
        shared.work()
        assert trained == [SMOKE[0].name]
        assert [trial.state for trial in shared.study.get_trials()] == [TrialState.FAIL, TrialState.COMPLETE]
        shared.collect()  # what another machine does
        if kind == "postgresql":
            shared.storage._backend.engine.dispose()
    assert places(tmp_path).result(SMOKE[0]).exists()


def test_a_broken_cell_is_named_and_tried_again_by_the_next_run(tmp_path, monkeypatch):
    own = places(tmp_path)
    shared = Grid(["smoke"], SMOKE[:2], str(tmp_path / "work" / "grid.log"), own, 100)
    broken = {SMOKE[0].name}
    trained = []

    def train(cell, *_):
        trained.append(cell.name)
        if cell.name in broken:
            raise ValueError("no such thing")
        return {"curve": [{"returns": [1.0]}]}

    monkeypatch.setattr(grid, "train", train)
    shared.work()
    assert trained == [cell.name for cell in SMOKE[:2]]
    assert shared.failures() == {SMOKE[0].name: "ValueError: no such thing"}
    overview = status.overview(["smoke"], own, shared.url)
    assert f"{SMOKE[0].name} failed: ValueError: no such thing" in overview

    broken.clear()
    shared._forgive()
    shared.work()
    assert trained == [*(cell.name for cell in SMOKE[:2]), SMOKE[0].name]
    assert shared.failures() == {}


def test_a_finished_cell_is_never_trained_again(tmp_path, monkeypatch):
    places(tmp_path).store(SMOKE[0], '{"curve": [{"returns": [1.0]}]}')
    monkeypatch.setattr(training, "Run", lambda *_: pytest.fail("trained again"))
    assert training.train(SMOKE[0], places(tmp_path))["curve"][0]["returns"] == [1.0]


def test_a_full_disk_does_not_end_training(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    cell = Cell("static", "td3", "Pendulum-v1", 0, 1_050, 500)
    folder = tmp_path / "work" / cell.name
    monkeypatch.setattr("sb3_rlx2.checkpoint.generations.write", full)
    write = training.write_text
    monkeypatch.setattr(training, "write_text", lambda path, text: full() if path.name == PROGRESS else write(path, text))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(training.train(cell, places(tmp_path), 400)["curve"]) == 2
    assert any("no checkpoint at step 400: " in str(warning.message) for warning in said)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", MODEL, training.RESULT]


def test_a_cell_does_not_go_on_with_other_arguments(tmp_path, monkeypatch):
    cell = Cell("static", "td3", "Pendulum-v1", 0, 450, 200)
    monkeypatch.setattr(training.agents, "make", lambda *_: pytest.fail("went on"))
    run = training.Run(cell, places(tmp_path), 100)
    (run.folder / BEGUN).write_text(json.dumps(run.arguments | {"update_interval": 250}))
    with pytest.raises(ValueError, match="was begun with update_interval=250, which is 500 now"):
        run.train()


@pytest.mark.filterwarnings("ignore:learning_starts=1000 is not below")
def test_a_cell_that_an_earlier_version_began_begins_anew(tmp_path, capsys):
    cell = Cell("static", "td3", "Pendulum-v1", 0, 450, 200)
    earlier = places(tmp_path).folder(cell) / EARLIER
    earlier.write_bytes(b"a pickle")
    assert training.train(cell, places(tmp_path))["interruptions"] == 0
    assert f"{earlier} is of an earlier version; {cell.name} is trained from its beginning" in capsys.readouterr().err
    assert not earlier.exists()


@pytest.mark.filterwarnings("ignore:learning_starts=1000 is not below")
def test_a_cell_that_is_finished_in_a_shared_folder_is_not_trained_again(tmp_path, monkeypatch):
    """Two machines share checkpoints, and each has results of its own."""
    cell = Cell("static", "td3", "Pendulum-v1", 0, 450, 200)
    first, second = (Places(tmp_path / "work", tmp_path / name) for name in ("first", "second"))
    expected = training.train(cell, first)
    monkeypatch.setattr(training.Run, "train", lambda *_: pytest.fail("trained again"))
    assert training.train(cell, second) == expected
    third = Places(tmp_path / "work", tmp_path / "third")
    shared = tmp_path / "work" / cell.name / training.RESULT
    shared.write_text(json.dumps(expected | {"arguments": expected["arguments"] | {"gamma": 0.9}}))
    with pytest.raises(ValueError, match=r"was begun with gamma=0\.9, which is 0\.99 now"):
        training.train(cell, third)
    assert not third.result(cell).exists()


def test_a_teacher_whose_result_is_stored_is_trained_again_without_touching_it(tmp_path, monkeypatch):
    """A clone has the results of the repository, and not its models."""
    monkeypatch.setattr(training, "TEACHER", {"steps": 420, "eval_every": 200})
    cell = Cell("rigl-q*", "td3", "Pendulum-v1", 0, 450, 200)
    own, stored = places(tmp_path), '{"of": "the repository"}'
    own.store(training.teacher_of(cell), stored)
    path = training.Run(cell, own, 100)._agent_before()
    assert Path(path).exists()
    assert own.result(training.teacher_of(cell)).read_text() == stored


def test_misuse_is_refused(capsys):
    for arguments, message in (
        (["run"], "needs the name of a set"),
        (["run", "pendulm"], "did you mean 'pendulum'"),
        (["run", "smoke", "--cores", "0"], "--cores=0"),
        (["run", "smoke", "--checkpoint-every", "0"], "--checkpoint-every=0 must be at least 1"),
    ):
        with pytest.raises(SystemExit) as exit_:
            parse(arguments)
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err


def test_a_storage_that_is_not_there_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(timing, "OPENING", 0.3)
    monkeypatch.setattr(timing, "POLL_INTERVAL", 0.1)
    for command, storage, message in (
        ("status", str(tmp_path / "typo.log"), "typo.log' is not there"),
        ("run", "mysql://host/database", "storage='mysql://host/database' must be postgresql://"),
        ("run", "postgresql://nobody@localhost:1/none", "storage='postgresql://nobody@localhost:1/none' cannot be reached"),
    ):
        monkeypatch.setattr(sys, "argv", ["returns", command, "smoke", "--storage", storage, "--folder", str(tmp_path)])
        with contextlib.suppress(SystemExit):
            assert main() == 2
        assert message in capsys.readouterr().err


def test_workers_find_a_relative_storage_wherever_run_was_started(tmp_path):
    command = [sys.executable, "-m", "benchmarks.returns", "run", SMOKE[1].name, "--folder", "work", "--results", "results"]
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True)
    assert [trial.state for trial in the_study(tmp_path, SMOKE[1].name).get_trials()] == [TrialState.COMPLETE]
    assert not (ROOT / "work").exists()


def test_a_revision_is_marked_when_the_code_has_changed(tmp_path, monkeypatch):
    def git(*command):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=tmp_path, check=True)

    monkeypatch.setattr(training, "HERE", tmp_path)
    assert training.revision() == "unknown"
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "result.json").write_text("{}")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = training.revision()
    assert len(commit) == 12
    (tmp_path / "result.json").unlink()
    assert training.revision() == commit
    (tmp_path / "code.py").write_text("2")
    assert training.revision() == f"{commit}-dirty"
