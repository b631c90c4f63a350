"""Three workers of one study, one of which is killed in the middle of a trial. Processes here stand for machines."""

import multiprocessing
import os
import signal
import time
from contextlib import closing

import optuna
import pytest
from optuna.trial import TrialState

from sb3_rlx2 import commands
from sb3_rlx2.studies import timing
from sb3_rlx2.studies.storage import open_storage
from sb3_rlx2.studies.workers import ENDED, first_attempt
from tests import postgres

TOTAL = 4
STUDY = "pendulum"


def work(storage_url, folder, output, seed):
    """What `rlx2 train -optimize` does on one machine, with a shorter patience for the dead."""
    from sb3_rlx2.checkpoint import Checkpoints

    timing.HEARTBEAT_INTERVAL, timing.GRACE_PERIOD = 1, 5
    write = Checkpoints._write

    def write_and_hang(self):
        write(self)
        if self.folder.name == "0":  # the first trial
            time.sleep(600)  # in the middle of it, until the test kills it

    Checkpoints._write = write_and_hang
    os.chdir(folder)
    with open(output, "w", buffering=1) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        task = [
            "--algo",
            "rlx2td3",
            "--env",
            "Pendulum-v1",
            "-n",
            "300",
            "--num-threads",
            "1",
            "-params",
            "learning_starts:50",
        ]
        study = ["-optimize", "--storage", storage_url, "--study-name", STUDY, "--max-total-trials", str(TOTAL)]
        quick = ["--n-evaluations", "3", "--eval-episodes", "1", "--pruner", "none", "--no-optim-plots"]
        commands.run("train", [*task, *study, *quick, "--seed", str(seed)])


def wait_until_trial_0_hangs(study, folder):
    """Give the process that runs it."""
    for _ in range(2400):
        if list((folder / f"logs/rlx2td3/study_{STUDY}").glob("trial_0_*/0/*_step_1*/manifest.json")):
            return int(study.trials[0].user_attrs["worker"].split(":")[-1])
        time.sleep(0.05)
    raise TimeoutError([trial.state for trial in study.trials])


@pytest.fixture
def postgresql():
    with postgres.server() as url:
        yield url


@pytest.mark.parametrize("kind", ["postgresql", "journal"])
def test_study_outlives_a_killed_worker(kind, tmp_path, request):
    url = request.getfixturevalue("postgresql") if kind == "postgresql" else str(tmp_path / "shared" / "study.log")
    context = multiprocessing.get_context("forkserver")  # imports once for all
    context.set_forkserver_preload(["sb3_rlx2.tuning.manager", "rl_zoo3.train", "sb3_rlx2.backends.csr"])
    outputs = [tmp_path / f"worker{number}.txt" for number in range(3)]
    workers = [context.Process(target=work, args=(url, tmp_path, output, seed)) for seed, output in enumerate(outputs)]
    with closing(open_storage(url)) as opened:
        study = optuna.create_study(storage=opened, study_name=STUDY, direction="maximize")
        for worker in workers:
            worker.start()
        try:
            process = wait_until_trial_0_hangs(study, tmp_path)
            os.kill(process, signal.SIGKILL)
            for worker in workers:
                worker.join(300)
        finally:
            for worker in workers:
                worker.kill()
        codes = {worker.pid: worker.exitcode for worker in workers}
        printed = {worker.pid: output.read_text() for worker, output in zip(workers, outputs, strict=True)}
        assert codes == {pid: -signal.SIGKILL if pid == process else 0 for pid in codes}, printed
        check(study.trials, process)
    assert "trial 0 was not finished, it is retried" in "".join(printed.values())
    assert "goes on from step 1" in "".join(printed.values())
    survivors = [text for pid, text in printed.items() if pid != process]
    assert all(f"Number of trials: {TOTAL + 1} ({TOTAL} complete, 1 fail)" in text for text in survivors)
    assert not (tmp_path / f"logs/rlx2td3/study_{STUDY}").exists()  # all checkpoints are gone


def check(trials, process):
    """All trials ended, the killed one as failed; it was retried once, with its parameters, and went on where it stood."""
    assert sum(trial.state in ENDED for trial in trials) == TOTAL
    assert [trial.number for trial in trials if trial.state == TrialState.FAIL] == [0]
    assert len(trials) == TOTAL + 1
    (retry,) = [trial for trial in trials if trial.system_attrs.get("retry_history") == [0]]
    dead = trials[0]
    assert retry.state in ENDED
    assert first_attempt(retry) == 0
    assert retry.params == dead.params
    assert retry.intermediate_values[1] == dead.intermediate_values[1]
    assert not retry.user_attrs["worker"].endswith(f":{process}")
    for trial in trials:
        assert list(trial.intermediate_values) == ([1] if trial is dead else [1, 2, 3])
        assert trial is dead or trial.value == trial.intermediate_values[3]
    assert len({trial.user_attrs["worker"] for trial in trials}) == 3
