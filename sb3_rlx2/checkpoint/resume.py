"""Training that goes on from a saved agent: what must fit, and what is not done twice."""

import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_rlx2.algorithms.table import CLASSES
from sb3_rlx2.checkpoint.archive import read_pickled
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.plan import steps_of

NETWORK_KEYWORDS = {"distribution"}.union(*(cls.sparse_policy_class.networks.values() for cls in CLASSES))


def check_networks(path: str, hyperparams: dict[str, Any], asked: Collection[str] = ()) -> None:
    """
    Check that the hyper-parameters ask for no other sparse networks than a saved agent has.

    :param path: the agent's zip, whose networks a continued run keeps
    :param hyperparams: arguments of the algorithm, RLx2's flat or in ``policy_kwargs``
    :param asked: further ones of ``policy_kwargs`` that must be the agent's, as the user has asked for them
    :raises ValueError: if they do
    """
    data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=read_pickled(Path(path), {}))
    saved = (data or {}).get("policy_kwargs", {}) | (data or {})
    given = [(name, source[name]) for source in (hyperparams, hyperparams.get("policy_kwargs", {})) for name in source]
    for name, value in given:
        if name not in {*NETWORK_KEYWORDS, *asked} or _same(value, saved.get(name)):
            continue
        if name not in saved and name not in NETWORK_KEYWORDS:
            default = _default(data or {}, name)
            if _same(value, default):
                continue
            saved[name] = default
        if name not in saved:
            raise ValueError(f"{name}={value!r} cannot hold for {path}, which is a dense agent: train from scratch")
        raise ValueError(
            f"{name}={value!r} differs from the {saved[name]!r} of {path}, whose networks a continued run keeps: "
            f"set {name} to {saved[name]!r}, or train from scratch"
        )


def _default(data: Mapping[str, Any], name: str) -> Any:
    """Give the default of an argument of a saved agent's policy."""
    for cls in data["policy_class"].__mro__:
        parameters = inspect.signature(vars(cls)["__init__"]).parameters if "__init__" in vars(cls) else {}
        if name in parameters:
            return parameters[name].default
    return None


def _same(one: Any, other: Any) -> bool:
    if one == other:
        return True
    return isinstance(one, str) and isinstance(other, str) and DISTRIBUTIONS.get(one, one) is DISTRIBUTIONS.get(other, other)


def skip_warm_up(model: Any) -> None:
    """
    Take what the loaded replay buffer already holds off the random warm-up, which SB3 would do again.

    :param model: the loaded model
    """
    if not isinstance(model, OffPolicyAlgorithm) or model.replay_buffer is None or model.replay_buffer.size() == 0:
        return
    trained = model._n_updates > 0  # then the warm-up was over, however far the buffer has shrunk since
    warm_up = steps_of("learning_starts", model.learning_starts, model._total_timesteps)
    model.learning_starts = 0 if trained else max(warm_up - model.num_timesteps, 0)
    if model.verbose > 0:
        transitions = model.replay_buffer.size() * model.replay_buffer.n_envs
        print(f"Training goes on from {transitions:,} transitions, {model.learning_starts:,} steps of warm-up to do")
