"""The page of faults and the README's row, from stored results."""

from pathlib import Path

from benchmarks import readme
from benchmarks.torture.faults import FAULTS
from benchmarks.torture.results import RESULTS, read

PAGE = readme.README.parent / "docs/results/torture.md"
HEADER = ["fault", "what holds", "tried", "of a whole torture", "wrong"]


def write() -> None:
    """Write both."""
    readme.write("torture", table(), PAGE)
    readme.write("torture", sentence())


def table(folder: Path = RESULTS) -> str:
    """Make a table with a row for each class of faults, and what came of them below."""
    rows, details = [], []
    for name, fault in FAULTS.items():
        result = read(name, folder)
        rows.append([fault.what, fault.promise, f"{result['faults']:,}", f"{fault.asked:,}", f"{len(result['wrong']):,}"])
        counts = ", ".join(f"{what} {count:,}" for what, count in result["counts"].items())
        details += [f"- {name}, {result['cases']:,} cases: {counts}"] if counts else []
        details += [f"- {name}, case {each['case']}, wrong: {each['error']}" for each in result["wrong"]]
    return "\n\n".join([readme.markdown(HEADER, rows), "\n".join(details)])


def sentence(folder: Path = RESULTS) -> str:
    """Make the README's sentence, of how much has been tried."""
    results = [read(name, folder) for name in FAULTS if name != "soak"]  # whose steps are no faults
    tried, wrong = (sum(numbers) for numbers in zip(*((each["faults"], len(each["wrong"])) for each in results), strict=True))
    return (
        f"`make torture` has tried {tried:,} faults, such as kills, failing disks, damaged files and bad arguments, while the "
        f"code grew, of which {wrong:,} went wrong: [what holds, and what makes a whole torture](docs/results/torture.md)."
    )
