"""
``rlx2 export``: a trained policy without Python, with proof that it acts the same.

    from sb3_rlx2.export import describe, write

    policy = describe(model, vecnormalize).policy("fp16")
    write(policy, "policy.c", "c")

An agent is taken apart once (:mod:`.agent`), into a description without torch (:mod:`.description`), which leaves out what
cannot matter and rounds to the type wanted. The result is a :class:`Policy`, which acts by itself, in numpy, in an order of
operations that is laid down (:mod:`.rlx2_reader`). Every format is written from it and nothing else: :mod:`.c`, :mod:`.bin`,
:mod:`.onnx` and :mod:`.safetensors`.
"""

from sb3_rlx2.export.agent import describe
from sb3_rlx2.export.description import Description
from sb3_rlx2.export.formats import FORMATS, write
from sb3_rlx2.export.rlx2_reader import Policy, read

__all__ = ["FORMATS", "Description", "Policy", "describe", "read", "write"]
