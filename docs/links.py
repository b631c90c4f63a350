"""
Has links between files of the repository lead to the pages of the site.

Files outside this folder are shown by pages here, such as the reports that the benchmarks write, and their links are right
where they lie. So are those of our pages, which people also read in the repository, where files lie that no page shows.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
REPOSITORY = re.findall(r'^Repository = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
PAGES = {
    "benchmarks/returns/RESULTS.md": "/results/returns.md",
    "benchmarks/returns/PROTOCOL.md": "/results/protocol.md",
    "benchmarks/speed/RESULTS.md": "/results/speed.md",
    "benchmarks/budgets/PROTOCOL.md": "/results/budgets_protocol.md",
    "benchmarks/offline/PROTOCOL.md": "/results/offline_protocol.md",
    "benchmarks/speed/NOTES.md": "/results/notes.md",
    "CHANGELOG.md": "/changelog.md",
}
LINK = re.compile(r"\]\((?![a-z]+:|[#/])([^)#\s]+)")


def led(text: str, file: Path, page: Path) -> str:
    """
    Lead the links of a file to pages, or to files as seen from a page.

    :param text: Markdown
    :param file: where it lies
    :param page: what shows it
    """

    def target(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(file.parent / match[1]))
        name = os.path.relpath(path, ROOT)
        if name in PAGES:
            return f"]({PAGES[name]}"
        if path.suffix == ".png" or path.is_relative_to(ROOT / "docs"):
            return f"]({os.path.relpath(path, page.parent)}"
        return f"]({REPOSITORY}/blob/main/{name}"

    return LINK.sub(target, text)


def lead_page(app: Sphinx, docname: str, content: list[str]) -> None:
    """
    Lead the links of a page.

    :param app: Sphinx
    :param docname: the page
    :param content: its text, changed in place
    """
    page = Path(app.srcdir) / f"{docname}.md"
    content[0] = led(content[0], page, page)


def lead_included(app: Sphinx, path: Path, _: str, content: list[str]) -> None:
    """
    Lead the links of a file that a page includes.

    :param app: Sphinx, which knows the page; of its name myst-parser gives the end alone
    :param path: the file, relative to the folder of pages
    :param content: its text, changed in place
    """
    content[0] = led(content[0], Path(app.srcdir) / path, Path(app.srcdir) / f"{app.env.docname}.md")


def setup(app: Sphinx) -> dict[str, bool]:
    """
    Tell Sphinx when to ask.

    :param app: Sphinx
    """
    app.connect("source-read", lead_page)
    app.connect("include-read", lead_included)
    return {"parallel_read_safe": True}
