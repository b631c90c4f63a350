from pathlib import Path

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_rlx2.schedules import cosine_decay
from sb3_rlx2.sparse_mlp import remap
from sb3_rlx2.topology import TOPOLOGIES, drop_and_grow
from tests import reference

GOLDEN = np.load(Path(__file__).parent / "golden" / "topology_updates.npz")
N_CASES = len([key for key in GOLDEN if key.endswith("_dims")])


def golden_layers():
    for case in range(N_CASES):
        for update in range(3):
            for layer in range(len(GOLDEN[f"case{case}_dims"]) - 1):
                yield pytest.param(f"case{case}_update{update}", layer, id=f"case{case}-update{update}-layer{layer}")


@pytest.mark.parametrize(("update", "layer"), list(golden_layers()))
def test_golden_update(update, layer):
    def read(name):
        return th.from_numpy(GOLDEN[f"{update}_layer{layer}_{name}"])

    weight, mask, gradient = read("weight_before"), read("mask_before").flatten(), read("dense_grad")
    index = mask.nonzero().squeeze(1)
    if gradient.numel() == 0:  # the released code leaves a fully dense layer alone
        assert mask.all()
        return
    k = int(float(GOLDEN[f"{update}_drop_fraction"]) * len(index))
    values = weight.flatten()[index]
    new = drop_and_grow(index, values.abs(), gradient.abs().flatten(), k)
    assert th.equal(new, read("mask_after").flatten().nonzero().squeeze(1))
    after = remap(index, new, values)
    np.testing.assert_allclose(after, read("weight_after").flatten()[new], atol=1e-5)


@pytest.mark.parametrize("case", range(N_CASES))
def test_golden_drop_fraction(case):
    zeta, end = float(GOLDEN[f"case{case}_zeta"]), int(GOLDEN[f"case{case}_T_end"])
    for update in range(3):
        step = int(GOLDEN[f"case{case}_update{update}_step"])
        assert cosine_decay(step / end, zeta) == pytest.approx(
            float(GOLDEN[f"case{case}_update{update}_drop_fraction"]), abs=1e-5
        )


# live links 0, 2, 3, 5 of 6; scores favour the dead links 4, then 1
@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0, [0, 2, 3, 5]),
        (1, [0, 2, 4, 5]),  # 3 is weakest, 4 scores best
        (2, [0, 1, 4, 5]),  # 2 goes too, 1 comes
        (3, [1, 2, 4, 5]),  # 0 goes too, 2 scores better than 3 and 0 and grows back
        (4, [1, 2, 3, 4]),
    ],
)
def test_table(k, expected):
    index = th.tensor([0, 2, 3, 5])
    magnitude = th.tensor([0.3, 0.2, 0.1, 0.4])
    scores = th.tensor([0.1, 0.8, 0.5, 0.4, 0.9, 0.0])
    assert drop_and_grow(index, magnitude, scores, k).tolist() == expected


@pytest.mark.parametrize("k", [-1, 3])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"k=.* must lie in \[0, 2\]"):
        drop_and_grow(th.tensor([0, 1]), th.ones(2), th.ones(4), k)


@given(data=st.data(), size=st.integers(1, 40))
def test_against_reference(data, size):
    index = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    small = st.integers(0, 4)  # few values, so that ties are common
    magnitude = data.draw(st.lists(small, min_size=len(index), max_size=len(index)))
    scores = data.draw(st.lists(small, min_size=size, max_size=size))
    k = data.draw(st.integers(0, len(index)))
    new = drop_and_grow(th.tensor(index), th.tensor(magnitude).float(), th.tensor(scores).float(), k).tolist()
    assert new == reference.drop_and_grow(index, magnitude, scores, k)
    assert len(new) == len(index) == len(set(new))


def test_nothing_grows_where_a_place_is_taken():
    index, scores = th.tensor([0, 2]), th.tensor([0.0, 9.0, 0.0, 8.0, -th.inf, 7.0])
    assert drop_and_grow(index, th.tensor([2.0, 1.0]), scores, 1).tolist() == [0, 1]
    assert drop_and_grow(index, th.tensor([2.0, 1.0]), scores, 1, taken=th.tensor([1, 3])).tolist() == [0, 5]
    assert drop_and_grow(index, th.tensor([2.0, 1.0]), scores, 2, taken=th.tensor([1, 3, 0, 2])).tolist() == [4, 5]


def test_remap_keeps_and_zeroes():
    old, new = th.tensor([1, 3, 4, 9]), th.tensor([0, 3, 9, 11])
    assert remap(old, new, th.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [0, 2, 4, 0]


def test_static_grows_nothing():
    assert not TOPOLOGIES["static"].evolves
    with pytest.raises(NotImplementedError):
        TOPOLOGIES["static"].grow_scores(4, lambda: th.ones(2, 2), th.Generator())
