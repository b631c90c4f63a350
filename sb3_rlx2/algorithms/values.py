"""
What the arguments that are SB3's may be, which takes them as they come, to fail later in words of its own, or never.

A check gets an argument's name and value, and gives the value, a whole number as ``int``: YAML's ``1e4`` is one. Those of RLx2
are checked by the parts that take them.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import nn

from sb3_rlx2.validation import check_integer, check_number
from sb3_rlx2.warning import warn

Check = Callable[[str, Any], Any]


def _whole(minimum: int) -> Check:
    return lambda name, value: check_integer(name, value, minimum)


def _number(low: float, high: float, **included: bool) -> Check:
    return lambda name, value: check_number(name, value, low, high, **included)


def _require(name: str, value: Any, fits: bool, what: str) -> Any:
    if not fits:
        raise ValueError(f"{name}={value!r} must be {what}")
    return value


def check_switch(name: str, value: Any) -> Any:
    """
    Check what is on or off.

    :param name: the argument's name, for the error
    :param value: its value
    :raises ValueError: if it is something else, as the text "False", which Python takes for True
    """
    return _require(name, value, isinstance(value, bool), "True or False")


def _dict(name: str, value: Any) -> Any:
    return _require(name, value, isinstance(value, Mapping), "a dict of arguments")


def _verbosity(name: str, value: Any) -> Any:
    return value if isinstance(value, bool) else check_integer(name, value, 0)


def _seed(name: str, value: Any) -> Any:
    seed = check_integer(name, value, 0)
    return _require(name, seed, seed < 2**32, "below 2**32")


def _folder(name: str, value: Any) -> Any:
    return str(_require(name, value, isinstance(value, str | Path), "the path of a folder"))  # a path is not read back


def _learning_rate(name: str, value: Any) -> Any:
    if isinstance(value, Real):
        return check_number(name, value, 0.0, math.inf, high_included=False)
    fits = callable(value) and _takes_one(value)
    return _require(name, value, fits, "a number in [0, inf), or a function of the remaining progress")


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(1.0)
    except TypeError:
        return False
    except ValueError:  # it is a builtin, which does not say
        return True
    return True


def _entropy_coefficient(name: str, value: Any) -> Any:
    if isinstance(value, Real):
        return check_number(name, value, 0.0, math.inf, high_included=False)
    is_text = isinstance(value, str)
    first = value.removeprefix("auto_") if is_text else ""
    return _require(
        name, value, value == "auto" or (is_text and _is_above_0(first)), "a number in [0, inf), 'auto', or 'auto_0.1'"
    )


def _is_above_0(text: str) -> bool:
    try:
        return 0.0 < float(text) < math.inf
    except ValueError:
        return False


def _target_entropy(name: str, value: Any) -> Any:
    fits = math.isfinite(value) if isinstance(value, Real) else value == "auto"
    return _require(name, value, fits, "'auto' or a number")


def _frequency(name: str, value: Any) -> Any:
    count, unit = value if isinstance(value, tuple) and len(value) == 2 else (value, "step")
    try:
        count, unit = check_integer(name, count, 1), TrainFrequencyUnit(unit)
    except ValueError:
        raise ValueError(
            f"{name}={value!r} must be an integer >= 1, or a tuple of one and 'step' or 'episode', as (1, 'episode')"
        ) from None
    if isinstance(value, TrainFreq):  # of a saved agent
        return value
    return (count, unit.value) if isinstance(value, tuple) else count


def _widths(name: str, value: Any) -> Any:
    lists = [*value.values()] if isinstance(value, Mapping) else [value]
    fits = all(isinstance(each, list | tuple) and all(map(_is_width, each)) for each in lists)
    fits &= not isinstance(value, Mapping) or value.keys() == {"pi", "qf"}
    return _require(
        name, value, fits, "a list of widths, integers >= 1, or for actor and critics a dict of two, 'pi' and 'qf'"
    )


def _is_width(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _activation(name: str, value: Any) -> Any:
    try:
        made = value()
    except TypeError:  # a string, or an instance, which is called with what it activates
        made = None
    return _require(name, value, isinstance(made, nn.Module), "a class of torch.nn, as torch.nn.ReLU")


def _optimizer(name: str, value: Any) -> Any:
    fits = issubclass(value, th.optim.Optimizer) if isinstance(value, type) else callable(value) and not hasattr(value, "step")
    _require(name, value, fits, "a class of optimizers, as torch.optim.Adam")
    closure = inspect.signature(value.step).parameters.get("closure") if hasattr(value, "step") else None
    fits = closure is None or closure.default is not closure.empty
    return _require(name, value, fits, "an optimizer that needs no closure, as torch.optim.Adam")


def _optimizer_arguments(name: str, value: Any) -> Any:
    _dict(name, value)
    return _require(name, value, "lr" not in value, "without lr, which is the algorithm's argument learning_rate")


def _extractor(name: str, value: Any) -> Any:
    fits = isinstance(value, type) and issubclass(value, nn.Module)
    return _require(name, value, fits, "a class of features extractors, as FlattenExtractor of stable_baselines3")


def _buffer(name: str, value: Any) -> Any:
    fits = isinstance(value, type) and issubclass(value, ReplayBuffer)
    return _require(name, value, fits, "a class of replay buffers, as RLx2ReplayBuffer")


def _device(name: str, value: Any) -> Any:
    try:
        th.device("cpu" if value == "auto" else value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name}={value!r} must be 'auto', or a device of PyTorch, as 'cpu' or 'cuda': {error}") from error
    if str(value).startswith("cuda") and not th.cuda.is_available():
        warn(f"{name}={str(value)!r} is not there, so SB3 takes the CPU (torch.cuda.is_available() says no)")
    return value


PROBABILITY, ANY = _number(0.0, 1.0), _number(0.0, math.inf)

CHECKS: dict[str, Check] = {
    # of algorithms
    "batch_size": _whole(1),
    "behaviour_cloning": _number(0.0, math.inf, high_included=False),
    "buffer_size": _whole(1),
    "device": _device,
    "drop_dead_links": check_switch,
    "ent_coef": _entropy_coefficient,
    "exploration_final_eps": PROBABILITY,
    "exploration_fraction": _number(0.0, 1.0, low_included=False),
    "exploration_initial_eps": PROBABILITY,
    "gamma": PROBABILITY,
    "gradient_steps": _whole(-1),
    "learning_rate": _learning_rate,
    "max_grad_norm": ANY,
    "optimize_memory_usage": check_switch,
    "policy_delay": _whole(1),
    "policy_kwargs": _dict,
    "replay_buffer_class": _buffer,
    "replay_buffer_kwargs": _dict,
    "seed": _seed,
    "soft_n_step": check_switch,
    "stats_window_size": _whole(1),
    "target_entropy": _target_entropy,
    "target_noise_clip": ANY,
    "target_policy_noise": ANY,
    "target_update_interval": _whole(1),
    "tau": PROBABILITY,
    "tensorboard_log": _folder,
    "top_quantiles_to_drop_per_net": _whole(0),
    "train_freq": _frequency,
    "verbose": _verbosity,
    # of policies
    "activation_fn": _activation,
    "features_extractor_class": _extractor,
    "features_extractor_kwargs": _dict,
    "n_critics": _whole(1),
    "n_quantiles": _whole(1),
    "net_arch": _widths,
    "normalize_images": check_switch,
    "optimizer_class": _optimizer,
    "optimizer_kwargs": _optimizer_arguments,
    "share_features_extractor": check_switch,
}
OF_GSDE = {"sde_sample_freq": -1, "use_sde_at_warmup": False}  # and the host's defaults
OPTIONAL = {
    *("features_extractor_class", "features_extractor_kwargs", "max_grad_norm", "net_arch", "optimizer_kwargs"),
    *("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "seed", "tensorboard_log"),
}


def check_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Check what there is a check for.

    :param given: arguments of an algorithm or a policy, and others
    :return: those that were checked
    :raises ValueError: if one is nothing to train with
    """
    return {
        name: given[name] if given[name] is None and name in OPTIONAL else check(name, given[name])
        for name, check in CHECKS.items()
        if name in given
    }


def warn_of_idle(given: Mapping[str, Any]) -> None:
    """
    Tell who has given options of what is not switched on.

    :param given: arguments of an algorithm
    """
    if not given.get("use_sde", False):  # which sparse policies refuse
        for name, default in OF_GSDE.items():
            if given.get(name, default) != default:
                warn(
                    f"{name}={given[name]!r} does nothing: it is about gSDE (use_sde=True), which sparse policies do not have"
                )
