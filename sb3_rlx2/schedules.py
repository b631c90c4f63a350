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
