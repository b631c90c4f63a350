"""The dense twin of a sparse agent: SB3's own algorithm with the same hyper-parameters."""

import inspect
from collections.abc import Mapping
from numbers import Real
from typing import Any

from sb3_rlx2.algorithms.extractors import ConvExtractor
from sb3_rlx2.algorithms.keywords import BufferOptions, names
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.plan import steps_of


def stock_name(algo: str) -> str:
    """
    Name SB3's own algorithm beneath one of ours.

    :param algo: our name in the zoo
    """
    return algo.removeprefix("rlx2")


def dense_hyperparams(algo: str, hyperparams: Mapping[str, Any], n_timesteps: int) -> dict[str, Any]:
    """
    Turn a sparse agent's hyper-parameters into those of SB3's own algorithm: RLx2's go, our other defaults stay.

    :param algo: our name in the zoo
    :param hyperparams: as the zoo preprocessed them, before it makes the action noise
    :param n_timesteps: environment steps of one training
    :raises ValueError: if the policy is a class, of which no dense one is known
    """
    algorithm = ALGORITHMS[algo]
    parameters = inspect.signature(algorithm).parameters.values()
    dense = {one.name: one.default for one in parameters if one.default is not one.empty and one.name != "_init_setup_model"}
    dense |= hyperparams
    dense["learning_starts"] = steps_of("learning_starts", dense["learning_starts"], n_timesteps)
    dense = {name: value for name, value in dense.items() if name not in algorithm.rlx2_keywords()}
    if not isinstance(dense["policy"], str):
        raise ValueError(
            f"policy={dense['policy'].__name__} has no dense counterpart: name 'MlpPolicy', 'CnnPolicy' or "
            "'MultiInputPolicy' (compress can do without it: --dense-return)"
        )
    if hyperparams.get("noise_type") is not None:
        dense.pop("action_noise", None)
    elif isinstance(dense.get("action_noise"), Real):
        dense |= {"noise_type": "normal", "noise_std": dense.pop("action_noise")}
    policy_class = algorithm.sparse_policy_class
    own = {} if policy_class.default_net_arch is None else {"net_arch": policy_class.default_net_arch}
    dense["policy_kwargs"] = own | _without(dense.get("policy_kwargs"), policy_class.keywords())
    extractor = getattr(algorithm.policy_aliases.get(dense["policy"]), "default_extractor", None)
    if extractor is ConvExtractor and "net_arch" in dense["policy_kwargs"]:  # whose first layer the host has in its extractor
        dense["policy_kwargs"] = {"features_extractor_class": ConvExtractor} | dense["policy_kwargs"]
    buffer = dense.get("replay_buffer_class")
    if buffer is not None and issubclass(buffer, RLx2ReplayBuffer):
        del dense["replay_buffer_class"]
    if dense.get("replay_buffer_kwargs"):
        dense["replay_buffer_kwargs"] = _without(dense["replay_buffer_kwargs"], (*names(BufferOptions), "gamma"))
    return dense


def _without(given: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in (given or {}).items() if name not in names}
