"""SAC's gradient step in arrays and kernels."""

from sb3_rlx2.algorithms.maximum_entropy import MaximumEntropySteps


class SACSteps(MaximumEntropySteps):
    """
    Gradient steps of SAC.

    :param model: the algorithm
    """

    group, kernel = "sb3_rlx2.algorithms.sac.kernels:SAC", "sac"
