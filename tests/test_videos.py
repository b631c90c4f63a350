"""Videos through `rlx2`, on a machine without a screen, ffmpeg or fonts."""

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import imageio_ffmpeg
import pytest

from sb3_rlx2.zoo import videos

pytestmark = pytest.mark.filterwarnings("ignore")
TASK = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs"]
VIDEOS = Path("logs/rlx2td3/Pendulum-v1_1/videos")


def frames(path):
    return imageio_ffmpeg.count_frames_and_secs(str(path))[0]


def test_record_video(rlx2):
    rlx2.train("rlx2td3", "-n", "60", "--save-freq", "30")
    assert "recording: 100%" in rlx2("record_video", *TASK, "-n", "10")
    rlx2("record_video", *TASK, "-n", "10", "--load-checkpoint", "30", "--gym-packages", "tests.envs")
    names = [
        "checkpoint-30-rlx2td3-Pendulum-v1-step-0-to-step-10.mp4",
        "final-model-rlx2td3-Pendulum-v1-step-0-to-step-10.mp4",
    ]
    assert sorted(os.listdir(VIDEOS)) == names
    assert [frames(VIDEOS / name) for name in names] == [11, 11]  # the first observation too


def test_record_training(rlx2, monkeypatch):
    """Each agent once, by our command, though a checkpoint is three files; then all in one."""
    monkeypatch.setenv(
        "PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not Path(p, "ffmpeg").exists())
    )
    monkeypatch.delenv("FONTCONFIG_FILE", raising=False)
    rlx2.train("rlx2td3", "-n", "60", "--save-freq", "60", parameters=["normalize:True"])
    calls = []

    def record(command):
        calls.append(command)
        return int(not rlx2_child(command))

    def rlx2_child(command):
        # In a process of its own it would only take longer.
        kind, folder = ("checkpoint-60" if "60" in command else "final-model"), Path(command[command.index("-o") + 1])
        source = ["-f", "lavfi", "-i", "testsrc=duration=1:size=64x64:rate=10"]
        path = folder / f"{kind}-rlx2td3-Pendulum-v1-step-0-to-step-10.mp4"
        return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *source, path]).returncode == 0

    monkeypatch.setattr(subprocess, "call", record)
    rlx2("record_training", *TASK, "-n", "10", "--gym-packages", "tests.envs")
    assert [command[1:4] for command in calls] == [["-m", "sb3_rlx2", "record_video"]] * 2
    assert all(command[-2:] == ["--gym-packages", "tests.envs"] for command in calls)
    assert frames(VIDEOS / "training.mp4") == 20


def test_other_programs_are_called_as_before():
    calls = []

    def call(*args, **kwargs):
        calls.append((args, kwargs))
        return 0

    replaced = videos.record_once_with_ours(call, Namespace(gym_packages=[]))
    assert replaced(["ffmpeg", "-version"], stdout=-3) == 0
    assert replaced(["python", "-m", "rl_zoo3.record_video", "--algo", "td3"]) == 0
    ours = [sys.executable, "-m", "sb3_rlx2", "record_video", "--algo", "td3"]
    assert calls == [((["ffmpeg", "-version"],), {"stdout": -3}), ((ours,), {})]


def test_nothing_is_deleted(rlx2):
    rlx2.train("rlx2td3", "-n", "10")
    Path("precious").mkdir()
    Path("precious/file").touch()
    assert "--output-folder precious is not empty" in rlx2.error("record_training", *TASK, "-o", "precious")
    assert Path("precious/file").exists()


def test_the_systems_ffmpeg_comes_first(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    videos.provide_ffmpeg()
    assert shutil.which("ffmpeg") == str(program)


@pytest.mark.parametrize(("screen", "expected"), [({"DISPLAY": ":0"}, None), ({"WAYLAND_DISPLAY": "w"}, None), ({}, "egl")])
def test_rendering_without_a_screen(screen, expected, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in screen.items():
        monkeypatch.setenv(name, value)
    videos.render_offscreen()
    assert os.environ.get("MUJOCO_GL") == expected
