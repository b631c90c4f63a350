"""Writes the README's table, ``RESULTS.md`` and the plot of the scaling, from what is stored and nothing else."""

from pathlib import Path

from benchmarks import pages, readme, summary
from benchmarks.speed import checks
from benchmarks.speed.measure import RESULTS
from benchmarks.speed.results import Section, latest, load, median
from benchmarks.speed.sections import NNZ_MULTIPLES, WIDTHS
from benchmarks.speed.tables import TABLES

NOT_MEASURED = "not measured"


def full_report(folder: Path = RESULTS) -> str:
    """Give ``RESULTS.md``: all targets, then all tables."""
    makers = load(folder)
    rows = [
        [what, sections[name].cpu, *rest]
        for name in checks.OF
        for sections in makers.values()
        if name in sections
        for what, *rest in (check.row for check in checks.OF[name](sections[name]))
    ]
    parts = [
        "# Speed",
        "Written by `python -m benchmarks.speed report`; what was tried is in [NOTES.md](NOTES.md).",
        "## Targets",
    ]
    parts.append(readme.markdown(["", "on", "measured", "target", ""], rows) if rows else f"{NOT_MEASURED}.")
    for name, (title, table) in TABLES.items():
        parts.append(f"## {title}")
        measured = [sections for sections in makers.values() if name in sections]
        for sections in measured:
            parts += [f"### {sections[name].cpu}"] if len(measured) > 1 else []
            parts += [table(sections), sections[name].conditions]
        parts += [] if measured else [f"{NOT_MEASURED}."]
    return "\n\n".join(parts) + "\n"


def plot(section: Section, path: Path) -> None:
    """Draw the time of a gradient step over width and over links."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for what, colour in (("dense", "grey"), ("sparse", "tab:blue")):
        left.plot(
            WIDTHS, [1e3 * median(section.one(what=what), str(width)) for width in WIDTHS], "o-", color=colour, label=what
        )
    left.set(xscale="log", yscale="log", xlabel="width, the same number of links", ylabel="ms per gradient step")
    left.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    left.minorticks_off()
    left.legend()
    links = section.one(what="links")
    names = [str(multiple) for multiple in NNZ_MULTIPLES]
    right.plot([links["bytes"][name]["nnz"] for name in names], [1e3 * median(links, name) for name in names], "o-")
    right.set(xlabel=f"links, width {links['width']}", ylabel="ms per gradient step", xlim=(0, None), ylim=(0, None))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(folder: Path = RESULTS) -> None:
    """Write all of it; of results that are stored elsewhere only their own page, beside them."""
    sections = latest(load(folder))
    if "scaling" in sections:
        plot(sections["scaling"], folder / "scaling.png")
    if folder != RESULTS:
        (folder / "RESULTS.md").write_text(full_report(folder))
        return
    (RESULTS.parent / "RESULTS.md").write_text(full_report())
    summary.write()
    pages.write()
    print(summary.table())
