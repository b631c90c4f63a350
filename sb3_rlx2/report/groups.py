"""Runs that differ in nothing but their seed, taken together by `rlx2 report`. A colour is a group, on every picture."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import stdtrit

from sb3_rlx2.report.agent_file import Agent
from sb3_rlx2.report.run_folder import Evaluations, Run

COLOURS = 8  # in the style sheet
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Group:
    """
    Runs that differ in nothing but their seed; most often one alone.

    :param label: its name on the page
    :param number: its number there
    :param runs: the runs
    """

    label: str
    number: int
    runs: Sequence[Run]

    @property
    def colour(self) -> str:
        """Its colour, a variable of the style sheet."""
        return f"var(--c{self.number % COLOURS})"

    @cached_property
    def first(self) -> Run:
        """The run that stands for all where one has to: the first whose networks are known."""
        return next((run for run in self.runs if run.agent is not None and run.agent.networks), self.runs[0])

    @property
    def agent(self) -> Agent | None:
        """The agent of the first run, None if its networks are not known."""
        agent = self.first.agent
        return agent if agent is not None and agent.networks else None

    @property
    def agents(self) -> list[Agent]:
        """All agents whose networks are known."""
        return [run.agent for run in self.runs if run.agent is not None and run.agent.networks]

    @property
    def environment(self) -> str:
        """Name of the environment."""
        return self.first.environment

    @cached_property
    def evaluations(self) -> Evaluations | None:
        """
        Evaluations: of one run with its episodes; of several at the steps that all have, and in the place of episodes the
        mean of each seed.
        """
        known = [run.evaluations for run in self.runs if run.evaluations is not None]
        if not known or len(self.runs) == 1:
            return known[0] if known else None
        steps = sorted(set.intersection(*(set(each.steps.tolist()) for each in known)))
        means = [dict(zip(each.steps.tolist(), each.means.tolist(), strict=True)) for each in known]
        return Evaluations(np.array(steps), np.array([[mean[step] for mean in means] for step in steps])) if steps else None

    @property
    def over(self) -> str:
        """What an evaluation is the mean over, such as ``"5 episodes"``."""
        count = 0 if self.evaluations is None else self.evaluations.returns.shape[1]
        return f"{count} {'seed' if len(self.runs) > 1 else 'episode'}{'s' if count != 1 else ''}"

    def spread(self, returns: np.ndarray) -> np.ndarray:
        """
        Give how far around a mean to look: one standard deviation of the episodes of a run; for several seeds half of the
        95 % confidence interval of the mean over them, by Student's t.

        :param returns: returns of episodes or means of seeds, ``[..., n]``
        :return: likewise, ``[...]``
        """
        n = returns.shape[-1]
        if len(self.runs) == 1 or n < 2:
            return np.asarray(returns.std(axis=-1))
        return np.asarray(stdtrit(n - 1, 0.5 + CONFIDENCE / 2) * returns.std(axis=-1, ddof=1) / n**0.5)


def group(runs: Sequence[Run]) -> list[Group]:
    """
    Put runs together that differ in nothing but their seed. A run that goes on from another's agent stays alone, as do two
    of the same seed.

    :param runs: all runs of the page
    """
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        name = _configuration(run)
        while any(run.seed is not None and run.seed == other.seed for other in groups.get(name, ())):
            name = (name,)  # another group of the same configuration
        groups.setdefault(name, []).append(run)
    return [Group(_label(members, runs), number, members) for number, members in enumerate(groups.values())]


def _configuration(run: Run) -> Any:
    """Give what runs of one group have in common, as far as the folder tells."""
    agent = run.agent
    if run.continues or (agent is None and not run.settings):
        return run.folder
    known: dict[str, Any] = dict(run.settings) if run.settings or agent is None else agent.settings
    shapes = None if run.settings or agent is None else [network.layers for network in agent.networks]
    settings = {name: str(value) for name, value in (known | run.environment_arguments).items() if name != "seed"}
    return run.algorithm, run.environment, run.total_steps, str(sorted(settings.items())), str(shapes)


def _label(members: Sequence[Run], runs: Sequence[Run]) -> str:
    """Name a group by its first folder, below the one that holds all runs of the page."""
    holder = os.path.commonpath([other.folder.resolve().parent for other in runs])
    name = members[0].folder.resolve().relative_to(holder).as_posix()
    return name if len(members) == 1 else f"{name} and {len(members) - 1} more seed{'s' if len(members) > 2 else ''}"


def by_environment(groups: Sequence[Group]) -> Iterator[tuple[str, list[Group]]]:
    """
    Give the groups whose returns can stand on one axis.

    :param groups: the groups
    """
    for name in dict.fromkeys(group.environment for group in groups):
        yield name, [group for group in groups if group.environment == name]
