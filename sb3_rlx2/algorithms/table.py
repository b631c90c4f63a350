"""All algorithms that RL Zoo trains: a new one gets a line here, and a folder beside this file."""

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.crossq.crossq import RLx2CrossQ
from sb3_rlx2.algorithms.ddpg.ddpg import RLx2DDPG
from sb3_rlx2.algorithms.dqn.dqn import RLx2DQN
from sb3_rlx2.algorithms.qrdqn.qrdqn import RLx2QRDQN
from sb3_rlx2.algorithms.sac.sac import RLx2SAC
from sb3_rlx2.algorithms.td3.td3 import RLx2TD3
from sb3_rlx2.algorithms.tqc.tqc import RLx2TQC

CLASSES: tuple[type[RLx2Algorithm], ...] = (
    RLx2TD3,
    RLx2DDPG,
    RLx2SAC,
    RLx2TQC,
    RLx2CrossQ,
    RLx2DQN,
    RLx2QRDQN,
)

# By their name in RL Zoo: the name of the class in lower case, on which the zoo's plots and hub commands rely.
ALGORITHMS = {cls.__name__.lower(): cls for cls in CLASSES}
