"""The README's speeds are what the report makes of the stored results; see test_returns_report.py for the returns."""

from benchmarks import readme
from benchmarks.speed import report


def test_readme_shows_the_stored_speeds():
    shown = readme.README.read_text()
    assert readme.splice("speed", report.report(), shown) == shown
