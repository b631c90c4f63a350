"""The sizes on the site are what the report makes of the stored results; and what measures them still runs."""

import shutil

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.export import proof, report
from benchmarks.export.agents import AGENTS, described
from benchmarks.export.results import run, stored
from sb3_rlx2.export import read
from tests import exported as exported_agents
from tests.compilers import needs

STORED = sorted(AGENTS.glob("*.rlx2"))


def test_page_shows_what_is_stored():
    readme_shown = readme.README.read_text()
    assert readme.splice("export", report.readme_text(stored()), readme_shown) == readme_shown
    shown = report.PAGE.read_text()
    assert readme.splice("export", report.text(stored()), shown) == shown
    assert readme.splice("proof", report.proof_text(proof.stored()), shown) == shown


def test_exported_agents_act_as_they_did():
    """Within 2 millionths of the action's range, or what 32 bits round of the agent's own; and everywhere to the last bit."""
    for result in proof.stored():
        assert sum(result["observations"].values()) >= 100_000
        for kind, difference in result["difference"]["fp32"].items():
            assert difference <= max(2e-6, 3 * result["rounding_of_predict"][kind])
        assert {count for counts in result["other_bits"].values() for count in counts.values()} == {0}
        assert result["mutations"]["files"] >= 100_000


def test_arithmetic_in_doubles():
    description, seen = exported_agents.described("RLx2TD3"), exported_agents.some("RLx2TD3", 100)
    difference = proof.largest(description, exported_agents.expected("RLx2TD3", seen), proof.in_doubles(description, seen))
    assert 0 < difference < 2e-6


def test_observations_to_compare_on():
    description = exported_agents.described("RLx2TD3")
    own = np.random.default_rng(0).normal(size=(50, 11)).astype(np.float32)
    seen = proof.all_observations(description, own, 400)
    assert {kind: len(some) for kind, some in seen.items()} == {"replay buffer": 200, "extremes": 100, "far out": 100}
    assert np.isin(seen["extremes"], [own.min(axis=0), own.max(axis=0)]).all()
    assert (np.abs((seen["far out"] - description.mean) / description.std) > description.clip).any()


def test_hopper_is_as_small_as_promised():
    """With code and tables at most 10.5, 7.5 and 6.3 kB, 2.1 kB of memory, 12 instructions a weight and 60 a unit."""
    (hopper,) = (result for result in stored() if result["agent"]["env"] == "Hopper-v4")
    for dtype, flash in (("fp32", 10_500), ("fp16", 7_500), ("int8", 6_300)):
        size = hopper["sizes"][dtype]
        assert size["code"] + size["tables"] <= flash
        assert size["stack"] <= 2100
        assert size["instructions"] <= 12 * size["links"] + 60 * size["units"]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_agents(path):
    policy = read(path.read_bytes())
    assert policy.self_test() == 0
    again = described(policy).policy()
    seen = np.random.default_rng(0).normal(size=(100, policy.inputs)).astype(np.float32)
    np.testing.assert_array_equal(again(seen), policy(seen))


def test_measuring(tmp_path):
    needs("unicorn")
    needs("onnx")
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    result = run(STORED[0], tmp_path)
    for dtype, size in result["sizes"].items():
        assert 500 < size["code"] < 1200, dtype
        assert size["links"] < size["instructions"] < 60_000
    assert result["dense"]["instructions"] > 2 * 69_120
    assert (tmp_path / f"{STORED[0].stem}.json").exists()
