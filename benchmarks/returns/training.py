"""Trains one cell: evaluations, checkpoints, and the file that stays."""

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from filelock import FileLock
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import machine
from benchmarks.environments import silence_age
from benchmarks.returns import agents, checkpoint, teacher
from benchmarks.returns.cells import EPISODES, METHODS, TEACHER, Cell
from sb3_rlx2 import RLx2Callback, metrics

HERE = Path(__file__).parent
CHECKPOINT, MODEL, PROGRESS, RESULT = "checkpoint.pkl", "model.zip", "progress.json", "result.json"
EVALUATION_SEED = 1_000_000  # far from the seeds of training


def revision() -> str:
    """Give the commit of this clone, marked if its code differs from it; ``unknown`` outside a clone."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()
    code = ["git", "diff", "--quiet", "HEAD", "--", ":(top)*.py", ":(top)*.yml"]  # results come and go
    changed = subprocess.run(code, cwd=HERE, capture_output=True, check=False).returncode != 0
    return "unknown" if not commit else f"{commit}-dirty" if changed else commit


REVISION = revision()  # now, with the code that is loaded: the clone may move on before a cell is finished


class Places:
    """
    Where files go.

    :param work: folder of checkpoints, trained models and the journal; not kept in the repository
    :param results: folder of the finished cells' files
    """

    def __init__(self, work: Path, results: Path) -> None:
        self.work, self.results = work, results

    def folder(self, cell: Cell) -> Path:
        """Give a cell's folder of checkpoints."""
        folder = self.work / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def result(self, cell: Cell) -> Path:
        """Give the file of a finished cell."""
        return self.results / f"{cell.name}.json"

    def store(self, cell: Cell, text: str) -> None:
        """Write a finished cell's file in one go."""
        self.results.mkdir(parents=True, exist_ok=True)
        _write_text(self.result(cell), text)


class Evaluations(BaseCallback):
    """
    Plays episodes without exploration every so many steps, and notes what the method is doing.

    :param cell: what is trained
    :param rows: evaluations so far, to which it adds
    :param tell: called with the number of steps and the latest mean return
    """

    def __init__(self, cell: Cell, rows: list[dict[str, Any]], tell: Callable[[int, float | None], None]) -> None:
        super().__init__()
        self.cell, self.rows, self.tell = cell, rows, tell
        self.env = DummyVecEnv([lambda: Monitor(make_env(cell.env))])

    def _on_step(self) -> bool:
        if self.num_timesteps % self.cell.eval_every == 0:
            # A seed for each evaluation, so that a continued run needs nothing of the earlier ones.
            self.env.seed(EVALUATION_SEED * (1 + self.cell.seed) + self.num_timesteps)
            returns, _ = evaluate_policy(self.model, self.env, EPISODES, deterministic=True, return_episode_rewards=True)
            self.rows.append({"step": self.num_timesteps, "returns": [round(r, 2) for r in returns], **self._trace()})
        if self.num_timesteps % 1_000 == 0:
            self.tell(self.num_timesteps, float(np.mean(self.rows[-1]["returns"])) if self.rows else None)
        return True

    def _trace(self) -> dict[str, Any]:
        """Note what the method is doing; nothing for a dense agent."""
        drivers = [one for one in self.locals["callback"].callbacks if isinstance(one, RLx2Callback)]
        if not drivers:
            return {}
        updater, buffer = drivers[0].updater, drivers[0].buffer
        assert buffer is not None
        distance: float | None = round(drivers[0].policy_distance, 4)
        if np.isnan(distance):  # there has been no check yet, or none since the run was continued
            distance = self.rows[-1].get("policy_distance") if self.rows else None
        trace = {"buffer": buffer.live, "policy_distance": distance}
        for name, network in updater.networks.items():
            trace |= {f"{name}_updates": network.updates, f"{name}_churn": round(network.churn, 4)}
        return trace


class Checkpoints(BaseCallback):
    """
    Writes checkpoints at the first start of an episode after each interval.

    :param path: the file
    :param interval: seconds between checkpoints
    :param more: gives what else belongs into it
    """

    def __init__(self, path: Path, interval: float, more: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self.path, self.interval, self.more = path, interval, more
        self.episode_began = False
        self.latest = time.monotonic()
        self.seconds = 0.0

    def _on_step(self) -> bool:
        self.episode_began = bool(self.locals["dones"][0])
        return True

    def _on_rollout_start(self) -> None:
        start = time.monotonic()
        if not self.episode_began or start < self.latest + self.interval:
            return
        try:
            checkpoint.write(self.path, checkpoint.capture(self.model) | self.more())
        except OSError as error:  # a full disk must not end hours of training; the last checkpoint is still there
            print(f"no checkpoint at step {self.num_timesteps:,}: {error}", file=sys.stderr, flush=True)
        self.latest = time.monotonic()
        self.seconds += self.latest - start


class Run:
    """
    A cell's training in this process.

    :param cell: what to train
    :param places: where files go
    :param checkpoint_every: seconds between checkpoints
    """

    def __init__(self, cell: Cell, places: Places, checkpoint_every: float) -> None:
        self.cell, self.places, self.checkpoint_every = cell, places, checkpoint_every
        self.folder = places.folder(cell)
        self.began = time.time()
        self.env = DummyVecEnv([lambda: Monitor(checkpoint.RepeatableReset(make_env(cell.env)))])
        self.arguments = agents.all_arguments(cell, self.env.envs[0])
        self.earlier: dict[str, Any] = {
            "rows": [],
            "seconds": 0.0,
            "checkpoint_seconds": 0.0,
            "interruptions": 0,
            "revisions": [],
        }

    def train(self) -> dict[str, Any]:
        """Train to the end, from the checkpoint if there is one, and give the result."""
        teaching_agent = self._teacher()
        callbacks: list[BaseCallback] = []
        path = self.folder / CHECKPOINT
        if path.exists():
            state = checkpoint.read(path)
            self._refuse_other_arguments(state["run"].get("arguments", self.arguments))
            self.earlier |= state["run"] | {"interruptions": state["run"]["interruptions"] + 1}
            model = checkpoint.restore(agents.agent_class(self.cell), self.env, state)
            callbacks.append(checkpoint.RestoreGenerators(state["generators"]))
        else:
            model = agents.make(self.cell, self.env, teaching_agent)
        self.began = time.time()
        evaluations = Evaluations(self.cell, self.earlier["rows"], self._tell)
        self.checkpoints = Checkpoints(path, self.checkpoint_every, lambda: {"run": self._so_far()})
        fresh = not callbacks
        model.learn(
            self.cell.steps - model.num_timesteps,
            callback=[*callbacks, evaluations, self.checkpoints],
            reset_num_timesteps=fresh,
        )
        unfinished = self.folder / f"unfinished_{MODEL}"
        model.save(unfinished)
        _replace(self.folder / MODEL, unfinished)
        return self._result(model)

    def finished_elsewhere(self) -> str | None:
        """Give the result of another machine that has the same folder but results of its own, None if there is none."""
        path = self.folder / RESULT
        if not path.exists():
            return None
        text = path.read_text()
        self._refuse_other_arguments(json.loads(text)["arguments"])
        return text

    def _refuse_other_arguments(self, begun: dict[str, Any]) -> None:
        differing = [name for name in {**begun, **self.arguments} if begun.get(name) != self.arguments.get(name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"{self.cell.name} was begun with {name}={begun.get(name)!r}, which is {self.arguments.get(name)!r} now; "
                f"go back to the code or the hyper-parameters that began it, or delete {self.folder}"
            )

    def _teacher(self) -> str | None:
        if not METHODS[self.cell.method].taught:
            return None
        cell = teacher_of(self.cell)
        train(cell, self.places, self.checkpoint_every)
        path = self.places.folder(cell) / MODEL
        if not path.exists():  # its result came from another machine
            with FileLock(path.with_name("lock")):
                if not path.exists():
                    finish(Run(cell, self.places, self.checkpoint_every), lambda text: None)
        return str(path)

    def _about_teacher(self) -> dict[str, Any]:
        cell = teacher_of(self.cell)
        policy = teacher.load(str(self.places.folder(cell) / MODEL))
        return {"cell": cell.name} | teacher.quality(policy, make_env(cell.env), EPISODES)

    def _so_far(self) -> dict[str, Any]:
        return self.earlier | {
            "seconds": self.earlier["seconds"] + time.time() - self.began,
            "checkpoint_seconds": self.earlier["checkpoint_seconds"] + self.checkpoints.seconds,
            "arguments": self.arguments,
            "revisions": list(dict.fromkeys([*self.earlier["revisions"], REVISION])),
        }

    def _tell(self, step: int, mean_return: float | None) -> None:
        """Leave a note for the progress display."""
        note = json.dumps({"step": step, "return": mean_return, "time": time.time()})
        path = self.folder / PROGRESS
        with contextlib.suppress(OSError):  # as for checkpoints
            path.with_suffix(".part").write_text(note)
            path.with_suffix(".part").replace(path)

    def _result(self, model: OffPolicyAlgorithm) -> dict[str, Any]:
        so_far = self._so_far()
        dense = agents.dense_reference(self.cell, model.get_env())
        taught = METHODS[self.cell.method].taught
        return {
            **self.cell.as_dict(),
            "class": type(model).__name__,
            "arguments": self.arguments,
            "teacher": self._about_teacher() if taught else None,
            "seconds": round(so_far["seconds"], 1),
            "checkpoint_seconds": round(so_far["checkpoint_seconds"], 1),
            "interruptions": so_far["interruptions"],
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "revision": ", ".join(so_far["revisions"]),
            "versions": machine.versions(),
            "machine": machine.machine(),
            "cost": asdict(metrics.cost(model)),
            "dense_cost": asdict(metrics.cost(dense)),
            "topology": topology(model),
            "curve": so_far["rows"],
        }


def train(cell: Cell, places: Places, checkpoint_every: float = 300.0) -> dict[str, Any]:
    """
    Train a cell to the end unless it is finished; only one process of those that share the folder does it at a time.

    :param cell: what to train
    :param places: where files go
    :param checkpoint_every: seconds between checkpoints
    :return: the result, as stored
    """
    with FileLock(places.folder(cell) / "lock"):
        if not places.result(cell).exists():
            run = Run(cell, places, checkpoint_every)
            elsewhere = run.finished_elsewhere()
            if elsewhere is None:
                finish(run, partial(places.store, cell))
            else:
                places.store(cell, elsewhere)
        return json.loads(places.result(cell).read_text())


def finish(run: Run, store: Callable[[str], None]) -> None:
    """
    Train to the end, store the result, and only then let the checkpoint go.

    :param run: what to train
    :param store: takes the result's text
    """
    th.set_num_threads(1)
    text = as_text(run.train())
    _write_text(run.folder / RESULT, text)
    store(text)
    gc.collect()  # an agent refers to itself in many ways, and its replay buffer is large
    (run.folder / CHECKPOINT).unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    """Write a file in one go."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text)
    _replace(path, unfinished)


def _replace(path: Path, unfinished: Path) -> None:
    """Let a file take its place once the disk has it: a checkpoint that is deleted after that may be all that there is."""
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def as_text(result: dict[str, Any]) -> str:
    """Lay a result out as JSON with a line for each evaluation."""
    about = {name: value for name, value in result.items() if name != "curve"}
    rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in result["curve"])
    return f'{json.dumps(about, indent=1, allow_nan=False)[:-2]},\n "curve": [\n  {rows}\n ]\n}}\n'


def teacher_of(cell: Cell) -> Cell:
    """Give the dense cell whose frozen critics teach this one."""
    return replace(cell, method="dense", sparsity=None, seed=0, **TEACHER)


def make_env(name: str) -> gym.Env:
    silence_age()
    return gym.make(name)


def topology(model: Any) -> list[dict[str, Any]]:
    """Say where the links of the trained agent are; nothing for a dense agent."""
    rows = []
    for part in ("actor", "critic"):
        for number, mlp in enumerate(metrics.sparse_mlps(getattr(model, part))):
            weights = [weight.detach() != 0 for weight in mlp.dense_weights()]
            for at, (layer, live) in enumerate(zip(mlp.layers, weights, strict=True)):
                used = weights[at + 1].any(dim=0) if at + 1 < len(weights) else th.ones(layer.out_features, dtype=th.bool)
                rows.append(
                    {
                        "layer": f"{part}.{number}.{at}",
                        "shape": list(layer.shape),
                        "links": layer.nnz,
                        "inputs_without_links": int((~live.any(dim=0)).sum()),
                        "units_without_links": int((~(live.any(dim=1) & used)).sum()),
                    }
                )
    return rows
