"""A replay buffer that is full, of numbers of chance."""

from typing import Any

import numpy as np

from sb3_rlx2.checkpoint.transitions import ring


def fill(buffer: Any) -> None:
    """
    Fill a buffer.

    :param buffer: an :class:`sb3_rlx2.RLx2ReplayBuffer`
    """
    draw = np.random.default_rng(0)
    for name, array in ring(buffer).items():
        array[...] = 0 if name in ("dones", "timeouts") else draw.random(array.shape, np.float32)
    buffer.pos, buffer.full, buffer.live = 0, True, buffer.buffer_size
