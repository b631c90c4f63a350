"""The measurement: a run with checkpoints, and one that goes on from them, as commands."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks import machine
from benchmarks.checkpoints.fill import fill
from sb3_rlx2.checkpoint import generations
from sb3_rlx2.checkpoint.archive import CHECKPOINTS
from sb3_rlx2.zoo.experiment import CHECKPOINT_EVERY

RESULT = Path(__file__).parent / "results.json"
ROOT = Path(__file__).parents[2]
ENV, TRANSITIONS, INTERVALS = "Hopper-v5", 1_000_000, 3
RUN = Path(f"logs/rlx2td3/{ENV}_1")
FILL, FIRST_STEP = "CHECKPOINTS_FILL", "CHECKPOINTS_FIRST_STEP"  # variables that tell the callback what to do
# A buffer that stays as large as it is, and gradient steps from the beginning.
PARAMETERS = [f"buffer_size:{TRANSITIONS}", "policy_distance_threshold:float('inf')", "learning_starts:100"]


class Measured(BaseCallback):
    """Fills the replay buffer as training begins, or notes when the first step is done and ends the process there."""

    def _on_training_start(self) -> None:
        if FILL in os.environ:
            fill(self.model.replay_buffer)

    def _on_step(self) -> bool:
        if FIRST_STEP in os.environ:
            Path(os.environ[FIRST_STEP]).write_text(str(time.time()))
            os._exit(0)
        return True


def run() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        steps = CHECKPOINT_EVERY * INTERVALS
        callback = f"callback:'{__name__}.{Measured.__name__}'"
        arguments = ["--algo", "rlx2td3", "--env", ENV, "-n", str(steps), "--eval-freq", "-1", "--num-threads", "1"]
        command(place, *arguments, "--checkpoint-every", str(CHECKPOINT_EVERY), "-params", *PARAMETERS, callback, FILL="1")
        found = checkpoints(Path(place, RUN))
        begun, noted = time.time(), Path(place, "first_step")
        command(place, "--resume", str(RUN), "-n", str(steps + 10), FIRST_STEP=str(noted))
        found["seconds_to_first_step"] = float(noted.read_text()) - begun
    about = {"env": ENV, "transitions": TRANSITIONS, "every": CHECKPOINT_EVERY, "load_before": load}
    result = {**about, **found, "machine": machine.machine(), "versions": machine.versions()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def command(place: str, *arguments: str, **variables: str) -> None:
    own = {{"FILL": FILL, "FIRST_STEP": FIRST_STEP}[name]: value for name, value in variables.items()}
    environment = os.environ | machine.thread_variables(1) | own | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-m", "sb3_rlx2", "train", *arguments], cwd=place, env=environment, check=True)


def checkpoints(run: Path) -> dict[str, Any]:
    """
    Read what the last two checkpoints of a run tell.

    The first of the run wrote the whole buffer; each knows the seconds that those before it took.
    """
    folder = run / CHECKPOINTS
    last, before = sorted(folder.glob("*_step_*"), reverse=True)[:2]
    seconds = [generations._opened(path / generations.MANIFEST)["seconds"] for path in (before, last)]
    between = (last / generations.MANIFEST).stat().st_mtime - (before / generations.MANIFEST).stat().st_mtime
    rows = sorted((folder / generations.ROWS).iterdir())
    return {
        "seconds_of_first": seconds[0],
        "seconds": seconds[1] - seconds[0],
        "seconds_between": between,
        "bytes_of_state": sum(path.stat().st_size for path in last.iterdir()),
        "bytes_of_new_rows": rows[-1].stat().st_size,
        "bytes_of_all_rows": sum(path.stat().st_size for path in rows),
    }
