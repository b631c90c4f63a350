"""Threads that share the work of a kernel: the tiles of a batch, or the parameters of a network."""

import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch as th

from sb3_rlx2 import kernels
from sb3_rlx2.kernels.mailbox import ASLEEP, DONE_ASLEEP, FUNCTION, IDLE, LAST, STATE
from sb3_rlx2.kernels.structs import Struct

WAKING = 0.001  # seconds of work that a helper may miss while it wakes
PENALTIES = 16, 1024  # the fewest and the most jobs without helpers that were late
LATE = 0.0001  # seconds that the calling thread may wait, however short its own share was
Share = tuple[int, int]  # the first tile (or line), and the one behind the last
Task = tuple[int, int, int, int, int]  # addresses of kernel and arguments, job, share


def usable_threads(threads: int) -> int:
    """
    Give the number of threads that have a core to run on: one that spins on another's core would only be in its way.

    :param threads: number of threads that the user allows
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(threads, cores))


class Team:
    """
    The calling thread and its helpers, which run one kernel, each its own share. What a thread gets does not depend on who is
    early, so sums have a fixed order.
    """

    def __init__(self) -> None:
        self.run = kernels.load(".mailbox:JOBS").run
        self.helpers: list[_Helper] = []
        self._alone, self._missed, self._punctual, self._penalty = 0, 0.0, 0, PENALTIES[0]
        weakref.finalize(self, _dismiss, self.helpers)  # also runs at the interpreter's exit

    def do(self, kernel: int, arguments: Sequence[Struct], job: int, split: Sequence[Share]) -> None:
        """
        Do a job.

        :param kernel: address of a kernel ``(arguments, job, first, last)``
        :param arguments: what each thread works on
        :param job: number that the kernel knows
        :param split: share of each thread, the calling one's first
        """
        tasks = [(kernel, own.address, job, *share) for own, share in zip(arguments, split, strict=False)]
        for part in self._share_out(tasks):
            self.run(*tasks[part])

    def _share_out(self, tasks: Sequence[Task]) -> Sequence[int]:
        """Have the helpers do tasks and do the first one, and give the numbers of those that are left."""
        if len(tasks) == 1 or self._alone > 0:
            self._alone = max(0, self._alone - 1)
            return range(len(tasks))
        self.helpers.extend(_Helper() for _ in range(len(self.helpers) + 1, len(tasks)))
        helpers = self.helpers[: len(tasks) - 1]
        for helper, task in zip(helpers, tasks[1:], strict=True):
            helper.post(task)
        start = time.perf_counter()
        try:
            self.run(*tasks[0])
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
        if self._missed > WAKING or waited > max(worked, LATE):
            self._alone, self._missed, self._punctual = self._penalty, 0.0, 0
            self._penalty = min(2 * self._penalty, PENALTIES[1])
        else:
            self._punctual += 1
            if self._punctual > self._penalty:  # for as long as they are left alone, else they are late half of the time
                self._penalty, self._punctual = max(self._penalty // 2, PENALTIES[0]), 0


class _Helper:
    def __init__(self) -> None:
        self.kernels: SimpleNamespace = kernels.load(".mailbox:THREADS")
        self.mailbox = new_mailbox()
        self.awake = threading.Event()
        self.dismissed = False
        self.thread: threading.Thread | None = None
        self.before = IDLE

    def post(self, task: Task) -> None:
        if self.thread is None or not self.thread.is_alive():  # a forked process has none of its parent's threads
            self.mailbox[STATE] = ASLEEP
            self.thread = threading.Thread(target=self._serve, name="rlx2", daemon=True)
            self.thread.start()
        self.kernels.collect(self.mailbox, IDLE)  # an interrupt may have left a job behind
        self.mailbox[FUNCTION : LAST + 1] = task
        self.before = self.kernels.post(self.mailbox)
        if self.before == ASLEEP:
            self.awake.set()

    def collect(self) -> bool:
        done: bool = self.kernels.collect(self.mailbox, self.before)
        return done

    def _serve(self) -> None:
        while not self.dismissed:
            self.kernels.serve(self.mailbox)
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


def new_mailbox() -> np.ndarray:
    """Give a mailbox with cache lines of its own: a helper looks at it all the time, and a neighbour's writer would wait."""
    neighbours: np.ndarray = th.zeros(48, dtype=th.int64).numpy()  # torch aligns to cache lines, numpy does not
    return neighbours[16:32]
