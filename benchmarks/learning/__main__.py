"""
Runs the learning checks and stores their curves: ``python -m benchmarks.learning run [NAME ...]``, then ``report``.

A finished cell is a CSV in ``results/`` in the format of ``baselines/`` and is not run again; a killed one starts over.
"""

import argparse
import json
import platform
import tempfile
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor

import sb3_rlx2
from benchmarks.learning.cells import CELLS, Cell
from sb3_rlx2 import RLx2TD3

HERE = Path(__file__).parent
RESULTS = HERE / "results"


class EventCounter(BaseCallback):
    """Counts what the method did: topology updates, and checks at which the buffer shrank."""

    def __init__(self) -> None:
        super().__init__()
        self.shrinks = 0
        self.largest = 0

    def _on_step(self) -> bool:
        live = self.model.replay_buffer.live
        self.shrinks += live < self.largest
        self.largest = live
        return True

    def counts(self) -> dict[str, int]:
        networks = self.model.policy.topology_updater.networks
        return {"shrinks": self.shrinks, **{f"{name}_updates": network.updates for name, network in networks.items()}}


def run(cell: Cell) -> None:
    """Train one cell and store its curve."""
    th.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*is out of date.*")
    model = RLx2TD3("MlpPolicy", cell.env, seed=cell.seed, **cell.arguments)
    eval_env = Monitor(gym.make(cell.env))
    eval_env.reset(seed=cell.seed + 1000)
    events = EventCounter()
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = EvalCallback(
            eval_env, n_eval_episodes=10, eval_freq=cell.eval_every, log_path=folder, deterministic=True, verbose=0
        )
        model.learn(cell.steps, callback=[events, evaluation])
    about = {
        "cell": cell.name,
        "arguments": cell.arguments,
        "seed": cell.seed,
        "seconds": round(time.time() - start),
        "events": events.counts(),
        "versions": {
            "sb3_rlx2": sb3_rlx2.__version__,
            "stable_baselines3": stable_baselines3.__version__,
            "gymnasium": gym.__version__,
            "torch": th.__version__,
            "python": platform.python_version(),
        },
    }
    store(cell, about, evaluation.evaluations_timesteps, evaluation.evaluations_results)


def store(cell: Cell, about: dict, steps: list[int], returns: list[list[float]]) -> None:
    """Write the CSV in one go, so that a file that exists is complete."""
    header = ["timesteps", "mean_return", "std_return", *(f"episode_{i}" for i in range(10))]
    rows = [[step, np.mean(row), np.std(row), *row] for step, row in zip(steps, returns, strict=True)]
    lines = [f"# {json.dumps(about)}", ",".join(header)]
    lines += [",".join([str(row[0]), *(f"{value:.2f}" for value in row[1:])]) for row in rows]
    RESULTS.mkdir(exist_ok=True)
    partial = RESULTS / f"{cell.name}.part"
    partial.write_text("\n".join(lines) + "\n")
    partial.rename(RESULTS / f"{cell.name}.csv")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give evaluation steps and mean returns of a stored curve."""
    table = np.genfromtxt(path, delimiter=",", skip_header=2)
    return table[:, 0], table[:, 1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("command", choices=["list", "run", "report"])
    parser.add_argument("names", nargs="*", help="cells to run (all by default)")
    args = parser.parse_args()
    cells = [cell for cell in CELLS if not args.names or cell.name in args.names]
    unknown = set(args.names) - {cell.name for cell in CELLS}
    if unknown:
        parser.error(f"unknown cells {sorted(unknown)}; see `list`")
    for cell in cells:
        done = (RESULTS / f"{cell.name}.csv").exists()
        if args.command == "list":
            print(cell.name, "done" if done else "missing")
        elif args.command == "run" and not done:
            run(cell)
    if args.command == "report":
        from benchmarks import readme
        from benchmarks.learning.report import plot, report

        plot()
        readme.write("learning", report())
        print(report())


if __name__ == "__main__":
    main()
