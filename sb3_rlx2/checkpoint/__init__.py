"""Saved training: what is written, whether it is whole, and how training goes on from it."""

from sb3_rlx2.checkpoint.checkpoints import Checkpoints
from sb3_rlx2.checkpoint.environments import Resumable
from sb3_rlx2.checkpoint.interruptible import Interrupted

__all__ = ["Checkpoints", "Interrupted", "Resumable"]
