"""The findings as rows, which the table, the file and the plot share."""

import math
from dataclasses import dataclass, fields
from typing import Any

from sb3_rlx2.compress.search import Findings, Point
from sb3_rlx2.compress.statistics import Scale, pareto_front
from sb3_rlx2.compress.training import Sparsities


@dataclass(frozen=True)
class Row:
    """One agent in the table."""

    kind: str
    sparsities: Sparsities
    size: float
    compression: float
    seeds: int
    mean_return: float
    score: float
    low: float
    high: float
    within: bool
    pareto: bool

    def columns(self) -> dict[str, Any]:
        """Give the table's columns, in their order."""
        _, _, *others = (field.name for field in fields(self))
        return {"kind": self.kind, **dict(self.sparsities.arguments), **{name: getattr(self, name) for name in others}}


def rows(findings: Findings, tolerance: float) -> list[Row]:
    """
    Lay the findings out.

    :param findings: of the search
    :param tolerance: share of the dense agent's score that may be lost
    :return: dense first, then by size
    """
    points, scale = findings.points, findings.scale
    judged = {point.sparsities for point in points if point.kind == "finalist"}  # whose one seed of the search counts no more
    full = [one for one in points if not one.stopped and not (one.kind == "search" and one.sparsities in judged)]
    marks = pareto_front([point.size for point in full], [scale.score(point.mean_return) for point in full])
    front = {id(point) for point, mark in zip(full, marks, strict=True) if mark}
    none = Sparsities(tuple((keyword, 0.0) for keyword, _ in next(filter(None, (one.sparsities for one in points))).arguments))
    table = []
    for point in sorted(points, key=lambda point: (point.kind != "dense", point.size)):
        score = scale.score(point.mean_return)
        kind = "stopped" if point.stopped else "chosen" if point is findings.chosen else point.kind
        table.append(
            Row(
                kind,
                point.sparsities or none,
                point.share,
                1 / point.share,
                len(point.returns),
                point.mean_return,
                score,
                *interval(scale, point),
                score >= 1 - tolerance and not point.stopped,
                id(point) in front,
            )
        )
    return table


def interval(scale: Scale, point: Point) -> tuple[float, float]:
    """
    Give the confidence interval of an agent's score, NaN where it has none: from one seed, or dense against itself.

    :param scale: of the scores
    :param point: the agent
    """
    if point.kind == "dense" or len(point.returns) < 2:
        return math.nan, math.nan
    return scale.interval(point.returns)
