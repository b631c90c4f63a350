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
from numba import cfunc, types

from sb3_rlx2.fast import team as team_module
from sb3_rlx2.fast.team import Team, usable_threads
from sb3_rlx2.kernels import mailbox as thread_kernels
from sb3_rlx2.kernels.mailbox import ASLEEP, STATE
from sb3_rlx2.kernels.options import OPTIONS
from sb3_rlx2.kernels.pointers import Pointer
from sb3_rlx2.kernels.structs import Struct

TILES = 8
COUNT, SLOW = 0, 1
SPLIT = [(0, 3), (3, TILES)]


class Arrays(NamedTuple):
    done: np.ndarray
    total: np.ndarray


def counting(arrays, job, first, last):
    """Count how often each tile is done; ``SLOW`` takes its time."""
    done = arrays.done
    total = 0.0
    for tile in range(first, last):
        done[tile] += 1
        total += tile
        if job == SLOW:
            for i in range(20_000):
                done[TILES] = np.sqrt(done[TILES] + i)
    arrays.total[0] = total


NUMBERS = types.float64[::1]
ARGUMENTS = Pointer(types.NamedTuple((NUMBERS, NUMBERS), Arrays))


@pytest.fixture(scope="module")
def kernel():
    return cfunc(types.void(ARGUMENTS, types.int64, types.int64, types.int64), **OPTIONS)(counting)


class Crew:
    """A team, and what it works on."""

    def __init__(self, kernel, threads=2):
        self.kernel, self.team, self.threads = kernel, Team(), threads
        self.equip()

    def equip(self):
        self.done = np.zeros(TILES + 1)
        self.structs = [Struct(Arrays(self.done, np.zeros(1))) for _ in range(self.threads)]

    def check(self, job=COUNT, split=SPLIT):
        before = self.done[:TILES].copy()
        self.team.do(self.kernel.address, self.structs, job, split)
        assert sum(struct.arrays.total[0] for struct in self.structs) == sum(range(TILES))
        assert (self.done[:TILES] == before + 1).all()


@pytest.fixture
def crew(kernel):
    """Two threads that have worked."""
    crew = Crew(kernel)
    crew.check()
    return crew


@pytest.fixture
def team(crew):
    return crew.team


@pytest.fixture
def helper(team):
    return team.helpers[0]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_tile_is_done_once(kernel, threads):
    crew = Crew(kernel, threads)
    edges = np.linspace(0, TILES, threads + 1).astype(int)
    for _ in range(3_000):
        crew.check(split=[(int(a), int(b)) for a, b in pairwise(edges)])


def test_fewer_shares_than_threads(crew):
    crew.structs[1].arrays.total[0] = 0
    crew.check(split=[(0, TILES)])


def test_helpers_help(crew, helper):
    helped = []
    collect = helper.collect
    helper.collect = lambda: helped.append(collect()) or helped[-1]
    deadline = time.monotonic() + 30  # how soon is up to the machine
    while not any(helped):
        crew.check(SLOW)
        assert time.monotonic() < deadline


def test_a_sleeping_helper_wakes(crew, helper):
    for _ in range(5):
        crew.check()
        wait_until(lambda: helper.mailbox[STATE] == ASLEEP)
    crew.check(SLOW)
    wait_until(lambda: not helper.awake.is_set())


def test_a_sleeping_helper_takes_no_time(helper):
    wait_until(lambda: helper.mailbox[STATE] == ASLEEP)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_a_helper_that_never_comes(kernel, monkeypatch):
    late = threading.Event()
    monkeypatch.setattr(team_module._Helper, "_serve", lambda _: late.wait())
    crew = Crew(kernel)
    for _ in range(10):
        crew.check()
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
    team = Team()
    late, punctual = {"missed": False, "worked": 1e-3, "waited": 2e-3}, {"missed": False, "worked": 1e-3, "waited": 1e-4}
    assert judged(team, 9, **late) == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert judged(team, 1_024, **punctual) == [0] * 1_024
    assert judged(team, 1, **late) == [1024]  # as long as they were left alone is not long enough
    judged(team, 1_025, **punctual)
    assert judged(team, 1, **late) == [512]
    judged(team, 3_000, **punctual)
    assert judged(team, 1, **late) == [16]
    assert judged(team, 9, missed=True, worked=1e-4, waited=0.0) == [0] * 9  # a millisecond to wake
    assert max(judged(team, 2, missed=True, worked=1e-4, waited=0.0)) > 0
    assert judged(team, 9, missed=False, worked=1e-6, waited=5e-5) == [0] * 9  # short jobs


def test_helpers_that_are_left_alone_get_no_jobs(crew, team, helper):
    team._alone = 2
    posted = []
    helper.post = posted.append
    helper.collect = lambda: False
    for _ in range(3):
        crew.check()
    assert len(posted) == 1  # the third time


def test_new_arrays(crew):
    for _ in range(20):
        old, structs = crew.done, crew.structs
        crew.equip()
        kept = old.copy()
        for _ in range(20):
            crew.check()
        assert (old == kept).all()
        del structs


def test_an_interrupt_leaves_the_team_working(crew, team, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(team, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            crew.check(SLOW)
    crew.check()


def test_a_job_left_behind_by_an_interrupt(crew, helper):
    for pause in (0, 0.02, 0.02):  # right away, and when the helper has done it and sleeps
        helper.post((crew.kernel.address, crew.structs[1].address, COUNT, 0, 0))
        time.sleep(pause)
        crew.check()
        crew.check()


def test_a_dismissed_helper_ends(kernel):
    crew = Crew(kernel)
    crew.check()
    thread = crew.team.helpers[0].thread
    assert thread.is_alive()
    del crew
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def _work_in_a_child(crew, queue):
    for _ in range(2 * team_module.PENALTIES[1]):  # it may have been left alone in the parent, for no longer than this
        crew.check()
    queue.put(crew.team.helpers[0].thread.is_alive())


@pytest.mark.skipif(not hasattr(team_module.os, "fork"), reason="no fork on this system")
def test_a_forked_process_gets_helpers_of_its_own(crew):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        child = context.Process(target=_work_in_a_child, args=(crew, queue))
        child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    crew.check()


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


def test_the_mailbox_holds_a_task():
    places = [getattr(thread_kernels, name) for name in ("FUNCTION", "ARGUMENTS", "JOB", "FIRST", "LAST")]
    assert places == list(range(places[0], places[0] + 5))  # a task is written as it is
