"""
The keyword arguments that all algorithms have: RLx2's own, with their defaults, and those of SB3's off-policy algorithms.

RLx2's are grouped by the part that takes them. A new one gets a line in its group, with its default, one in
:class:`RLx2Keywords`, with its type for editors and mypy, and the part that uses it.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict

from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import TrainFreq

from sb3_rlx2.backends import BACKENDS
from sb3_rlx2.buffers.replay import DEFAULT_MIN_SIZE
from sb3_rlx2.distributions import find_distribution
from sb3_rlx2.inits import find_init, is_path
from sb3_rlx2.plan import BUFFER_CHECK_INTERVAL, UPDATE_INTERVAL
from sb3_rlx2.sparse_mlp import WEIGHT_SCALES
from sb3_rlx2.topology import TopologyName
from sb3_rlx2.validation import check_number, lookup

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


class EntropyKeywords(OffPolicyKeywords, total=False):
    """Those of the algorithms that weigh the entropy of their policy."""

    soft_n_step: bool
    action_noise: ActionNoise | float | None
    ent_coef: str | float
    target_entropy: str | float
    use_sde: bool
    sde_sample_freq: int
    use_sde_at_warmup: bool


def names(group: type) -> tuple[str, ...]:
    """
    Give the names of a group's arguments.

    :param group: one of ``GROUPS``
    """
    return tuple(field.name for field in fields(group))


def defaults() -> dict[str, Any]:
    """Give RLx2's keyword arguments that every algorithm has, with their defaults."""
    return {name: value for group in GROUPS for name, value in vars(group()).items()} | {"arrays": "auto"}


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
