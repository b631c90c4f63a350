"""Threads share a kernel's tiles: each tile is done once, whoever is late, asleep, interrupted or gone."""

import gc
import multiprocessing
import subprocess
import sys
import threading
import time
import warnings
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from sb3_rlx2 import team as team_module
from sb3_rlx2.backends.options import OPTIONS
from sb3_rlx2.backends.thread_kernels import ASLEEP, FIRST_TILE, JOB, LAST_TILE, NOTHING, STATE, deliver, next_job
from sb3_rlx2.team import Team, usable_threads

TILES = 8
COUNT, SLOW = 0, 1
SPLIT = [(0, 3), (3, TILES)]


class Arrays(NamedTuple):
    done: np.ndarray
    total: np.ndarray


def counting(arrays, mailbox, generation):
    """Count how often each tile is done; ``SLOW`` takes its time."""
    job = next_job(mailbox, generation)
    while job != NOTHING:
        arrays.total[0] = 0
        for tile in range(mailbox[FIRST_TILE], mailbox[LAST_TILE]):
            arrays.done[tile] += 1
            arrays.total[0] += tile
            if job == SLOW:
                for i in range(20_000):
                    arrays.done[TILES] = np.sqrt(arrays.done[TILES] + i)
        job = deliver(mailbox, generation)


@pytest.fixture(scope="module")
def kernel():
    mailbox, arrays = np.zeros(16, np.int64), equipment()[0]
    compiled = njit(**OPTIONS)(counting)
    compiled(arrays, mailbox, -1)
    return next(iter(compiled.overloads.values())).entry_point


def equipment(threads=2):
    done = np.zeros(TILES + 1)
    return [Arrays(done, np.zeros(1)) for _ in range(threads)]


def make(kernel, threads=2):
    team, arrays = Team(kernel), equipment(threads)
    team.equip(arrays)
    return team, arrays[0].done


def check(team, done, job=COUNT, split=SPLIT):
    before = done[:TILES].copy()
    assert team.do(job, split) == sum(range(TILES))
    assert (done[:TILES] == before + 1).all()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_tile_is_done_once(kernel, threads):
    team, done = make(kernel, threads)
    edges = np.linspace(0, TILES, threads + 1).astype(int)
    for _ in range(3_000):
        check(team, done, split=[(int(a), int(b)) for a, b in pairwise(edges)])


def test_helpers_help(kernel):
    team, done = make(kernel)
    helped = []
    collect = team.helpers[0].collect
    team.helpers[0].collect = lambda: helped.append(collect()) or helped[-1]
    deadline = time.monotonic() + 30  # how soon is up to the machine
    while not any(helped):
        check(team, done, SLOW)
        assert time.monotonic() < deadline


def test_a_sleeping_helper_wakes(kernel):
    team, done = make(kernel)
    helper = team.helpers[0]
    for _ in range(5):
        check(team, done)
        wait_until(lambda: helper.mailbox[STATE] == ASLEEP)
    check(team, done, SLOW)
    wait_until(lambda: not helper.awake.is_set())


def test_a_sleeping_helper_takes_no_time(kernel):
    team, done = make(kernel)
    check(team, done)
    wait_until(lambda: team.helpers[0].mailbox[STATE] == ASLEEP)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_a_helper_that_never_comes(kernel, monkeypatch):
    team, done = make(kernel)
    late = threading.Event()
    monkeypatch.setattr(team.helpers[0], "_serve", late.wait)
    for _ in range(10):
        check(team, done)
    late.set()


def judged(team, rounds, **seconds):
    """Give the number of jobs that the caller does alone after each of some verdicts."""
    alone = []
    for _ in range(rounds):
        team._judge(**seconds)
        alone.append(team._alone)
        team._alone = 0
    return alone


def test_late_helpers_are_left_alone_for_longer_and_longer(kernel):
    team, done = make(kernel)
    late, punctual = {"missed": False, "worked": 1e-4, "waited": 2e-4}, {"missed": False, "worked": 1e-4, "waited": 1e-5}
    assert judged(team, 9, **late) == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert judged(team, 1_024, **punctual) == [0] * 1_024
    assert judged(team, 1, **late) == [1024]  # as long as they were left alone is not long enough
    judged(team, 1_025, **punctual)
    assert judged(team, 1, **late) == [512]
    judged(team, 3_000, **punctual)
    assert judged(team, 1, **late) == [16]
    assert judged(team, 9, missed=True, worked=1e-4, waited=0.0) == [0] * 9  # a millisecond to wake
    assert max(judged(team, 2, missed=True, worked=1e-4, waited=0.0)) > 0
    team._alone = 2
    posted = []
    team.helpers[0].post = lambda *_: posted.append(1)
    team.helpers[0].collect = lambda: False
    for _ in range(3):
        check(team, done)
    assert posted == [1]  # the third time


def test_new_arrays(kernel):
    team, old = make(kernel)
    for _ in range(20):
        check(team, old)
        arrays = equipment()
        team.equip(arrays)
        kept = old.copy()
        for _ in range(20):
            check(team, arrays[0].done)
        assert (old == kept).all()
        old = arrays[0].done


def test_an_interrupt_leaves_the_team_working(kernel, monkeypatch):
    team, done = make(kernel)
    check(team, done)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(team, "_do", interrupted)
        with pytest.raises(KeyboardInterrupt):
            team.do(SLOW, SPLIT)
    check(team, done)


def test_a_job_left_behind_by_an_interrupt(kernel):
    team, done = make(kernel)
    helper = team.helpers[0]
    for pause in (0, 0.02, 0.02):  # right away, and when the helper has done it and sleeps
        helper.post(COUNT, (0, 0))
        time.sleep(pause)
        check(team, done)
        check(team, done)


def test_a_dismissed_helper_ends(kernel):
    team, done = make(kernel)
    check(team, done)
    thread = team.helpers[0].thread
    assert thread.is_alive()
    del team
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def _work_in_a_child(team, done, queue):
    helper = team.helpers[0]
    for _ in range(2 * team_module.PENALTIES[1]):  # it may have been left alone in the parent, for no longer than this
        check(team, done)
    queue.put(helper.thread.is_alive())


@pytest.mark.skipif(not hasattr(team_module.os, "fork"), reason="no fork on this system")
def test_a_forked_process_gets_helpers_of_its_own(kernel):
    team, done = make(kernel)
    check(team, done)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        child = context.Process(target=_work_in_a_child, args=(team, done, queue))
        child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    check(team, done)


SCRIPT = """
import torch as th
from sb3_rlx2 import RLx2TD3
th.set_num_threads(2)
model = RLx2TD3("MlpPolicy", "Pendulum-v1", learning_starts=100, buffer_size=1000, policy_kwargs={"net_arch": [32, 32]})
model.learn(120)
print("end", flush=True)
"""


def test_the_interpreter_ends_while_helpers_spin():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_no_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(team_module.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert [usable_threads(threads) for threads in (1, 3, 64)] == [1, 3, 3]
    monkeypatch.delattr(team_module.os, "sched_getaffinity")
    monkeypatch.setattr(team_module.os, "cpu_count", lambda: None)
    assert usable_threads(4) == 1


def test_the_mailbox_holds_a_job():
    assert (FIRST_TILE, LAST_TILE) == (JOB + 1, JOB + 2)  # they are written side by side
