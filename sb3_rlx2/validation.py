"""Checks of user input. Every error names the argument, its value and what is allowed."""

import difflib
import inspect
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


def did_you_mean(name: str, known: Iterable[str], show: Callable[[str], str] = str, cutoff: float = 0.4) -> str:
    """
    Give the end of an error about a name that is not known.

    :param name: the name
    :param known: the names that are
    :param show: writes one of them
    :param cutoff: how near is near, from 0 to 1: less among a few values than among many arguments
    :return: the nearest as a question, empty if none is near
    """
    near = difflib.get_close_matches(name.lower(), [*known], n=2, cutoff=cutoff)
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


def check_number(
    argument: str, value: Any, low: float, high: float, *, low_included: bool = True, high_included: bool = True
) -> float:
    """
    Check a number against an interval.

    :param argument: the argument's name, for the error
    :param value: the value to check; NaN is never allowed
    :param low: smallest allowed value
    :param high: largest allowed value
    :param low_included: whether ``low`` itself is allowed
    :param high_included: whether ``high`` itself is allowed
    :return: the value as ``float``
    :raises ValueError: if it is none, or outside the interval
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    outside = not number or not low <= value <= high
    if outside or (value == low and not low_included) or (value == high and not high_included):
        opening, closing = "[" if low_included else "(", "]" if high_included else ")"
        raise ValueError(f"{argument}={value!r} must be a number in {opening}{low:g}, {high:g}{closing}")
    return float(value)


def check_arguments(taker: type, given: Iterable[str], where: str = "") -> None:
    """
    Check that a class's constructor, or those that it hands its arguments on to, take what is given.

    :param taker: the class
    :param given: names of arguments
    :param where: end of the first part of the error, as ``" (in policy_kwargs)"``
    :raises TypeError: if nobody takes one, with the nearest
    """
    known = known_arguments(taker)
    for name in given:
        if name not in known:
            raise TypeError(f"{taker.__name__} has no argument {name}{where}{nearest_argument(name, known)}")


def nearest_argument(name: str, known: Iterable[str]) -> str:
    """
    Give the end of an error about an argument that nobody takes.

    :param name: the argument
    :param known: those that there are
    :return: the nearest as a question, empty if none is near
    """
    ends = sorted((each for each in known if name.endswith(f"_{each}")), key=len)  # as sparsity in actor_sparsity
    return did_you_mean(name, ends[-1:] or known, cutoff=0.0 if ends else 0.7)


def known_arguments(taker: type) -> set[str]:
    """
    Name the arguments of a class's constructor, with those of the constructors that it hands on to what it has no name for.

    :param taker: the class
    """
    known: set[str] = set()
    for cls in taker.__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = [*inspect.signature(vars(cls)["__init__"]).parameters.values()][1:]  # without `self`
        known |= {each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return known
