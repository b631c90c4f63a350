"""
Has links between files of the repository lead to the pages of the site.

A page that is one link and nothing else shows the file that it leads to, such as a report that the benchmarks write. Links of
these files, and of our pages, are right where they lie; here they lead to pages, or to the repository if no page shows a file.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REPOSITORY = re.findall(r'^Repository = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
LINK = re.compile(r"\]\((?![a-z]+:|[#/])([^)#\s]+)")
SECTION = re.compile(r"^## (.*)\n\n((?:- .*\n)+)", re.MULTILINE)


def shown() -> dict[str, Path]:
    """Give the pages that show files outside this folder, by the file's path in the repository."""
    found = {}
    for page in DOCS.rglob("*.md"):
        if link := re.fullmatch(r"\[.*\]\((\S+)\)\n", page.read_text()):
            found[os.path.relpath(page.parent / link[1], ROOT)] = page
    return found


PAGES = shown()


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
        path = PAGES.get(name, path)
        if path.suffix == ".png" or path.is_relative_to(DOCS):
            return f"]({os.path.relpath(path, page.parent)}"
        return f"]({REPOSITORY}/blob/main/{name}"

    return LINK.sub(target, text)


def contents(text: str) -> str:
    """
    Give the site's table of contents: the pages that each section of the first page lists.

    :param text: the first page, with links led to pages
    """
    trees = []
    for caption, listed in SECTION.findall(text):
        pages = "\n".join(LINK.findall(listed))
        trees.append(f"```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n:hidden:\n\n{pages}\n```")
    return "\n\n".join(trees)


def lead(app: Sphinx, docname: str, content: list[str]) -> None:
    """
    Lead the links of a page.

    :param app: Sphinx
    :param docname: the page
    :param content: its text, changed in place
    """
    page = DOCS / f"{docname}.md"
    for name, shows in PAGES.items():
        if shows == page:
            app.env.note_dependency(ROOT / name)
            content[0] = led((ROOT / name).read_text(), ROOT / name, page)
            return
    content[0] = led(content[0], page, page)
    if docname == app.config.root_doc:
        content[0] += "\n" + contents(content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """
    Tell Sphinx when to ask.

    :param app: Sphinx
    """
    app.connect("source-read", lead)
    return {"parallel_read_safe": True}
