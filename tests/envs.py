import gymnasium as gym
import numpy as np
from gymnasium import spaces

LOW, HIGH = -2.0, 2.0  # not [-1, 1], so that a forgotten rescaling shows


class DriftEnv(gym.Env):
    """
    A point that drifts at random and that actions push. All its state is in itself, so a deep copy goes on just the same.

    Every third episode ends by termination, the others at their time limit, whatever the agent does.

    :param n_actions: number of discrete actions, 0 for a Box of ``action_shape``
    """

    def __init__(self, obs_shape=(3,), action_shape=(2,), length=9, n_actions=0):
        self.observation_space = spaces.Box(-np.inf, np.inf, obs_shape, np.float32)
        self.action_space = spaces.Discrete(n_actions) if n_actions else spaces.Box(-2, 2, action_shape, np.float32)
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


class PixelEnv(DriftEnv):
    """
    The same with arrays of three dimensions, all noise, and discrete actions.

    :param shape: shape of an observation
    :param dtype: ``np.uint8``, of 0 to 255 as images are, or ``bool``
    """

    def __init__(self, shape=(36, 36, 1), dtype=np.uint8, n_actions=3):
        super().__init__(n_actions=n_actions)
        self.observation_space = spaces.Box(0, 255 if dtype is np.uint8 else 1, shape, dtype)

    def observe(self):
        space = self.observation_space
        return self.np_random.integers(0, int(space.high.max()) + 1, space.shape).astype(space.dtype)


class TinyEnv(gym.Env):
    """
    Observations are (step in the episode, episode, noise...), so that a test sees which transitions belong together.

    :param length: steps of an episode
    :param truncates: whether an episode ends by a time limit and not by termination
    :param n_actions: number of discrete actions, 0 for a Box of ``action_dim``
    :param poison: ``"reward"``, ``"observation"`` or ``"terminal"`` (observation), set to ``value`` from step ``at`` on
    """

    def __init__(self, length=10, truncates=True, obs_dim=3, action_dim=2, n_actions=0, poison=None, value=np.nan, at=0):
        self.observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = spaces.Discrete(n_actions) if n_actions else spaces.Box(LOW, HIGH, (action_dim,), np.float32)
        self.length, self.truncates = length, truncates
        self.poison, self.value, self.at = poison, value, at
        self.episode, self.step_in_episode, self.steps = -1, 0, 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.step_in_episode = 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        self.step_in_episode += 1
        done = self.step_in_episode == self.length
        obs, reward = self.observe(), float(1 - np.square(action - 0.5).mean())
        if self.steps >= self.at:
            if self.poison == "reward":
                reward = float(np.max(self.value))
            if self.poison == "observation" or (self.poison == "terminal" and done):
                obs[: np.size(self.value)] = self.value
        return obs, reward, done and not self.truncates, done and self.truncates, {}

    def observe(self):
        noise = self.np_random.normal(size=self.observation_space.shape[0] - 2)
        return np.array([self.step_in_episode, self.episode, *noise], dtype=np.float32)


class GoalEnv(gym.Env):
    """Dict observations as HER wants them."""

    goal = np.full(2, 0.5, np.float32)

    def __init__(self):
        box = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
        self.action_space = spaces.Box(LOW, HIGH, (2,), np.float32)
        self.position, self.steps = np.zeros(2, np.float32), 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = np.zeros(2, np.float32), 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.position = np.clip(self.position + 0.1 * action, -1, 1).astype(np.float32)
        reward = float(self.compute_reward(self.position, self.goal, None))
        return self.observe(), reward, False, self.steps == 10, {}

    def observe(self):
        return {"observation": self.position, "achieved_goal": self.position, "desired_goal": self.goal}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -np.linalg.norm(achieved_goal - desired_goal, axis=-1)
