import itertools
import math

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sb3_rlx2 import SparseMLP, backends
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.sparse_mlp import spawn_generator
from tests import reference

OUTPUTS = {"identity": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh}


def make_mlp(widths, nnz, output="identity", backend="csr", dtype=th.float32, seed=0, init="random"):
    th.manual_seed(seed)
    linears = [nn.Linear(into, out, dtype=dtype) for into, out in itertools.pairwise(widths)]
    return SparseMLP.from_linears(linears, nnz, nn.ReLU(), OUTPUTS[output](), init=init, backend=backend)


def as_lists(mlp):
    """Give (row, column, value) triples and biases per layer, as the reference takes them."""
    layers, biases, row = [], [], 0
    for number, layer in enumerate(mlp.layers):
        positions = mlp.layer_index(number).tolist()
        values = mlp.values[mlp.slices[number]].tolist()
        layers.append([(p // layer.in_features, p % layer.in_features, v) for p, v in zip(positions, values, strict=False)])
        biases.append(mlp.bias[row : row + layer.out_features].tolist())
        row += layer.out_features
    return layers, biases


@st.composite
def networks(draw, dtypes=(th.float32, th.float64)):
    widths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    nnz = [draw(st.integers(1, into * out)) for into, out in itertools.pairwise(widths)]
    spec = {
        "output": draw(st.sampled_from(sorted(OUTPUTS))),
        "dtype": draw(st.sampled_from(dtypes)),
        "seed": draw(st.integers(0, 99)),
    }
    return make_mlp(widths, nnz, **spec), make_mlp(widths, nnz, backend="masked", **spec)


@pytest.mark.parametrize("backend", ["csr", "masked"])
@given(data=st.data())
def test_forward_against_reference(backend, data):
    csr, masked = data.draw(networks(dtypes=(th.float64,)))
    mlp = csr if backend == "csr" else masked
    x = th.randn(data.draw(st.integers(1, 5)), mlp.layers[0].in_features, dtype=th.float64)
    output = {nn.Identity: lambda v: v, nn.ReLU: reference.relu, nn.Tanh: np.tanh}[type(mlp.output_activation)]
    np.testing.assert_allclose(mlp(x).detach(), reference.sparse_mlp_forward(*as_lists(mlp), x.tolist(), output), atol=1e-10)


@given(pair=networks(), batch=st.sampled_from([1, 2, 7, 31, 33, 100, 256, 300]))
def test_csr_equals_masked(pair, batch):
    assert_same(*pair, batch)


# every compiled path: tiles, remainders of columns and of links, empty and full rows
@pytest.mark.parametrize("batch", [1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 513, 1024])
@pytest.mark.parametrize("nnz", [(1, 1, 1), (30, 60, 5), (17 * 40, 40 * 40, 40 * 6)])
def test_csr_equals_masked_at_sizes(batch, nnz):
    assert_same(make_mlp([17, 40, 40, 6], nnz, "tanh"), make_mlp([17, 40, 40, 6], nnz, "tanh", "masked"), batch)


def assert_same(csr, masked, batch):
    dtype = csr.values.dtype
    x = th.randn(batch, csr.layers[0].in_features, dtype=dtype)
    weight = th.randn(batch, csr.layers[-1].out_features, dtype=dtype)
    results = []
    for mlp in (csr, masked):
        mlp.records_dense_gradient = True
        leaf = x.clone().requires_grad_()
        y = mlp(leaf)
        (y * weight).sum().backward()
        dense = [mlp.dense_gradient(layer) for layer in range(len(mlp.layers))]
        with th.no_grad():
            assert th.equal(mlp(x), y)
        results.append([y.detach(), leaf.grad, mlp.values.grad, mlp.bias.grad, *dense])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_gradcheck(backend, output):
    mlp = make_mlp([4, 6, 5, 3], [9, 12, 15], output, backend, th.float64)
    x = th.randn(5, 4, dtype=th.float64, requires_grad=True)

    def compute(x, values, bias):
        return th.func.functional_call(mlp, {"values": values, "bias": bias}, (x,))

    assert th.autograd.gradcheck(compute, (x, mlp.values, mlp.bias))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (0, 6), (2, 0, 6)])
def test_any_leading_dimensions(shape):
    """As with torch's linear layers, forward and backward."""
    inputs, outputs = [], []
    for backend in ("csr", "masked"):
        x = th.linspace(-1, 1, math.prod(shape)).reshape(shape).requires_grad_()
        y = make_mlp([6, 9, 2], [30, 12], backend=backend)(x)
        y.square().sum().backward()
        inputs.append(x.grad)
        outputs.append(y)
    assert outputs[0].shape == (*shape[:-1], 2)
    th.testing.assert_close(*outputs)
    th.testing.assert_close(*inputs)


@pytest.mark.parametrize("shape", [(4, 5), (4, 7), (5,), (2, 4, 1), ()])
@pytest.mark.parametrize(("backend", "error"), [("csr", ValueError), ("masked", RuntimeError)])
def test_inputs_of_another_width_are_refused(backend, error, shape):
    with pytest.raises(error, match="must be in_features=6" if backend == "csr" else None):
        make_mlp([6, 9, 2], [30, 12], backend=backend)(th.zeros(shape))


def test_twins_in_one_call_equal_two_calls():
    one, two = make_mlp([5, 8, 1], [20, 4], seed=1), make_mlp([5, 8, 1], [10, 8], seed=2)
    x = th.randn(6, 5, requires_grad=True)
    together = backends.forward([one, two], x)
    for mlp, y in zip((one, two), together, strict=True):
        assert th.equal(mlp(x), y)
    (grad,) = th.autograd.grad(together[0].sum() + 2 * together[1].sum(), [x])
    (expected,) = th.autograd.grad(one(x).sum() + 2 * two(x).sum(), [x])
    np.testing.assert_allclose(grad, expected, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_inputs_reach_the_output_through_live_links_only(value):
    mlp = make_mlp([3, 4, 2], [6, 8], dtype=th.float64)
    live = {column for _, column, _ in as_lists(mlp)[0][0]}
    for column in range(3):
        x = th.randn(2, 3, dtype=th.float64)
        x[0, column] = value
        expected = reference.sparse_mlp_forward(*as_lists(mlp), x.tolist())
        np.testing.assert_allclose(mlp(x).detach(), expected, atol=1e-10)
        if column not in live:
            assert th.isfinite(mlp(x)).all()


def test_nan_in_a_hidden_unit_lets_the_gradient_pass():
    mlp = make_mlp([1, 1, 1], [1, 1])
    x = th.tensor([[float("nan")]], requires_grad=True)
    y = mlp(x)
    y.sum().backward()
    assert y.isnan()
    assert mlp.values.grad.isnan().any()


def test_interleaved_passes_keep_their_own_activations():
    """SAC runs its actor with gradient, then without, then goes backward through the first."""
    mlp, other = make_mlp([4, 8, 2], [20, 10]), make_mlp([4, 8, 2], [20, 10], backend="masked")
    x1, x2 = th.randn(6, 4), th.randn(6, 4)
    gradients = []
    for net in (mlp, other):
        y = net(x1)
        with th.no_grad():
            net(x2)
        z = net(x2)
        y.sum().backward()
        z.pow(2).sum().backward()
        gradients.append(net.values.grad)
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_backward_twice_with_retained_graph():
    mlp = make_mlp([4, 8, 2], [20, 10])
    y = mlp(th.randn(6, 4)).sum()
    y.backward(retain_graph=True)
    first = mlp.values.grad.clone()
    y.backward()
    np.testing.assert_allclose(mlp.values.grad, 2 * first, rtol=1e-6)


def test_dense_gradient_is_overwritten_not_accumulated():
    for backend in ("csr", "masked"):
        mlp = make_mlp([3, 4, 1], [5, 2], backend=backend)
        mlp.records_dense_gradient = True
        mlp(th.randn(8, 3)).sum().backward()
        x = th.randn(8, 3)
        mlp(x).pow(2).sum().backward()
        weights = [weight.detach().requires_grad_() for weight in mlp.dense_weights()]
        h = th.relu(x @ weights[0].T + mlp.bias[:4].detach())
        (h @ weights[1].T + mlp.bias[4:].detach()).pow(2).sum().backward()
        for layer, weight in enumerate(weights):
            np.testing.assert_allclose(mlp.dense_gradient(layer), weight.grad, atol=1e-5)
        mlp.forget_dense_gradients()
        with pytest.raises(RuntimeError, match="no backward pass was recorded"):
            mlp.dense_gradient(0)


def test_topology_change_and_load_rebuild_the_kernels_arrays():
    a, b = make_mlp([5, 6, 2], [12, 6], seed=1), make_mlp([5, 6, 2], [12, 6], seed=2)
    x = th.randn(3, 5)
    expected = b(x)
    assert not th.allclose(a(x), expected)
    a.load_state_dict(b.state_dict())
    assert th.equal(a(x), expected)
    a.set_index(make_mlp([5, 6, 2], [12, 6], seed=3).index)
    assert not th.allclose(a(x), expected)
    masked = make_mlp([5, 6, 2], [12, 6], backend="masked")
    masked.load_state_dict(a.state_dict())
    np.testing.assert_allclose(a(x).detach(), masked(x).detach(), atol=1e-6)


def test_magnitude_init_keeps_the_largest():
    th.manual_seed(0)
    linear = nn.Linear(6, 4)
    mlp = SparseMLP.from_linears([linear], [5], nn.ReLU())
    kept = linear.weight.detach().abs().flatten()[mlp.index]
    assert len(kept) == 5
    assert kept.min() >= linear.weight.detach().abs().flatten().sort(descending=True).values[4]
    assert th.equal(mlp.values.detach(), linear.weight.detach().flatten()[mlp.index])


def test_dense_weights():
    mlp = make_mlp([3, 4, 2], [7, 8])
    assert [weight.shape for weight in mlp.dense_weights()] == [(4, 3), (2, 4)]
    assert sum(int((weight != 0).sum()) for weight in mlp.dense_weights()) == mlp.nnz == 15
    assert mlp.size == 20


def test_generator_follows_the_seed_without_drawing():
    draws = []
    for seed in (1, 1, 2):
        th.manual_seed(seed)
        generator = spawn_generator()
        own = th.rand(4, generator=generator)
        draws.append((own, th.rand(4)))
    assert th.equal(draws[0][0], draws[1][0])
    assert not th.equal(draws[0][0], draws[2][0])
    th.manual_seed(1)
    assert th.equal(th.rand(4), draws[0][1])
    assert not th.equal(*draws[0])


@pytest.mark.parametrize("nnz", [0, 13, -1])
def test_layer_without_a_link(nnz):
    with pytest.raises(ValueError, match=rf"nnz={nnz} of layer 0 must lie in \[1, 12\]"):
        make_mlp([3, 4], [nnz], init="magnitude")


def test_from_sequential_refuses_other_modules():
    with pytest.raises(ValueError, match="expected linear layers with bias"):
        SparseMLP.from_sequential(nn.Sequential(nn.Linear(3, 4, bias=False)), [4])
    with pytest.raises(ValueError, match="expected linear layers with bias"):
        SparseMLP.from_sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4)), [4])
    with pytest.raises(ValueError, match="activation_fn=PReLU must have no parameters"):
        SparseMLP.from_sequential(nn.Sequential(nn.Linear(3, 4), nn.PReLU()), [4])
    layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    with pytest.raises(ValueError, match=r"must all be the same, got ReLU\(\), Tanh\(\)"):
        SparseMLP.from_sequential(nn.Sequential(*layers), [12, 16, 8])


def test_float32_tanh_is_as_accurate_as_its_docstring_says():
    one = th.ones(1)
    mlp = SparseMLP([LayerSpec(1, 1, 1)], one, 0 * one, th.zeros(1, dtype=th.int64), nn.ReLU(), nn.Tanh(), "csr")
    x = th.linspace(-12, 12, 100_001)[:, None]
    y = mlp(x).detach().double()
    assert (y - x.double().tanh()).abs().max() <= 3e-7
    assert y.abs().max() <= 1


def test_auto_takes_dense_arithmetic_for_dense_networks(monkeypatch):
    monkeypatch.setattr(backends, "_warned", set())
    assert (backends.MASKED_FROM, backends.MASKED_FROM_WEIGHTS) == (0.8, 30_000)
    widths, sizes = [8, 4_000, 2], [8 * 4_000, 4_000 * 2]  # 40,000 weights
    enough, many = make_mlp(widths, [31_999, 1], backend="auto"), make_mlp(widths, [32_000, 1], backend="auto")
    assert backends.uses_csr(enough)
    with pytest.warns(UserWarning, match=r"because 80% of a network's 40,000 weights are live, and above 80% and 30,000 live"):
        assert not backends.uses_csr(many)
    assert not backends.uses_csr(many)  # says so once
    x = th.randn(5, 8)
    th.testing.assert_close(many(x), make_mlp(widths, [32_000, 1])(x))
    assert backends.uses_csr(make_mlp(widths, sizes))  # asked for


@pytest.mark.parametrize(("width", "csr"), [(3_000, True), (3_001, False)])
@pytest.mark.filterwarnings("ignore:backend='auto' takes 'masked'")
def test_auto_takes_csr_for_small_networks_however_dense(width, csr):
    assert backends.uses_csr(make_mlp([8, width, 2], [8 * width, 2 * width], backend="auto")) == csr


def test_live_scale_keeps_each_units_sum_of_squares():
    linear = nn.Linear(3, 3)
    with th.no_grad():
        # Sums of squares 49, 25 and 9; alive are the 6 and the 3, of the second row the 5, of the third nothing.
        linear.weight.copy_(th.tensor([[2.0, -6.0, 3.0], [5.0, 0.0, 0.0], [1.0, 2.0, -2.0]]))
    mlp = SparseMLP.from_linears([linear], [3], nn.ReLU(), weight_scale="live")
    expected = th.tensor([-6.0, 3.0, 5.0]) * th.tensor([(49 / 45) ** 0.5, (49 / 45) ** 0.5, 1.0])
    th.testing.assert_close(mlp.values.detach(), expected)
    assert th.equal(mlp.bias, linear.bias)


@pytest.mark.parametrize("init", ["magnitude", "random"])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_live_scale_is_of_any_dense_initialisation(init, orthogonal):
    th.manual_seed(0)
    linears = [nn.Linear(17, 64), nn.Linear(64, 64), nn.Linear(64, 2)]
    for linear in linears if orthogonal else ():
        nn.init.orthogonal_(linear.weight, 2**0.5)
    mlp = SparseMLP.from_linears(linears, [100, 130, 128], nn.ReLU(), init=init, weight_scale="live")
    plain = SparseMLP.from_linears(linears, [100, 130, 128], nn.ReLU(), init=init)
    if init == "magnitude":
        assert th.equal(mlp.index, plain.index)
    for linear, weight in zip(linears, mlp.dense_weights(), strict=True):
        linked = weight.any(dim=1)
        th.testing.assert_close(weight.square().sum(1)[linked], linear.weight.square().sum(1)[linked])


def test_live_scale_of_torchs_own_initialisation_is_a_third():
    th.manual_seed(0)
    mlp = SparseMLP.from_linears([nn.Linear(256, 256)], [1_000], nn.ReLU(), weight_scale="live")
    sums = mlp.dense_weights()[0].square().sum(1)
    assert sums[sums > 0].mean().item() == pytest.approx(1 / 3, rel=0.01)


@pytest.mark.parametrize("zeros", [False, True])
def test_live_scale_leaves_full_rows_and_zeros_alone(zeros):
    linears = [nn.Linear(7, 9), nn.Linear(9, 3)]
    if zeros:
        nn.init.zeros_(linears[0].weight)
    plain, scaled = (
        SparseMLP.from_linears(linears, [63 - 30 * zeros, 27], nn.ReLU(), weight_scale=scale) for scale in ("dense", "live")
    )
    assert th.equal(plain.values, scaled.values)
