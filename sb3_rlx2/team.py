"""Threads that share the tiles of a batch."""

import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.backends.compile import load_kernels
from sb3_rlx2.backends.thread_kernels import ASLEEP, DONE_ASLEEP, GENERATION, IDLE, JOB, LAST_TILE, OWN, STATE

WAKING = 0.001  # seconds of work that a helper may miss while it wakes
PENALTIES = 16, 1024  # the fewest and the most jobs without helpers that were late
Tiles = tuple[int, int]  # the first one, and the one behind the last


def usable_threads(threads: int) -> int:
    """
    Give the number of threads that have a core to run on: one that spins on another's core would only be in its way.

    :param threads: number of threads that the user allows
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(threads, cores))


class Team:
    """
    The calling thread and its helpers, which run one kernel, each on its own tiles and with its own arrays. Which tiles
    a thread gets does not depend on who is early, so sums have a fixed order.

    :param run: kernel ``(arrays, mailbox, generation)``, see ``backends/thread_kernels.py``
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self.mailbox = _mailbox()
        self.arrays: Sequence[Any] = ()
        self.helpers: list[_Helper] = []
        self._alone, self._missed, self._punctual, self._penalty = 0, 0.0, 0, PENALTIES[0]
        weakref.finalize(self, _dismiss, self.helpers)  # also runs at the interpreter's exit

    def equip(self, arrays: Sequence[Any]) -> None:
        """
        Give each thread what it works on.

        :param arrays: the kernel's arrays, for the calling thread and then for each helper
        """
        self.arrays = arrays
        self.helpers.extend(_Helper(self.run) for _ in range(len(self.helpers) + 1, len(arrays)))
        for helper, each in zip(self.helpers, arrays[1:], strict=False):
            helper.equip(each)

    def do(self, job: int, split: Sequence[Tiles]) -> float:
        """
        Do a job.

        :param job: code that the kernel knows
        :param split: tiles of each thread; those behind have none
        :return: sum of what the threads' kernels leave in their ``total``
        """
        for part in self._share(job, split):
            self._do(part, job, split[part])
        return sum(float(arrays.total[0]) for arrays in self.arrays[: len(split)])

    def _share(self, job: int, split: Sequence[Tiles]) -> Sequence[int]:
        """Do a job with the helpers, and give the parts that are left."""
        helpers = self.helpers[: len(split) - 1]
        if not helpers or self._alone > 0:
            self._alone = max(0, self._alone - 1)
            return range(len(split))
        for helper, tiles in zip(helpers, split[1:], strict=True):
            helper.post(job, tiles)
        start = time.perf_counter()
        try:
            self._do(0, job, split[0])
            own = time.perf_counter()
        finally:
            left = [part for part, helper in enumerate(helpers, 1) if not helper.collect()]
        self._judge(bool(left), own - start, time.perf_counter() - own)
        return left

    def _judge(self, missed: bool, worked: float, waited: float) -> None:
        """
        Do without helpers for a while if they are late, as they are where other processes want their cores.

        :param missed: whether a helper has not begun with its part
        :param worked: seconds that the calling thread has worked on its own
        :param waited: seconds that it has waited for the others'
        """
        self._missed = self._missed + worked if missed else 0.0
        if self._missed > WAKING or waited > worked:
            self._alone, self._missed, self._punctual = self._penalty, 0.0, 0
            self._penalty = min(2 * self._penalty, PENALTIES[1])
        else:
            self._punctual += 1
            if self._punctual > self._penalty:  # for as long as they are left alone, else they are late half of the time
                self._penalty, self._punctual = max(self._penalty // 2, PENALTIES[0]), 0

    def _do(self, part: int, job: int, tiles: Tiles) -> None:
        self.mailbox[JOB : LAST_TILE + 1] = job, *tiles
        self.run(self.arrays[part], self.mailbox, OWN)


class _Helper:
    def __init__(self, run: Any) -> None:
        self.run = run
        self.kernels: SimpleNamespace = load_kernels("threads")
        self.mailbox = _mailbox()
        self.awake = threading.Event()
        self.dismissed = False
        self.thread: threading.Thread | None = None
        self.equipment: tuple[Any, int] = None, 0
        self.before = IDLE

    def equip(self, arrays: Any) -> None:
        self.equipment = arrays, self.equipment[1] + 1
        self.mailbox[GENERATION] = self.equipment[1]

    def post(self, job: int, tiles: Tiles) -> None:
        if self.thread is None or not self.thread.is_alive():  # a forked process has none of its parent's threads
            self.mailbox[STATE] = ASLEEP
            self.thread = threading.Thread(target=self._serve, name="rlx2", daemon=True)
            self.thread.start()
        self.kernels.collect(self.mailbox, IDLE)  # an interrupt may have left a job behind
        self.mailbox[JOB : LAST_TILE + 1] = job, *tiles
        self.before = self.kernels.post(self.mailbox)
        if self.before == ASLEEP:
            self.awake.set()

    def collect(self) -> bool:
        done: bool = self.kernels.collect(self.mailbox, self.before)
        return done

    def _serve(self) -> None:
        while not self.dismissed:
            arrays, generation = self.equipment
            self.run(arrays, self.mailbox, generation)
            if self.mailbox[STATE] in (ASLEEP, DONE_ASLEEP):
                self.awake.wait()
                self.awake.clear()

    def dismiss(self) -> None:
        self.dismissed = True
        self.awake.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


def _dismiss(helpers: list[_Helper]) -> None:
    for helper in helpers:
        helper.dismiss()


def _mailbox() -> np.ndarray:
    """Give a mailbox with cache lines of its own: a helper looks at it all the time, and a neighbour's writer would wait."""
    neighbours: np.ndarray = th.zeros(48, dtype=th.int64).numpy()  # torch aligns to cache lines, numpy does not
    return neighbours[16:32]
