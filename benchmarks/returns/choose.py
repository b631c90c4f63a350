"""Chooses the settings of the Interplay suite by the rules of INTERPLAY.md, from the stored runs of `interplay-tune`."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.returns.cells import SETS
from benchmarks.returns.interplay import ARMS, GAMES, OTHERS, RUNS, SETTINGS, TUNE, Arm, Setting
from benchmarks.returns.results import Result, load_suite
from sb3_rlx2.files import write_text

Tried = dict[Setting, list[Result]]


def choose(folder: Path, settings: Path = SETTINGS) -> str:
    """
    Choose and write the settings of the environments that `interplay-tune` is about.

    :param folder: stored results
    :param settings: the file, which keeps what it has of other environments
    :return: what was done
    :raises ValueError: if a run is missing
    """
    cells = SETS["interplay-tune"]
    stored = {(one.env, one.method, one.seed, one.steps): one for one in load_suite(folder).found}
    wanted = {(cell.env, cell.method, cell.seed, cell.steps): cell for cell in cells}
    missing = [cell.name for key, cell in wanted.items() if key not in stored]
    if missing:
        raise ValueError(f"{len(missing)} of {len(cells)} runs of interplay-tune are missing, such as {missing[0]}")
    envs = list(dict.fromkeys(cell.env for cell in cells))
    found = [stored[key] for key in wanted]
    tried = {env: {arm: _tried(arm, [one for one in found if one.env == env]) for arm in ARMS} for env in envs}
    chosen = {env: {arm.key: asdict(_best(arm, [by_arm[arm]])) for arm in ARMS} for env, by_arm in tried.items()}
    if set(GAMES) <= set(envs):
        chosen[OTHERS] = {arm.key: asdict(_best(arm, [tried[env][arm] for env in GAMES])) for arm in ARMS}
    earlier = json.loads(settings.read_text()) if settings.exists() else {}
    write_text(settings, json.dumps(earlier | chosen, indent=1) + "\n")
    return f"{settings.name}: settings of {', '.join(chosen)}"


def _tried(arm: Arm, results: Iterable[Result]) -> Tried:
    tried: Tried = {}
    for one in results:
        run = RUNS[one.method]
        if run.kind == TUNE and run.arm == arm and run.setting is not None:
            tried.setdefault(run.setting, []).append(one)
    return tried


def _best(arm: Arm, envs: list[Tried]) -> Setting:
    """Change one thing at a time from the centre, and put the best values together."""
    centre, best = Setting(), Setting()
    for name in ("rate", "bias", "l1"):
        others = [each for each in arm.settings() if replace(each, **{name: getattr(centre, name)}) == centre]
        # The centre comes first, and `max` keeps the first of equals.
        winner = max(others, key=_nearness(envs) if name == "l1" else _score(envs))
        best = replace(best, **{name: getattr(winner, name)})
    return best


def _score(envs: list[Tried]) -> Callable[[Setting], float]:
    means = [{setting: np.mean([score(one) for one in found]) for setting, found in tried.items()} for tried in envs]
    return lambda setting: float(np.mean([each[setting] / max(*each.values(), 1e-9) for each in means]))


def _nearness(envs: list[Tried]) -> Callable[[Setting], float]:
    return lambda setting: -float(np.mean([surplus_of_links(one) for tried in envs for one in tried.get(setting, [])] or 0))


def surplus_of_links(one: Result) -> float:
    """
    Say how far the number of large hidden weights is from the number of links of a sparse hidden layer.

    :param one: a run with L1
    :return: the logarithm of their ratio, without its sign
    """
    return abs(math.log(max(one.about["topology"][0]["links_above_0.001"], 1) / one.about["links_of_equal_size"]))


def score(one: Result) -> float:
    """Give a run's score: the mean return of its last hundred training episodes."""
    return float(one.training.returns[-1])
