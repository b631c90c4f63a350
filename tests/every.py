"""What tests that run over all algorithms need to know of each."""

from functools import partial

from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3 import DDPG, DQN, SAC, TD3

from sb3_rlx2 import RLx2CrossQ, RLx2DDPG, RLx2DQN, RLx2QRDQN, RLx2SAC, RLx2TD3, RLx2TQC
from tests.envs import DriftEnv

ACTOR_CRITIC = [RLx2TD3, RLx2DDPG, RLx2SAC, RLx2TQC, RLx2CrossQ]
VALUE_BASED = [RLx2DQN, RLx2QRDQN]
ALGORITHMS = ACTOR_CRITIC + VALUE_BASED
STOCK = {RLx2TD3: TD3, RLx2DDPG: DDPG, RLx2SAC: SAC, RLx2TQC: TQC, RLx2CrossQ: CrossQ, RLx2DQN: DQN, RLx2QRDQN: QRDQN}
MAXIMUM_ENTROPY = [RLx2SAC, RLx2TQC, RLx2CrossQ]
WITH_DICTS = [algorithm for algorithm in ALGORITHMS if "MultiInputPolicy" in algorithm.policy_aliases]
DELAYS = {RLx2TD3: 2, RLx2CrossQ: 3}  # gradient steps to a step of the actor, where that is more than 1
POLICIES = {algorithm: algorithm.sparse_policy_class for algorithm in ALGORITHMS}


def keywords(algorithm):
    """Give the names of an algorithm's sparsities; the last one's network takes every optimizer step."""
    return list(algorithm.sparse_policy_class.networks.values())


def learner(algorithm):
    """Name the network that takes every optimizer step."""
    return list(algorithm.sparse_policy_class.networks)[-1]


def sparsities(algorithm, actor, other):
    """Give an algorithm's sparsities, the first one for an actor only."""
    return dict(zip(reversed(keywords(algorithm)), (other, actor), strict=False))


def is_discrete(algorithm):
    return algorithm.sparse_policy_class.action_spaces is spaces.Discrete


def env_for(algorithm, make=DriftEnv):
    """Give a function that makes environments whose actions are of the kind that an algorithm takes."""
    return partial(make, n_actions=3) if is_discrete(algorithm) else make


def small(algorithm, **policy_kwargs):
    """Give ``policy_kwargs`` with few quantiles where there are any: the host's loss takes time by their square."""
    return policy_kwargs | ({"n_quantiles": 5} if algorithm in (RLx2QRDQN, RLx2TQC) else {})
