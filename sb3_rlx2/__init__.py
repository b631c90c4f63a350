"""RLx2 for Stable-Baselines3: deep-RL agents that are sparse from the first training step to the last."""

from sb3_rlx2.algorithms import RLx2SAC, RLx2TD3
from sb3_rlx2.buffers import RLx2ReplayBuffer
from sb3_rlx2.callbacks import RLx2Callback
from sb3_rlx2.policies import SparseSACPolicy, SparseTD3Policy
from sb3_rlx2.sparse_mlp import SparseMLP

__version__ = "0.1.0"

__all__ = [
    "RLx2Callback",
    "RLx2ReplayBuffer",
    "RLx2SAC",
    "RLx2TD3",
    "SparseMLP",
    "SparseSACPolicy",
    "SparseTD3Policy",
    "__version__",
]
