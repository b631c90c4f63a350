"""DQN's gradient step in arrays and kernels."""

from sb3_rlx2.fast.value_based import ValueSteps


class DQNSteps(ValueSteps):
    """
    Gradient steps of DQN.

    :param model: the algorithm
    """

    group, kernel = "sb3_rlx2.algorithms.dqn.kernels:DQN", "dqn"
