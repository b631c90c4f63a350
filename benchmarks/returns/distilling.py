"""A student that learns from a dense agent's actions, and from nothing else, see DENSE_FIRST.md."""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.returns.agents import NOISE
from sb3_rlx2 import metrics
from sb3_rlx2.distillation import distill

SHARE = 0.1  # of the teacher's steps: as many states does it show, and as many gradient steps has the student
BATCH_SIZE = 256


def learn(student: OffPolicyAlgorithm, teacher: OffPolicyAlgorithm, env: gym.Env, steps: int, seed: int) -> dict[str, Any]:
    """
    Teach a student. Whoever begins again ends with the same weights.

    :param student: the agent that learns
    :param teacher: the dense agent
    :param env: an environment for the teacher
    :param steps: environment steps that the teacher has learned for
    :param seed: seed of the states and of the lessons
    :return: what is stored of it
    """
    count = round(SHARE * steps)
    seen = states(teacher, env, count, seed)
    student.set_random_seed(seed)
    losses = distill(student, teacher, seen, count, BATCH_SIZE)
    forward = metrics.inference_flops(metrics.acting_network(teacher.policy))
    lesson = metrics.heads(metrics.acting_network(student.policy))[0]
    return {
        "observations": count,
        "gradient_steps": count,
        "loss": float(f"{losses[-count // 10 :].mean():.4g}"),
        "flops": count * forward + count * BATCH_SIZE * (forward + metrics.pass_flops(lesson).training),
    }


def states(teacher: OffPolicyAlgorithm, env: gym.Env, count: int, seed: int) -> np.ndarray:
    """
    Give states that a teacher comes to with the noise that it was trained with.

    :param teacher: an agent of TD3
    :param env: its environment
    :param count: how many
    :param seed: of episodes and noise
    :return: observations, ``[count, ...]``
    """
    generator, policy = np.random.default_rng(seed), teacher.policy
    rows = np.empty((count, *env.observation_space.shape), env.observation_space.dtype)
    obs, _ = env.reset(seed=seed)
    for row in range(count):
        rows[row] = obs
        action = policy.scale_action(teacher.predict(obs, deterministic=True)[0])
        noisy = np.clip(action + NOISE * generator.standard_normal(action.shape), -1, 1)
        obs, _, terminated, truncated, _ = env.step(policy.unscale_action(noisy.astype(np.float32)))
        if terminated or truncated:
            obs, _ = env.reset()
    return rows
