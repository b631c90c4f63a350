"""Puts generated text between a pair of markers in a page, so that nobody types a number there."""

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def splice(name: str, text: str, page: str) -> str:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, rest = page.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}{text.strip()}\n{end}{tail}"


def write(name: str, text: str, page: Path = README) -> None:
    """Update a page in place."""
    page.write_text(splice(name, text, page.read_text()))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
