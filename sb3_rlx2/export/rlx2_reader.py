"""
Reads and plays a policy that ``rlx2 export`` wrote, with numpy and nothing else: this file may be copied and used alone.

    policy = read(open("policy.rlx2", "rb").read())
    action = policy(observation)

Every number is computed in float32 in a stated order, the same as in the exported C, so that both agree to the last bit:

1. An observation that holds a NaN gives NaN (every action, or the number of the action).
2. If there is a normaliser: ``x = clip(((observation - mean) - mean_rest) * inverse_std)``. The mean is the sum of two float32
   numbers, because one is too coarse where an observation hardly varies around a large mean.
3. Each layer: ``sum = 0``, then ``sum += value * x[column]`` in the order of the row, ``sum * scale`` for int8, ``+ bias``,
   activation. Values of float16 and int8, and scales and biases of float16, are made float32 before.
4. Output: ``low + 0.5 * (y + 1) * (high - low)`` (``unscale``, as SB3's squashed policies), ``y`` limited to ``low`` and
   ``high`` (``clip``), or the number of the first largest ``y`` (``argmax``).
"""

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC, VERSION, LARGEST_FILE = b"RLX2", 1, 1 << 28
HEADER = np.dtype(
    [("magic", "S4")]
    + [
        (name, "<u4")
        for name in ("version", "size", "inputs", "actions", "widest", "layers", "value_bytes", "index_bytes", "output")
    ]
    + [("normalised", "<u4"), ("clip", "<f4"), ("tests", "<u4")]
)
LAYER_HEADER = np.dtype([("outputs", "<u2"), ("activation", "u1"), ("dense", "u1"), ("links", "<u4")])
ACTIVATIONS = ("identity", "relu", "tanh", "elu", "leaky_relu")
OUTPUTS = ("unscale", "clip", "argmax")
VALUE_TYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<f4"), 2: np.dtype("<f2"), 1: np.dtype("i1")}
INDEX_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2")}
F = np.float32


@dataclass(frozen=True)
class Layer:
    """
    A linear layer and the activation behind it.

    :param inputs: number of inputs
    :param values: weights, row by row, ``[links]``; float32, float16 or int8
    :param bias: ``[outputs]``, float32, or float16 with other values than float32
    :param activation: of ``ACTIVATIONS``
    :param counts: number of links of each row, ``[outputs]``; None if every weight is stored
    :param columns: input of each link, ``[links]``; None if every weight is stored
    :param scales: what the values of each row are multiplied by, ``[outputs]``, float16; with int8 only
    """

    inputs: int
    values: np.ndarray
    bias: np.ndarray
    activation: str
    counts: np.ndarray | None = None
    columns: np.ndarray | None = None
    scales: np.ndarray | None = None

    def __post_init__(self) -> None:
        small = F if self.values.dtype == F else np.float16
        types = [self.values.dtype in VALUE_TYPES.values(), self.bias.dtype == small]
        types += [index.dtype in INDEX_TYPES.values() for index in (self.counts, self.columns) if index is not None]
        if not all(types) or (self.scales is not None) != (self.values.dtype == np.int8) or self.activation not in ACTIVATIONS:
            raise ValueError(f"values of {self.values.dtype} with biases of {self.bias.dtype} cannot be a layer, see Layer")

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.bias)

    @property
    def links(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.values))

    def dense(self) -> np.ndarray:
        """Give the weights as the matrix ``[outputs, inputs]``, without scales."""
        if self.columns is None or self.counts is None:
            return self.values.reshape(self.outputs, self.inputs)
        weights = np.zeros((self.outputs, self.inputs), self.values.dtype)
        weights[np.repeat(np.arange(self.outputs), self.counts), self.columns] = self.values
        return weights

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """
        Compute the outputs.

        :param x: inputs, ``[inputs, n]``, float32
        :return: outputs, ``[outputs, n]``, float32
        """
        counts = np.full(self.outputs, self.inputs) if self.counts is None else self.counts.astype(np.int64)
        columns = np.tile(np.arange(self.inputs), self.outputs) if self.columns is None else self.columns
        starts = np.cumsum(counts) - counts
        values = self.values.astype(F)
        sums = np.zeros((self.outputs, x.shape[1]), F)
        for number in range(counts.max(initial=0)):  # the same link of every row that has so many
            rows = np.flatnonzero(counts > number)
            links = starts[rows] + number
            sums[rows] += values[links, None] * x[columns[links]]
        if self.scales is not None:
            sums *= self.scales[:, None].astype(F)
        return activate(sums + self.bias[:, None].astype(F), self.activation)


@dataclass(frozen=True)
class Policy:
    """
    All that a deterministic action is computed from.

    :param layers: from observation to output
    :param output: of ``OUTPUTS``
    :param low: smallest action, ``[actions]``, float32; empty for ``argmax``
    :param high: largest action, ``[actions]``, float32; empty for ``argmax``
    :param normaliser: ``mean``, ``mean_rest`` and ``inverse_std``, ``[3, inputs]``, float32; None if there is none
    :param clip: limit of normalised observations
    :param test_observations: of the self-test, ``[tests, inputs]``, float32
    :param test_actions: what the policy gives for them, ``[tests, actions]``, float32
    :param about: where it comes from; texts and numbers
    """

    layers: tuple[Layer, ...]
    output: str
    low: np.ndarray
    high: np.ndarray
    normaliser: np.ndarray | None = None
    clip: float = 0.0
    test_observations: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), F))
    test_actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), F))
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """Number of observations."""
        return self.layers[0].inputs

    @property
    def actions(self) -> int:
        """Number of numbers that make an action."""
        return 1 if self.output == "argmax" else len(self.low)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """
        Choose actions, as SB3's ``predict`` with ``deterministic=True`` does on what ``VecNormalize`` would have made of them.

        :param observation: one observation, ``[inputs]``, or several, ``[n, inputs]``, as the environment gives them
        :return: ``[actions]`` or ``[n, actions]``, float32; for ``argmax`` the number of the action
        """
        given = np.asarray(observation, F)
        with np.errstate(all="ignore"):  # NaN, infinity and 1e-38 go through
            x = np.ascontiguousarray(given.reshape(-1, self.inputs).T)
            y = self._normalise(x)
            for layer in self.layers:
                y = layer(y)
            actions = np.where(np.isnan(x).any(axis=0), F(np.nan), self._finish(y))
        return actions.T.reshape(*given.shape[:-1], self.actions)

    def _normalise(self, x: np.ndarray) -> np.ndarray:
        if self.normaliser is None:
            return x
        mean, rest, inverse_std = self.normaliser[:, :, None]
        x, limit = ((x - mean) - rest) * inverse_std, F(self.clip)
        x = np.where(x > limit, limit, x)
        return np.where(x < -limit, -limit, x)

    def _finish(self, y: np.ndarray) -> np.ndarray:
        low, high = self.low[:, None], self.high[:, None]
        if self.output == "unscale":
            return np.asarray(low + F(0.5) * (y + F(1)) * (high - low))
        if self.output == "clip":
            y = np.where(y > high, high, y)
            return np.where(y < low, low, y)
        best = np.zeros((1, y.shape[1]), np.int64)
        for number in range(1, len(y)):
            best = np.where(y[number] > np.take_along_axis(y, best, axis=0), number, best)
        return best.astype(F)

    def self_test(self) -> int:
        """Count the embedded observations for which the policy does not give the embedded action."""
        return int((self(self.test_observations) != self.test_actions).any(axis=1).sum()) if len(self.test_actions) else 0


def activate(x: np.ndarray, name: str) -> np.ndarray:
    """
    Apply an activation.

    :param x: float32
    :param name: of ``ACTIVATIONS``
    """
    if name == "relu":
        return np.where(x < 0, F(0), x)
    if name == "tanh":
        return tanh(x)
    if name == "elu":  # exp(x) - 1 by the same rational function
        t = tanh(F(0.5) * x)
        return np.where(x < 0, F(2) * t / (F(1) - t), x)
    if name == "leaky_relu":
        return np.where(x < 0, F(0.01) * x, x)
    return x


def tanh(x: np.ndarray) -> np.ndarray:
    """
    Compute tanh to 3.1e-7 with +, -, * and / alone, which round alike on every machine; C libraries' tanhf differ.

    :param x: float32
    """
    limit = F(7.90531110763549805)  # the coefficients, Eigen's, are accurate up to here
    inner = np.where(x > limit, limit, x)
    inner = np.where(inner < -limit, -limit, inner)
    square = inner * inner
    p = np.full_like(square, F(-2.76076847742355e-16))
    for coefficient in (
        *(2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
        *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
    ):
        p = p * square + F(coefficient)
    q = np.full_like(square, F(1.19825839466702e-06))
    for coefficient in (1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03):
        q = q * square + F(coefficient)
    result = inner * p / q
    result = np.where(x > F(9.02), F(1), result)  # as float32 rounds
    return np.where(x < F(-9.02), F(-1), result)


def read(data: bytes) -> Policy:
    """
    Read a ``.rlx2`` file.

    :param data: its bytes
    :raises ValueError: if it is damaged, or no such file
    """
    if len(data) < HEADER.itemsize + 4 or data[:4] != MAGIC:
        raise ValueError("the file is no .rlx2 file")
    header = np.frombuffer(data, HEADER, 1)[0]
    require(header["version"] == VERSION, f"version={header['version']} must be {VERSION}")
    require(header["size"] == len(data) <= LARGEST_FILE, "its size is not what its header says")
    require(zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little"), "its checksum is wrong")
    return Reader(data, header).policy()


def require(condition: Any, what: str) -> None:
    """
    Refuse a damaged file.

    :param condition: what a whole file fulfils
    :param what: what is wrong
    :raises ValueError: if it does not
    """
    if not condition:
        raise ValueError(f"the .rlx2 file is damaged: {what}")


class Reader:
    """
    Walks through a file.

    :param data: its bytes
    :param header: its header
    """

    def __init__(self, data: bytes, header: Any) -> None:
        self.data, self.header, self.position = data, header, HEADER.itemsize

    def take(self, dtype: np.dtype[Any] | str, count: int) -> np.ndarray:
        """
        Give the next numbers, and go on to the next multiple of 4 bytes.

        :param dtype: their type
        :param count: their number
        """
        dtype = np.dtype(dtype)
        size = -(-count * dtype.itemsize // 4) * 4
        require(size <= len(self.data) - 4 - self.position, "it ends too early")
        numbers = np.frombuffer(self.data, dtype, count, self.position)
        self.position += size
        return numbers

    def policy(self) -> Policy:
        """Read all of it."""
        header = self.header
        inputs, actions, tests = int(header["inputs"]), int(header["actions"]), int(header["tests"])
        require(header["output"] < len(OUTPUTS), "its output is unknown")
        require(header["tests"] <= 0xFF, "it has too many tests")
        require(header["normalised"] <= 1, "its normaliser is neither there nor not")
        require(1 <= inputs <= header["widest"] <= 0xFFFF and actions >= 1 and header["layers"] >= 1, "its sizes are wrong")
        output = OUTPUTS[header["output"]]
        bounds = 0 if output == "argmax" else actions
        normaliser = self.take("<f4", 3 * inputs).reshape(3, inputs) if header["normalised"] else None
        low, high = self.take("<f4", 2 * bounds).reshape(2, bounds)
        test_observations = self.take("<f4", tests * inputs).reshape(tests, inputs)
        test_actions = self.take("<f4", tests * actions).reshape(tests, actions)
        layers: list[Layer] = []
        for _ in range(header["layers"]):
            layers.append(self.layer(layers[-1].outputs if layers else inputs))
        require(actions == (1 if output == "argmax" else layers[-1].outputs), "its number of actions is wrong")
        about = bytes(self.data[self.position : -4]).rstrip(b"\0").decode(errors="replace")
        tests_ = {"test_observations": test_observations, "test_actions": test_actions}
        return Policy(tuple(layers), output, low, high, normaliser, float(header["clip"]), **tests_, about=json.loads(about))

    def layer(self, inputs: int) -> Layer:
        """
        Read a layer.

        :param inputs: its number of inputs
        """
        value_bytes, index_bytes = int(self.header["value_bytes"]), int(self.header["index_bytes"])
        require(value_bytes in VALUE_TYPES and index_bytes in INDEX_TYPES, "its types are unknown")
        head = self.take(LAYER_HEADER, 1)[0]
        outputs, links = int(head["outputs"]), int(head["links"])
        require(1 <= outputs <= self.header["widest"] and head["activation"] < len(ACTIVATIONS), "a layer is wrong")
        bias = self.take("<f4" if value_bytes == 4 else "<f2", outputs)
        scales = self.take("<f2", outputs) if value_bytes == 1 else None
        values = self.take(VALUE_TYPES[value_bytes], links)
        counts = columns = None
        if head["dense"]:
            require(links == inputs * outputs, "a layer's number of weights is wrong")
        else:
            counts_and_columns = self.take(INDEX_TYPES[index_bytes], outputs + links)
            counts, columns = counts_and_columns[:outputs], counts_and_columns[outputs:]
            require(counts.sum(dtype=np.int64) == links and (columns < inputs).all(), "a link leads nowhere")
        return Layer(inputs, values, bias, ACTIVATIONS[head["activation"]], counts, columns, scales)
