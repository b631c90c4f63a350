"""Elementary functions of the kernels against the library's."""

import numpy as np
import pytest
from numba import njit

from sb3_rlx2.kernels import elementary
from sb3_rlx2.kernels.options import OPTIONS


def mapped(name, values):
    function, results = getattr(elementary, name), np.empty_like(values)

    @njit(**OPTIONS)
    def run(values, results):
        for i in range(values.size):
            results[i] = function(values[i])

    run(values, results)
    return results


@pytest.mark.parametrize(("name", "low", "high"), [("exp", -87, 88), ("exp", -20, 2), ("log", 1e-6, 1e6), ("tanh", -12, 12)])
def test_accuracy(name, low, high):
    x = np.linspace(low, high, 100_001, dtype=np.float32)
    if name == "log":
        x = np.concatenate([x, np.geomspace(1e-37, 1, 10_000, dtype=np.float32)])
    exact = getattr(np, name)(x.astype(np.float64))
    assert (np.abs(mapped(name, x) - exact) <= 3e-7 * np.maximum(np.abs(exact), 0 if name == "exp" else 1)).all()
    np.testing.assert_allclose(mapped(name, x.astype(np.float64)), getattr(np, name)(x.astype(np.float64)), rtol=1e-14)


@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_nan_goes_through(name):
    assert np.isnan(mapped(name, np.full(100, np.nan, np.float32))).all()


def test_log_of_what_has_none_is_nan():
    assert np.isnan(mapped("log", np.float32([-1, 0]))).all()
