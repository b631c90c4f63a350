"""A case or two of each class of faults that `make torture` tries by the thousand, and how it counts them."""

import json
from collections import Counter

import pytest

from benchmarks.torture import faults, report, results
from benchmarks.torture.faults import FAULTS, Fault

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = [
    *(("kills", number) for number in (0, 6, 11)),
    *(("signals", number) for number in (1, 7)),
    *(("damage", number) for number in range(24)),
    *(("hostile", number) for number in range(16)),
    *(("environments", number) for number in range(4)),
    *(("journals", number) for number in range(2)),
    ("inputs", 0),
    ("studies", 0),
    ("soak", 0),
]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_case(name, number, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "SOAK_STEPS", 3_000)
    assert faults.run_case(name, number, tmp_path / "case")["faults"] > 0
    assert not (tmp_path / "case").exists()


def test_a_torture_goes_on_where_it_was_ended(tmp_path, monkeypatch):
    seen = []

    def case(number, folder):
        assert not list(folder.iterdir())
        seen.append(number)
        if number == 3:
            raise KeyError("lost")
        return Counter({"faults": 2, "even" if number % 2 == 0 else "odd": 1})

    of_another_kind = Fault("another fault", "", 1, case)
    monkeypatch.setattr(results, "FAULTS", {"some": Fault("a fault", "all stays well", 12, case), "another": of_another_kind})
    monkeypatch.setattr(faults, "FAULTS", results.FAULTS)
    monkeypatch.setattr(report, "FAULTS", results.FAULTS)
    results.run(["some"], 0.0, tmp_path / "work", tmp_path)
    assert seen == []
    for _ in range(9):
        results._advance("some", tmp_path / "work", tmp_path, 0.0)
        if results.read("some", tmp_path)["faults"] >= 12:
            break
    assert seen == list(range(7))
    stored = json.loads((tmp_path / "some.json").read_text())
    assert (stored["cases"], stored["faults"], stored["counts"]) == (7, 13, {"even": 4, "odd": 2})
    assert stored["wrong"] == [{"case": 3, "error": "KeyError: 'lost'"}]
    assert "| a fault | all stays well | 13 | 12 | 1 |" in report.table(tmp_path)
    assert "has tried 13 faults" in report.sentence(tmp_path)
    assert "of which 1 went wrong" in report.sentence(tmp_path)
    assert {"kills", "soak"} <= FAULTS.keys()
