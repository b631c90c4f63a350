"""Studies outlive their workers, over PostgreSQL, SQLite and a journal file."""

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import optuna
import psycopg
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from sb3_rlx2.studies import journal as journals
from sb3_rlx2.studies import storage as places
from sb3_rlx2.studies import timing
from sb3_rlx2.studies import workers as storage
from sb3_rlx2.studies.database import DatabaseStorage
from sb3_rlx2.studies.storage import join_study, open_storage
from sb3_rlx2.studies.workers import first_attempt, run_trials
from tests import postgres, studies

KINDS = ["postgresql", "journal"]
fork = multiprocessing.get_context("fork")
opened: list = []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(timing, "HEARTBEAT_INTERVAL", 0.2)
    monkeypatch.setattr(timing, "GRACE_PERIOD", 1)
    monkeypatch.setattr(timing, "POLL_INTERVAL", 0.1)
    monkeypatch.setattr(timing, "SILENCE", 10)  # longer than tests suspend anybody
    yield
    while opened:
        last = opened.pop()
        if isinstance(last, DatabaseStorage):
            last._backend.engine.dispose()


@pytest.fixture(scope="module")
def database_server():
    with postgres.server() as url:
        yield url


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("database_server")
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "study.log")


def open_study(url):
    opened.append(open_storage(url))
    name = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1]  # tests share the server
    return join_study(opened[-1], name, "maximize")


def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    time.sleep(0.01)
    if x < 0.3:
        raise optuna.TrialPruned
    return x


def in_a_process(function, *arguments):
    """Run a function in a process of its own and give the exit code."""
    process = fork.Process(target=function, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def states(study):
    return [trial.state.name for trial in study.trials]


def assert_one_retry(study, total, parent=0):
    """All of ``total`` trials ended, and the one that died was retried once, with its parameters."""
    trials = study.trials
    ended = [trial for trial in trials if trial.state in storage.ENDED]
    (dead,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    (retry,) = [trial for trial in trials if trial.system_attrs.get("retry_history") == [dead.number]]
    assert len(ended) == total == len(trials) - 1
    assert retry in ended
    assert dead.number == parent == first_attempt(retry)
    assert all(retry.params[name] == value for name, value in dead.params.items())
    assert [first_attempt(trial) for trial in ended if trial is not retry] == [t.number for t in ended if t is not retry]


@pytest.mark.parametrize("url", [*KINDS, "sqlite"], indirect=True)
def test_total_is_exact_over_threads_and_processes(url):
    def work():
        run_trials(open_study(url), objective, 6, n_jobs=2)

    processes = [fork.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(states(open_study(url))) == 6
    assert set(states(open_study(url))) <= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("seed", range(2))
def test_every_trial_counts_once_whatever_happens(seed, url, monkeypatch):
    """Three workers are killed and suspended at random times; the database crashes, or writers leave half a line."""
    monkeypatch.setattr(timing, "MAX_RETRIES", 99)
    monkeypatch.setattr(timing, "SILENCE", 3)  # less than workers are suspended for
    name = open_study(url).study_name
    studies.survive(url, name, random.Random(seed), faults=10)
    studies.check_all_counted(open_study(url).trials)


def test_n_trials_counts_for_this_worker(url):
    run_trials(open_study(url), objective, n_trials=2)
    run_trials(open_study(url), objective, n_trials=3)
    assert len(states(open_study(url))) == 5
    run_trials(open_study(url), objective, total=5)
    assert len(states(open_study(url))) == 5


def test_worker_killed_in_a_trial(url):
    def die(trial):
        trial.suggest_float("x", 0, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(lambda: run_trials(open_study(url), die, 3)) == -signal.SIGKILL
    study = open_study(url)
    assert states(study) == ["RUNNING"]
    run_trials(study, objective, 3)
    assert_one_retry(study, 3)


@pytest.mark.parametrize("url", [*KINDS, "sqlite"], indirect=True)
def test_worker_killed_before_its_first_heartbeat(url):
    def work():
        study = open_study(url)
        study._storage.record_heartbeat = lambda trial_id: os.kill(os.getpid(), signal.SIGKILL)
        run_trials(study, objective, 2)

    assert in_a_process(work) == -signal.SIGKILL
    study = open_study(url)
    assert states(study) == ["RUNNING"]
    run_trials(study, objective, 2)
    assert_one_retry(study, 2)


def test_worker_killed_before_it_queues_the_retry(url):
    study = open_study(url)

    def bury(trial):
        trial.suggest_float("x", 0, 1)
        storage._bury(study._storage, trial._trial_id, worker_died=True)
        return 1.0

    run_trials(study, bury, n_trials=1)
    assert states(study) == ["FAIL"]
    run_trials(open_study(url), objective, 2)
    assert_one_retry(open_study(url), 2)
    run_trials(open_study(url), objective, 3)
    assert_one_retry(open_study(url), 3)


def test_suspended_worker_is_superseded_and_goes_on(url):
    """It finds its trial retried when it wakes; its own result is left out, and it lives."""

    def freeze(trial):
        value = trial.suggest_float("x", 0, 1)
        if trial.number == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        return -value

    process = fork.Process(target=lambda: run_trials(open_study(url), freeze, n_trials=2))
    process.start()
    os.waitpid(process.pid, os.WUNTRACED)
    try:
        study = open_study(url)
        run_trials(study, lambda trial: trial.suggest_float("x", 0, 1), 1)
        assert states(study) == ["FAIL", "COMPLETE"]
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.value is None or trial.value > 0 for trial in study.trials] == [True, True, False]


def test_superseded_worker_notices_at_its_next_report(url, caplog):
    study = open_study(url)

    def superseded(trial):
        if trial.number == 0:
            storage._bury(open_study(url)._storage, trial._trial_id, worker_died=True)
            trial.report(1.0, 1)
            raise RuntimeError("not reached")
        return 0.5

    run_trials(study, superseded, 2)
    assert_one_retry(study, 2)
    assert "trial 0 was superseded" in caplog.text


def test_interrupted_trial_is_retried(url):
    def interrupt(trial):
        trial.suggest_float("x", 0, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(open_study(url), interrupt, 2)
    run_trials(open_study(url), objective, 2)
    assert_one_retry(open_study(url), 2)


def test_trial_that_always_kills_is_given_up(url, monkeypatch, caplog):
    monkeypatch.setattr(timing, "MAX_RETRIES", 2)

    def deadly(trial):
        if first_attempt(trial) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    for _ in range(3):
        assert in_a_process(lambda: run_trials(open_study(url), deadly, 1)) == -signal.SIGKILL
    run_trials(open_study(url), deadly, 1)
    assert states(open_study(url)) == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("trial")] == [
        "trial 2 is given up: its worker died as those of 2 tries before",  # the other workers took what they said along
    ]


def test_interruptions_do_not_use_up_the_retries(url, monkeypatch):
    monkeypatch.setattr(timing, "MAX_RETRIES", 1)

    def interrupt(trial):
        trial.suggest_float("x", 0, 1)
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run_trials(open_study(url), interrupt, 1)
    run_trials(open_study(url), lambda trial: trial.suggest_float("x", 0, 1), 1)
    study = open_study(url)
    assert states(study) == ["FAIL"] * 4 + ["COMPLETE"]
    assert len({trial.params["x"] for trial in study.trials}) == 1


def test_storage_that_is_lost_within_a_trial(url, monkeypatch):
    """The trial is retried, and the worker goes on."""
    study = open_study(url)
    report, losses = study._storage.set_trial_intermediate_value, iter([True])

    def lossy(*arguments):
        if next(losses, False):
            raise StorageInternalError("connection lost")
        report(*arguments)

    def reporting(trial):
        value = trial.suggest_float("x", 0, 1)
        trial.report(value, 1)
        return value

    monkeypatch.setattr(study._storage, "set_trial_intermediate_value", lossy)
    run_trials(study, reporting, 2)
    assert_one_retry(study, 2)


def test_many_threads(database_server):
    """Each may wait for the lock with a connection of its own."""
    run_trials(open_study(database_server), objective, 18, n_jobs=18)
    assert len(states(open_study(database_server))) == 18


def test_journal_that_went_away(tmp_path):
    study = open_study(str(tmp_path / "study.log"))
    os.rename(tmp_path / "study.log", tmp_path / "away")
    with pytest.raises(StorageInternalError, match="No such file"):
        study.set_user_attr("name", 1)
    with pytest.raises(StorageInternalError, match="No such file"):
        _ = study.trials


def test_suspended_holder_of_the_journals_lock_leaves_that_of_another_alone(tmp_path):
    journal = open_study(str(tmp_path / "study.log"))._storage
    lock = tmp_path / "study.log.study0.lock"
    suspended = journal.exclusive(0)
    suspended.__enter__()
    lock.unlink()  # as a worker does that has waited long enough
    with journal.exclusive(0):
        suspended.__exit__(None, None, None)
        assert lock.exists()
    assert not lock.exists()


def test_a_lock_that_another_has_just_begun_to_take_is_not_held(tmp_path):
    journal = open_study(str(tmp_path / "study.log"))._storage
    lock = tmp_path / "study.log.study0.lock"
    with journal.exclusive(0) as held:
        assert held()
        lock.unlink()
        lock.touch()  # not signed yet
        assert not held()
    assert lock.exists()


def test_a_lock_that_a_full_disk_leaves_unsigned_is_given_back(tmp_path, monkeypatch):
    journal = open_study(str(tmp_path / "study.log"))._storage

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"), journal.exclusive(0):
            pass
    assert not (tmp_path / "study.log.study0.lock").exists()


def end_all_locks(url, study):
    """As a crash of the database does, and workers that have waited long enough."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    else:
        os.unlink(f"{url}.study{study._study_id}.lock")


@pytest.mark.parametrize("step", ["get_trials", "create_new_trial"])
def test_a_claim_that_lost_its_lock_takes_no_new_trial(step, url, monkeypatch):
    """Its worker was suspended in the middle, and others have done all since."""
    study, calls = open_study(url), itertools.count(1)
    place = study if step == "get_trials" else study._storage
    go_on = getattr(place, step)

    def suspended(*arguments, **options):
        call = next(calls)
        found = go_on(*arguments, **options) if step == "get_trials" else None
        if call == {"get_trials": 2, "create_new_trial": 1}[step]:  # the first look is for dead workers
            end_all_locks(url, study)
            run_trials(open_study(url), objective, 2)
        return found if step == "get_trials" else go_on(*arguments, **options)

    monkeypatch.setattr(place, step, suspended)
    worker = storage._Worker(study, objective, 2, None, None, None)
    assert worker._claim() == (None, False)
    assert worker._claim() == (None, True)
    found = states(open_study(url))
    assert set(found[:2]) <= {"COMPLETE", "PRUNED"}
    assert found[2:] == ([] if step == "get_trials" else ["FAIL"])


def suspend_as_it_takes(study, monkeypatch, meanwhile):
    """Have a worker be suspended as it takes a trial from the queue."""
    change = study._storage.set_trial_state_values

    def suspended(trial_id, state, *values):
        if state == TrialState.RUNNING:
            meanwhile()
        return change(trial_id, state, *values)

    monkeypatch.setattr(study._storage, "set_trial_state_values", suspended)


def test_a_claim_that_lost_its_lock_gives_a_waiting_trial_back(url, monkeypatch):
    study = open_study(url)
    study.enqueue_trial({"x": 0.5})
    suspend_as_it_takes(study, monkeypatch, lambda: end_all_locks(url, study))
    assert storage._Worker(study, objective, 1, None, None, None)._claim() == (None, False)
    assert states(study) == ["WAITING"]
    run_trials(open_study(url), objective, 1)
    (trial,) = open_study(url).trials
    assert (trial.state, trial.params) == (TrialState.COMPLETE, {"x": 0.5})


def test_a_claim_whose_waiting_trial_is_gone_begins_no_other(url, monkeypatch):
    study = open_study(url)
    study.enqueue_trial({"x": 0.5})

    def others():
        end_all_locks(url, study)
        run_trials(open_study(url), objective, 1)

    suspend_as_it_takes(study, monkeypatch, others)
    assert storage._Worker(study, objective, 2, None, None, None)._claim() == (None, False)
    assert states(open_study(url)) == ["COMPLETE"]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_new_trial_that_is_given_back_leaves_the_retry_of_another(url, monkeypatch):
    study = open_study(url)
    lost = study.ask()
    lost.suggest_float("x", 0, 1)
    begin = study._storage.create_new_trial

    def suspended(*arguments):
        end_all_locks(url, study)
        other = open_study(url)
        storage._bury(other._storage, lost._trial_id, worker_died=True)
        storage._retry_dead_trials(other, lambda: True)
        return begin(*arguments)

    monkeypatch.setattr(study._storage, "create_new_trial", suspended)
    assert storage._Worker(study, objective, 2, None, None, None)._claim() == (None, False)
    assert states(study) == ["FAIL", "WAITING", "FAIL"]


def test_what_was_supplied_to_a_claim_that_lost_its_lock_is_supplied_again(url, monkeypatch):
    def supply(trials):
        return None if any("cell" in trial.user_attrs for trial in trials) else {"cell": 1}

    study = open_study(url)
    begin = study._storage.create_new_trial

    def suspended(*arguments):
        end_all_locks(url, study)
        return begin(*arguments)

    monkeypatch.setattr(study._storage, "create_new_trial", suspended)
    assert storage._Worker(study, objective, None, None, supply, None)._claim() == (None, False)
    run_trials(open_study(url), lambda trial: 1.0, supply=supply)
    assert states(study) == ["FAIL", "COMPLETE"]


def test_no_waiting_trial_is_begun_beyond_the_total(url):
    """Such as the retry of one too many, whose worker lost its lock and was killed before it gave it back."""
    study = open_study(url)
    for x in (0.5, 0.6):
        study.enqueue_trial({"x": x})
    worker = storage._Worker(study, objective, 1, None, None, None)
    trial, _ = worker._claim()
    assert worker._claim() == (None, False)
    study.tell(trial, 1.0)
    assert worker._claim() == (None, True)
    assert states(study) == ["COMPLETE", "WAITING"]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_second_retry_that_comes_late_is_not_begun(url, monkeypatch):
    """A worker that lost its lock queues it while the first one runs, between two looks of another worker."""
    study = open_study(url)
    lost = study.ask()
    lost.suggest_float("x", 0, 1)
    storage._bury(study._storage, lost._trial_id, worker_died=True)
    worker = storage._Worker(study, objective, 9, None, None, None)
    retry, _ = worker._claim()
    again, look, looks = study.trials[retry.number], study.get_trials, itertools.count()
    again.state = TrialState.WAITING

    def late(**options):
        found = look(**options)
        if next(looks) == 0:
            study.add_trial(again)
        return found

    monkeypatch.setattr(study, "get_trials", late)
    trial, _ = worker._claim()
    assert trial.number == 3
    assert [each.state.name for each in look()] == ["FAIL", "RUNNING", "FAIL", "RUNNING"]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_that_ends_as_it_is_buried_is_not_unfinished(url, monkeypatch):
    study = open_study(url)
    trial, change = study.ask(), study._storage.set_trial_state_values

    def ends(trial_id, state, *values):
        if state == TrialState.FAIL:
            change(trial_id, TrialState.COMPLETE, [1.0])
        return change(trial_id, state, *values)

    monkeypatch.setattr(study._storage, "set_trial_state_values", ends)
    storage._bury(study._storage, trial._trial_id, worker_died=True)
    storage._retry_dead_trials(study, lambda: True)
    assert states(study) == ["COMPLETE"]
    assert not storage._unfinished(study.trials[0])


def test_a_silent_worker_keeps_no_rows(database_server, monkeypatch):
    """Suspended, or cut off from the network, between two statements of Optuna's."""
    monkeypatch.setattr(timing, "SILENCE", 1)
    study = open_study(database_server)
    silent = study._storage._backend.engine.connect()
    silent.execute(sqlalchemy.text("SELECT 1 FROM studies FOR UPDATE"))
    assert in_a_process(lambda: run_trials(open_study(database_server), objective, 2)) == 0
    silent.invalidate()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_dead_trial_is_retried_once_by_workers_that_both_hold_the_lock(url):
    study = open_study(url)
    lost = study.ask()
    lost.suggest_float("x", 0, 1)
    storage._bury(study._storage, lost._trial_id, worker_died=True)
    for held in ([False], [True, True]):  # it lost the lock before it looked, and after it
        looks = iter(held)
        storage._retry_dead_trials(study, lambda looks=looks: next(looks))
    assert states(study) == ["FAIL", "WAITING"]
    study.add_trial(study.trials[1])
    run_trials(study, objective, 1)
    assert states(study)[0] == states(study)[2] == "FAIL"
    assert sum(trial.state in storage.ENDED for trial in study.trials) == 1


def test_error_of_the_objective_is_raised_and_not_retried(url):
    with pytest.raises(ZeroDivisionError):
        run_trials(open_study(url), lambda trial: 1 / 0, 2)
    run_trials(open_study(url), lambda trial: 1.0, 2)
    assert states(open_study(url)) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_nan_is_pruned():
    study = open_study(None)
    run_trials(study, lambda trial: float("nan"), 2)
    assert states(study) == ["PRUNED", "PRUNED"]


def test_heartbeat_outlives_a_lost_connection(url, monkeypatch):
    study = open_study(url)
    beat, beats = study._storage.record_heartbeat, []

    def lossy(trial_id):
        beats.append(time.monotonic())
        if len(beats) == 2:
            raise StorageInternalError("connection lost")
        beat(trial_id)

    monkeypatch.setattr(study._storage, "record_heartbeat", lossy)

    def long(trial):
        time.sleep(2.5)  # more than twice the grace period
        return 1.0

    worker = threading.Thread(target=run_trials, args=(study, long, 1))
    worker.start()
    other = open_study(url)
    while worker.is_alive():
        with other._storage.exclusive(other._study_id) as held:
            storage._retry_dead_trials(other, held)
        time.sleep(0.2)
    worker.join()
    assert states(study) == ["COMPLETE"]
    assert len(beats) >= 4


def test_database_that_disconnects(database_server):
    url = database_server
    study = open_study(url)

    def objective(trial):
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()")
        return 1.0

    run_trials(study, objective, 3)
    assert states(study) == ["COMPLETE"] * 3


def test_result_waits_for_a_storage_that_went_away(monkeypatch):
    monkeypatch.setattr(timing, "HEARTBEAT_INTERVAL", 0.01)
    study = open_study(None)
    tell, failures = study.tell, iter([True, True])

    def lossy(*arguments, **keywords):
        if next(failures, False):
            raise StorageInternalError("connection lost")
        return tell(*arguments, **keywords)

    monkeypatch.setattr(study, "tell", lossy)
    run_trials(study, objective, 2)
    assert len(states(study)) == 2
    assert not next(failures, False)


def test_journal_with_an_unfinished_line(tmp_path):
    """A writer was killed in the middle of a line, after others opened the journal."""
    path = tmp_path / "study.log"
    study = open_study(str(path))
    run_trials(study, objective, 2)
    sound = path.read_bytes()
    path.write_bytes(sound + b'{"op_code":6,"worker')
    run_trials(study, objective, 3)
    assert path.read_bytes().startswith(sound)
    assert path.read_bytes()[len(sound) :].lstrip(b" ").startswith(b'{"op_code"')
    assert b'"worker{' not in path.read_bytes()
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    assert len(states(open_study(str(path)))) == 3


def suspend_at(name, path, monkeypatch, meanwhile):
    """Have the holder of a journal's lock be suspended before a function, until others have taken the lock and gone on."""
    go_on = getattr(journals, name)

    def suspended(*arguments):
        monkeypatch.setattr(journals, name, go_on)
        os.unlink(f"{path}.lock")
        meanwhile()
        return go_on(*arguments)

    monkeypatch.setattr(journals, name, suspended)


def test_a_suspended_writer_takes_nothing_from_others(tmp_path, monkeypatch):
    """It has seen an unfinished line, which others have seen to while it slept."""
    path = tmp_path / "study.log"
    study, other = open_study(str(path)), open_study(str(path))
    with path.open("ab") as file:
        file.write(b'{"op_code":6,"worker')
    suspend_at("_blank", path, monkeypatch, lambda: other.set_user_attr("said", 1))
    study.set_user_attr("also", 2)
    assert open_study(str(path)).user_attrs == {"said": 1, "also": 2}


def test_a_suspended_writer_is_not_joined_to_the_line_of_a_killed_one(tmp_path, monkeypatch):
    path = tmp_path / "study.log"
    study = open_study(str(path))

    def killed():
        with path.open("ab") as file:
            file.write(b'{"op_code":6,"worker')

    suspend_at("_blank", path, monkeypatch, killed)
    study.set_user_attr("also", 2)
    assert study.user_attrs == {"also": 2}
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_suspended_mender_takes_nothing_from_others(tmp_path, monkeypatch):
    path = tmp_path / "study.log"
    other = open_study(str(path))
    with path.open("ab") as file:
        file.write(b'{"op_code":6,"worker')
    suspend_at("_lacks_a_beginning", path, monkeypatch, lambda: other.set_user_attr("said", 1))
    assert open_study(str(path)).user_attrs == {"said": 1}


@pytest.mark.parametrize(
    "torn", [b'{"op_code":6,"worker', b'{"op_code":6,"work{"op_code":8,"worker_id":"w"}\n', b"\0\0\0\0\n"]
)
def test_torn_journal_is_mended_on_opening(torn, tmp_path, capsys):
    path = tmp_path / "study.log"
    run_trials(open_study(str(path)), objective, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + torn)
    (study,) = open_storage(str(path)).get_all_studies()
    assert len(open_storage(str(path)).get_all_trials(study._study_id)) == 3
    assert path.read_bytes() == b"".join(lines) + b" " * len(torn)
    (backup,) = tmp_path.glob("study.log.torn-*")
    assert backup.read_bytes() == b"".join(lines) + torn
    assert f"1 broken line(s) of killed writers, now blank; as it was: {backup}" in capsys.readouterr().out
    open_storage(str(path))
    assert sorted(file.name for file in tmp_path.glob("study.log*")) == ["study.log", "study.log.leases", backup.name]


def test_finished_trials_leave_no_leases(tmp_path):
    run_trials(open_study(str(tmp_path / "study.log")), objective, 2)
    assert [lease.name for lease in (tmp_path / "study.log.leases").iterdir()] == ["clock"]


@pytest.mark.parametrize(
    "wrong", ["study", "mysql://host/study", "sqlite://", "sqlite:///:memory:", "redis://host", "http://x.log"]
)
def test_unknown_storage(wrong):
    with pytest.raises(ValueError, match="must be postgresql://") as error:
        open_storage(wrong)
    assert f"storage={wrong!r}" in str(error.value)


@pytest.mark.parametrize("kind", [*KINDS, "sqlite"])
def test_storage_that_cannot_be_reached(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "OPENING", 0.3)
    (tmp_path / "file").touch()
    urls = {
        "postgresql": f"postgresql://user:secret@127.0.0.1:{postgres.free_port()}/study",
        "sqlite": f"sqlite:///{tmp_path}/file/study.db",
        "journal": f"{tmp_path}/file/study.log",
    }
    with pytest.raises(ConnectionError, match="cannot be reached") as error:
        open_storage(urls[kind])
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["total", "n_trials", "n_jobs"])
def test_counts_are_positive(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be an integer >= 1"):
        run_trials(open_study(None), objective, **{name: 0})


def test_damaged_lines_of_a_journal_are_found(tmp_path, capsys):
    path = tmp_path / "study.log"
    run_trials(open_study(str(path)), objective, 2)
    content, line = path.read_bytes(), path.read_bytes().splitlines()[-1]
    at = content.rindex(line) + line.index(b":") + 1
    path.write_bytes(content[:at] + b"7" + content[at + 1 :])  # still JSON
    open_storage(str(path))
    assert "held 1 broken line(s)" in capsys.readouterr().out
    path.write_bytes(b'{"op_code":99,"worker_id":"w"}\n')  # nobody's
    with pytest.raises(ValueError, match=f"{path} holds what is no record of a study: "):
        open_storage(str(path))


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """Give the content of a journal of four trials, and their results."""
    path = tmp_path_factory.mktemp("journal") / "study.log"
    study = studies.open_study(str(path))
    run_trials(study, lambda trial: trial.suggest_float("x", 0, 1), 4, progress=False)
    return path.read_bytes(), {trial.params["x"]: trial.value for trial in study.trials}


@pytest.mark.parametrize("damage", studies.DAMAGES)
def test_after_damage_every_trial_counts_once(damage, journal, tmp_path):
    """Or one line says what is wrong."""
    content, before = journal
    for seed in range(2):
        path = tmp_path / f"{seed}.log"
        path.write_bytes(studies.DAMAGES[damage](content, random.Random(seed)))
        studies.go_on(path, "study", before, 6)


def test_a_journal_without_its_beginning_is_not_gone_on_with(journal, tmp_path):
    path, (first, *rest) = tmp_path / "study.log", journal[0].splitlines(keepends=True)
    for lost, count in ((first, 0), (next(line for line in rest if b'"op_code":4' in line), 1)):
        damaged = journal[0].replace(lost, b"\0" * 50 + b"\n", 1)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged: the line that began a study or a trial is broken"):
            open_storage(str(path))
        assert path.read_bytes() == damaged, count


def test_a_worker_that_meets_damage_reads_past_it(tmp_path, capsys):
    path = tmp_path / "study.log"
    study, other = open_study(str(path)), open_study(str(path))
    assert study.trials == []
    with path.open("ab") as file:
        file.write(b"garbage\n")
    other.set_user_attr("said", 1)
    assert study.user_attrs == {"said": 1}
    assert "held 1 broken line(s)" in capsys.readouterr().out


def test_a_worker_that_meets_another_journal_says_so(tmp_path):
    path = tmp_path / "study.log"
    study, other = open_study(str(path)), open_study(str(path))
    assert study.trials == []
    other.set_user_attr("said", "for long")
    content = path.read_bytes()
    path.write_bytes(b" " * 7 + content)  # as a program that is not ours leaves it: whole, with all in another place
    with pytest.raises(ValueError, match=rf"{path} is not the file that was read before: .*; the same command again"):
        _ = study.user_attrs
    assert open_study(str(path)).user_attrs == {"said": "for long"}


def test_a_record_behind_an_unfinished_line_is_kept(tmp_path):
    """Its writer was suspended before it could blank the line."""
    path = tmp_path / "study.log"
    study = open_study(str(path))
    before = path.read_bytes()
    study.set_user_attr("said", 1)
    record = path.read_bytes()[len(before) :]
    path.write_bytes(before + b'{"op_code":6,"worker' + record)
    assert open_study(str(path)).user_attrs == {"said": 1}
    assert path.read_bytes().startswith(before + b" " * 20 + record)


def test_mending_moves_nothing_that_others_read_or_write(tmp_path, monkeypatch):
    """A suspended writer appends while another one mends, and a third one has read what it appended."""
    path = tmp_path / "study.log"
    writer, reader = open_study(str(path)), open_study(str(path))
    with path.open("ab") as file:
        file.write(b'{"op_code":6,"worker')

    def meanwhile():
        writer.set_user_attr("of the writer", 1)
        assert reader.user_attrs == {"of the writer": 1}

    copy = shutil.copy2

    def suspended(*arguments):
        monkeypatch.setattr(shutil, "copy2", copy)
        os.unlink(f"{path}.lock")
        meanwhile()
        return copy(*arguments)

    monkeypatch.setattr(shutil, "copy2", suspended)
    late = open_study(str(path))  # the mender
    late.set_user_attr("of the mender", 2)
    for study in (writer, reader, late, open_study(str(path))):
        assert study.user_attrs == {"of the writer": 1, "of the mender": 2}


def test_a_database_that_restarts_is_waited_for(tmp_path, monkeypatch):
    answers = iter([StorageInternalError("recovering"), OSError("away"), None])

    def open_it(*_):
        error = next(answers)
        if error is not None:
            raise error
        return DatabaseStorage(*_)

    monkeypatch.setattr(places, "DatabaseStorage", open_it)
    opened.append(open_storage(f"sqlite:///{tmp_path}/study.db"))
    assert next(answers, "none") == "none"


def test_a_database_that_restarts_while_a_study_is_opened_is_waited_for(tmp_path, monkeypatch):
    answers = iter([StorageInternalError("closed the connection unexpectedly"), None])
    directions = DatabaseStorage.get_study_directions

    def get_study_directions(*arguments):
        error = next(answers, None)
        if error is not None:
            raise error
        return directions(*arguments)

    monkeypatch.setattr(DatabaseStorage, "get_study_directions", get_study_directions)
    opened.append(open_storage(f"sqlite:///{tmp_path}/study.db"))
    assert join_study(opened[-1], "study", "maximize").study_name == "study"
