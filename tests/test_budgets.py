"""The page of short runs is what the report makes of the stored results."""

from benchmarks import readme
from benchmarks.budgets import report
from benchmarks.budgets.runs import RUNS, stored


def test_page_shows_the_stored_results():
    shown = report.PAGE.read_text()
    assert readme.splice("budgets", report.text(stored()), shown) == shown


def test_arms_differ_in_what_their_names_say():
    defaults, hand_set, off = (next(run for run in RUNS if run.arm == arm).arguments for arm in report.ARMS)
    assert defaults == {"actor_sparsity": 0.8, "critic_sparsity": 0.8}
    counts = {"learning_starts": 1_000, "update_interval": 500, "buffer_check_interval": 1_000, "buffer_min_size": 2_000}
    assert hand_set == defaults | counts
    assert off.items() > defaults.items()
    assert off["topology"] == "static"
