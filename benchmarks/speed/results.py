"""Reads stored sections: medians, ratios and their spread."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.speed.mkl import AS_ON_INTEL

Row = dict[str, Any]


class Section:
    """
    A stored section.

    :param path: its JSON
    """

    def __init__(self, path: Path) -> None:
        self.about: dict[str, Any] = json.loads(path.read_text())
        self.rows: list[Row] = self.about["rows"]

    def where(self, **values: Any) -> list[Row]:
        return [row for row in self.rows if all(row.get(name) == value for name, value in values.items())]

    def one(self, **values: Any) -> Row:
        (row,) = self.where(**values)
        return row

    @property
    def cpu(self) -> str:
        """What it was measured on."""
        return str(self.about["machine"]["cpu"])

    @property
    def maker(self) -> str:
        """Who made that."""
        return machine.maker(self.cpu)

    @property
    def conditions(self) -> str:
        """One line that says where and when it was measured."""
        about, cpu = self.about, self.about["machine"]
        packages = {
            name: v for name, v in about["versions"].items() if name in ("python", "torch", "numba", "stable_baselines3")
        }
        packages |= {name: v for name, v in about["sbx_versions"].items() if name in ("sbx-rl", "jax")}
        shown = ", ".join(f"{name} {version}" for name, version in packages.items())
        work = "" if about["scale"] == 1 else f", **only {about['scale']:g} of the usual work**"
        return (
            f"{cpu['cores']} cores of {cpu['cpu']}; medians of {about['repeats']} alternating repeats{work}, ratios with the "
            f"spread over repeats in brackets; {about['date']}; {shown}."
        )


Sections = dict[str, Section]


def load(folder: Path) -> dict[str, Sections]:
    """Read what is stored: sections by the maker of the CPU that they were measured on."""
    makers: dict[str, Sections] = {}
    for path in sorted(folder.glob("*/*.json")):
        makers.setdefault(path.parent.name, {})[path.stem] = Section(path)
    return makers


def latest(makers: dict[str, Sections]) -> Sections:
    """Give of each section the latest one, whatever it was measured on."""
    found: Sections = {}
    for sections in makers.values():
        for name, section in sections.items():
            if name not in found or section.about["date"] > found[name].about["date"]:
                found[name] = section
    return found


def median(row: Row, name: str) -> float:
    return statistics.median(row["seconds"][name])


def ratio(row: Row, slow: str, fast: str) -> float:
    """How many times faster: the ratio of medians."""
    return median(row, slow) / median(row, fast)


def faster_way(row: Row, name: str) -> str:
    """Name the faster one of what was measured with MKL as it comes and with MKL as on Intel."""
    return min((each for each in (name, name + AS_ON_INTEL) if each in row["seconds"]), key=lambda each: median(row, each))


def shown_ratio(row: Row, slow: str, fast: str) -> str:
    each = [a / b for a, b in zip(row["seconds"][slow], row["seconds"][fast], strict=True)]
    return f"{ratio(row, slow, fast):.2f}x ({min(each):.2f}-{max(each):.2f})"


def shown_time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def geometric_mean(values: list[float]) -> float:
    return statistics.geometric_mean(values)


def gflops(flops: float, seconds: float) -> float:
    return flops / seconds / 1e9


def line_fit(x: list[float], y: list[float]) -> tuple[float, float]:
    """Fit a line; give the constant and the largest distance from the line, as a share of the line."""
    slope, constant = np.polyfit(x, y, 1)
    line = constant + slope * np.array(x)
    return float(constant), float(np.abs(np.array(y) / line - 1).max())
