"""
Plots for `rlx2 report`, as HTML that fits any width: places are shares of the plot, while text, dots and strokes keep their
size. Colours are variables of the page's style sheet, which has them for light and dark. There is no script: what a point
says under the pointer is shown by style alone.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

POINTS = 800  # of a curve; a longer one is drawn by the extremes of its parts
TIPS = 60  # points of a curve that say what they are


@dataclass(frozen=True)
class Axis:
    """
    An axis with round ticks.

    :param low: value at its beginning
    :param high: value at its end
    :param name: what it shows
    :param write: writes a value
    :param whole: whether values are whole numbers
    """

    low: float
    high: float
    name: str = ""
    write: Callable[[float], str] = "{:,.4g}".format
    whole: bool = False

    @classmethod
    def around(cls, values: Iterable[float], name: str, write: Callable[[float], str], zero: bool = False) -> "Axis":
        """
        Make an axis on which all values have room.

        :param values: the values, at least one
        :param name: what it shows
        :param write: writes a value
        :param zero: whether it begins at 0
        """
        low, high = min(values := list(values)), max(values)
        low = min(low, 0.0) if zero else low
        room = 0.06 * (high - low) or abs(high) or 1.0
        return cls(low if zero else low - room, high + room, name, write)

    def place(self, value: float) -> float:
        """
        Give where a value is, 0 at the beginning and 1 at the end.

        :param value: the value
        """
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """Round values on the axis, five at most."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
        step = max(step, 1.0) if self.whole else step
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


class Plot:
    """
    One plot; marks are drawn in the order in which they are added.

    :param x: the axis along
    :param y: the axis up
    :param title: what stands above
    :param height: of the plot without its text, in pixels
    """

    def __init__(self, x: Axis, y: Axis, title: str = "", height: int = 220) -> None:
        self.x, self.y, self.title, self.height = x, y, title, height
        self._stretched: list[str] = []  # in a box of 1000 by 1000
        self._rows: Sequence[str] = ()
        self._marks: list[str] = []
        self._tips: list[str] = []

    def curve(
        self,
        xs: Sequence[float] | np.ndarray,
        ys: Sequence[float] | np.ndarray,
        colour: str,
        kind: str = "",
        say: Callable[[float, float], str] | None = None,
        opacity: float = 1.0,
        stairs: bool = False,
    ) -> None:
        """
        Draw a curve.

        :param xs: where its points are
        :param ys: their values
        :param colour: of the style sheet
        :param kind: class of the style sheet, such as ``"thin"``
        :param say: gives what a point says under the pointer
        :param opacity: of the stroke
        :param stairs: whether a value holds until the next
        """
        points = [self._point(*pair) for pair in zip(*_thin(np.asarray(xs, float), np.asarray(ys, float)), strict=True)]
        path = "".join(f"H{x}V{y}" for x, y in points) if stairs else "L".join(f"{x} {y}" for x, y in points)
        start = f"{points[0][0]} {points[0][1]}" if stairs else ""
        style = f"stroke:{colour};opacity:{opacity:.2f}"
        self._stretched.append(f'<path class="curve {kind}" style="{style}" d="M{start}{path}"/>')
        if say is not None:
            chosen = sorted({round(i) for i in np.linspace(0, len(xs) - 1, min(TIPS, len(xs)))})
            for i in chosen:
                self.tip(float(xs[i]), float(ys[i]), say(float(xs[i]), float(ys[i])), colour)

    def band(
        self,
        xs: Sequence[float] | np.ndarray,
        low: np.ndarray | Sequence[float],
        high: np.ndarray | Sequence[float],
        colour: str,
    ) -> None:
        """
        Fill between two curves.

        :param xs: where their points are
        :param low: the lower one's values
        :param high: the upper one's
        :param colour: of the style sheet
        """
        there = [self._point(*pair) for pair in zip(xs, high, strict=True)]
        back = [self._point(*pair) for pair in zip(xs, low, strict=True)][::-1]
        path = "L".join(f"{x} {y}" for x, y in [*there, *back])
        self._stretched.append(f'<path class="band" style="fill:{colour}" d="M{path}Z"/>')

    def rows(self, names: Sequence[str]) -> None:
        """
        Have names of rows, 0 and on of the axis up, in the place of its ticks; they stand above what the row shows.

        :param names: of the rows
        """
        self._rows = names

    def level(self, value: float, text: str = "") -> None:
        """
        Draw a dashed line across.

        :param value: where
        :param text: what it is
        """
        y = self._up(value)
        self._marks.append(f'<line class="level" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        if text:
            self._marks.append(f'<text class="note" x="4" y="{y}" dy="-4">{escape(text)}</text>')

    def zone(self, low: float, high: float) -> None:
        """
        Shade what lies between two values.

        :param low: the lower one
        :param high: the upper one
        """
        height = 100 * (self.y.place(high) - self.y.place(low))
        self._marks.append(f'<rect class="zone" x="0" width="100%" y="{self._up(high)}" height="{height:.2f}%"/>')

    def bars(self, heights: Sequence[float], colours: Sequence[str], says: Sequence[str]) -> None:
        """
        Draw bars from 0 up, at 0, 1, and so on of the axis along.

        :param heights: their values
        :param colours: of the style sheet
        :param says: what each says under the pointer
        """
        for number, (value, colour, text) in enumerate(zip(heights, colours, says, strict=True)):
            left, right = (100 * self.x.place(number + side) for side in (-0.4, 0.4))
            top = 100 * (1 - self.y.place(value))
            whole = 100 * (1 - self.y.place(0.0))
            place = f'x="{left:.2f}%" width="{right - left:.2f}%"'
            self._marks.append(f'<rect {place} y="{top:.2f}%" height="{whole - top:.2f}%" style="fill:{colour}"/>')
            target = f'<rect class="target" {place} y="0" height="{whole:.2f}%"/>'
            self._tips.append(f'<g class="tip">{target}{self._say(number, value, text)}</g>')

    def dot(self, x: float, y: float, colour: str, say: str) -> None:
        """
        Draw a dot.

        :param x: where along
        :param y: where up
        :param colour: of the style sheet
        :param say: what it says under the pointer
        """
        self._marks.append(f'<circle class="dot" {self._at(x, y)} r="5" style="fill:{colour}"/>')
        self.tip(x, y, say, colour)

    def mark(self, x: float, y: float) -> None:
        """
        Draw a stroke up and down through a point.

        :param x: where along
        :param y: where up
        """
        place = f"{100 * self.x.place(x):.2f}%"
        low, high = (f"{100 * (1 - self.y.place(y + side)):.2f}%" for side in (-0.2, 0.2))
        self._marks.append(f'<line class="mean" x1="{place}" x2="{place}" y1="{low}" y2="{high}"/>')

    def tip(self, x: float, y: float, text: str, colour: str) -> None:
        """
        Have a point say something under the pointer.

        :param x: where along
        :param y: where up
        :param text: what
        :param colour: of the style sheet
        """
        dot = f'<circle class="here" {self._at(x, y)} r="4" style="fill:{colour}"/>'
        target = f'<circle class="target" {self._at(x, y)} r="8"/>'
        self._tips.append(f'<g class="tip">{target}{dot}{self._say(x, y, text)}</g>')

    def _say(self, x: float, y: float, text: str) -> str:
        """Write towards the middle, and below what is near the top."""
        anchor = "start" if self.x.place(x) < 0.5 else "end"
        below = 20 if self.y.place(y) > 0.85 else -10
        return f'<text {self._at(x, y, "")} dy="{below}" text-anchor="{anchor}">{escape(text)}</text>'

    def _point(self, x: float, y: float) -> tuple[str, str]:
        return f"{1000 * self.x.place(x):.4g}", f"{1000 * (1 - self.y.place(y)):.4g}"

    def _at(self, x: float, y: float, of: str = "c") -> str:
        return f'{of}x="{100 * self.x.place(x):.2f}%" {of}y="{self._up(y)}"'

    def _up(self, y: float) -> str:
        return f"{100 * (1 - self.y.place(y)):.2f}%"

    def _axes(self) -> str:
        parts = []
        for number, name in enumerate(self._rows):
            parts.append(f'<text class="row" x="0" y="{self._up(number - 0.25)}">{escape(name)}</text>')
        for value in () if self._rows else self.y.ticks:
            y = self._up(value)
            parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
            parts.append(f'<text class="up" x="0" dx="-8" y="{y}" dy="4">{escape(self.y.write(value))}</text>')
        for value in self.x.ticks:
            x = f"{100 * self.x.place(value):.2f}%"
            parts.append(f'<text class="along" x="{x}" y="100%" dy="17">{escape(self.x.write(value))}</text>')
        return "".join([*parts, '<line class="base" x1="0" x2="100%" y1="100%" y2="100%"/>'])

    def __html__(self) -> str:
        curves = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{"".join(self._stretched)}</svg>'
        inner = f"{self._axes()}{curves}{''.join(self._marks)}{''.join(self._tips)}"
        title = f"<h3>{escape(self.title)}</h3>" if self.title else ""
        up = f'<p class="axis">{escape(self.y.name)}</p>' if self.y.name else ""
        along = f'<p class="axis along">{escape(self.x.name)}</p>' if self.x.name else ""
        kind = "plot named" if self._rows else "plot"
        return f'<div class="{kind}">{title}{up}<svg class="area" height="{self.height}">{inner}</svg>{along}</div>'


def _thin(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave of a long curve the least and the largest value of each of its parts, and its ends."""
    if len(xs) <= POINTS:
        return xs, ys
    parts = np.array_split(np.arange(len(xs)), POINTS // 2)
    kept = {int(part[choice(ys[part])]) for part in parts for choice in (np.argmin, np.argmax)} | {0, len(xs) - 1}
    chosen = sorted(kept)
    return xs[chosen], ys[chosen]


def share_bars(rows: Sequence[tuple[str, Sequence[tuple[str, float, str]]]]) -> str:
    """
    Draw shares of a whole as bars, each with a text above.

    :param rows: name of each group of bars, and for each bar its colour, its share in ``[0, 1]`` and the text
    """
    parts = []
    for name, bars in rows:
        shown = "".join(
            f"<p><b>{escape(percent(share))}</b> <span>{escape(text)}</span></p>"
            f'<div class="track"><i style="width:{100 * share:.3f}%;background:{colour}"></i></div>'
            for colour, share, text in bars
        )
        parts.append(f'<div class="shares"><h4>{escape(name)}</h4><div>{shown}</div></div>')
    return "".join(parts)


def key(entries: Sequence[tuple[str, str, float, str]]) -> str:
    """
    Say what strokes mean.

    :param entries: for each its colour, class of the style sheet, opacity, and the meaning
    """
    items = "".join(
        f'<li><svg width="22" height="8"><path class="curve {kind}" style="stroke:{colour};opacity:{opacity:.2f}"'
        f' d="M1 4H21"/></svg>{escape(text)}</li>'
        for colour, kind, opacity, text in entries
    )
    return f'<ul class="key">{items}</ul>'


def facets(plots: Sequence[str], columns: int) -> str:
    """
    Put plots beside each other where there is room, else below.

    :param plots: their HTML
    :param columns: number beside each other at most
    """
    return f'<div class="facets" style="--columns:{columns}">{"".join(plots)}</div>'


def short(number: float) -> str:
    """
    Write a count in few characters.

    :param number: such as 1500000
    :return: such as 1.5M
    """
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"


def percent(share: float) -> str:
    """
    Write a share in three digits.

    :param share: in ``[0, 1]``
    """
    return f"{100 * share:.3g}%"
