import pytest

from sb3_rlx2.schedules import cosine_decay, cubic_decay


@pytest.mark.parametrize(("progress", "expected"), [(-1, 0.5), (0, 0.5), (1 / 3, 0.375), (0.5, 0.25), (1, 0), (2, 0)])
def test_cosine_decay(progress, expected):
    assert cosine_decay(progress, 0.5) == pytest.approx(expected, abs=1e-12)


# 4 + 16 * (1 - progress)^3
@pytest.mark.parametrize(("progress", "expected"), [(-1, 20), (0, 20), (0.25, 10.75), (0.5, 6), (0.75, 4.25), (1, 4), (2, 4)])
def test_cubic_decay(progress, expected):
    assert cubic_decay(progress, 20, 4) == pytest.approx(expected, abs=1e-12)
