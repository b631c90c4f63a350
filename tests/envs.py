import gymnasium as gym
import numpy as np
from gymnasium import spaces


class DriftEnv(gym.Env):
    """
    A point that drifts at random and that actions push. All its state is in itself, so a deep copy goes on just the same.

    Every third episode ends by termination, the others at their time limit, whatever the agent does.
    """

    def __init__(self, obs_shape=(3,), action_shape=(2,), length=9):
        self.observation_space = spaces.Box(-np.inf, np.inf, obs_shape, np.float32)
        self.action_space = spaces.Box(-2, 2, action_shape, np.float32)
        self.state_shape = obs_shape
        self.length = length
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.episodes += 1
        self.state = self.np_random.normal(size=self.state_shape)
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.state = 0.9 * self.state + 0.1 * np.mean(action) + 0.1 * self.np_random.normal(size=self.state_shape)
        over, by_termination = self.steps >= self.length, self.episodes % 3 == 0
        reward = 1.0 - float(np.mean(self.state**2))
        return self.observe(), reward, over and by_termination, over and not by_termination, {}

    def observe(self):
        return self.state.astype(np.float32)


class DriftDictEnv(DriftEnv):
    """The same with dict observations: a vector, and an image of the smallest size that NatureCNN takes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        self.observation_space = spaces.Dict({"vec": self.observation_space, "img": image})

    def observe(self):
        brightness = 128 + 40 * np.clip(self.state.flat[0], -3, 3)
        return {"vec": super().observe(), "img": np.full((1, 36, 36), brightness, np.uint8)}
