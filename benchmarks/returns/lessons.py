"""How many links a task takes, by the stored runs: written into the package, which comes without them, for ``rlx2 advise``."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.returns.cells import MILLION
from benchmarks.returns.results import Result, Results
from sb3_rlx2.advise import MEASURED
from sb3_rlx2.files import write_text

METHOD = "rlx2"


def lessons(results: Results) -> list[dict[str, Any]]:
    """
    Give a row for each task, length and sparsity of RLx2 that has dense runs to be measured against, the longest of the task.

    :param results: finished cells
    """
    found = [one for one in results.found if one.method == METHOD and one.steps >= MILLION]
    rows = []
    for _, group in groupby(sorted(found, key=_key), key=_key):
        runs = list(group)
        dense = _dense_of(runs[0], results)
        if dense:
            rows.append(_row(runs, dense))
    return rows


def _key(result: Result) -> tuple[Any, ...]:
    return result.algorithm, result.env, result.steps, tuple(_links(result).items())


def _dense_of(result: Result, results: Results) -> list[Result]:
    """Give the dense runs of a task, of the same length, or if there are none of the longest that is shorter."""
    dense = results.where(method="dense", algorithm=result.algorithm, env=result.env)
    steps = max((one.steps for one in dense if one.steps <= result.steps), default=0)
    return [one for one in dense if one.steps == steps]


def _row(runs: list[Result], dense: list[Result]) -> dict[str, Any]:
    first = runs[0]
    own, other = (float(np.mean([one.score for one in group])) for group in (runs, dense))
    return {
        "algorithm": first.algorithm,
        "env": first.env,
        "steps": first.steps,
        "actor_sparsity": first.about["arguments"]["actor_sparsity"],
        "critic_sparsity": first.about["arguments"]["critic_sparsity"],
        "links_of_a_unit": _links(first),
        "of_dense": round(own / other, 3),
        "seeds": len(runs),
        "dense_seeds": len(dense),
        "dense_steps": dense[0].steps,
    }


def _links(result: Result) -> dict[str, float]:
    """Give the number of links to a hidden unit, of the actor and of one critic."""
    found: dict[str, float] = {}
    for network in ("actor", "critic"):
        layers = [layer for layer in result.about["topology"] if layer["layer"].startswith(f"{network}.0.")]
        units = sum(layer["shape"][0] for layer in layers[:-1])
        found[network] = round(sum(layer["links"] for layer in layers) / units, 1)
    return found


def write(results: Results, path: Path = MEASURED) -> None:
    """Write them into the package."""
    write_text(path, text(results))


def text(results: Results) -> str:
    """Lay them out, a row a line."""
    return "[\n" + ",\n".join(f" {json.dumps(row)}" for row in lessons(results)) + "\n]\n"
