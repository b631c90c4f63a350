"""Writes a policy as one C99 file and its header."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from sb3_rlx2.export.rlx2_reader import Layer, Policy

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TYPES = {"float32": "float", "float16": "int16_t", "int8": "int8_t", "uint8": "uint8_t", "uint16": "uint16_t"}
DECODE = {"float": "", "int16_t": "half", "int8_t": "(float)"}
TOLERANCE = 1e-5  # of the largest action, in the self-test: a compiler that contracts a * b + c rounds otherwise
FORMULAS = {
    "relu": "*x < 0.0f ? 0.0f : *x",
    "tanh": "squashed(*x)",
    "elu": "elu(*x)",
    "leaky_relu": "*x < 0.0f ? 0.01f * *x : *x",
}


class Table(NamedTuple):
    """
    A constant array.

    :param name: its name
    :param array: its numbers
    """

    name: str
    array: np.ndarray

    @property
    def type(self) -> str:
        """C's type of its numbers."""
        return TYPES[self.array.dtype.name]

    @property
    def length(self) -> int:
        """Number of its elements; C has no empty arrays."""
        return max(1, self.array.size)

    @property
    def text(self) -> str:
        """Its numbers, in lines; those of float32 are the shortest that are read as the same."""
        array = self.array.view(np.int16) if self.array.dtype == np.float16 else self.array
        suffix = "f" if array.dtype == np.float32 else ""
        numbers = " ".join(f"{number!s}{suffix}," for number in array.flat) or "0,"
        return textwrap.fill(numbers, 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def tables(policy: Policy) -> list[Table]:
    """
    Give the constant arrays of a policy.

    :param policy: the policy
    """
    found = (
        [] if policy.normaliser is None else list(zip(("mean", "mean_rest", "inverse_std"), policy.normaliser, strict=True))
    )
    for number, layer in enumerate(policy.layers):
        arrays = {"values": layer.values, "columns": layer.columns, "counts": layer.counts, "scales": layer.scales}
        found += [(f"{name}_{number}", array) for name, array in arrays.items() if array is not None]
        found.append((f"bias_{number}", layer.bias))
    if policy.output != "argmax":
        found += [("low", policy.low), ("high", policy.high)]
    return [Table(name, array) for name, array in found]


def source(policy: Policy, name: str = "policy") -> dict[str, bytes]:
    """
    Write a policy as C.

    :param policy: the policy
    :param name: what the files' names and all that they define begin with; an identifier of C
    :return: content of each file, by its name
    :raises ValueError: if the name is no identifier
    """
    if not (name.isascii() and name.isidentifier()):
        raise ValueError(f"name={name!r} must be an identifier of C: letters, digits and underscores")
    context = _context(policy, name)
    return {
        f"{name}{suffix}": TEMPLATES.get_template(f"policy{suffix}.jinja").render(context).encode() for suffix in (".c", ".h")
    }


def _context(policy: Policy, name: str) -> dict[str, Any]:
    widths = [policy.inputs, *(layer.outputs for layer in policy.layers)]
    activations = list(dict.fromkeys(layer.activation for layer in policy.layers if layer.activation in FORMULAS))
    value_type, index_type = TYPES[policy.layers[0].values.dtype.name], _index_type(policy.layers)
    tests = [Table("test_observations", policy.test_observations), Table("test_actions", policy.test_actions)]
    even, odd = max(widths[0::2]), max(widths[1::2])
    return {
        "name": name,
        "NAME": name.upper(),
        "policy": policy,
        "title": _comment(title(policy)),
        "origin": _comment(f"Made by sb3_rlx2 {policy.about.get('version', '')}: {policy.about.get('command', '')}"),
        "contents": [_comment(line) for line in contents(policy)],
        "tables": [*tables(policy), *tests],
        "needs": activations,
        "applied": [(activation, FORMULAS[activation]) for activation in activations],
        "value_type": value_type,
        "index_type": index_type,
        "decode": DECODE[value_type],
        "small_type": "float" if value_type == "float" else "int16_t",
        "small": "" if value_type == "float" else "half",
        "sparse": any(layer.columns is not None for layer in policy.layers),
        "dense": any(layer.columns is None for layer in policy.layers),
        "scaled": value_type == "int8_t",
        "normalised": policy.normaliser is not None,
        "clip": f"{np.float32(policy.clip)!s}f",
        "even": even,
        "odd": odd,
        "stack": 4 * (even + odd),
        "calls": list(_calls(policy.layers)),
        "last": _buffer(len(policy.layers)),
        "outputs": widths[-1],
        "tolerance": f"{np.float32(TOLERANCE * np.abs(policy.test_actions).max(initial=0.0))!s}f",
    }


def _calls(layers: Sequence[Layer]) -> Iterator[str]:
    for number, layer in enumerate(layers):
        x, y = _buffer(number), _buffer(number + 1)
        tail = f"scales_{number}, bias_{number}" if layer.scales is not None else f"bias_{number}"
        if layer.columns is None:
            yield f"dense_layer({x}, {layer.inputs}, {y}, {layer.outputs}, values_{number}, {tail});"
        else:
            yield f"sparse_layer({x}, {y}, {layer.outputs}, values_{number}, columns_{number}, counts_{number}, {tail});"
        if layer.activation in FORMULAS:
            yield f"apply_{layer.activation}({y}, {layer.outputs});"


def _buffer(number: int) -> str:
    return "odd" if number % 2 else "even"


def _index_type(layers: Sequence[Layer]) -> str:
    return next((TYPES[layer.columns.dtype.name] for layer in layers if layer.columns is not None), "uint8_t")


def title(policy: Policy) -> str:
    """
    Say in a line what a policy is.

    :param policy: the policy
    """
    about = policy.about
    return f"The deterministic policy of {about.get('algorithm', 'an agent')} for {about.get('env') or 'an environment'}."


def contents(policy: Policy) -> list[str]:
    """
    Say in lines what a policy computes.

    :param policy: the policy
    """
    about, size = policy.about, sum(table.array.nbytes for table in tables(policy))
    normaliser = "no normalisation" if policy.normaliser is None else f"normalisation, clipped to {policy.clip:g}"
    bounds = "" if policy.output == "argmax" else f" Actions from {policy.low.tolist()} to {policy.high.tolist()}."
    last = {"unscale": "rescaling to the action's range", "clip": "clipping to the action's range", "argmax": "argmax"}
    shape = tuple(about.get("observation_shape", (policy.inputs,)))
    links, dtype = sum(layer.links for layer in policy.layers), about.get("dtype", "fp32")
    return [
        f"Observation of shape {shape}.{bounds}",
        f"Inside: {normaliser}; layers {' - '.join(map(str, [policy.inputs, *(layer.outputs for layer in policy.layers)]))};",
        f"{'tanh; ' if policy.output == 'unscale' else ''}{last[policy.output]}.",
        f"{links:,} weights of {about.get('weights_of_dense', links):,} of the dense network, as {dtype};",
        f"tables of {size:,} bytes, and {policy.test_observations.nbytes + policy.test_actions.nbytes:,} of the self-test.",
    ]


def _comment(value: Any) -> str:
    """Make a text fit for a comment."""
    return " ".join(str(value).split()).replace("*/", "* /").replace("/*", "/ *")
