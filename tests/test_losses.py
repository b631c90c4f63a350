"""The kernels between the networks against slow versions."""

import math

import numpy as np
import pytest
import torch as th
from numba import njit

from sb3_rlx2.kernels import losses, quantiles
from tests import reference

LANES, BATCH, TILES = 64, 70, 2  # the last tile is mostly padding, as nothing but the last may be


def call(kernel, *arguments):
    """Call a kernel for all tiles."""
    return njit(kernel.py_func)(*arguments, 0, TILES)


def tiled(samples):
    """Lay out ``[batch, rows]``; what lies in the padding is of no use to anybody."""
    tiles = np.full((TILES * LANES, samples.shape[1]), 7, np.float32)
    tiles[: len(samples)] = samples
    return np.ascontiguousarray(tiles.reshape(TILES, LANES, -1).transpose(0, 2, 1))


def untiled(tiles):
    return tiles.transpose(0, 2, 1).reshape(TILES * LANES, -1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def bootstrap(rng):
    """Give returns, terminations and discounts."""
    return tuple(each.astype(np.float32) for each in (rng.normal(size=BATCH), rng.random(BATCH) < 0.3, rng.random(BATCH)))


def discounted(bootstrap, sample):
    returns, terminated, discounts = bootstrap
    return float(returns[sample]), float((1 - terminated[sample]) * discounts[sample])


@pytest.mark.parametrize(("count", "n_actions"), [(1, 1), (1, 6), (7, 2)])
def test_greedy_target(rng, bootstrap, count, n_actions):
    outputs, target = rng.normal(size=(BATCH, count * n_actions)), tiled(np.zeros((BATCH, count)))
    call(losses.greedy_bellman, tiled(outputs), *bootstrap, target)
    for sample in range(BATCH):
        of_actions = [list(outputs[sample, action::n_actions]) for action in range(n_actions)]
        expected = reference.greedy_target(of_actions, *discounted(bootstrap, sample))
        np.testing.assert_allclose(untiled(target)[sample], expected, atol=1e-5)


def test_nan_is_the_greatest_value_as_in_torch(bootstrap):
    outputs = np.tile([1.0, math.nan, 3.0], (BATCH, 1))
    target = tiled(np.zeros((BATCH, 1)))
    call(losses.greedy_bellman, tiled(outputs), *bootstrap, target)
    assert th.tensor(outputs).argmax(dim=1).eq(1).all()
    assert np.isnan(untiled(target)[:BATCH]).all()


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_taken_of_actions_is_put_back(rng, count):
    outputs, actions = rng.normal(size=(BATCH, count * 4)), rng.integers(0, 4, (BATCH, 1))
    inputs = tiled(np.hstack([rng.normal(size=(BATCH, 2)), actions]))
    inputs[1, :, BATCH - LANES :] = 0
    taken, tiles = tiled(np.zeros((BATCH, count))), tiled(outputs)
    call(losses.take_actions, tiles, inputs, taken)
    expected = np.take_along_axis(outputs.reshape(BATCH, count, 4), actions[:, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(untiled(taken)[:BATCH], expected, rtol=1e-6)
    call(losses.put_actions, taken, inputs, tiles)
    others = np.arange(4) != actions
    put = untiled(tiles)[:BATCH].reshape(BATCH, count, 4)
    np.testing.assert_array_equal(put.transpose(0, 2, 1)[others], 0)
    np.testing.assert_allclose(put.sum(axis=2), expected, rtol=1e-6)


@pytest.mark.parametrize("action", [-1, 4, math.nan, math.inf])
def test_an_action_that_there_is_not_is_nan(rng, action):
    """In the tile that comes first, whose neighbours would be others' memory."""
    outputs, actions = rng.normal(size=(BATCH, 3 * 4)), rng.integers(0, 4, (BATCH, 1)).astype(float)
    actions[5] = action
    inputs, tiles, taken = tiled(actions), tiled(outputs), tiled(np.zeros((BATCH, 3)))
    inputs[1, :, BATCH - LANES :] = 0
    call(losses.take_actions, tiles, inputs, taken)
    others = np.arange(BATCH) != 5
    assert np.isnan(untiled(taken)[5]).all()
    assert np.isfinite(untiled(taken)[:BATCH][others]).all()
    taken[:] = 1
    call(losses.put_actions, taken, inputs, tiles)
    assert np.isnan(untiled(tiles)[5]).any()
    np.testing.assert_array_equal(untiled(tiles)[:BATCH][others].sum(axis=1), 3)


def test_huber(rng):
    values, target = 2 * rng.normal(size=(2, BATCH, 1))
    tiles = tiled(values)
    total = call(losses.huber_gradient, tiles, tiled(target), BATCH)
    errors = (values - target)[:, 0]
    assert total == pytest.approx(sum(map(reference.huber, errors)), rel=1e-5)
    np.testing.assert_allclose(untiled(tiles)[:BATCH, 0], [reference.huber_slope(e) / BATCH for e in errors], atol=1e-6)
    assert (untiled(tiles)[BATCH:] == 0).all()


@pytest.mark.parametrize(("count", "targets"), [(1, 1), (5, 8), (8, 3)])
def test_quantile_huber(rng, count, targets):
    given, target = 2 * rng.normal(size=(BATCH, count + 2)), 2 * rng.normal(size=(BATCH, targets))
    gradient = tiled(np.zeros((BATCH, count)))
    total = call(quantiles.quantile_huber, tiled(given), 2, tiled(target), BATCH, 0.1, gradient)
    expected = [reference.quantile_huber(*each) for each in zip(given[:, 2:], target, strict=True)]
    assert total == pytest.approx(sum(loss for loss, _ in expected), rel=1e-5)
    np.testing.assert_allclose(untiled(gradient)[:BATCH], [0.1 * np.array(slopes) for _, slopes in expected], atol=1e-5)
    assert (untiled(gradient)[BATCH:] == 0).all()


@pytest.mark.parametrize("kept", [1, 9, 12])
def test_least_quantiles(rng, bootstrap, kept):
    given, log_prob = rng.normal(size=(BATCH, 12)), rng.normal(size=(BATCH, 1))
    target = tiled(np.zeros((BATCH, kept)))
    call(quantiles.least_quantiles_bellman, tiled(given), tiled(log_prob), 0.3, *bootstrap, target)
    for sample in range(BATCH):
        entropy = -0.3 * log_prob[sample, 0]
        expected = reference.least_quantiles_target(given[sample], kept, entropy, *discounted(bootstrap, sample))
        np.testing.assert_allclose(sorted(untiled(target)[sample]), sorted(expected), atol=1e-5)


def test_nan_is_dropped_first_as_in_torch(bootstrap):
    given = np.tile([math.nan, 1.0, math.nan, 3.0, 2.0], (BATCH, 1))
    for kept, broken in ((3, False), (4, True)):
        target = tiled(np.zeros((BATCH, kept)))
        call(quantiles.least_quantiles_bellman, tiled(given), tiled(np.zeros((BATCH, 1))), 0.0, *bootstrap, target)
        assert np.isnan(untiled(target)[:BATCH]).any(axis=1).all() == broken
        assert th.tensor(given).sort().values[:, :kept].isnan().any(dim=1).all() == broken


def test_mean_quantile():
    gradient = tiled(np.zeros((BATCH, 2)))
    given = np.arange(BATCH * 3).reshape(BATCH, 3)
    total = call(quantiles.mean_quantile_gradient, tiled(given), 1, BATCH, 0.25, gradient)
    assert total == given[:, 1:].sum()
    assert (untiled(gradient)[:BATCH] == -0.25).all()
    assert (untiled(gradient)[BATCH:] == 0).all()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_goes_through(rng, broken):
    values, target = rng.normal(size=(2, BATCH, 1))
    target[3] = broken
    assert not math.isfinite(call(losses.huber_gradient, tiled(values), tiled(target), BATCH))
    assert not math.isfinite(
        call(quantiles.quantile_huber, tiled(values), 0, tiled(target), BATCH, 1.0, tiled(np.zeros((BATCH, 1))))
    )
