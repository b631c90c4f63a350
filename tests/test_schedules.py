import pytest

from sb3_rlx2.schedules import cosine_decay


@pytest.mark.parametrize(("progress", "expected"), [(-1, 0.5), (0, 0.5), (1 / 3, 0.375), (0.5, 0.25), (1, 0), (2, 0)])
def test_cosine_decay(progress, expected):
    assert cosine_decay(progress, 0.5) == pytest.approx(expected, abs=1e-12)
