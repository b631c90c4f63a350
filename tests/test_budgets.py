"""The page of short runs is what the report makes of the stored results."""

from dataclasses import replace

from benchmarks import readme
from benchmarks.budgets import report
from benchmarks.budgets.runs import FIRST, RUNS, Run, make_env, stored
from sb3_rlx2.plan import LEAST, steps_of


def test_page_shows_the_stored_results():
    shown = report.PAGE.read_text()
    assert readme.splice("budgets", report.text(stored()), shown) == shown


def test_arms_differ_in_what_their_names_say():
    arms = ("defaults", "hand-set", "parts off", "first defaults")
    defaults, hand_set, off, first = (next(run for run in RUNS if run.arm == arm).arguments for arm in arms)
    assert defaults == {"actor_sparsity": 0.8, "critic_sparsity": 0.8}
    counts = {"learning_starts": 1_000, "update_interval": 500, "buffer_check_interval": 1_000, "buffer_min_size": 2_000}
    assert hand_set == defaults | counts
    assert off.items() > defaults.items()
    assert off["topology"] == "static"
    assert first == defaults | FIRST


def test_on_halfcheetah_the_defaults_are_the_hand_set_numbers():
    run = Run("hand-set", "td3", "HalfCheetah-v4", 100_000, 0)
    model = replace(run, arm="defaults").make(make_env("Pendulum-v1"))
    own = {name: steps_of(name, getattr(model, name), run.steps) for name in LEAST}
    assert own.items() <= run.arguments.items()
