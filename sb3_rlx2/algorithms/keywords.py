"""
The keyword arguments that all algorithms have: RLx2's own, with their defaults, and those of SB3's off-policy algorithms.

RLx2's are grouped by the part that takes them. A new one gets a line in its group, with its default, one in
:class:`RLx2Keywords`, with its type for editors and mypy, and the part that uses it.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypedDict

from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq

from sb3_rlx2.backends import BACKENDS
from sb3_rlx2.buffers.replay import DEFAULT_MIN_SIZE
from sb3_rlx2.distributions import find_distribution
from sb3_rlx2.inits import find_init, is_path
from sb3_rlx2.plan import BUFFER_CHECK_INTERVAL, UPDATE_INTERVAL
from sb3_rlx2.sparse_mlp import WEIGHT_SCALES
from sb3_rlx2.topology import TopologyName
from sb3_rlx2.validation import check_integer, check_number, lookup

HIDDEN_WEIGHTS = {"learned": False, "fixed": True}


@dataclass(frozen=True)
class NetworkOptions:
    """
    What the sparse networks of a policy have in common, whatever their sparsity.

    :param distribution: how links are shared out to layers, ``"erdos_renyi"`` (``"erk"``), ``"uniform"``, or
        ``"dense_output"`` (the same number for each hidden unit, and all in the last layer); or the number of links of each
        layer of each network, by its name in the policy, as ``{"actor.mu": [356, 1048, 537], "critic.qf0": ...}``
    :param init: which links live at first, the largest of the dense init (``"magnitude"``), ``"random"`` ones, random ones
        with the same number for each unit (``"fan_in"``), those of a convolution (``"spatial"``), or those of a saved agent,
        by the path of its zip (see :mod:`sb3_rlx2.inits`)
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
    :param weight_scale: weights at the start as the dense initialisation has them (``"dense"``), or each unit's live ones
        scaled to the sum of squares of all its dense ones (``"live"``)
    :param hidden_weights: whether weights and biases of the hidden layers are ``"learned"``, or ``"fixed"`` as they are at
        first (with ``tau`` below 1 a target network's copies of them move by rounding)
    :param hidden_bias: biases of the hidden layers at first; None for those of the dense initialisation
    :param l1: coefficient of the sum of the hidden weights' magnitudes, which is added to the loss of each network
    """

    distribution: str | Mapping[str, Sequence[int]] = "erdos_renyi"
    init: str = "magnitude"
    backend: str = "auto"
    weight_scale: str = "dense"
    hidden_weights: str = "learned"
    hidden_bias: float | None = None
    l1: float = 0.0

    @property
    def fixed(self) -> bool:
        """Whether hidden layers do not learn."""
        return HIDDEN_WEIGHTS[self.hidden_weights]

    def check(self) -> None:
        """
        Check all values.

        :raises ValueError: if one is none, or two do not go together
        """
        if not isinstance(self.distribution, Mapping):
            find_distribution(self.distribution, network="")
        find_init(self.init)
        lookup("backend", self.backend, BACKENDS)
        lookup("weight_scale", self.weight_scale, WEIGHT_SCALES)
        lookup("hidden_weights", self.hidden_weights, HIDDEN_WEIGHTS)
        check_number("l1", self.l1, 0.0, math.inf, high_included=False)
        if self.hidden_bias is not None:
            check_number("hidden_bias", self.hidden_bias, -math.inf, math.inf)
        if self.fixed and self.l1 > 0.0:
            raise ValueError(f"l1={self.l1} moves weights that hidden_weights='fixed' keeps, it must be 0")

    def without_path(self) -> "NetworkOptions":
        """Give what a saved network is built with, before it gets its own links: the agent that had them first may be gone."""
        return replace(self, init=NetworkOptions.init) if is_path(self.init) else self


@dataclass(frozen=True)
class BufferOptions:
    """
    Arguments of :class:`RLx2ReplayBuffer`.

    :param n_steps: length of the n-step return
    :param buffer_min_size: transitions that the dynamic buffer keeps at least, or a share of the planned steps
    """

    n_steps: int = 3
    buffer_min_size: int | float = DEFAULT_MIN_SIZE


@dataclass(frozen=True)
class Evolution:
    """
    Arguments of :class:`RLx2Callback`: what changes while an agent trains.

    :param topology: how links grow, ``"rigl"`` (by gradient), ``"set"`` (at random) or ``"static"`` (not at all);
        ``"snip"``, which chooses the links of a dense start once, by gradient, in its first step; or where
        those of the first layers are once the warm-up is over, ``"predictive"`` or ``"active"``, see
        :mod:`sb3_rlx2.topology`
    :param drop_fraction: share of each layer's links that an update moves at first; cosine-annealed to 0 over training
    :param update_interval: optimizer steps of a network between its topology updates, or a share of the planned gradient steps
    :param drop_dead_links: whether updates drop first all links on no path from an input to an output, and grow none from a
        unit that no input reaches
    :param prune_begin: share of training after which the number of links falls, of networks that begin with more than they
        are to have (cubically, as Zhu & Gupta, 2017)
    :param prune_end: share of training after which it is what it is to be
    :param n_steps_delay: share of training (after ``learning_starts``) with one-step targets
    :param policy_distance_threshold: policy distance above which the oldest transitions leave; infinity keeps everything
    :param buffer_check_interval: environment steps between looks at the policy distance, or a share of the planned ones
    :param planned_timesteps: steps that several calls of ``learn`` will have done together; None if each is a run of its own
    """

    topology: str = "rigl"
    drop_fraction: float = 0.5
    update_interval: int | float = UPDATE_INTERVAL
    drop_dead_links: bool = False
    prune_begin: float = 0.2
    prune_end: float = 0.8
    n_steps_delay: float = 0.1
    policy_distance_threshold: float = 0.2
    buffer_check_interval: int | float = BUFFER_CHECK_INTERVAL
    planned_timesteps: int | None = None


# SB3's arguments that are whole numbers, with the least that they may be; those that lie in an interval; those, of ours too,
# that are on or off; and those, or parts of them, that are none of these.
WHOLE = {
    **dict.fromkeys(("batch_size", "buffer_size", "policy_delay", "target_update_interval"), 1),
    "gradient_steps": -1,
}
RANGES = {
    **dict.fromkeys(("gamma", "tau", "exploration_fraction", "exploration_initial_eps", "exploration_final_eps"), (0.0, 1.0)),
    **dict.fromkeys(
        ("ent_coef", "learning_rate", "max_grad_norm", "target_noise_clip", "target_policy_noise"), (0.0, math.inf)
    ),
}
SWITCHES = ("drop_dead_links", "optimize_memory_usage", "soft_n_step")
SEEDS = 2**32  # numpy's
UNITS = ("step", "episode")
GROUPS = (NetworkOptions, BufferOptions, Evolution)


class RLx2Keywords(TypedDict, total=False):
    """The types of RLx2's keyword arguments; what each means stands in its group above."""

    distribution: Literal["erdos_renyi", "erk", "uniform", "dense_output"] | Mapping[str, Sequence[int]]
    init: str  # a key of INITS, or a path
    backend: Literal["auto", "csr", "masked"]
    weight_scale: Literal["dense", "live"]
    hidden_weights: Literal["learned", "fixed"]
    hidden_bias: float | None
    l1: float
    n_steps: int
    buffer_min_size: int | float
    topology: TopologyName
    drop_fraction: float
    update_interval: int | float
    drop_dead_links: bool
    prune_begin: float
    prune_end: float
    n_steps_delay: float
    policy_distance_threshold: float
    buffer_check_interval: int | float
    planned_timesteps: int | None
    arrays: Literal["auto", True, False]


class OffPolicyKeywords(RLx2Keywords, total=False):
    """Those of SB3's off-policy algorithms besides; SB3 explains them."""

    gamma: float
    train_freq: int | tuple[int, str] | TrainFreq
    gradient_steps: int
    replay_buffer_class: type[ReplayBuffer] | None
    replay_buffer_kwargs: dict[str, Any] | None
    optimize_memory_usage: bool
    policy_kwargs: dict[str, Any] | None
    stats_window_size: int
    tensorboard_log: str | None
    verbose: int
    seed: int | None
    device: Any


class TargetKeywords(OffPolicyKeywords, total=False):
    """Those of the algorithms that have target networks."""

    tau: float


def names(group: type) -> tuple[str, ...]:
    """
    Give the names of a group's arguments.

    :param group: one of ``GROUPS``
    """
    return tuple(field.name for field in fields(group))


def defaults() -> dict[str, Any]:
    """Give RLx2's keyword arguments that every algorithm has, with their defaults."""
    return {name: value for group in GROUPS for name, value in vars(group()).items()} | {"arrays": "auto"}


def check_values(model: Any) -> None:
    """
    Check the arguments that SB3 takes as they come, to fail later in words of its own, or never.

    :param model: an algorithm, with its arguments as attributes
    :raises ValueError: if one is nothing to train with
    """
    given = {name: value for name, value in vars(model).items() if value is not None}
    for name in WHOLE.keys() & given.keys():
        check_integer(name, given[name], WHOLE[name])
    for name in RANGES.keys() & given.keys():
        if name not in OR_ELSE or not OR_ELSE[name](given[name]):
            check_number(name, given[name], *RANGES[name])
    for name in MUST_BE.keys() & given.keys():
        holds, what = MUST_BE[name]
        if not holds(given[name]):
            raise ValueError(f"{name}={given[name]!r} must be {what}")
    if "policy_kwargs" in given:
        check_policy_kwargs(given["policy_kwargs"])


def check_policy_kwargs(given: Mapping[str, Any]) -> None:
    """
    Check those of a policy's arguments that SB3 takes as they come.

    :param given: the arguments
    :raises ValueError: if one is nothing to build networks with
    """
    for name in ("n_critics", "n_quantiles"):
        if name in given:
            check_integer(name, given[name], 1)
    if given.get("net_arch") is not None and not _is_architecture(given["net_arch"]):
        raise ValueError(f"net_arch={given['net_arch']!r} must be a list of integers >= 1, or a dict of two, pi and qf")
    if "activation_fn" in given and not callable(given["activation_fn"]):
        raise ValueError(f"activation_fn={given['activation_fn']!r} must be a class, as torch.nn.ReLU")


def _is_architecture(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.keys() == {"pi", "qf"} and all(map(_is_architecture, value.values()))
    return isinstance(value, list | tuple) and all(_is_count(each) for each in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_frequency(value: Any) -> bool:
    count, unit = value if isinstance(value, tuple | list) and len(value) == 2 else (value, "step")
    return _is_count(count) and getattr(unit, "value", unit) in UNITS


def _is_seed(value: Any) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) < SEEDS


def _is_automatic(value: Any) -> bool:
    """Tell whether a value is SAC's word for an entropy coefficient that is learned, perhaps with its first value."""
    if not isinstance(value, str):
        return False
    word, _, first = value.partition("_")
    with suppress(ValueError):
        return word == "auto" and (value == word or float(first) > 0)
    return False


def _is_entropy(value: Any) -> bool:
    with suppress(TypeError, ValueError):
        return value == "auto" or math.isfinite(float(value))
    return False


# What else than a number an argument of `RANGES` may be.
OR_ELSE: Mapping[str, Callable[[Any], bool]] = {"learning_rate": callable, "ent_coef": _is_automatic}
# Of the remaining arguments: what holds of a value, and that in words.
MUST_BE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(SWITCHES, (lambda value: isinstance(value, bool), "True or False")),
    "policy_kwargs": (lambda value: isinstance(value, Mapping), "a dict of arguments"),
    "replay_buffer_class": (
        lambda value: isinstance(value, type) and issubclass(value, BaseBuffer),
        "a class of replay buffers",
    ),
    "replay_buffer_kwargs": (lambda value: isinstance(value, Mapping), "a dict of arguments"),
    "seed": (_is_seed, f"an integer in [0, {SEEDS})"),
    "target_entropy": (_is_entropy, "'auto' or a number"),
    "tensorboard_log": (lambda value: isinstance(value, str | Path), "the path of a folder"),
    "train_freq": (_is_frequency, "an integer >= 1, or a pair of one and 'step' or 'episode'"),
}


def show(constructor: Callable[..., None], own: Mapping[str, Any]) -> None:
    """
    Have ``help`` and ``inspect`` name the keyword arguments that ``**kwargs`` takes for RLx2.

    :param constructor: changed
    :param own: keyword arguments with their defaults
    """
    signature = inspect.signature(constructor)
    *first, rest = signature.parameters.values()
    shown = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in own.items()]
    constructor.__signature__ = signature.replace(parameters=[*first, *shown, rest])  # type: ignore[attr-defined]
