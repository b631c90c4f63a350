"""QR-DQN's gradient step in arrays and kernels."""

from sb3_rlx2.fast.value_based import ValueSteps


class QRDQNSteps(ValueSteps):
    """
    Gradient steps of QR-DQN.

    :param model: the algorithm
    """

    group, kernel = "sb3_rlx2.algorithms.qrdqn.kernels:QRDQN", "qrdqn"
