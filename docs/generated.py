"""Directives for what no page states by hand: defaults that are not the host's, environments with settings, stored results."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from gymnasium import spaces
from sb3_contrib import QRDQN
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.plan import FULL_LENGTH, LEAST, is_share

ROOT = Path(__file__).parents[1]
HYPERPARAMS = ROOT / "hyperparams"
# Pages with tables whose rows begin with an algorithm, and what stands around these.
RESULTS = {
    "README.md": ("<!-- results -->", "<!-- /results -->"),
    "benchmarks/returns/ALGORITHMS_RESULTS.md": ("## What was asked", "\n## "),
}


def host(cls: type) -> type:
    """
    Give the class of SB3 or sb3-contrib that one of ours extends.

    :param cls: our class
    """
    return next(each for each in cls.__mro__ if not each.__module__.startswith("sb3_rlx2"))


def arguments(cls: type) -> dict[str, Any]:
    """
    Give the defaults of a class's arguments, those that must be given left out.

    :param cls: the class
    """
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return {each.name: each.default for each in parameters if each.default is not each.empty and each.name[0] != "_"}


def shown(name: str, value: Any) -> str:
    """
    Write a default as a cell of a table.

    :param name: the argument
    :param value: its default
    """
    if name in LEAST and is_share(value):
        steps = "gradient steps" if name == "update_interval" else "steps"
        return f"1/{round(1 / value)} of the {steps}, {LEAST[name]:,} to {round(value * FULL_LENGTH):,}"
    return f"`{value!r}`"


def changed(cls: type[RLx2Algorithm]) -> list[list[str]]:
    """
    Give a row for each argument of the host that has another default: its name, the host's default, ours.

    :param cls: an algorithm of ours
    """
    own, before = arguments(cls), arguments(host(cls))
    names = [name for name in before if own.get(name, before[name]) != before[name]]
    rows = [[f"`{name}`", shown(name, before[name]), shown(name, own[name])] for name in names]
    widths = [f"`{width(each)}`" for each in (host(cls), cls)]
    return rows + ([["`net_arch` (in `policy_kwargs`)", *widths]] if widths[0] != widths[1] else [])


def width(cls: type[BaseAlgorithm]) -> Any:
    """
    Give the hidden layers of an algorithm's ``MlpPolicy``.

    :param cls: the algorithm
    """
    actions = spaces.Discrete(2) if issubclass(cls, (DQN, QRDQN)) else spaces.Box(-1.0, 1.0, (1,))
    policy: Any = cls.policy_aliases["MlpPolicy"]
    sparsities = {name: value for name, value in arguments(cls).items() if name.endswith("sparsity")}
    return policy(spaces.Box(-1.0, 1.0, (3,)), actions, lambda _: 1e-3, **sparsities).net_arch


def added(cls: type[RLx2Algorithm]) -> list[list[str]]:
    """
    Give a row for each argument that the host does not have: its name, its default.

    :param cls: an algorithm of ours
    """
    before = arguments(host(cls))
    return [[f"`{name}`", shown(name, value)] for name, value in arguments(cls).items() if name not in before]


def environments(algo: str) -> list[str]:
    """
    Give the environments for which ``hyperparams/`` has settings.

    :param algo: name in the zoo
    """
    return [name for name in yaml.safe_load((HYPERPARAMS / f"{algo}.yml").read_text()) if name not in ("default", "atari")]


def stored(algo: str) -> list[str]:
    """
    Give what is stored of an algorithm: the rows about it of the first table that has some, and the footnote that they need.

    :param algo: name in the zoo
    :raises ValueError: if there are none
    """
    name = algo.removeprefix("rlx2").upper()
    for page, (begin, end) in RESULTS.items():
        lines = (ROOT / page).read_text().partition(begin)[2].partition(end)[0].splitlines()
        header, ruler, *others = (line for line in lines if line.startswith("|"))
        rows = [row for row in others if row.startswith(f"| {name} ")]
        if rows:
            return [header, ruler, *rows, "", *(line for line in lines if line[:1] == "†" and "†" in "".join(rows))]
    raise ValueError(f"algo={algo!r} has no row in {', '.join(RESULTS)}")


def table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """
    Write a table in Markdown.

    :param header: its first row
    :param rows: the others
    """
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


class Markdown(SphinxDirective):
    """Puts Markdown that a function makes where it stands."""

    def lines(self) -> list[str]:
        """Make it."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse it."""
        return self.parse_text_to_nodes("\n".join(self.lines()))


class Changed(Markdown):
    """Defaults of one algorithm that are not its host's."""

    required_arguments = 1

    def lines(self) -> list[str]:
        """Make the table."""
        cls = ALGORITHMS[self.arguments[0]]
        return table(["argument", host(cls).__name__, cls.__name__], changed(cls))


class Added(Changed):
    """Arguments of one algorithm that its host does not have."""

    def lines(self) -> list[str]:
        """Make the table."""
        return table(["argument", "default"], added(ALGORITHMS[self.arguments[0]]))


class Environments(Changed):
    """Environments with settings."""

    def lines(self) -> list[str]:
        """Make the list."""
        return [", ".join(f"`{name}`" for name in environments(self.arguments[0]))]


class Stored(Changed):
    """Results of one algorithm."""

    def lines(self) -> list[str]:
        """Make the table."""
        return stored(self.arguments[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """
    Tell Sphinx of the directives.

    :param app: Sphinx
    """
    app.add_directive("changed-defaults", Changed)
    app.add_directive("added-arguments", Added)
    app.add_directive("environments", Environments)
    app.add_directive("stored-results", Stored)
    return {"parallel_read_safe": True}
