"""The README's tables are what the reports make of the stored results."""

import importlib

import pytest

from benchmarks import readme


@pytest.mark.parametrize("name", ["learning", "speed"])
def test_readme_shows_the_stored_results(name):
    report = importlib.import_module(f"benchmarks.{name}.report")
    shown = readme.README.read_text()
    assert readme.splice(name, report.report(), shown) == shown
