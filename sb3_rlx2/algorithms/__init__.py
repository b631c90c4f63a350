"""The algorithms: SB3's, put together with the sparse parts, each in a folder of its own."""

from typing import TYPE_CHECKING, Any

from sb3_rlx2 import contrib
from sb3_rlx2.algorithms.ddpg.ddpg import RLx2DDPG
from sb3_rlx2.algorithms.dqn.dqn import RLx2DQN
from sb3_rlx2.algorithms.sac.sac import RLx2SAC
from sb3_rlx2.algorithms.td3.td3 import RLx2TD3
from sb3_rlx2.algorithms.td3bc.td3bc import RLx2TD3BC

if TYPE_CHECKING:
    from sb3_rlx2.algorithms.crossq.crossq import RLx2CrossQ
    from sb3_rlx2.algorithms.qrdqn.qrdqn import RLx2QRDQN
    from sb3_rlx2.algorithms.tqc.tqc import RLx2TQC
else:

    def __getattr__(name: str) -> Any:
        return contrib.find(__name__, name)


__all__ = ["RLx2CrossQ", "RLx2DDPG", "RLx2DQN", "RLx2QRDQN", "RLx2SAC", "RLx2TD3", "RLx2TD3BC", "RLx2TQC"]
