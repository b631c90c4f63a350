"""What the screening decides, by the rules of PROTOCOL.md (A1 to A3), and nothing before all of its runs are there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks.readme import markdown
from benchmarks.returns.cells import COMBINATIONS, FACTORS, LIVE, METHODS, SETS
from benchmarks.returns.results import Result, Results

UNIT = 4_302  # the score of seed 0 of dense on Walker2d-v4, which one point is a hundredth of
RESPONSE_SHARE = 0.2  # of the steps, the last ones: a run's response is its mean return there
FALLBACK = "SP"  # the setting if nothing is accepted
MAIN = {factor: (5.0, 1.0) if factor in "SP" else (8.0, 2.0) for factor in FACTORS}  # least effect in points, and its least t
PAIR_T = 3.0
STRICT = 97.0  # points at which a setting without G is taken whatever one with it is predicted to bring
GAIN, LOSS, LOSSES = 3.0, 3.0, 3  # of a deployed policy: points gained on average at least, lost in at most so many runs

Responses = Mapping[str, tuple[float, float]]  # of both seeds in points, by combination


@dataclass(frozen=True)
class Effect:
    """
    What a factor at + brings, or two whose signs are the same.

    :param term: its letters
    :param value: points
    :param t: in standard errors
    :param accepted: by rule A1
    """

    term: str
    value: float
    t: float
    accepted: bool


def runs(results: Results) -> dict[str, list[Result]]:
    """Give the finished runs of the screening, by combination and then by seed."""
    cells = {(cell.method, cell.env, cell.seed, cell.steps, cell.sparsity) for cell in SETS["screening"]}
    own = Results([one for one in results.found if (one.method, one.env, one.seed, one.steps, one.sparsity) in cells])
    return {letters: own.where(method=f"screening-{letters or 'none'}") for letters in COMBINATIONS}


def responses(results: Results) -> Responses | None:
    """Give both seeds' responses, None as long as a run is missing."""
    found = runs(results)
    if sum(map(len, found.values())) < len(SETS["screening"]):
        return None
    points = {letters: [_points(one.curve.score(share=RESPONSE_SHARE)) for one in pair] for letters, pair in found.items()}
    return {letters: (first, second) for letters, (first, second) in points.items()}


def _points(value: float) -> float:
    return 100 * value / UNIT


def _sign(term: str, letters: str) -> int:
    return math.prod(1 if factor in letters else -1 for factor in term)


def effects(found: Responses) -> list[Effect]:
    """
    Estimate main effects and pairs, with the variance within the pairs of seeds.

    :param found: responses of all combinations
    """
    variance = sum((first - second) ** 2 / 2 for first, second in found.values()) / len(found)
    error = math.sqrt(variance * 2 / len(found))  # of a difference of two means of as many runs as there are combinations
    estimated = []
    for term in [*FACTORS, *map("".join, combinations(FACTORS, 2))]:
        value = sum(_sign(term, letters) * (first + second) for letters, (first, second) in found.items()) / len(found)
        t = value / error
        accepted = value >= MAIN[term][0] and t >= MAIN[term][1] if term in MAIN else abs(t) >= PAIR_T
        estimated.append(Effect(term, value, t, accepted))
    return estimated


def predictions(found: Responses) -> dict[str, float]:
    """
    Predict all settings, run or not, from the accepted terms.

    :param found: responses of all combinations
    """
    mean = float(np.mean(list(found.values())))
    terms = [effect for effect in effects(found) if effect.accepted]
    settings = ["".join(chosen) for count in range(len(FACTORS) + 1) for chosen in combinations(FACTORS, count)]
    return {s: mean + sum(_sign(effect.term, s) * effect.value / 2 for effect in terms) for s in settings}


def setting(found: Responses) -> str:
    """
    Choose the setting by rule A2.

    :param found: responses of all combinations
    """
    factors = {effect.term for effect in effects(found) if effect.accepted and effect.term in MAIN}
    if not factors:
        return FALLBACK
    # A pair has its part in a prediction, but accepts no factor: what is not accepted stays at -.
    predicted = {letters: points for letters, points in predictions(found).items() if set(letters) <= factors}
    best, without = (
        max(among, key=lambda s: (round(predicted[s], 9), -len(s)))  # what makes no difference stays at -
        for among in (predicted, [s for s in predicted if "G" not in s])
    )
    return without if "G" in best and predicted[without] >= STRICT else best


def deployed(results: Results) -> str | None:
    """Choose the policy to deploy by rule A3: its name, None if none is better or a run is missing."""
    if responses(results) is None:
        return None
    gains = deployed_gains(results)
    if not gains:
        return None
    best = max(gains, key=lambda name: np.mean(gains[name]))
    better = np.mean(gains[best]) >= GAIN and sum(gain < -LOSS for gain in gains[best]) <= LOSSES
    return best if better else None


def deployed_gains(results: Results) -> dict[str, list[float]]:
    """Give how many points each policy beside the current one brings in each run, those that were scored in all runs."""
    gains: dict[str, list[float]] = {}
    for one in [one for pair in runs(results).values() for one in pair]:
        for name, curve in one.deployed.items():
            current = one.curve.returns[np.isin(one.curve.steps, curve.steps)]
            gains.setdefault(name, []).append(_points(float((curve.returns - current).mean())))
    return {name: each for name, each in gains.items() if len(each) == len(SETS["screening"])}


def section(results: Results) -> list[str]:
    """Lay out what there is of the screening and what it decides; nothing before its first run."""
    found, finished = runs(results), responses(results)
    count = sum(map(len, found.values()))
    if not count:
        return []
    rows = [
        [letters or "none", *(f"{_points(one.curve.score(share=RESPONSE_SHARE)):.1f} (seed {one.seed})" for one in pair)]
        for letters, pair in found.items()
        if pair
    ]
    parts = [markdown(["at +", "", ""], [row + [""] * (3 - len(row)) for row in rows])]
    if finished is None:
        return [f"{count} of {len(SETS['screening'])} runs are there: nothing is decided. Their responses, in points:", *parts]
    return [
        f"All {count} runs. Responses, in points:",
        *parts,
        _effects_table(finished),
        _decision(finished),
        "Policies beside the current one, in points above it at the same evaluations:",
        _gains_table(results),
        f"The policy to deploy (A3): {deployed(results) or 'none but the current one'}.",
    ]


def _effects_table(found: Responses) -> str:
    rows = [
        [
            effect.term,
            f"{effect.value:+.1f}",
            f"{effect.t:+.1f}",
            "yes" if effect.accepted else "harmful" if _harms(effect) else "",
        ]
        for effect in effects(found)
    ]
    return markdown(["effect of", "points", "t", "accepted (A1)"], rows)


def _harms(effect: Effect) -> bool:
    return effect.term in MAIN and effect.t <= -MAIN["G"][1]


def _decision(found: Responses) -> str:
    chosen = setting(found)
    in_code = "" if chosen == LIVE else f", where the code still has {LIVE}"
    predicted = predictions(found)[chosen]
    return (
        f"The setting (A2): {chosen or 'none'}, predicted at {predicted:.0f} points; it is {METHODS['live'].label}{in_code}."
    )


def _gains_table(results: Results) -> str:
    rows = [
        [name, f"{np.mean(gains):+.1f}", str(sum(gain < -LOSS for gain in gains)), str(len(gains))]
        for name, gains in deployed_gains(results).items()
    ]
    return markdown(["policy", "mean", f"runs with more than {LOSS:.0f} less", "runs"], rows)
