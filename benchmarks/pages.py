"""
Writes into pages of ``docs/`` what nobody types: defaults that are not the host's, environments with settings, results, code.

``python -m benchmarks.pages`` writes it anew, between ``<!-- KIND SUBJECT -->`` and ``<!-- /KIND SUBJECT -->``.
"""

import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks import readme
from benchmarks.returns.results import Result, load
from sb3_rlx2.advise import basis, read_lessons
from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.plan import FULL_LENGTH, LEAST, is_share

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HYPERPARAMS = ROOT / "hyperparams"
LINK = re.compile(r"\]\((?![a-z]+:|[#/])([^)#\s]+)")
# Pages with tables whose rows begin with an algorithm, and what stands around these.
RESULTS = {
    "README.md": ("<!-- results -->", "<!-- /results -->"),
    "benchmarks/returns/ALGORITHMS_RESULTS.md": ("## What was asked", "\n## "),
}
QUOTED = {"walker2d": ("benchmarks/returns/RESULTS.md", "What RLx2 lacks on Walker2d-v4")}


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
            footnote = [line for line in lines if line[:1] == "†" and "†" in "".join(rows)]
            return [
                header,
                ruler,
                *rows,
                *(part for line in lines if line.startswith(f"{name} ") for part in ("", line)),
                "",
                *footnote,
            ]
    raise ValueError(f"algo={algo!r} has no row in {', '.join(RESULTS)}")


def host_and_own(algo: str) -> str:
    """
    Lay out the defaults of an algorithm that are not its host's.

    :param algo: name in the zoo
    """
    cls = ALGORITHMS[algo]
    return readme.markdown(["argument", host(cls).__name__, cls.__name__], changed(cls))


def quoted(name: str) -> str:
    """
    Quote a section of a file outside ``docs/``, for a page that lies in ``docs/`` itself.

    :param name: which, of ``QUOTED``
    """
    file, title = ROOT / QUOTED[name][0], QUOTED[name][1]
    section = file.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0].strip()
    led = LINK.sub(lambda match: f"]({os.path.relpath(file.parent / match[1], DOCS)}", section)
    return "\n".join(f"> {line}".rstrip() for line in led.splitlines())


def durations(sparsity: str) -> str:
    """
    Lay out how long stored runs of some tasks took, with their evaluations, beside dense ones of the same length.

    :param sparsity: ``"paper"``, whose sparsities they had
    """
    results, rows = load(), []
    for algorithm, env, steps in dict.fromkeys((one.algorithm, one.env, one.steps) for one in results.where(method="rlx2")):
        group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
        own, dense = (results.where(method=method, **group) for method in ("rlx2", "dense"))
        if own and dense:
            rows.append([f"{algorithm.upper()} {env}", f"{steps:,}", *map(_hours, (own, dense))])
    return readme.markdown(["", "steps", f"RLx2, sparsities of the {sparsity}", "dense SB3"], sorted(rows))


def _hours(found: Sequence[Result]) -> str:
    hours = median(one.about["seconds"] for one in found) / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


KINDS: dict[str, Callable[[str], str]] = {
    "changed-defaults": host_and_own,
    "added-arguments": lambda algo: readme.markdown(["argument", "default"], added(ALGORITHMS[algo])),
    "environments": lambda algo: ", ".join(f"`{name}`" for name in environments(algo)),
    "stored-results": lambda algo: "\n".join(stored(algo)),
    "script": lambda name: f"```python\n{(ROOT / f'examples/{name}.py').read_text()}```",
    "quoted": quoted,
    "durations": durations,
    "advice": lambda _: basis(read_lessons()),
}
MARKER = re.compile(rf"^<!-- (({'|'.join(KINDS)}) (\w+)) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """
    Write what stands between markers anew.

    :param text: a page
    """
    for marker, kind, subject in MARKER.findall(text):
        text = readme.splice(marker, KINDS[kind](subject), text)
    return text


def write() -> None:
    """Do so in all pages."""
    for page in DOCS.rglob("*.md"):
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    write()
