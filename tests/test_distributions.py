import json
from pathlib import Path

import pytest

from sb3_rlx2.distributions import DISTRIBUTIONS, erdos_renyi, uniform

GOLDEN = json.loads((Path(__file__).parent / "golden" / "layer_sparsities.json").read_text())


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['algorithm']}-{row['env']}-{row['network']}-{row['sparsity']}")
def test_erdos_renyi_golden(row):
    shapes = [tuple(shape) for shape in row["shapes"]]
    assert erdos_renyi(shapes, row["sparsity"]) == row["nnz"]


def test_golden_table_is_there():
    assert len(GOLDEN) == 36


def test_twin_critics_equal_one():
    shapes = [(256, 23), (256, 256), (1, 256)]
    assert erdos_renyi(shapes * 2, 0.85) == erdos_renyi(shapes, 0.85) * 2


def test_hand_worked():
    # Two layers of ratio (4+4)/16 = 0.5 and (2+4)/8 = 0.75; 12 of 24 live: scale = 12 / (8 + 6), densities 3/7 and 9/14.
    # Zeros: int(4/7 * 16) = 9 and int(5/14 * 8) = 2.
    assert erdos_renyi([(4, 4), (2, 4)], 0.5) == [7, 6]
    assert uniform([(4, 4), (2, 4)], 0.5) == [8, 4]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_dense(name):
    assert DISTRIBUTIONS[name]([(3, 5), (2, 3), (1, 2)], 0.0) == [15, 6, 2]


def test_alias():
    assert DISTRIBUTIONS["erk"] is DISTRIBUTIONS["erdos_renyi"]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.5", None])
def test_bad_sparsity(name, sparsity):
    with pytest.raises(ValueError, match=r"sparsity=.* must be a number in \[0, 1\)"):
        DISTRIBUTIONS[name]([(4, 4)], sparsity)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_layer_is_left_without_a_link(name):
    assert min(DISTRIBUTIONS[name]([(256, 256), (1, 256), (1, 1)], 1 - 1e-16)) == 1
