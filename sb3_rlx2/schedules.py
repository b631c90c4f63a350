"""Pure functions of training progress, which runs from 0 (learning starts) to 1 (the end of the run)."""

import math


def cosine_decay(progress: float, initial: float) -> float:
    """
    Anneal from ``initial`` to 0 along half a cosine: ``initial / 2 * (1 + cos(pi * progress))`` (RLx2, section 4.1).

    :param progress: share of training done; held inside ``[0, 1]``
    :param initial: value at progress 0
    :return: the annealed value
    """
    return initial / 2 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def cubic_decay(progress: float, initial: float, final: float) -> float:
    """
    Fall from ``initial`` to ``final``, fast at first and slowly at the end: ``final + (initial - final) * (1 - progress)^3``
    (Zhu and Gupta, 2018, "To prune, or not to prune", Eq. 1; GraNet, Liu et al., 2021).

    :param progress: share of the fall that is done; held inside ``[0, 1]``
    :param initial: value at progress 0
    :param final: value at progress 1
    :return: the value
    """
    return final + (initial - final) * (1 - min(max(progress, 0.0), 1.0)) ** 3
