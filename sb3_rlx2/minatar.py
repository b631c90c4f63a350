"""
MinAtar's five games (Young & Tian, 2019, https://arxiv.org/abs/1903.03176) under the names of its own package, which newer
versions of Gymnasium do not find by themselves: importing this module registers them, with the six actions of the paper
(``-v0``) and with those that do something (``-v1``).

The games are in the package ``minatar``, which is under GPL-3, and is imported when an environment is made.
"""

import colorsys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

PREFIX = "MinAtar/"
GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
MAX_STEPS = 10_000  # only Freeway ends by itself, and a good player of Breakout goes on for ever
PIXELS = 16  # of a frame along each side of a cell, so that there is something to see


class MinAtar(gym.Env[np.ndarray, np.int64]):
    """
    A game of MinAtar. Rewards are floats, and frames images that can be seen and encoded.

    :param game: one of ``GAMES``
    :param minimal_actions: whether there are only actions that do something in this game
    :param render_mode: ``"rgb_array"`` or None
    :param kwargs: MinAtar's own arguments, ``sticky_action_prob`` and ``difficulty_ramping``
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 as Gymnasium has it

    def __init__(self, game: str, minimal_actions: bool = False, render_mode: str | None = None, **kwargs: Any) -> None:
        from minatar import Environment

        self.game = Environment(game, **kwargs)
        self.actions = self.game.minimal_action_set() if minimal_actions else [*range(self.game.num_actions())]
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = spaces.Box(0, 1, tuple(self.game.state_shape()), bool)
        self.render_mode = render_mode
        self._seed(int(self.np_random.integers(2**31)))

    def _seed(self, seed: int) -> None:
        self.game.seed(seed)  # makes one generator of the two that a game begins with

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Begin an episode.

        :param seed: seed of the game's generator, as MinAtar takes it
        :param options: not used
        :return: the first observation, bool, ``[10, 10, channels]``, and nothing else
        """
        super().reset(seed=seed)
        if seed is not None:
            self._seed(seed)
        self.game.reset()
        return self.game.state(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        Play on.

        :param action: number of the action
        :return: observation, reward, whether the game is over, False, and nothing else
        """
        reward, over = self.game.act(self.actions[action])
        return self.game.state(), float(reward), bool(over), False, {}

    def render(self) -> np.ndarray | None:
        """Give a frame, a colour for each channel, the last ones above the first, ``[160, 160, 3]``; None without a mode."""
        if self.render_mode is None:
            return None
        state = self.game.state()
        height, width, channels = state.shape
        frame = np.zeros((height, width, 3), np.uint8)
        for channel in range(channels):
            frame[state[..., channel]] = [round(255 * part) for part in colorsys.hsv_to_rgb(channel / channels, 0.7, 1.0)]
        return frame.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


def register() -> None:
    """Make the games known to Gymnasium."""
    for game in GAMES:
        for version, minimal in enumerate((False, True)):
            gym.register(
                f"{PREFIX}{game.title().replace('_', '')}-v{version}",
                f"{__name__}:MinAtar",
                max_episode_steps=MAX_STEPS,
                kwargs={"game": game, "minimal_actions": minimal},
            )


register()
