"""The site builds without a warning, and what its pages show works."""

import gc
import re
import shlex
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest

from benchmarks import pages
from benchmarks.returns.__main__ import parse
from sb3_rlx2 import RLx2CrossQ, RLx2TD3
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.commands import COMMANDS
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.extras import MODULES
from sb3_rlx2.topology import TOPOLOGIES
from tests.compilers import needs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Their commands and scripts have tests of their own, of these names.
APART = {"offline": "test_offline.py", "structures": "test_structures_docs.py", "without_python": "test_export_docs.py"}
IDS = {"ids": lambda path: str(path.relative_to(ROOT)) if isinstance(path, Path) else None}


def blocks(page, *languages):
    """Give blocks of code, but for examples, which tests/test_examples.py runs."""
    written = re.sub(r"<!-- (script \w+) -->.*?<!-- /\1 -->", "", page.read_text(), flags=re.DOTALL)
    return re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", written, flags=re.DOTALL)


@pytest.fixture
def links(monkeypatch):
    needs("sphinx")
    monkeypatch.syspath_prepend(DOCS)
    import links

    return links


def scripts():
    return [(page, number) for page in PAGES if page.stem not in APART for number in range(len(blocks(page, "python")))]


def lines():
    """Give all commands, lines that go on on the next one joined."""
    found = []
    for page in [ROOT / "README.md", *PAGES]:
        for block in blocks(page, "sh", "bash"):
            found += [(page, line) for line in block.replace("\\\n", " ").splitlines() if line and line[0] != "#"]
    return found


def test_site_builds_without_warnings(tmp_path):
    needs("sphinx")
    needs("myst_parser")
    needs("furo")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", DOCS, tmp_path / "site"]
    result = subprocess.run([str(part) for part in build], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    built = (tmp_path / "site/from_sb3.html").read_text()
    assert "1/40 of the steps, 100 to 25,000" in built
    assert "planned_timesteps" in (tmp_path / "site/algorithms/td3.html").read_text()


def test_every_page_is_in_the_contents(links):
    index = DOCS / "index.md"
    contents = links.contents(links.led(index.read_text(), index, index))
    listed = re.findall(r"^[\w/]+\.md$", contents, re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page != index)
    assert ":caption: Begin" in contents


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], **IDS)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, **IDS)
def test_what_nobody_types_is_up_to_date(page):
    """If not, ``python -m benchmarks.pages`` writes it."""
    assert page.read_text() == pages.filled(page.read_text())
    assert len(re.findall(r"^<!-- [a-z-]+ \w+ -->$", page.read_text(), re.M)) == len(pages.MARKER.findall(page.read_text()))


def test_pages_read_where_they_lie():
    """But for the reference, they have nothing that Sphinx alone makes something of."""
    found = {(page.parent.name, name) for page in PAGES for name in re.findall(r"^[`:]{3}\{(.*)\}", page.read_text(), re.M)}
    assert found == {("algorithms", "eval-rst"), ("api", "eval-rst")}


def test_pages_that_have_tests_of_their_own():
    assert all((Path(__file__).parent / name).exists() for name in APART.values())


@pytest.mark.parametrize(("page", "number"), scripts(), **IDS)
def test_scripts(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), mock.patch.dict(TOPOLOGIES), mock.patch.dict(DISTRIBUTIONS):
        warnings.simplefilter("ignore", ResourceWarning)  # scripts leave their logs to the end of the process
        exec(blocks(page, "python")[number], names := {"__name__": "__main__"})
        names.clear()
        gc.collect()


@pytest.mark.parametrize(("page", "line"), [each for each in lines() if each[1].startswith("rlx2 ")], **IDS)
def test_commands(page, line, rlx2):
    """They are commands, and have the options that they are given."""
    _, name, *arguments = shlex.split(line, comments=True)
    options = [argument for argument in arguments if re.fullmatch(r"-{1,2}[a-z][\w-]*", argument)]
    helped = rlx2(name, "--help")
    for option in options:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", helped), option


@pytest.mark.parametrize(("page", "line"), [each for each in lines() if each[1].startswith("python -m benchmarks")], **IDS)
def test_benchmarks(page, line):
    _, _, module, *arguments = shlex.split(line, comments=True)
    assert find_spec(f"{module}.__main__")
    if module == "benchmarks.returns" and page.stem not in APART:
        parse(arguments)


def test_installation():
    """Of the repository that the project names, with extras that there are."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    repository, extras = project["urls"]["Repository"], project["optional-dependencies"]
    for page in [ROOT / "README.md", *PAGES]:
        assert set(re.findall(r"git\+([^\s\"]+)", page.read_text())) <= {repository, "URL"}
        for names in re.findall(r"(?:sb3_rlx2|\.)\[([\w,]+)\]'", page.read_text()):
            assert set(names.split(",")) <= extras.keys()
    table = (DOCS / "start.md").read_text()
    assert MODULES.keys() <= set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| `.*", table, re.M))))
    assert all(
        f"`rlx2 {name}`" in (DOCS / "zoo.md").read_text() for name in ("report", "compress", "export") if name in COMMANDS
    )


def test_changed_defaults_by_hand():
    assert pages.changed(RLx2TD3) == [
        ["`learning_rate`", "`0.001`", "`0.0003`"],
        ["`learning_starts`", "`100`", "1/40 of the steps, 100 to 25,000"],
        ["`action_noise`", "`None`", "`0.1`"],
        ["`n_steps`", "`1`", "`3`"],
        ["`net_arch` (in `policy_kwargs`)", "`[400, 300]`", "`[256, 256]`"],
    ]
    assert [row[0] for row in pages.changed(RLx2CrossQ)] == ["`learning_starts`", "`n_steps`"]
    assert ["`update_interval`", "1/100 of the gradient steps, 500 to 10,000"] in pages.added(RLx2TD3)
    assert "Hopper-v5" in pages.environments("rlx2td3")


def test_stored_results_by_hand():
    for algo in ALGORITHMS:
        header, ruler, *rows = pages.stored(algo)
        name = algo.removeprefix("rlx2").upper()
        assert header.startswith("|  | ")
        assert ruler.startswith("| --- |")
        assert len({row.count("|") for row in (header, ruler, rows[0])}) == 1
        assert all(row.startswith(f"| {name} ") for row in rows[: rows.index("")])
        assert all(line.startswith(("†", f"{name} ")) for line in rows[rows.index("") :] if line)
    assert "of the same dense agent" in "".join(pages.stored("rlx2tqc"))
    assert pages.stored("rlx2td3")[-1].startswith("† a return") == ("†" in "".join(pages.stored("rlx2td3")[:-1]))
    with pytest.raises(ValueError, match=r"algo='rlx2ppo' has no row in README\.md, benchmarks"):
        pages.stored("rlx2ppo")


def test_links_of_files_that_pages_show_lead_to_pages(links):
    text = "[a](PROTOCOL.md), ![b](plots/b.png), [c](cells.py), [d](#e), [f](https://f.org)"
    led = links.led(text, ROOT / "benchmarks/returns/RESULTS.md", DOCS / "results/returns.md")
    code = f"{links.REPOSITORY}/blob/main/benchmarks/returns/cells.py"
    assert led == (f"[a](protocol.md), ![b](../../benchmarks/returns/plots/b.png), [c]({code}), [d](#e), [f](https://f.org)")
    assert all((ROOT / name).exists() for name in links.PAGES)
