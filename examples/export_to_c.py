"""An agent becomes one C file, is compiled, and swings a pendulum up by itself."""

import ctypes
import subprocess
from pathlib import Path

import gymnasium as gym
import numpy as np

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.export import describe, write

model = RLx2TD3("MlpPolicy", "Pendulum-v1", actor_sparsity=0.8, critic_sparsity=0.8, seed=0)
model.learn(3_000)

write(describe(model).policy("fp32"), "policy.c")  # and policy.h
subprocess.run(["cc", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-o", "policy.so", "policy.c"], check=True)
library = ctypes.CDLL(str(Path("policy.so").resolve()))


def act(observation: np.ndarray) -> np.ndarray:
    """Ask the compiled policy, which gets the observation as the environment gives it."""
    action = np.zeros(1, np.float32)
    pointers = (array.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for array in (observation, action))
    library.policy_act(*pointers)
    return action


assert library.policy_self_test() == 0
env, total = gym.make("Pendulum-v1"), 0.0
observation, _ = env.reset(seed=1)
for _ in range(200):
    action = act(observation)
    assert np.allclose(action, model.predict(observation, deterministic=True)[0], atol=1e-4)
    observation, reward, _, _, _ = env.step(action)
    total += float(reward)
print(f"{Path('policy.c').stat().st_size:,} bytes of C have earned {total:.0f} in an episode")
