"""The zoo's videos: without a screen, without an installed ffmpeg, with a progress bar, and of our algorithms."""

import argparse
import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecVideoRecorder
from tqdm import tqdm

from sb3_rlx2.checkpoint.archive import check_agent
from sb3_rlx2.validation import check_integer
from sb3_rlx2.zoo import agents
from sb3_rlx2.zoo.checks import check_one_way, option


def prepare_video(args: argparse.Namespace) -> None:
    """
    Find the agent to record.

    :param args: of ``record_video``
    """
    render_offscreen()
    agents.check_env(args.env.gym_id, args.gym_packages)
    for name, least in (("n_timesteps", 1), ("n_envs", 1), ("seed", 0)):
        check_integer(option(name), getattr(args, name), least)
    check_one_way(args)
    check_agent(agents.find_agent(args))
    args.env_kwargs = agents.env_kwargs(agents.find_run(args), args.env, args.env_kwargs)


def prepare_training_video(args: argparse.Namespace) -> None:
    """
    Check what to record.

    :param args: of ``record_training``
    """
    agents.check_env(args.env.gym_id, args.gym_packages)
    agents.find_run(args)
    check_output_folder(args)
    provide_ffmpeg()


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


def count_steps(step_wait: Any, args: argparse.Namespace) -> Callable[[VecVideoRecorder], Any]:
    """
    Show a progress bar while a video is recorded.

    :param step_wait: the recorder's
    :param args: of ``record_video``
    :return: what takes its place
    """

    @cache
    def bar() -> Any:
        return tqdm(total=args.n_timesteps, desc="recording", unit="step")

    def counted(recorder: VecVideoRecorder) -> Any:
        bar().update()
        if bar().n >= args.n_timesteps:
            bar().close()
        return step_wait(recorder)

    return counted


def record_once_with_ours(call: Any, args: argparse.Namespace) -> Callable[..., int]:
    """
    Record with our command, and each agent once.

    :param call: ``subprocess.call``
    :param args: of ``record_training``
    :return: what takes its place
    """

    @cache
    def record(arguments: tuple[str, ...]) -> int:
        packages = ["--gym-packages", *args.gym_packages] if args.gym_packages else []
        return call([sys.executable, "-m", "sb3_rlx2", "record_video", *arguments, *packages])  # type: ignore[no-any-return]

    def record_or_call(command: Any, *given: Any, **kwargs: Any) -> int:
        if command[1:3] == ["-m", "rl_zoo3.record_video"]:
            return record(tuple(command[3:]))
        return call(command, *given, **kwargs)  # type: ignore[no-any-return]

    return record_or_call


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
    """Put imageio's ffmpeg on the path, and a font in its reach, where the system has no ffmpeg."""
    if shutil.which("ffmpeg") is not None:
        return
    import imageio_ffmpeg

    folder = tempfile.TemporaryDirectory(prefix="sb3_rlx2-")
    atexit.register(folder.cleanup)
    link = Path(folder.name, f"ffmpeg{Path(imageio_ffmpeg.get_ffmpeg_exe()).suffix if os.name == 'nt' else ''}")
    (shutil.copy if os.name == "nt" else os.symlink)(imageio_ffmpeg.get_ffmpeg_exe(), link)
    pygame = importlib.util.find_spec("pygame")  # gymnasium draws with it; a font lies beside its modules
    assert pygame is not None
    assert pygame.submodule_search_locations
    fonts = Path(folder.name, "fonts.conf")
    fonts.write_text(f"<fontconfig><dir>{pygame.submodule_search_locations[0]}</dir></fontconfig>")
    os.environ.setdefault("FONTCONFIG_FILE", str(fonts))
    os.environ["PATH"] = os.pathsep.join([folder.name, os.environ.get("PATH", "")])
