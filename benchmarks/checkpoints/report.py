"""The table of costs, from the stored result."""

import json
from typing import Any

from benchmarks.checkpoints.costs import RESULT
from benchmarks.readme import README, markdown
from benchmarks.readme import write as write_page

PAGE = README.parent / "docs/resume.md"
HEADER = ["what", "cost"]


def write() -> None:
    write_page("checkpoints", text(json.loads(RESULT.read_text())), PAGE)


def text(result: dict[str, Any]) -> str:
    share = result["seconds"] / (result["seconds"] + result["seconds_between"])
    written = result["bytes_of_state"] + result["bytes_of_new_rows"]
    rows = [
        ["time of training", f"{share:.2%} ({result['seconds']:.2f} s every {result['every']:,} steps)"],
        [
            "written by a checkpoint",
            f"{written / 1e6:.1f} MB, {result['bytes_of_new_rows'] / 1e6:.1f} MB of them new transitions",
        ],
        ["on disk", f"{result['bytes_of_all_rows'] / 1e6:,.0f} MB of transitions"],
        ["from `--resume` to the first step", f"{result['seconds_to_first_step']:.1f} s"],
    ]
    busy = result["load_before"] > 0.5
    where = f"{result['machine']['cpu']}, one thread" + (
        f", beside other programs (load {result['load_before']:.1f})" if busy else ""
    )
    about = f"Of {result['env']} with {result['transitions']:,} transitions ({where}; `python -m benchmarks.checkpoints run`):"
    return f"{about}\n\n{markdown(HEADER, rows)}"
