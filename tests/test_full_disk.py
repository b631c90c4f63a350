"""Where a disk takes no more (here: no file may grow, of which the system says so at each write), training goes on."""

import csv
import gc
import resource
import threading
from argparse import Namespace
from contextlib import suppress

import numpy as np
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, TensorBoardOutputFormat
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.checkpoint import Checkpoints, generations
from sb3_rlx2.checkpoint.archive import check_agent
from sb3_rlx2.commands.patches import PATCHES
from sb3_rlx2.progress_log import logs_if_there_is_room, monitored
from sb3_rlx2.zoo.saving import Evaluation, sealed, whole
from tests.envs import DriftEnv

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}") for text in ("in this run", "Exception ignored in")
]  # files of SB3's
SMALL = {"learning_starts": 20, "batch_size": 8, "buffer_size": 60, "seed": 0}


@pytest.fixture(autouse=True)
def here():
    """Have the files go that could not be written to their end: what they say of it is expected in these tests alone."""
    yield
    gc.collect()


def limit(size):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture(autouse=True)
def room():
    before, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    limit(before)


class Full(BaseCallback):
    """Has the disk full from one step to another."""

    def __init__(self, begin, end):
        super().__init__()
        self.begin, self.end = begin, end

    def _on_step(self):
        if self.num_timesteps == self.begin:
            self.before, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            limit(1)
        elif self.num_timesteps == self.end:
            limit(self.before)
        return True


def test_training_goes_on_and_nothing_is_missing_in_the_end(tmp_path):
    env = DummyVecEnv([lambda: monitored(Monitor(DriftEnv(length=9), str(tmp_path / "0")))])
    evaluation = Evaluation(
        DummyVecEnv([lambda: Monitor(DriftEnv())]), eval_freq=10, n_eval_episodes=1, verbose=0, log_path=str(tmp_path)
    )
    evaluation.best_model_save_path = str(tmp_path)
    model = RLx2TD3("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, **SMALL)
    with (
        pytest.warns(UserWarning, match="a row of a log is not written yet: .*File too large"),
        pytest.warns(UserWarning, match="no checkpoint at step [34]0: .*File too large"),
        pytest.warns(UserWarning, match="nothing is kept of the evaluation at step [34]0: .*File too large"),
    ):
        model.learn(70, callback=[Full(25, 45), evaluation, Checkpoints(tmp_path / "run", 10)])
    rows = list(csv.DictReader((tmp_path / "0.monitor.csv").read_text().splitlines()[1:]))
    assert [row["l"] for row in rows] == ["9"] * 7
    assert generations.newest(tmp_path / "run").step == 70
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [10, 20, 30, 40, 50, 60, 70]
    check_agent(tmp_path / "best_model.zip")
    assert not list(tmp_path.rglob(".unfinished-*"))


def test_what_was_there_stays(tmp_path):
    normalizer = VecNormalize(DummyVecEnv([DriftEnv]))
    model = TD3("MlpPolicy", normalizer, policy_kwargs={"net_arch": [8]}, **SMALL)
    for save, thing, name in (
        (whole(TD3.save, Namespace()), model, "agent.zip"),
        (sealed(TD3.save_replay_buffer, Namespace()), model, "replay_buffer.pkl"),
        (sealed(VecNormalize.save, Namespace()), normalizer, "vecnormalize.pkl"),
    ):
        save(thing, str(tmp_path / name))
        before, room = (tmp_path / name).read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        limit(100)
        with pytest.raises(OSError, match=name):
            save(thing, str(tmp_path / name))
        limit(room)
        assert (tmp_path / name).read_bytes() == before
    assert TD3.load(tmp_path / "agent.zip").num_timesteps == 0
    assert VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), DummyVecEnv([DriftEnv])).clip_obs == 10
    model.load_replay_buffer(tmp_path / "replay_buffer.pkl")  # SB3 looks at no checksum


def test_rows_wait_until_there_is_room(tmp_path):
    output = CSVOutputFormat(str(tmp_path / "progress.csv"))
    write = logs_if_there_is_room(output.write)
    write({"a": 1}, {"a": ()})
    room, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit(1)
    with pytest.warns(UserWarning, match="a row of a log is not written yet"):
        write({"a": 2}, {"a": ()})
    limit(room)
    write({"a": 3}, {"a": ()})
    output.close()
    assert (tmp_path / "progress.csv").read_text() == "a\n1\n2\n3\n"


def test_events_for_tensorboard_end_no_training(tmp_path, monkeypatch):
    """Its own thread writes them, and gives up for good."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    output = TensorBoardOutputFormat(str(tmp_path))
    write = logs_if_there_is_room(output.write)
    room, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit(1)
    with pytest.warns(UserWarning, match="a row of a log is not written yet"):
        write({"a": 1.0}, {"a": ()}, 1)
    limit(room)
    with suppress(OSError):
        output.close()
    targets = {patch.target for patch in PATCHES if patch.replacement.endswith(":logs_if_there_is_room")}
    assert targets == {f"stable_baselines3.common.logger.{kind}OutputFormat.write" for kind in ("CSV", "TensorBoard")}
