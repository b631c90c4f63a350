"""Environments that are out of date and wanted: the oldest living versions are the nearest to those of the paper."""

import sys

import gymnasium as gym
import mujoco

EXPECTED = "settotalmass"  # MuJoCo warns of it in each of gymnasium's own v4 files


def silence_age() -> None:
    """Keep gymnasium and MuJoCo from saying in every process that an environment or its model file is out of date."""
    gym.logger.min_level = gym.logger.ERROR
    mujoco.set_mju_user_warning(_warn)


def _warn(message: str) -> None:
    if EXPECTED not in message:
        print(f"MuJoCo: {message}", file=sys.stderr)
