"""Checks of user input. Every error names the argument, its value and what is allowed."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(argument: str, name: Any, table: Mapping[str, T]) -> T:
    """
    Find a name in a table.

    :param argument: the argument's name, for the error
    :param name: the name to look up
    :param table: what is allowed
    :return: ``table[name]``
    :raises ValueError: if it is not there, with the nearest names
    """
    if isinstance(name, str) and name in table:
        return table[name]
    hint = did_you_mean(str(name), table, show=repr)
    raise ValueError(f"{argument}={name!r} is unknown; choose one of {', '.join(map(repr, table))}{hint}")


def did_you_mean(name: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """
    Give the end of an error about a name that is not known.

    :param name: the name
    :param known: the names that are
    :param show: writes one of them
    :return: the nearest as a question, empty if none is near
    """
    near = difflib.get_close_matches(name.lower(), [*known], n=2, cutoff=0.4)
    return f"; did you mean {' or '.join(map(show, near))}?" if near else ""


def check_integer(argument: str, value: Any, minimum: int) -> int:
    """
    Check a whole number.

    :param argument: the argument's name, for the error
    :param value: the value to check; YAML's and Optuna's ``1e4`` counts as whole
    :param minimum: smallest allowed value
    :return: the value as ``int``
    :raises ValueError: if it is none, or below the minimum
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not float(value).is_integer() or value < minimum:
        raise ValueError(f"{argument}={value!r} must be an integer >= {minimum}")
    return int(value)


def check_number(argument: str, value: Any, low: float, high: float, *, high_included: bool = True) -> float:
    """
    Check a number against an interval.

    :param argument: the argument's name, for the error
    :param value: the value to check; NaN is never allowed
    :param low: smallest allowed value
    :param high: largest allowed value
    :param high_included: whether ``high`` itself is allowed
    :return: the value as ``float``
    :raises ValueError: if it is none, or outside the interval
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if not number or not low <= value <= high or (value == high and not high_included):
        raise ValueError(f"{argument}={value!r} must be a number in [{low:g}, {high:g}{']' if high_included else ')'}")
    return float(value)
