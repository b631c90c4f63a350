"""The zoo's videos: without a screen, without an installed ffmpeg, with a progress bar, and of our algorithms."""

import argparse
import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecVideoRecorder
from tqdm import tqdm

from sb3_rlx2 import agents


def prepare_video(args: argparse.Namespace) -> None:
    """
    Find the agent to record.

    :param args: of ``record_video``
    """
    render_offscreen()
    agents.check_env(args.env.gym_id, args.gym_packages)
    agents.prepare_playing(args)
    args.env_kwargs = agents.env_kwargs(agents.find_agent(args), args.env, args.env_kwargs)
    show_recording(args.n_timesteps)


def prepare_training_video(args: argparse.Namespace) -> None:
    """
    Check what to record, and have it recorded by our command.

    :param args: of ``record_training``
    """
    agents.check_env(args.env.gym_id, args.gym_packages)
    agents.find_run(args)
    check_output_folder(args)
    provide_ffmpeg()
    record_with_ours(args.gym_packages)


def has_screen() -> bool:
    """Say whether windows can be opened, as far as the environment tells."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def render_offscreen() -> None:
    """Let MuJoCo render without a screen. To be called before MuJoCo is imported."""
    if not has_screen():
        os.environ.setdefault("MUJOCO_GL", "egl")


def check_screen(env_id: str) -> None:
    """
    Check that MuJoCo can open a window: without a screen it aborts the process.

    :param env_id: the environment
    :raises ValueError: if it cannot
    """
    if "mujoco" in str(gym.spec(env_id).entry_point) and not has_screen():
        raise ValueError("no screen to show the agent on: --no-render plays without one, record_video makes a file")


def show_recording(length: int) -> None:
    """
    Show a progress bar while a video is recorded.

    :param length: steps to record
    """
    step_wait, bar = VecVideoRecorder.step_wait, tqdm(total=length, desc="recording", unit="step")

    def counted(recorder: VecVideoRecorder) -> Any:
        bar.update()
        if bar.n >= length:
            bar.close()
        return step_wait(recorder)

    VecVideoRecorder.step_wait = counted  # type: ignore[method-assign,assignment]


def record_with_ours(packages: list[str]) -> None:
    """
    Make the zoo's ``record_training`` record with our command, and each checkpoint once.

    It calls ``python -m rl_zoo3.record_video``, where our algorithms are not registered, and that for every file of a
    checkpoint, its replay buffer included.

    :param packages: modules to import for their environments
    """
    call, options = subprocess.call, ["--gym-packages", *packages] if packages else []

    @cache
    def record(arguments: tuple[str, ...]) -> int:
        return call([sys.executable, "-m", "sb3_rlx2", "record_video", *arguments, *options])

    def replaced(command: list[str]) -> int:
        return record(tuple(command[3:]))

    subprocess.call = replaced  # type: ignore[assignment]


def check_output_folder(args: argparse.Namespace) -> None:
    """
    Check that ``record_training``, which empties its output folder first, is given none that holds something.

    :param args: its arguments
    :raises ValueError: if it is
    """
    folder = args.output_folder
    if folder is not None and Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise ValueError(f"--output-folder {folder} is not empty, and record_training would delete what it holds")


def provide_ffmpeg() -> None:
    """Put imageio's ffmpeg on the path, and matplotlib's fonts in its reach, where the system has no ffmpeg."""
    if shutil.which("ffmpeg") is not None:
        return
    import imageio_ffmpeg
    import matplotlib

    folder = tempfile.TemporaryDirectory(prefix="sb3_rlx2-")
    atexit.register(folder.cleanup)
    link = Path(folder.name, f"ffmpeg{Path(imageio_ffmpeg.get_ffmpeg_exe()).suffix if os.name == 'nt' else ''}")
    (shutil.copy if os.name == "nt" else os.symlink)(imageio_ffmpeg.get_ffmpeg_exe(), link)
    fonts = Path(folder.name, "fonts.conf")
    fonts.write_text(f"<fontconfig><dir>{Path(matplotlib.get_data_path(), 'fonts', 'ttf')}</dir></fontconfig>")
    os.environ.setdefault("FONTCONFIG_FILE", str(fonts))
    os.environ["PATH"] = os.pathsep.join([folder.name, os.environ.get("PATH", "")])
