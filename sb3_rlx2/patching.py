"""Attributes that hold another value for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched(owner: Any, **values: Any) -> Iterator[None]:
    """
    Give attributes other values, and their own ones back when the block ends, however it does.

    :param owner: an object, a class or a module that holds them itself, so that they can be put back as they were
    :param values: values by the attribute's name
    """
    before = {name: vars(owner)[name] for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
