"""RLx2 for Stable-Baselines3: deep-RL agents that are sparse from the first training step to the last."""

from typing import TYPE_CHECKING, Any

from sb3_rlx2 import contrib
from sb3_rlx2.algorithms import RLx2DDPG, RLx2DQN, RLx2SAC, RLx2TD3, RLx2TD3BC
from sb3_rlx2.buffers import RLx2ReplayBuffer
from sb3_rlx2.callbacks import RLx2Callback
from sb3_rlx2.policies import ConvExtractor, SparseDQNPolicy, SparseSACPolicy, SparseTD3Policy
from sb3_rlx2.sparse_mlp import SparseMLP

if TYPE_CHECKING:
    from sb3_rlx2.algorithms.crossq.crossq import RLx2CrossQ
    from sb3_rlx2.algorithms.qrdqn.qrdqn import RLx2QRDQN
    from sb3_rlx2.algorithms.tqc.tqc import RLx2TQC
    from sb3_rlx2.policies import SparseCrossQPolicy, SparseQRDQNPolicy, SparseTQCPolicy
else:

    def __getattr__(name: str) -> Any:
        return contrib.find(__name__, name)


__version__ = "0.1.0"

__all__ = [
    "ConvExtractor",
    "RLx2Callback",
    "RLx2CrossQ",
    "RLx2DDPG",
    "RLx2DQN",
    "RLx2QRDQN",
    "RLx2ReplayBuffer",
    "RLx2SAC",
    "RLx2TD3",
    "RLx2TD3BC",
    "RLx2TQC",
    "SparseCrossQPolicy",
    "SparseDQNPolicy",
    "SparseMLP",
    "SparseQRDQNPolicy",
    "SparseSACPolicy",
    "SparseTD3Policy",
    "SparseTQCPolicy",
    "__version__",
]
