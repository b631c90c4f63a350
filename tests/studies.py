"""Studies whose workers are killed and suspended, and whose journals are damaged; every trial counts once."""

import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress

import optuna
import psycopg
from optuna.trial import TrialState

from sb3_rlx2.studies import timing
from sb3_rlx2.studies import workers as storage
from sb3_rlx2.studies.storage import join_study, open_storage
from sb3_rlx2.studies.workers import run_trials

QUICK = {"HEARTBEAT_INTERVAL": 0.2, "GRACE_PERIOD": 1, "POLL_INTERVAL": 0.1, "MAX_RETRIES": 99, "SILENCE": 3}  # of `timing`
TOTAL = 12
fork = multiprocessing.get_context("fork")


def open_study(url, name="study", opened=None):
    place = open_storage(url)
    if opened is not None:
        opened.append(place)
    return join_study(place, name, "maximize")


def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    for step in range(3):
        time.sleep(0.05)
        trial.report(x, step)
    if x < 0.3:
        raise optuna.TrialPruned
    return x


def survive(url, name, draw: random.Random, faults, total=TOTAL):
    """Have three workers do a study, killed and suspended at random times; check that all trials count once."""

    def begin():
        process = fork.Process(target=lambda: run_trials(open_study(url, name), objective, total, progress=False))
        process.start()
        return process

    for process in harass(begin, url, draw, faults):
        process.join(90)
        assert process.exitcode == 0, process.exitcode


def harass(begin, url, draw, faults):
    """Give the workers that are left of three, each replaced by a new one when it is killed or suspended."""
    workers, suspended = [begin() for _ in range(3)], []
    for fault in range(faults):
        time.sleep(draw.uniform(0.05, 0.4))
        at = draw.randrange(3)
        if fault == faults // 2:
            disturb(url)
        elif draw.random() < 0.7:
            workers[at].kill()
            workers[at] = begin()
        elif workers[at].is_alive():
            os.kill(workers[at].pid, signal.SIGSTOP)
            suspended.append(workers[at])
            workers[at] = begin()
    time.sleep(timing.GRACE_PERIOD + 0.2)  # longer than the others wait for a heartbeat
    for process in suspended:
        with suppress(ProcessLookupError):  # it was at its end already
            os.kill(process.pid, signal.SIGCONT)
    return [*workers, *suspended]


def disturb(url):
    """Have the database end all connections and recover from a crash, or a writer be killed in the middle of a line."""
    if url.startswith("postgresql"):
        with suppress(psycopg.Error), psycopg.connect(url) as connection:
            os.kill(connection.execute("SELECT pg_backend_pid()").fetchone()[0], signal.SIGKILL)
            connection.execute("SELECT 1")
    else:
        with open(url, "ab") as file:
            file.write(b'{"op_code":6,"worker')


def check_all_counted(trials, total=TOTAL):
    states = [trial.state.name for trial in trials]
    assert sum(trial.state in storage.ENDED for trial in trials) == total, states
    for trial in trials:
        retries = [each for each in trials if each.system_attrs.get("retry_history", [None])[-1] == trial.number]
        about = f"{states}; {trial}; {retries}"
        assert trial.state in (*storage.ENDED, TrialState.FAIL), about  # nobody runs or waits
        # Others were given back, by who lost the lock.
        assert len(retries) == storage._unfinished(trial), about
        assert all(retry.params[name] == value for retry in retries for name, value in trial.params.items()), about
        if trial.state in storage.ENDED:
            assert (trial.state == TrialState.PRUNED) == (trial.params["x"] < 0.3), about
            assert list(trial.intermediate_values.values()) == [trial.params["x"]] * 3, about


def _cut(content, draw):
    return content[: draw.randrange(len(content))]


def _torn_last_line(content, draw):
    line = content.splitlines(keepends=True)[-1]
    return content[: len(content) - draw.randrange(1, len(line))]


def _garbage_line(content, draw):
    lines = content.splitlines(keepends=True)
    lines[draw.randrange(len(lines))] = draw.randbytes(draw.randrange(1, 200)) + b"\n"
    return b"".join(lines)


def _garbage_between(content, draw):
    lines = content.splitlines(keepends=True)
    lines.insert(draw.randrange(len(lines) + 1), draw.choice([b"\xff\xfe\n", b"null\n", b'{"op_code"\n', b"[]\n", b"\n"]))
    return b"".join(lines)


def _zeros(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + bytes(len(content[at : at + 300])) + content[at + 300 :]


def _zeros_at_the_end(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + bytes(len(content) - at)


def _lost_line(content, draw):
    lines = content.splitlines(keepends=True)
    lines[draw.randrange(len(lines))] = b"\0" * 40 + b"\n"
    return b"".join(lines)


def _flipped_bit(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


DAMAGES = {
    "cut": _cut,
    "a torn last line": _torn_last_line,
    "a line of garbage": _garbage_line,
    "garbage between lines": _garbage_between,
    "zeros": _zeros,
    "zeros at the end": _zeros_at_the_end,
    "a line of zeros": _lost_line,
    "a flipped bit": _flipped_bit,
}


def go_on(path, name, before, total):
    """
    Go on with a study whose journal has been damaged.

    :param path: the journal
    :param name: of the study
    :param before: hyper-parameter and result of each trial that had ended
    :param total: trials at the end
    :return: what came of it: trials that were kept, or the line that was said
    """
    try:
        study = open_study(str(path), name)
    except ValueError as error:
        said = str(error)
    else:
        return _end(study, before, total)
    assert str(path) in said
    assert "\n" not in said
    return said


def _end(study, before, total):
    known = [trial for trial in study.trials if trial.state in storage.ENDED and "x" in trial.params]  # a line may lack
    kept = {trial.params["x"]: trial.value for trial in known if trial.value is not None}
    assert kept.items() <= before.items()
    run_trials(study, lambda trial: trial.suggest_float("x", 0, 1), total, progress=False)
    ended = [trial for trial in study.trials if trial.state in storage.ENDED]
    assert len(ended) == total
    assert all(trial.value == trial.params["x"] for trial in ended if "x" in trial.params and trial.value is not None)
    assert {trial.state for trial in study.trials} <= {*storage.ENDED, TrialState.FAIL}
    assert kept.items() <= {trial.params.get("x"): trial.value for trial in ended}.items()
    return f"{len(kept)} of {len(before)} trials kept"
