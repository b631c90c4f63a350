"""One JSON for each class of faults: how many there were, what came of them, and which cases went wrong."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.torture.faults import FAULTS, run_case
from sb3_rlx2.files import write_text

RESULTS = Path(__file__).parent / "results"


def read(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Give what is known of a class of faults."""
    path = folder / f"{name}.json"
    empty: dict[str, Any] = {"cases": 0, "faults": 0, "counts": {}, "wrong": [], "seconds": 0.0}
    return json.loads(path.read_text()) if path.exists() else empty


def run(names: list[str], minutes: float, work: Path, folder: Path = RESULTS) -> None:
    """Run cases of the class that is furthest from what is asked for, until all are there or time is over."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        shares = {name: read(name, folder)["faults"] / FAULTS[name].asked for name in names}
        name = min(shares, key=lambda each: shares[each])
        if shares[name] >= 1:
            return
        _advance(name, work, folder, min(end, time.monotonic() + 20))


def _advance(name: str, work: Path, folder: Path, end: float) -> None:
    """Run cases of a class for a while, one at least, and store what came of them."""
    result, begin = read(name, folder), time.monotonic()
    counts: Counter[str] = Counter(result["counts"])
    while True:
        number = result["cases"]
        result["cases"] += 1
        try:
            found = run_case(name, number, work / name)
            result["faults"] += found.pop("faults")
            counts += found
        except Exception as error:  # what a torture is for
            result["wrong"].append({"case": number, "error": f"{type(error).__name__}: {error}"})
            result["faults"] += 1
        if time.monotonic() > end or result["faults"] >= FAULTS[name].asked:
            break
    result |= {"counts": dict(sorted(counts.items())), "seconds": round(result["seconds"] + time.monotonic() - begin, 1)}
    write_text(
        folder / f"{name}.json",
        json.dumps(result | {"machine": machine.machine(), "versions": machine.versions()}, indent=1) + "\n",
    )
    print(f"{name}: {result['faults']:,} of {FAULTS[name].asked:,}, {len(result['wrong'])} wrong", flush=True)
