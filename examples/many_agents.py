"""Several agents with one policy: each is a slot of a VecEnv, so one sparse TD3 acts for all of them and learns from all."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_rlx2 import RLx2TD3

AGENTS, STEPS = 3, 25


class Spread(VecEnv):
    """Points on a plane are to cover as many places. All see where the others and the places are, and share the reward."""

    render_mode = None

    def __init__(self) -> None:
        seen = spaces.Box(-np.inf, np.inf, (2 * (2 * AGENTS - 1) + 2,), np.float32)
        super().__init__(AGENTS, seen, spaces.Box(-1, 1, (2,), np.float32))
        self.generator = np.random.default_rng()

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the world."""
        self.generator = np.random.default_rng(seed)
        return [seed] * AGENTS

    def reset(self) -> np.ndarray:
        """Put agents and places anywhere."""
        self.agents, self.places = self.generator.uniform(-1, 1, (2, AGENTS, 2))
        self.steps = 0
        return self.observe()

    def observe(self) -> np.ndarray:
        """Give what each agent sees: where it is, and from there all places and the others."""
        others = [np.delete(self.agents, agent, axis=0) for agent in range(AGENTS)]
        rows = [
            np.concatenate([own, (self.places - own).flat, (other - own).flat])
            for own, other in zip(self.agents, others, strict=True)
        ]
        return np.asarray(rows, np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        """Move all agents, each by its own action."""
        self.agents = np.clip(self.agents + 0.2 * actions, -1.5, 1.5)
        self.steps += 1

    def step_wait(self) -> Any:
        """Give each agent what it sees now and the common reward; after the last step, what it sees in the next episode."""
        distances = np.linalg.norm(self.agents[:, None] - self.places, axis=2)
        reward = -float(distances.min(axis=0).mean())  # of each place from whoever is nearest
        observations, over = self.observe(), self.steps == STEPS
        infos: list[dict[str, Any]] = [{} for _ in range(AGENTS)]
        if over:
            for info, last in zip(infos, observations, strict=True):
                info |= {"terminal_observation": last, "TimeLimit.truncated": True}
            observations = self.reset()
        return observations, np.full(AGENTS, reward, np.float32), np.full(AGENTS, over), infos

    def close(self) -> None:
        """As VecEnv says."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """As VecEnv says."""
        return [getattr(self, attr_name)] * AGENTS

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """As VecEnv says."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """As VecEnv says."""
        return [getattr(self, method_name)(*args, **kwargs)] * AGENTS

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """As VecEnv says."""
        return [False] * AGENTS


def mean_return(model: RLx2TD3, episodes: int = 50) -> float:
    """Give the mean return of an episode without exploration."""
    env, total = Spread(), 0.0
    env.seed(1)
    observations = env.reset()
    for _ in range(episodes * STEPS):
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, _, _ = env.step(actions)
        total += float(rewards[0])
    return total / episodes


model = RLx2TD3("MlpPolicy", Spread(), actor_sparsity=0.9, critic_sparsity=0.85, gamma=0.9, learning_rate=1e-3, seed=0)
before = mean_return(model)
model.learn(15_000)  # of all agents together
print(f"return of an episode: {before:.1f} before, {mean_return(model):.1f} after training")
