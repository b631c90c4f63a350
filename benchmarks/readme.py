"""Puts generated text between a pair of markers in the README, so that nobody types a number there."""

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def splice(name: str, text: str, readme: str) -> str:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, rest = readme.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}{text.strip()}\n{end}{tail}"


def write(name: str, text: str) -> None:
    """Update the README in place."""
    README.write_text(splice(name, text, README.read_text()))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
