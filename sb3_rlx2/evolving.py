"""What agents need that learn from what is there, without an environment: gradient steps, and links that move by them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch as th

from sb3_rlx2.plan import steps_of
from sb3_rlx2.topology import TOPOLOGIES, warm_up_links


@contextmanager
def evolving(model: Any, gradient_steps: int) -> Iterator[Callable[[int], AbstractContextManager[None]]]:
    """
    Have the topology of an ``RLx2`` agent evolve by the agent's own arguments over a number of gradient steps, in a schedule
    of its own; a ``learn`` before or behind it has another. Of other agents nothing moves.

    :param model: the agent
    :param gradient_steps: how many there will be
    :return: a context that gives a function, to be called with the number of gradient steps done, for a context of the next
        one; while no loss is held where that begins and ends
    :raises ValueError: if the topology is still to choose links by the data of a warm-up
    """
    updater = getattr(model.policy, "topology_updater", None)
    if updater is None or not hasattr(model, "_make_callback"):
        yield lambda done: nullcontext()
        return
    own = model._make_callback()
    if warm_up_links(TOPOLOGIES[own.topology]) is not None and not updater.has_warm_up_links:
        others = ", ".join(repr(name) for name, method in TOPOLOGIES.items() if warm_up_links(method) is None)
        raise ValueError(
            f"topology={own.topology!r} chooses links by the data of a warm-up, of which there is none: take {others}"
        )
    interval = steps_of("update_interval", own.update_interval, gradient_steps)
    updater.restart(updater.begin)
    updater.configure(own.topology, own.drop_fraction, interval, own.drop_dead_links, own.prune_begin, own.prune_end)

    @contextmanager
    def step(done: int) -> Iterator[None]:
        updater.advance(done / gradient_steps)
        yield
        updater.prune()

    try:
        yield step
    finally:
        updater.rest()
        updater.restart(updater.begin)
        updater.latest_updates = []  # of steps that the next log does not know


def take_step(optimizer: th.optim.Optimizer, loss: th.Tensor) -> float:
    """
    Move what an optimizer trains.

    :param optimizer: the optimizer
    :param loss: what to lessen
    :return: the loss
    """
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()
