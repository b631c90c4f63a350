"""Whatever a user gets wrong is said in one line: nothing is silent, and nothing ends in a traceback."""

from collections import Counter

import pytest

from tests.bad_inputs import ALL, told

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("bad", ALL, ids=str)
def test_bad_input(bad, tmp_path):
    told(bad, tmp_path)


def test_there_are_many_of_each_kind():
    counts = Counter(bad.kind for bad in ALL)
    assert counts.keys() == {"arguments", "YAML", "command line", "file"}
    assert min(counts.values()) >= 20
    assert len({str((bad.kind, bad.to, bad.given)) for bad in ALL}) == len(ALL) >= 150
