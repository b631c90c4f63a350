"""
The agent of a checkpoint: what Stable-Baselines3 saves of one, without pickles, of which its zip is made again in memory.

So what plays, shows or exports an agent can take that of a run which was cut off.
"""

import io
from pathlib import Path
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import save_to_zip_file
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2.checkpoint import generations
from sb3_rlx2.checkpoint.transitions import DamagedError
from sb3_rlx2.saved_objects import add_plain, pack_objects, unpack_objects

AGENT = "agent"  # in the state of a run
NEEDED = {"action_space", "observation_space", "policy_class", "policy_kwargs"}  # to make an agent's networks


def describe(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """
    Give what a saved agent holds beside its parameters, and the statistics that its observations are normalised by.

    :param model: the agent
    :return: plain values and arrays, without what cannot be kept so: functions and classes of the user's own
    """
    modules, variables = model._get_torch_save_params()
    left_out = {*model._excluded_save_params(), *(name.partition(".")[0] for name in (*modules, *variables))}
    attributes = {name: value for name, value in vars(model).items() if name not in left_out}
    attributes |= getattr(model, "_as_given", {})
    normalizer = model.get_vec_normalize_env()
    statistics = {} if normalizer is None else normalizer.__getstate__() | {"reset_infos": []}  # which hold what they like
    packed = pack_objects(attributes)
    left = sorted(NEEDED & attributes.keys() - packed[0].keys())
    return {"attributes": packed, "normalizer": pack_objects(statistics), "left_out": left}


def as_zip(path: Path) -> io.BytesIO:
    """
    Give the agent of a checkpoint as Stable-Baselines3 saves it.

    :param path: folder of the checkpoint
    :return: a zip
    :raises ValueError: if the checkpoint is damaged, of a version that kept no agent, or lacks what an agent needs
    """
    state, file = _read(path), io.BytesIO()
    if left := state[AGENT].get("left_out"):
        raise ValueError(
            f"{path} lacks {' and '.join(left)} of its agent, with classes or functions of the user's own: the agent that the "
            "run saves at its end has them"
        )
    attributes = unpack_objects(*state[AGENT]["attributes"])
    save_to_zip_file(file, attributes, state["parameters"]["modules"], state["parameters"]["variables"])
    add_plain(file, attributes)
    file.seek(0)
    return file


def normalizer_of(path: Path) -> VecNormalize | None:
    """
    Give what an agent's observations are normalised by.

    :param path: folder of the checkpoint
    :return: it, without environments; None if they are not
    :raises ValueError: if the checkpoint is damaged, or of a version that kept no agent
    """
    attributes = unpack_objects(*_read(path)[AGENT]["normalizer"])
    if not attributes:
        return None
    normalizer = VecNormalize.__new__(VecNormalize)
    normalizer.__setstate__(attributes)
    vars(normalizer).update(class_attributes=None, returns=None)  # which pickling leaves out
    return normalizer


def _read(path: Path) -> Any:
    found = generations.check(path, rows=False)
    if isinstance(found, DamagedError):
        raise found
    state = found.read()
    if AGENT not in state:
        raise ValueError(f"{path} holds no agent, as an earlier version wrote it: --resume goes on from it")
    return state
