"""A run's folder, read for `rlx2 report`: what is there, and None for what is not."""

import csv
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sb3_rlx2.checkpoint.archive import CHECKPOINT, newer_checkpoint, why_no_agent
from sb3_rlx2.progress_log import BUFFER_SIZE, N_STEPS, POLICY_DISTANCE, STEP, layer_of, progress_files, read_evaluations
from sb3_rlx2.report.agent_file import Agent, read_agent
from sb3_rlx2.settings import read_settings

T = TypeVar("T")
EXACT = {POLICY_DISTANCE, BUFFER_SIZE, N_STEPS}  # written when they change, at their step


class RunError(ValueError):
    """A folder or a file of a run that cannot be read; the message is one line."""


@dataclass(frozen=True)
class Curve:
    """
    Values over environment steps.

    :param steps: environment steps, rising, ``[points]``
    :param values: values, ``[points]``
    """

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Evaluations:
    """
    What SB3's ``EvalCallback`` stores.

    :param steps: environment steps, ``[evaluations]``
    :param returns: return of each episode, ``[evaluations, episodes]``
    """

    steps: np.ndarray
    returns: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Mean return of each evaluation."""
        return np.asarray(self.returns.mean(axis=1))

    @property
    def best(self) -> int:
        """Number of the evaluation with the highest mean, the first of equals, whose agent is ``best_model.zip``."""
        return int(self.means.argmax())


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Run:
    """
    What a run has left in its folder.

    :param folder: the folder
    :param evaluations: from ``evaluations.npz``
    :param episodes: return of each training episode at the step at which it ended, from the monitor files
    :param progress: the columns of ``progress.csv``
    :param settings: the zoo's ``config.yml``
    :param arguments: the zoo's ``args.yml``
    :param agent: the latest saved agent
    :param env_id: name of the environment, from the monitor files
    :param seconds: wall clock time until the last episode's end, from the monitor files
    """

    folder: Path
    evaluations: Evaluations | None
    episodes: Curve | None
    progress: Mapping[str, Curve]
    settings: Mapping[str, Any]
    arguments: Mapping[str, Any]
    agent: Agent | None
    env_id: str | None
    seconds: float | None

    @cached_property
    def steps(self) -> int:
        """Environment steps of which the folder knows."""
        ends = [0 if self.agent is None else self.agent.steps]
        ends += [int(curve.steps[-1]) for curve in (self.episodes, *self.progress.values()) if curve is not None]
        return max(ends + ([int(self.evaluations.steps[-1])] if self.evaluations is not None else []))

    @property
    def total_steps(self) -> int | None:
        """Environment steps that the run is to have at its end."""
        if self.agent is not None and self.agent.total_steps:
            return self.agent.total_steps
        total = self.arguments.get("n_timesteps")
        total = total if isinstance(total, int | float) and total > 0 else self.settings.get("n_timesteps")
        return int(total) if isinstance(total, int | float) else None

    @property
    def seed(self) -> int | None:
        """Its seed, None if it had none or none is known."""
        seed = self.arguments.get("seed", (self.agent.settings if self.agent else {}).get("seed"))
        return seed if isinstance(seed, int) and seed >= 0 else None

    @property
    def continues(self) -> str | None:
        """The saved agent from which the run went on."""
        return self.arguments.get("trained_agent") or None

    @property
    def algorithm(self) -> str:
        """Name of the algorithm, as well as it is known."""
        names = [self.arguments.get("algo"), None if self.agent is None else self.agent.algorithm]
        return next((name for name in names if name), "unknown algorithm")

    @property
    def environment(self) -> str:
        """Name of the environment, as well as it is known."""
        return str(self.arguments.get("env") or self.env_id or "unknown environment")

    @property
    def environment_arguments(self) -> dict[str, Any]:
        """Arguments of its environments that the command line gave, by the option."""
        return {name: self.arguments[name] for name in ("env_kwargs", "eval_env_kwargs") if self.arguments.get(name)}

    def curve(self, name: str) -> Curve | None:
        """
        Give a column of ``progress.csv``.

        :param name: name of the column
        """
        return self.progress.get(name)

    def churn(self) -> dict[str, dict[tuple[int, int], Curve]]:
        """
        Give the churn at each topology update.

        :return: shares of links that changed, by the network's name, as ``"actor"``, and ``(number among its twins, layer)``
        """
        found: dict[str, dict[tuple[int, int], Curve]] = {}
        places = [(place, curve) for place, curve in ((layer_of(name), each) for name, each in self.progress.items()) if place]
        for (network, number, layer), curve in sorted(places, key=itemgetter(0)):
            found.setdefault(network, {})[number, layer] = curve
        return found


def read_run(folder: Path) -> Run:
    """
    Read a run's folder.

    :param folder: as `rlx2 train` leaves it, or a folder of one's own with files of the same kinds in it
    :raises RunError: if it does not exist, holds no run, or a file in it is damaged
    """
    if not folder.is_dir():
        raise RunError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    monitors = sorted(folder.glob("*monitor.csv"))
    episodes, env_id, seconds = _read(_read_monitors, monitors, folder / "monitor.csv") if monitors else (None, None, None)
    evaluations = folder / "evaluations.npz"
    parts = [_read(_read_progress, path) for path in progress_files(folder)]
    agent = agent_file(folder)
    run = Run(
        folder=folder,
        evaluations=_read(_read_evaluations, evaluations) if evaluations.exists() else None,
        episodes=episodes,
        progress=_columns(parts),
        settings=_read_settings(folder, "config.yml"),
        arguments=_read_settings(folder, "args.yml"),
        agent=None if agent is None else _read(read_agent, agent),
        env_id=env_id,
        seconds=seconds,
    )
    if agent is None and run.evaluations is None and not monitors and not parts:
        inside = sorted({path.parent for name in ("progress.csv", "evaluations.npz") for path in folder.rglob(name)})
        hint = f"; there are runs inside it: {', '.join(map(str, inside[:3]))}" if inside else ""
        raise RunError(f"{folder} holds no run (no agent, evaluations.npz, monitor file or progress.csv){hint}")
    return run


def agent_file(folder: Path) -> Path | None:
    """
    Find the latest agent of a run: the one at its end, else the last one saved on the way, else the best so far; that of its
    newest whole checkpoint, if it was cut off behind these.

    :param folder: the run's folder
    """
    checkpoints, ends, best = [], [], None
    for path in sorted(folder.glob("*.zip")):
        step = CHECKPOINT.fullmatch(path.stem)
        if step:
            checkpoints.append((int(step["steps"]), path))
        elif path.stem == "best_model":
            best = path
        else:
            ends.append((path.stat().st_mtime, path))
    ends = [end for end in ends if why_no_agent(end[1]) is None] or ends  # other archives may lie there too
    latest = max(ends or checkpoints, default=None)
    found = best if latest is None else latest[1]
    return newer_checkpoint(folder, found) or found


def _read(reader: Callable[..., T], *arguments: Any) -> T:
    """Turn whatever a damaged file makes of a reader into an error of one line."""
    path = arguments[-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reader(*arguments)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RunError(f"{path} cannot be read, it may be damaged or still be written: {reason}") from error


def _read_evaluations(path: Path) -> Evaluations | None:
    evaluations = Evaluations(*read_evaluations(path))
    return evaluations if len(evaluations.steps) else None


def _read_monitors(paths: list[Path], _: Path) -> tuple[Curve | None, str | None, float | None]:
    """Put the episodes of all environments in the order in which they ended, as SB3's ``load_results``."""
    rows, starts, env_id = [], [], None
    for path in paths:
        first, *lines = path.read_text().splitlines() or ["#{}"]
        header = json.loads(first.removeprefix("#"))
        if header.get("env_id") not in (None, "None"):  # what SB3's Monitor writes for an environment that is not registered
            env_id = header["env_id"]
        starts.append(float(header.get("t_start", 0)))
        complete = [row for row in csv.DictReader(lines) if None not in row.values()]  # the last may be being written
        rows += [(starts[-1] + float(row["t"]), float(row["r"]), int(row["l"])) for row in complete]
    if not rows:
        return None, env_id, None
    ends, returns, lengths = (np.array(column) for column in zip(*sorted(rows), strict=True))
    return Curve(lengths.cumsum(), returns), env_id, float(ends[-1] - min(starts))


def _read_progress(path: Path) -> list[dict[str, float]]:
    lines = path.read_text().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]  # the last may be being written
    reader = csv.reader(io.StringIO("".join(complete)))
    header = next(reader, [])
    if complete and STEP not in header:
        raise ValueError(f"its first line names no column {STEP}")
    rows = [dict(zip(header, row, strict=True)) for row in reader if len(row) == len(header)]
    numbers = [{name: number for name, cell in row.items() if (number := _number(cell)) is not None} for row in rows]
    return [_without_repeats(row) for row in numbers]


def _without_repeats(row: dict[str, float]) -> dict[str, float]:
    """An evaluation also dumps what was logged some time before it; what has rows of its own would go back in time."""
    evaluates = any(name.startswith("eval/") for name in row)
    return {name: value for name, value in row.items() if not (evaluates and name in EXACT)}


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if np.isnan(number) else number


def _columns(parts: list[list[dict[str, float]]]) -> dict[str, Curve]:
    """Join the files of one run; where a later one goes back, to a checkpoint, what came after that is void."""
    rows: list[dict[str, float]] = []
    for part in parts:
        part = [row for row in part if STEP in row]
        rows = [row for row in rows if not part or row[STEP] < part[0][STEP]] + part
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name in row.keys() - {STEP}:
            points.setdefault(name, []).append((row[STEP], row[name]))
    return {name: Curve(*(np.array(axis) for axis in zip(*pairs, strict=True))) for name, pairs in sorted(points.items())}


def _read_settings(folder: Path, name: str) -> dict[str, Any]:
    path = next(iter(sorted(folder.glob(f"*/{name}"))), None)
    return {} if path is None else _read(read_settings, path)
