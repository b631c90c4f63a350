"""
The one description of a policy from which every format is written: without what cannot matter, in the type of its values.

No torch here: :mod:`sb3_rlx2.export.agent` takes the networks out of an agent, and hands over arrays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from sb3_rlx2.dead_units import folded, hidden_units
from sb3_rlx2.export.rlx2_reader import ACTIVATIONS, OUTPUTS, Layer, Policy, activate
from sb3_rlx2.validation import lookup

VALUE_TYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16), "int8": np.dtype(np.int8)}
N_TESTS = 8
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Stage:
    """
    A linear layer and its activation, before it is stored.

    :param weight: ``[outputs, inputs]``, float64; 0 where there is no link
    :param bias: ``[outputs]``, float64
    :param activation: of ``ACTIVATIONS``
    :param scales: step of the weights of each row, ``[outputs]``; None if they are not whole multiples of one
    """

    weight: np.ndarray
    bias: np.ndarray
    activation: str = "identity"
    scales: np.ndarray | None = None

    def __post_init__(self) -> None:
        lookup("activation", self.activation, {name: name for name in ACTIVATIONS})
        for name, array in (("weight", self.weight), ("bias", self.bias)):
            if array.dtype != np.float64 or not (np.abs(array) < LARGEST).all():
                raise ValueError(f"{name}: the numbers of a layer must be finite float64, within the range of float32")
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1] or max(self.weight.shape) > 0xFFFF:
            raise ValueError(
                f"weight of shape {self.weight.shape} must be [outputs, inputs] with a bias each, at most 65535 wide"
            )

    def rows(self, keep: np.ndarray) -> "Stage":
        """
        Keep some of the outputs.

        :param keep: mask, ``[outputs]``
        """
        scales = None if self.scales is None else self.scales[keep]
        return replace(self, weight=self.weight[keep], bias=self.bias[keep], scales=scales)

    @property
    def links(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.weight))


@dataclass(frozen=True)
class Removed:
    """
    What did not matter.

    :param units: hidden units without a path to the output
    :param constants: hidden units without input, folded into biases
    :param links: links that went with them
    """

    units: int
    constants: int
    links: int


def simplified(stages: Sequence[Stage]) -> tuple[list[Stage], Removed]:
    """
    Remove exactly what cannot matter: hidden units without a path to the output, and hidden units without input, whose
    constant output goes into the next layer's biases.

    :param stages: from observation to output
    :return: what is left, and what is not
    """
    inputs, weights = stages[0].weight.shape[1], [stage.weight for stage in stages]
    units = hidden_units([weight != 0 for weight in weights])

    def outputs(number: int, bias: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return activate(bias[mask], stages[number].activation).astype(np.float64)

    biases = folded(weights, [stage.bias for stage in stages], units, outputs)
    keep = [np.ones(inputs, bool), *units.alive, np.ones(len(biases[-1]), bool)]
    kept = [
        replace(stage, bias=bias, weight=stage.weight[:, before]).rows(behind)
        for stage, bias, (before, behind) in zip(stages, biases, pairwise(keep), strict=True)
    ]
    empty = [number for number, stage in enumerate(kept) if stage.weight.size == 0]
    if empty:  # nothing depends on the observation any more: the last such layer's biases say it all
        kept = kept[empty[-1] :]
        kept[0] = replace(kept[0], weight=np.zeros((len(kept[0].bias), inputs)))
    links = sum(stage.links for stage in stages) - sum(stage.links for stage in kept)
    return kept, Removed(_count(~reaching for reaching in units.reaching), _count(units.constant), links)


def _count(masks: Iterable[np.ndarray]) -> int:
    return sum(int(mask.sum()) for mask in masks)


@np.errstate(under="ignore")  # it is a rounding to 0, whatever the user's own script raises for
def rounded(stage: Stage, dtype: str) -> Stage:
    """
    Round weights and biases to what can be stored.

    :param stage: the layer
    :param dtype: ``"fp32"``, ``"fp16"`` or ``"int8"``, whose weights have a scale per row, and whose biases are fp16
    :raises ValueError: if a number is too large for it
    """
    small = _small(VALUE_TYPES[dtype])
    if max(np.abs(stage.bias).max(), 0.0 if dtype == "int8" else np.abs(stage.weight).max(initial=0.0)) > float(
        np.finfo(small).max
    ):
        raise ValueError(f"dtype={dtype!r}: a weight or a bias of the policy is too large for it, it must be 'fp32'")
    bias = stage.bias.astype(small).astype(np.float64)
    if dtype != "int8":
        return replace(stage, weight=stage.weight.astype(small).astype(np.float64), bias=bias)
    scales = _scales(stage.weight)
    return replace(stage, weight=_steps(stage.weight, scales) * scales[:, None], bias=bias, scales=scales)


def _small(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the type of biases and scales beside that of the weights."""
    return dtype if dtype == np.float32 else np.dtype(np.float16)


def _steps(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(weight / scales[:, None]), -127, 127))


def _scales(weight: np.ndarray) -> np.ndarray:
    """Give the step of each row that rounds with the least squared error, of those that cut off little."""
    largest, smallest = np.abs(weight).max(axis=1, initial=0.0), float(np.finfo(np.float16).smallest_subnormal)
    shares = np.linspace(0.6, 1.0, 41)[:, None] / 127
    candidates = (shares * largest).clip(smallest, 65504.0).astype(np.float16).astype(np.float64)
    errors = [((_steps(weight, scales) * scales[:, None] - weight) ** 2).sum(axis=1) for scales in candidates]
    return np.asarray(candidates[np.argmin(errors, axis=0), np.arange(len(weight))])


def stored(stages: Sequence[Stage], dtype: str) -> tuple[Layer, ...]:
    """
    Lay layers out as they are stored.

    :param stages: rounded layers
    :param dtype: of ``VALUE_TYPES``
    """
    widest = max(stage.weight.shape[1] for stage in stages)
    most = max(int((stage.weight != 0).sum(axis=1).max()) for stage in stages)
    index: np.dtype[Any] = np.dtype(np.uint8 if widest <= 256 and most <= 255 else np.uint16)
    return tuple(_layer(stage, VALUE_TYPES[dtype], index) for stage in stages)


def _layer(stage: Stage, dtype: np.dtype[Any], index: np.dtype[Any]) -> Layer:
    weight = (stage.weight if stage.scales is None else _steps(stage.weight, stage.scales)).astype(dtype)
    weight += dtype.type(0)  # no -0
    small = _small(dtype)
    inputs, bias, scales = (
        weight.shape[1],
        stage.bias.astype(small),
        None if stage.scales is None else stage.scales.astype(small),
    )
    rows, columns = np.nonzero(weight)
    if weight.size * dtype.itemsize <= len(rows) * (dtype.itemsize + index.itemsize) + len(weight) * index.itemsize:
        return Layer(inputs, weight.flatten(), bias, stage.activation, scales=scales)
    counts = np.bincount(rows, minlength=len(weight))
    return Layer(inputs, weight[rows, columns], bias, stage.activation, counts.astype(index), columns.astype(index), scales)


@dataclass(frozen=True)
class Description:
    """
    A deterministic policy in full precision, and where it comes from.

    :param stages: from observation to output; what cannot matter is still there
    :param output: ``"unscale"`` (outputs in ``[-1, 1]`` to the action's range), ``"clip"`` or ``"argmax"``
    :param low: smallest action, ``[actions]``; empty for ``argmax``
    :param high: largest action, ``[actions]``; empty for ``argmax``
    :param mean: of the normaliser, ``[inputs]``, float64; None if there is none
    :param std: of the normaliser, ``[inputs]``, float64; None if there is none
    :param clip: limit of normalised observations
    :param live: number of the network's links, those that train the policy only (SAC's log_std) among them
    :param size: number of its weights if it were dense
    :param about: texts and numbers that are stored with it
    """

    stages: tuple[Stage, ...]
    output: str
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray | None
    std: np.ndarray | None
    clip: float
    live: int
    size: int
    about: dict[str, Any]

    def __post_init__(self) -> None:
        lookup("output", self.output, {name: name for name in OUTPUTS})
        if self.output == "unscale" and not np.isfinite([self.low, self.high]).all():
            raise ValueError(f"action_space of bounds {self.low} and {self.high} must be finite")

    @property
    def inputs(self) -> int:
        """Number of observations."""
        return int(self.stages[0].weight.shape[1])

    def policy(self, dtype: str = "fp32") -> Policy:
        """
        Make what is written: simplified, rounded, and with its self-test.

        :param dtype: type of the weights, ``"fp32"``, ``"fp16"`` or ``"int8"``
        :raises ValueError: if a weight cannot be stored so
        """
        lookup("dtype", dtype, VALUE_TYPES)
        stages, removed = simplified(self.stages)
        exact = sum(stage.links for stage in stages)
        stages, _ = simplified([rounded(stage, dtype) for stage in stages])
        links = sum(stage.links for stage in stages)
        about = {
            **self.about,
            "dtype": dtype,
            "widths": [self.inputs, *(len(stage.bias) for stage in self.stages)],
            "weights_of_dense": self.size,
            "links_before": self.live,
            "links": links,
            "units_without_path": removed.units,
            "units_without_input": removed.constants,
            "links_that_did_not_matter": self.live - exact,
            "links_rounded_to_zero": exact - links,
        }
        low, high = np.clip([self.low, self.high], -LARGEST, LARGEST).astype(np.float32)
        policy = Policy(stored(stages, dtype), self.output, low, high, self._normaliser(), self.clip, about=about)
        tests = observations(self, N_TESTS, np.random.default_rng(0))
        return replace(policy, test_observations=tests, test_actions=policy(tests))

    def _normaliser(self) -> np.ndarray | None:
        if self.mean is None or self.std is None:
            return None
        mean = self.mean.astype(np.float32)
        return np.stack([mean, self.mean - mean, 1 / self.std]).astype(np.float32)


def observations(description: Description, count: int, generator: np.random.Generator) -> np.ndarray:
    """
    Draw observations to compare policies on: typical ones, extremes, and some beyond the clip.

    :param description: whose normaliser tells what is typical; without one, numbers around 0
    :param count: how many
    :param generator: of random numbers
    :return: ``[count, inputs]``, float32
    """
    reach = np.asarray([1.0, 1.0, 3.0, 20.0])[np.arange(count) % 4, None]
    drawn = generator.standard_normal((count, description.inputs)) * reach
    if description.mean is not None and description.std is not None:
        drawn = description.mean + description.std * drawn
    return np.ascontiguousarray(drawn, np.float32)


def dense_bytes(widths: Sequence[int]) -> int:
    """
    Give the bytes of a dense network in fp32: its weights and its biases.

    :param widths: of the observation, the hidden layers and the output
    """
    return 4 * sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths))
