"""The page of sizes and proofs, from stored results."""

from collections.abc import Iterator
from typing import Any

from benchmarks.export import proof
from benchmarks.export.results import stored
from benchmarks.readme import README, markdown
from benchmarks.readme import write as write_page

HEADER = ["policy", "weights", "flash, bytes", "code", "tables", "stack", "instructions an action"]
IN_README = ["policy", "weights", "flash, bytes", "stack", "instructions an action"]
APART = "action differs by up to, of its range"
PAGE = README.parent / "docs/results/export.md"
PROOF_HEADER = [
    "agent",
    "type",
    "observations",
    "how many",
    "largest difference from `predict`",
    "what `predict` itself rounds",
]
NOT_INSIDE = {"emlearn": ": the network alone"}
NOTHING = "Nothing is measured yet."


def write() -> None:
    write_page("export", readme_text(stored()))
    write_page("export", text(stored()), PAGE)
    write_page("proof", proof_text(proof.stored()), PAGE)


def text(results: list[dict[str, Any]]) -> str:
    if not results:
        return NOTHING
    where = f"On a Cortex-M4F (gcc {_gcc(results)} `-Os`, counted by an emulator; `python -m benchmarks.export run`):"
    return "\n\n".join([where, *(_table(result) for result in results)])


def readme_text(results: list[dict[str, Any]]) -> str:
    """Give the smallest agent of all, in short."""
    if not results:
        return NOTHING
    result = min(results, key=lambda result: int(result["agent"]["links_before"]))
    agent, apart = result["agent"], _apart(result)
    rows = [
        [*(row[HEADER.index(name)] for name in IN_README), apart.get(", ".join(row[0].split(", ")[:2]), "-")]
        for row in _rows(result)
    ]
    who = f"A trained {agent['env']} agent ({agent['note']}), {agent['links_before']:,} live weights in its actor"
    reading = "Actions are compared with the agent's own, on observations of its replay buffer"
    evaluate = "where they differ, have `rlx2 export --evaluate` measure the return"
    where = f"on a Cortex-M4F (gcc {_gcc(results)} `-Os`)"
    return f"{who}, {where}:\n\n{markdown([*IN_README, APART], rows)}\n\n{reading}; {evaluate}."


def _apart(result: dict[str, Any]) -> dict[str, str]:
    """Give how far actions of the same agent are from its own, on observations of its replay buffer, by row."""
    for proven in proof.stored():
        if all(proven["agent"][name] == result["agent"][name] for name in ("env", "note")):
            return {f"sparse, {dtype}": f"{found['replay buffer']:.2g}" for dtype, found in proven["difference"].items()}
    return {}


def _gcc(results: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({result["versions"]["gcc"] for result in results}))


def _rows(result: dict[str, Any]) -> list[list[str]]:
    agent, rows = result["agent"], []
    for dtype, size in result["sizes"].items():
        rows.append([f"sparse, {dtype}", f"{size['links']:,}", *_cells(size)])
    rows.append(
        ["sparse, fp32, as `.rlx2` file, with its reader", f"{result['reader']['links']:,}", *_cells(result["reader"])]
    )
    others = {f", {name} {size['version']}{NOT_INSIDE.get(name, '')}": size for name, size in result["others"].items()}
    dense = {"": result["dense"], **others}
    for name, size in dense.items():
        rows.append([f"dense, fp32{name}", f"{agent['weights_of_dense']:,}", *_cells(size)])
    return rows


def _table(result: dict[str, Any]) -> str:
    agent = result["agent"]
    before = f"{agent['links_before']:,} live weights of {agent['weights_of_dense']:,} before what cannot matter was left out"
    return f"{agent['env']}: {agent['note']}; {before}.\n\n{markdown(HEADER, _rows(result))}"


def _cells(size: dict[str, Any]) -> list[str]:
    flash = size["code"] + size["tables"]
    return [f"{number:,}" for number in (flash, size["code"], size["tables"], size["stack"], size["instructions"])]


def proof_text(results: list[dict[str, Any]]) -> str:
    if not results:
        return NOTHING
    rows = [row for result in results for row in _differences(result)]
    return "\n\n".join([markdown(PROOF_HEADER, rows), *map(_bits, results), *map(_mutations, results)])


def _differences(result: dict[str, Any]) -> Iterator[list[str]]:
    agent, kinds = result["agent"], result["observations"]
    for dtype, differences in result["difference"].items():
        for kind, difference in differences.items():
            own = f"{result['rounding_of_predict'][kind]:.1e}"
            yield [_name(agent), dtype, kind, f"{kinds[kind]:,}", f"{difference:.1e}", own]


def _bits(result: dict[str, Any]) -> str:
    count = sum(result["observations"].values()) + 1
    said = [f"{who}: {wrong:,} ({dtype})" for dtype, whose in result["other_bits"].items() for who, wrong in whose.items()]
    others = f"observations of {count:,} for which the action has other bits than numpy's: {'; '.join(said)}."
    return f"{_name(result['agent'])}, {others}"


def _mutations(result: dict[str, Any]) -> str:
    files = result["mutations"]
    return (
        f"{_name(result['agent'])}, {files['files']:,} damaged `.rlx2` files, each second one with its checksum made right, "
        f"under the address and undefined-behaviour sanitizers: {files['files'] - files['accepted']:,} refused, "
        f"{files['equal']:,} act as before, {files['accepted'] - files['equal']:,} are whole files of another policy."
    )


def _name(agent: dict[str, Any]) -> str:
    return f"{agent['env']} ({agent['note']})"
