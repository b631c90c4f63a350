"""RLx2's replay buffer, under the name that saved buffers and agents know."""

from sb3_rlx2.buffers.replay import DEFAULT_MIN_SIZE, RLx2ReplayBuffer

__all__ = ["DEFAULT_MIN_SIZE", "RLx2ReplayBuffer"]

RLx2ReplayBuffer.__module__ = __name__  # what pickles refer to; the class may move on
