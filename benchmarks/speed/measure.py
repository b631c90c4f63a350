"""Starts workers, lets them run in turn, and stores what they took."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.machine import cpu_model, machine, maker, thread_variables, versions
from benchmarks.speed.cells import ROOT
from sb3_rlx2.files import write_text

RESULTS = Path(__file__).parent / "results"
SBX_PYTHON = ROOT / ".venv-sbx/bin/python"
ONE_THREAD_XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
SBX_PACKAGES = ("sbx-rl", "jax", "jaxlib", "stable_baselines3", "numpy")


class Worker:
    """
    A process that measures.

    :param threads: number of threads and of cores
    :param python: its interpreter, which may live in another environment
    :param variables: further environment variables
    :param root: the checkout whose code it runs
    """

    def __init__(
        self,
        threads: int = 1,
        python: Path | str = sys.executable,
        variables: Mapping[str, str] = MappingProxyType({}),
        root: Path = ROOT,
    ) -> None:
        environment = os.environ | thread_variables(threads) | variables
        environment |= {"XLA_FLAGS": ONE_THREAD_XLA, "JAX_PLATFORMS": "cpu", "PYTHONHASHSEED": "0"}
        if root != ROOT:
            environment["PYTHONPATH"] = str(root)
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.speed.worker", str(threads)],
            cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, task: str, n: int, arguments: dict[str, Any]) -> tuple[float, Any]:
        """
        Run a task ``n`` times.

        :return: seconds, and what the task gave
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([task, arguments, n]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker of {task} {arguments} has died with {self.process.wait()}, see above")
        seconds, value = json.loads(answer)
        return seconds, value

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its input, at which it ends


@dataclass
class Job:
    """
    Something to time.

    :param task: name in ``tasks.TASKS``
    :param n: how many times in a go
    :param arguments: the task's arguments
    :param threads: threads of its worker
    :param python: interpreter of its worker
    :param variables: environment variables of its worker
    :param root: the checkout whose code its worker runs
    """

    task: str
    n: int
    arguments: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    python: Path | str = sys.executable
    variables: dict[str, str] = field(default_factory=dict)
    root: Path = ROOT

    def start(self) -> Worker:
        return Worker(self.threads, self.python, self.variables, self.root)


@dataclass
class Bench:
    """
    How much to measure, and where to store it.

    :param repeats: rounds in which all variants of a cell take their turn
    :param scale: share of the usual amount of work; tiny for a functional check
    :param results: folder
    :param sbx: interpreter with sbx-rl, None if there is none
    :param earlier: a checkout of an earlier commit, None if there is none
    """

    repeats: int
    scale: float
    results: Path
    sbx: Path | None
    earlier: Path | None = None

    def alternate(self, jobs: dict[str, Job], worker: Worker | None = None) -> dict[str, list[float]]:
        """
        Time jobs in turn, so that whatever disturbs the machine disturbs all of them.

        :param jobs: what to time, by name
        :param worker: serves all of them that have no variables of their own; by default each has a worker of its own
        :return: seconds per unit of work, one number for each round, by name
        """
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(job.start()) if worker is None or job.variables else worker
                for name, job in jobs.items()
            }
            for name, job in jobs.items():
                self._time(workers[name], job, 0.1)  # builds, compiles, fills caches
            seconds: dict[str, list[float]] = {name: [] for name in jobs}
            for _ in range(self.repeats):
                for name, job in jobs.items():
                    seconds[name].append(self._time(workers[name], job))
        return seconds

    def amount(self, n: int) -> int:
        return max(1, round(n * self.scale))

    def _time(self, worker: Worker, job: Job, share: float = 1.0) -> float:
        n = self.amount(round(job.n * share))
        seconds, _ = worker.run(job.task, n, job.arguments)
        return seconds / n

    def store(self, section: str, measure: Callable[["Bench"], list[dict[str, Any]]]) -> None:
        """Measure a section, and write it into the folder of the CPU's maker in one go: a file that exists is complete."""
        start, before = time.time(), machine() | {"load before": os.getloadavg()[0]}
        rows = [row | {"summary": summary(row)} for row in measure(self)]
        about = {
            "section": section,
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "minutes": round((time.time() - start) / 60, 1),
            "command": f"python -m benchmarks.speed run {section}",
            "repeats": self.repeats,
            "scale": self.scale,
            "machine": before,
            "versions": versions(),
            "sbx_versions": sbx_versions(self.sbx),
        }
        folder = self.results / maker(cpu_model()).lower()
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{section}.json", json.dumps(about | {"rows": rows}, indent=1) + "\n")


def summary(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Give median and spread of each variant's seconds."""
    return {
        name: {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
        for name, seconds in row.get("seconds", {}).items()
    }


def find_sbx() -> Path | None:
    """Give the interpreter that has sbx-rl, None if ``make bench`` could not install it."""
    if not SBX_PYTHON.exists():
        return None
    found = subprocess.run([SBX_PYTHON, "-c", "import importlib.util as u; assert u.find_spec('sbx')"], capture_output=True)
    return SBX_PYTHON if found.returncode == 0 else None


def sbx_versions(python: Path | None) -> dict[str, str]:
    if python is None:
        return {}
    code = f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {SBX_PACKAGES}}}))"
    versions: dict[str, str] = json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)
    return versions
