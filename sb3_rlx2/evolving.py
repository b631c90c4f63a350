"""Moves the links of an agent that learns from what is there, without an environment whose steps would say how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sb3_rlx2.plan import steps_of


@contextmanager
def evolving(model: Any, gradient_steps: int) -> Iterator[Callable[[int], None]]:
    """
    Have the topology of an ``RLx2`` agent evolve by the agent's own arguments over a number of gradient steps, in a schedule
    of its own; a ``learn`` before or behind it has another. Of other agents nothing moves.

    :param model: the agent
    :param gradient_steps: how many there will be
    :return: a context that gives a function, to be called after each gradient step with the number of those done, and while no
        loss is held
    """
    updater = getattr(model.policy, "topology_updater", None)
    if updater is None or not hasattr(model, "_make_callback"):
        yield lambda done: None
        return
    own = model._make_callback()
    interval = steps_of("update_interval", own.update_interval, gradient_steps)
    updater.restart(updater.begin)
    updater.configure(own.topology, own.drop_fraction, interval, own.drop_dead_links, own.prune_begin, own.prune_end)

    def advance(done: int) -> None:
        updater.prune()
        updater.advance(done / gradient_steps)

    try:
        yield advance
        updater.prune()
    finally:
        updater.rest()
        updater.restart(updater.begin)
