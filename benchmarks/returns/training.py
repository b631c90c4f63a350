"""Trains one cell: evaluations, checkpoints, and the file that stays."""

import contextlib
import gc
import json
import shutil
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
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import machine
from benchmarks.environments import silence_age
from benchmarks.returns import agents, distilling, links, probes, teacher, tickets
from benchmarks.returns.cells import EPISODES, METHODS, TEACHER, Cell
from benchmarks.returns.interplay import AGENT, RUNS, UNITS, links_of_a_unit
from benchmarks.returns.results import FINAL_SHARE
from sb3_rlx2 import RLx2Callback, metrics
from sb3_rlx2.checkpoint import Checkpoints
from sb3_rlx2.files import replacing, write_text

HERE = Path(__file__).parent
CHECKPOINTS, BEGUN, MODEL, PROGRESS, RESULT = "checkpoints", "begun.json", "model.zip", "progress.json", "result.json"
TICKET = "ticket.zip"  # an untrained agent with the links that a cell begins with
EARLIER = "checkpoint.pkl"  # what held the checkpoint of a cell that an earlier version of this file began
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
        write_text(self.result(cell), text)


class Evaluations(BaseCallback):
    """
    Plays episodes without exploration every so many steps, and notes what the method is doing.

    :param cell: what is trained
    :param others: policies that are scored too, towards the end
    :param seconds: gives how long the run has taken so far
    :param tell: called with the number of steps and the latest mean return
    """

    def __init__(
        self,
        cell: Cell,
        others: probes.Probes,
        seconds: Callable[[], float],
        tell: Callable[[int, float | None], None],
    ) -> None:
        super().__init__()
        self.cell, self.others, self.seconds, self.tell = cell, others, seconds, tell
        self.rows: list[dict[str, Any]] = []
        self.env = DummyVecEnv([lambda: Monitor(make_env(cell.env))])

    def _on_step(self) -> bool:
        if self.num_timesteps % self.cell.eval_every == 0:
            row = self.row(self.num_timesteps)
            row |= {"training": self._training_return(), "flops": metrics.step_flops(self.model)}
            if self.num_timesteps > self.cell.steps * (1 - probes.SHARE):
                row["deployed"] = {name: self.returns(policy, self.num_timesteps) for name, policy in self.others.policies()}
            self.rows.append(row | self._trace())
        if self.num_timesteps % 1_000 == 0:
            self.tell(self.num_timesteps, float(np.mean(self.rows[-1]["returns"])) if self.rows else None)
        return True

    def _training_return(self) -> float | None:
        """Give the mean return of the last hundred training episodes, None before the first has ended."""
        episodes = self.model.ep_info_buffer
        return round(float(np.mean([episode["r"] for episode in episodes])), 3) if episodes else None

    def row(self, step: int) -> dict[str, Any]:
        """
        Evaluate the model.

        :param step: number of steps, which decides how episodes begin
        """
        return {"step": step, "seconds": round(self.seconds(), 1), "returns": self.returns(self.model, step)}

    def returns(self, policy: PolicyPredictor, step: int) -> list[float]:
        """
        Give the returns of a policy's episodes.

        :param policy: the policy
        :param step: number of steps, which decides how episodes begin
        """
        # A seed for each evaluation, so that a continued run needs nothing of the earlier ones; all policies start alike.
        self.env.seed(EVALUATION_SEED * (1 + self.cell.seed) + step)
        returns, _ = evaluate_policy(policy, self.env, EPISODES, deterministic=True, return_episode_rewards=True)
        return [round(each, 2) for each in returns]

    def _trace(self) -> dict[str, Any]:
        """Note what the method is doing; nothing for a dense agent."""
        drivers = [one for one in self.locals["callback"].callbacks if isinstance(one, RLx2Callback)]
        if not drivers:
            return {}
        updater, buffer = drivers[0].updater, drivers[0].buffer
        assert buffer is not None
        distance: float | None = round(drivers[0].policy_distance, 4)
        if np.isnan(distance):  # there has been no check yet
            distance = None
        trace = {"buffer": buffer.live, "policy_distance": distance}
        for name, network in updater.networks.items():
            trace |= {f"{name}_updates": network.updates, f"{name}_churn": round(network.churn, 4)}
        return trace


class Course(BaseCallback):
    """Counts what a result tells of the processes that trained a cell one after the other. It comes behind the checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.interruptions = 0
        self.revisions: list[str] = []
        self.process = Process()

    def _on_rollout_start(self) -> None:
        if self.process.is_new:
            self.process.is_new = False
            self.interruptions += int(self.model.num_timesteps > 0)
            self.revisions = list(dict.fromkeys([*self.revisions, REVISION]))

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.seconds += self.process.lap()

    def _on_training_end(self) -> None:
        self._on_rollout_start()  # there was none where training had come to its end before

    def so_far(self) -> float:
        """Give the seconds of training."""
        return self.seconds + time.time() - self.process.latest


class Process:
    """What is a process's own, and no state of a run."""

    def __init__(self) -> None:
        self.is_new, self.latest = True, time.time()

    def lap(self) -> float:
        """Give the seconds since the last call."""
        before, self.latest = self.latest, time.time()
        return self.latest - before


class Run:
    """
    A cell's training in this process.

    :param cell: what to train
    :param places: where files go
    :param checkpoint_every: steps between checkpoints
    """

    def __init__(self, cell: Cell, places: Places, checkpoint_every: int) -> None:
        self.cell, self.places, self.checkpoint_every = cell, places, checkpoint_every
        self.folder = places.folder(cell)
        self.env = DummyVecEnv([lambda: Monitor(make_env(cell.env))])
        self.arguments = agents.all_arguments(cell, self.env.envs[0])
        self.checkpoints = Checkpoints(self.folder / CHECKPOINTS, checkpoint_every)

    def train(self) -> dict[str, Any]:
        """Train to the end, from the checkpoint if there is one, and give the result."""
        agent = self._agent_before()
        self._begin()
        self.course = Course()
        if self.arguments.get("init") == AGENT and self.cell.method not in RUNS:
            agent = self._ticket(agent)
        model = agents.make(self.cell, self.env, agent)
        connections = links.connections(model)
        others = probes.Probes(self.cell)
        evaluations = Evaluations(self.cell, others, self.course.so_far, self._tell)
        if METHODS[self.cell.method].distilled:
            more = {"distillation": self._distil(model, agent, evaluations)}
        else:
            more = {}
            model.learn(self.cell.steps, callback=[others, evaluations, self.checkpoints, self.course])
        with replacing(self.folder / MODEL) as unfinished:
            model.save(unfinished)
        return self._result(model, connections, evaluations.rows) | more

    def _ticket(self, agent: str | None) -> str:
        """Keep the links with the largest weights of the agent that comes first, which are this cell's."""
        path = self.folder / TICKET
        tickets.write(self.cell, self.env, self._load_before(agent), path)
        return str(path)

    def _load_before(self, agent: str | None) -> OffPolicyAlgorithm:
        before = cell_before(self.cell)
        assert before is not None
        assert agent is not None
        return agents.agent_class(before).load(agent, device="cpu")

    def _distil(self, model: OffPolicyAlgorithm, agent: str | None, evaluations: Evaluations) -> dict[str, Any]:
        """Let a teacher teach, and score what has come of it from the starts of the last evaluations of other cells."""
        about = distilling.learn(model, self._load_before(agent), make_env(self.cell.env), self.cell.steps, self.cell.seed)
        evaluations.model = model
        steps = range(self.cell.eval_every, self.cell.steps + 1, self.cell.eval_every)
        evaluations.rows += [evaluations.row(step) for step in steps if step > self.cell.steps * (1 - FINAL_SHARE)]
        self.course.revisions.append(REVISION)
        return about

    def _begin(self) -> None:
        """Note the arguments, or see whether what was begun has the same."""
        begun, earlier = self.folder / BEGUN, self.folder / EARLIER
        if earlier.exists():
            print(f"{earlier} is of an earlier version; {self.cell.name} is trained from its beginning", file=sys.stderr)
            earlier.unlink()
        if begun.exists():
            self._refuse_other_arguments(json.loads(begun.read_text()))
        else:
            write_text(begun, json.dumps(self.arguments))

    def finished_elsewhere(self) -> str | None:
        """Give the result of another machine that has the same folder but results of its own, None if there is none."""
        path = self.folder / RESULT
        if not path.exists():
            return None
        text = path.read_text()
        self._refuse_other_arguments(json.loads(text)["arguments"])
        return text

    def _refuse_other_arguments(self, begun: dict[str, Any]) -> None:
        begun = agents.defaults(self.cell) | begun  # what is new since then does nothing by default
        differing = [name for name in {**begun, **self.arguments} if begun.get(name) != self.arguments.get(name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"{self.cell.name} was begun with {name}={begun.get(name)!r}, which is {self.arguments.get(name)!r} now; "
                f"go back to the code or the hyper-parameters that began it, or delete {self.folder}"
            )

    def _agent_before(self) -> str | None:
        cell = cell_before(self.cell)
        if cell is None:
            return None
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

    def _tell(self, step: int, mean_return: float | None) -> None:
        """Leave a note for the progress display."""
        note = json.dumps({"step": step, "return": mean_return, "time": time.time()})
        with contextlib.suppress(OSError):  # as for checkpoints
            write_text(self.folder / PROGRESS, note)

    def _result(self, model: OffPolicyAlgorithm, connections: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
        taught = METHODS[self.cell.method].taught
        return {
            **self.cell.as_dict(),
            "class": type(model).__name__,
            "arguments": self.arguments,
            "teacher": self._about_teacher() if taught else None,
            "seconds": round(self.course.so_far(), 1),
            "checkpoint_seconds": round(self.checkpoints.seconds, 1),
            "interruptions": self.course.interruptions,
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "revision": ", ".join(self.course.revisions),
            "versions": machine.versions(),
            "machine": machine.machine(),
            "cost": asdict(metrics.cost(model)),
            **self._beside(model, connections),
            "topology": links.topology(model),
            "curve": rows,
        }

    def _beside(self, model: OffPolicyAlgorithm, before: Any) -> dict[str, Any]:
        """Give what is compared: with the dense agent, or with other structures, and the connections before and after."""
        run = RUNS.get(self.cell.method)
        if run is None:
            return {"dense_cost": asdict(metrics.cost(agents.dense_reference(self.cell, model.get_env())))}
        after = links.connections(model)
        agent = self._agent_before()
        return {
            "setting": asdict(run.setting_for(self.cell.env)),
            "trained_parameters": links.trained_parameters(model),
            "links_of_equal_size": UNITS * links_of_a_unit(agents.shape_of(self.env.envs[0])),
            "connections": None if after is None else {"first": before, "last": after},
        } | ({} if agent is None else {"links_above_0.001_before": links.large_before(model, self._load_before(agent))})


def train(cell: Cell, places: Places, checkpoint_every: int = 10_000) -> dict[str, Any]:
    """
    Train a cell to the end unless it is finished; only one process of those that share the folder does it at a time.

    :param cell: what to train
    :param places: where files go
    :param checkpoint_every: steps between checkpoints
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
    Train to the end, store the result, and only then let the checkpoints go.

    :param run: what to train
    :param store: takes the result's text
    """
    th.set_num_threads(1)
    text = as_text(run.train())
    write_text(run.folder / RESULT, text)
    store(text)
    gc.collect()  # an agent refers to itself in many ways, and its replay buffer is large
    shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
    (run.folder / BEGUN).unlink(missing_ok=True)


def as_text(result: dict[str, Any]) -> str:
    """Lay a result out as JSON with a line for each evaluation."""
    about = {name: value for name, value in result.items() if name != "curve"}
    rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in result["curve"])
    return f'{json.dumps(about, indent=1, allow_nan=False)[:-2]},\n "curve": [\n  {rows}\n ]\n}}\n'


def teacher_of(cell: Cell) -> Cell:
    """Give the dense cell whose frozen critics teach this one."""
    return replace(cell, method="dense", sparsity=None, seed=0, **TEACHER)


def cell_before(cell: Cell) -> Cell | None:
    """Give the cell whose agent a cell needs, None if it needs none."""
    method = METHODS[cell.method]
    if method.taught:
        return teacher_of(cell)
    if method.needs is None:
        return None
    is_dense = METHODS[method.needs].network == "dense"  # which has no sparsity
    return replace(cell, method=method.needs, sparsity=None if is_dense else cell.sparsity)


def make_env(name: str) -> gym.Env:
    silence_age()
    return gym.make(name)
