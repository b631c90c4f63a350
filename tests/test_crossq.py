"""What is particular to CrossQ: networks that normalise the inputs of their layers."""

import copy
import itertools
import math
import pickle
import warnings

import numpy as np
import pytest
import torch as th
from sb3_contrib import CrossQ
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_rlx2 import RLx2Callback, RLx2CrossQ, RLx2ReplayBuffer, SparseCrossQPolicy, SparseMLP, backends
from sb3_rlx2.algorithms.crossq.policies import SparseBatchRenorm1d
from sb3_rlx2.distributions import erdos_renyi
from sb3_rlx2.fast.adam import KernelAdam
from sb3_rlx2.topology import RigL
from sb3_rlx2.updater import TopologyUpdater
from tests.checks import assert_sound, sparse_mlps
from tests.envs import DriftEnv, TinyEnv
from tests.test_updater import record_scores

SPARSE = {"actor_sparsity": 0.6, "critic_sparsity": 0.5}


def build(env=None, policy_kwargs=None, **kwargs):
    defaults = {
        "learning_starts": 20,
        "batch_size": 16,
        "buffer_size": 500,
        "buffer_min_size": 30,
        "update_interval": 10,
        "n_steps_delay": 0.0,
        "seed": 0,
    }
    return RLx2CrossQ(
        "MlpPolicy",
        env or DriftEnv(),
        policy_kwargs={"net_arch": [16, 12]} | (policy_kwargs or {}),
        **SPARSE,
        **defaults | kwargs,
    )


def renormed(dtype=th.float32, steps=0, training=True, seed=0, sparsity=0.7, widths=(5, 70, 66, 3)):
    """Give a network whose normalisations have seen something, past their warm-up if ``steps`` are many."""
    th.manual_seed(seed)
    modules = []
    for into, out in itertools.pairwise(widths):
        modules += [SparseBatchRenorm1d(into, warmup_steps=100), nn.Linear(into, out), nn.ReLU()]
    shapes = [(out, into) for into, out in itertools.pairwise(widths)]
    mlp = SparseMLP.from_sequential(nn.Sequential(*modules[:-1]), erdos_renyi(shapes, sparsity), backend="csr").to(dtype)
    for norm in mlp.norms:
        norm.steps.fill_(steps)
        norm.train(training)
        for tensor in (norm.scale.data, norm.bias.data, norm.ra_mean):
            tensor += 0.3 * th.randn_like(tensor)
        norm.ra_var *= th.rand_like(norm.ra_var) + 0.5
    return mlp


def with_backend(mlp, backend):
    other = copy.deepcopy(mlp)
    other.backend = backend
    other.records_dense_gradient = True
    return other


def inputs(batch, features, dtype=th.float32):
    """Inputs that are far from 0 and of very different size."""
    x = th.randn(batch, features, generator=th.Generator().manual_seed(1)) * th.logspace(-1, 1, features)
    return (x + th.linspace(-20, 20, features)).to(dtype).requires_grad_()


def passed(mlp, batch):
    """Give the output and all that a forward and a backward pass leave behind."""
    x = inputs(batch, mlp.layers[0].in_features, mlp.values.dtype)
    y = mlp(x)
    weights = th.randn(y.shape, generator=th.Generator().manual_seed(2)).to(y.dtype)
    (y * weights).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "values": mlp.values.grad, "bias": mlp.bias.grad}
    found |= {f"dense {layer}": mlp.dense_gradient(layer) for layer in range(len(mlp.layers))}
    for number, norm in enumerate(mlp.norms):
        found |= {f"scale {number}": norm.scale.grad, f"bias {number}": norm.bias.grad}
        found |= {f"{name} {number}": getattr(norm, name) for name in ("ra_mean", "ra_var", "steps")}
    return found


# kernels against their definition


@pytest.mark.parametrize(("training", "steps"), [(True, 0), (True, 101), (False, 0)])
@pytest.mark.parametrize("batch", [2, 63, 64, 65, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float64, 1e-10), (th.float32, 1e-4)])
def test_csr_against_masked(dtype, tolerance, batch, training, steps):
    mlp = renormed(dtype, steps, training)
    expected, actual = (passed(with_backend(mlp, backend), batch) for backend in ("masked", "csr"))
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1.0)
        np.testing.assert_allclose(actual[name] / scale, value / scale, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("steps", [0, 101])
def test_against_dense_layers_with_the_hosts_normalisation(backend, steps):
    mlp = with_backend(renormed(th.float64, steps), backend)
    dense = []
    for norm, weight, bias in zip(mlp.norms, mlp.dense_weights(), mlp.bias.split([70, 66, 3]), strict=True):
        host = BatchRenorm1d(norm.num_features, warmup_steps=100).double()
        host.load_state_dict(norm.state_dict())
        linear = nn.Linear(*weight.T.shape).double()
        linear.weight.data, linear.bias.data = weight.detach(), bias.detach().clone()
        dense += [host, linear, nn.ReLU()]
    dense = nn.Sequential(*dense[:-1])
    found, x = passed(mlp, 130), inputs(130, 5, th.float64)
    y = dense(x)
    np.testing.assert_allclose(found["y"], y.detach(), atol=1e-10)
    (y * th.randn(y.shape, generator=th.Generator().manual_seed(2)).double()).sum().backward()
    np.testing.assert_allclose(found["x"], x.grad, atol=1e-9)
    for number in range(3):
        host, linear = dense[3 * number], dense[3 * number + 1]
        np.testing.assert_allclose(found[f"dense {number}"], linear.weight.grad, atol=1e-9)
        own = mlp.values.grad[mlp.slices[number]]
        np.testing.assert_allclose(own, linear.weight.grad.flatten()[mlp.layer_index(number)], atol=1e-9)
        np.testing.assert_allclose(found[f"scale {number}"], host.scale.grad, atol=1e-9)
        np.testing.assert_allclose(found[f"ra_var {number}"], host.ra_var, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 3, 200])
def test_evaluation_mode_folds_into_weights_and_biases(batch):
    mlp = renormed(th.float64, training=False)
    x = inputs(batch, 5, th.float64).detach()
    for _ in range(2):  # what was folded is folded anew
        np.testing.assert_allclose(backends.infer(mlp, x.numpy()), with_backend(mlp, "masked")(x).detach(), atol=1e-10)
        with th.no_grad():
            mlp.values *= 1.5
            mlp.norms[1].ra_mean += 1
            mlp.norms[2].bias -= 1
    mlp.set_links(mlp.index[:-1], mlp.values[:-1])
    np.testing.assert_allclose(backends.infer(mlp, x.numpy()), with_backend(mlp, "masked")(x).detach(), atol=1e-10)


def without_links(mlp, unit):
    """Take all links of a unit of the first layer away, and leave it a positive bias: it says the same to every input."""
    stays = (mlp.index >= mlp.layers[0].size) | (mlp.index // mlp.layers[0].in_features != unit)
    mlp.set_links(mlp.index[stays], mlp.values[stays])
    mlp.bias.data[unit] = 0.3
    return mlp


@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_a_unit_without_links_has_a_finite_gradient(backend):
    mlp = with_backend(without_links(renormed(steps=101), 7), backend)
    found = passed(mlp, 100)
    assert all(th.isfinite(value).all() for value in found.values())
    # A bias that the normalisation takes away again, all samples alike, but for a running mean that is not the batch's.
    assert abs(found["bias"][7]) < 1e-3 * found["bias"].abs().max() + 10


def test_the_hosts_gradient_of_a_constant_is_nan():
    """Why the class is our own."""
    for cls, finite in ((BatchRenorm1d, False), (SparseBatchRenorm1d, True)):
        norm, x = cls(1, warmup_steps=0), th.full((4, 1), 0.3, requires_grad=True)
        norm.steps += 1
        norm(x).sum().backward()
        assert bool(th.isfinite(x.grad).all()) == finite


def test_backward_twice():
    mlp, x = renormed(), inputs(9, 5)
    loss = mlp(x).sum()
    loss.backward(retain_graph=True)
    once = mlp.values.grad.clone(), mlp.norms[1].scale.grad.clone(), x.grad.clone()
    loss.backward()
    for first, both in zip(once, (mlp.values.grad, mlp.norms[1].scale.grad, x.grad), strict=True):
        np.testing.assert_allclose(both, 2 * first, rtol=1e-6)


def test_nan_goes_through():
    for backend in ("csr", "masked"):
        mlp = with_backend(renormed(), backend)
        x = inputs(70, 5).detach()
        x[3, 2] = math.nan
        assert th.isnan(mlp(x)).any()


# what a network takes


def test_a_normalisation_stands_before_each_layer_or_before_none():
    layers = [BatchRenorm1d(3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)]
    with pytest.raises(ValueError, match="expected a normalisation before each linear layer or before none"):
        SparseMLP.from_sequential(nn.Sequential(*layers), [6, 4])
    layers = [nn.Linear(3, 4), BatchRenorm1d(4), nn.ReLU(), nn.Linear(4, 2)]
    with pytest.raises(ValueError, match="expected a normalisation before each linear layer or before none"):
        SparseMLP.from_sequential(nn.Sequential(*layers), [6, 4])


def test_other_normalisations_are_masked():
    layers = [nn.BatchNorm1d(3), nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)]
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*CrossQ's BatchRenorm1d, not for BatchNorm1d"):
        SparseMLP.from_sequential(nn.Sequential(*layers), [6, 4], backend="csr")
    mlp = SparseMLP.from_sequential(nn.Sequential(*layers), [12, 8])
    backends._warned.clear()
    with pytest.warns(UserWarning, match="not for BatchNorm1d"):
        y = mlp(inputs(9, 3))
    assert th.equal(y, nn.Sequential(*layers).eval().train()(inputs(9, 3)))


def test_a_hook_of_a_normalisation_is_called():
    mlp = renormed()
    mlp.backend = "auto"
    called = []
    mlp.norms[1].register_forward_hook(lambda *_: called.append(1))
    backends._warned.clear()
    with pytest.warns(UserWarning, match="a normalisation has a hook"):
        mlp(inputs(9, 5))
    assert called == [1]


def test_one_sample_has_no_variance():
    mlp = renormed()
    with pytest.raises(ValueError, match="x has 1 samples and must have at least 2"):
        mlp(inputs(1, 5))
    with pytest.raises(ValueError, match=r"x has the shape \[4, 6\], which must be \[batch, in_features=5\]"):
        mlp(th.zeros(4, 6))


# the algorithm


def test_defaults_are_the_hosts_where_rlx2_has_no_other():
    model = RLx2CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=10)
    host = CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=10)
    assert (model.learning_rate, model.policy_delay) == (host.learning_rate, host.policy_delay) == (1e-3, 3)
    assert model.policy.net_arch == host.policy.net_arch
    assert [layer.shape for layer in model.critic.qf0.layers] == [(1024, 4), (1024, 1024), (1, 1024)]
    for network in (model.actor, model.critic):
        assert type(network.optimizer) is KernelAdam
        assert network.optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    with pytest.raises(TypeError, match="tau"):
        RLx2CrossQ("MlpPolicy", "Pendulum-v1", tau=0.1)


def test_links_are_shared_out_over_the_whole_network():
    model = build()
    head = {"actor": [(16, 3), (12, 16), (4, 12)], "critic": [(16, 5), (12, 16), (1, 12)]}
    nnz = {name: erdos_renyi(shapes, SPARSE[f"{name}_sparsity"]) for name, shapes in head.items()}
    assert_sound(model.policy, nnz)
    model.learn(80)
    assert_sound(model.policy, nnz)
    assert [type(norm) for norm in model.critic.qf1.norms] == [SparseBatchRenorm1d] * 3
    assert isinstance(model.critic.qf1.norms[0], BatchRenorm1d)  # by which the host finds them
    assert not [module for module in model.policy.modules() if isinstance(module, nn.Linear)]


def test_layers_are_numbered_as_of_one_network():
    model = build(topology="set")
    model.learn(60)
    updates = []
    model.policy.topology_updater.configure("set", 0.5, 1)
    model.policy.topology_updater.progress = 0.0
    original = TopologyUpdater._update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TopologyUpdater, "_update", lambda *a: (original(*a), updates.extend(a[0].latest_updates))[0])
        model.train(3, 16)
    assert {update.network: [len(shares) for shares in update.layer_churn] for update in updates} == {
        "critic": [3, 3],
        "actor": [3],
    }


@pytest.mark.parametrize("n_critics", [1, 3])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_arguments_of_the_hosts_policy(n_critics, batch_norm):
    own = {"n_critics": n_critics, "batch_norm": batch_norm, "renorm_warmup_steps": 7, "batch_norm_momentum": 0.2}
    model = build(policy_kwargs=own | {"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9}})
    assert len(model.critic.q_networks) == n_critics
    for mlp in sparse_mlps(model.policy):
        assert (mlp.norms is not None) == batch_norm
        assert all((norm.warmup_steps, norm.momentum) == (7, 0.2) for norm in mlp.norms or ())
    model.learn(60)
    assert_sound(model.policy)


@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_growth_gradient_is_of_the_critics_own_loss(backend, monkeypatch):
    """By autograd of dense copies with the host's own BatchRenorm, of all states and next states together."""
    model = build(backend=backend, update_interval=5, policy_delay=1)
    scores, checked, joint = [], [], []
    monkeypatch.setattr(RigL, "grow_scores", record_scores(scores))
    forward = type(model.critic).forward

    def watch(critic, obs, actions):
        if len(obs) == 32:  # the joint batch
            joint[:] = [th.cat([obs, actions.detach()], 1), copy.deepcopy(critic.q_networks)]
        return forward(critic, obs, actions)

    functional = type(
        "F", (), {"mse_loss": staticmethod(lambda q, target: targets.append(target) or th.nn.functional.mse_loss(q, target))}
    )
    targets = []
    monkeypatch.setattr(f"{CrossQ.__module__}.F", functional)
    monkeypatch.setattr(type(model.critic), "forward", watch)
    original = TopologyUpdater._update

    def spy(updater, network):
        scores.clear()
        moved = original(updater, network)
        if network.name == "critic":
            expected = dense_gradients(*joint, targets[-1])
            assert len(scores) == len(expected) > 2
            for actual, dense in zip(scores, expected, strict=True):
                assert dense.abs().max() > 1e-4
                np.testing.assert_allclose(actual, dense, atol=1e-5)
            checked.append(network.steps)
        return moved

    monkeypatch.setattr(TopologyUpdater, "_update", spy)
    model.learn(20 + 14)
    assert checked == [5, 10]


def dense_gradients(x, mlps, target):
    found = []
    with th.enable_grad():
        for mlp in mlps:
            weights = [weight.detach().requires_grad_() for weight in mlp.dense_weights()]
            biases = mlp.bias.detach().split([layer.out_features for layer in mlp.layers])
            h = x
            for number, (norm, weight, bias) in enumerate(zip(mlp.norms, weights, biases, strict=True)):
                host = BatchRenorm1d(norm.num_features)
                host.load_state_dict(norm.state_dict())
                h = host(h) @ weight.T + bias
                h = th.relu(h) if number < 2 else h
            loss = 0.5 * th.nn.functional.mse_loss(h[: len(target)], target)
            of_layers = zip(mlp.layers, th.autograd.grad(loss, weights), strict=True)
            found += [gradient for layer, gradient in of_layers if layer.nnz < layer.size]
    return found


def statistics(network):
    return [
        tensor.clone() for name, tensor in network.named_buffers() if name.rpartition(".")[2] in ("ra_mean", "ra_var", "steps")
    ]


@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_the_entropy_bonus_leaves_no_trace_in_the_statistics(backend):
    model = build(backend=backend).learn(60)
    assert model.replay_buffer.uses_entropy_bonus
    before = statistics(model.policy)
    model.policy.set_training_mode(True)  # as the host's `train` does before it samples
    obs = th.randn(50, 3)
    th.manual_seed(5)
    bonus = model.replay_buffer.entropy_bonus(obs)
    model.policy.set_training_mode(False)
    th.manual_seed(5)
    _, log_prob = model.actor.action_log_prob(obs)
    np.testing.assert_allclose(bonus, -model.log_ent_coef.detach().exp() * log_prob.detach(), rtol=1e-6)
    for one, other in zip(before, statistics(model.policy), strict=True):
        assert th.equal(one, other)
    assert len(before) == 3 * 3 * 3


def test_the_soft_n_step_return_moves_statistics_as_often_as_the_plain_one():
    steps = []
    for soft in (True, False):
        model = build(soft_n_step=soft).learn(50)
        assert model.replay_buffer.n_steps == 3
        steps.append([int(norm.steps) for mlp in sparse_mlps(model.policy) for norm in mlp.norms])
    assert steps[0] == steps[1] == [10] * 3 + [30] * 6


def test_acting_leaves_no_trace_either():
    model = build().learn(60)
    observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    before = statistics(model.policy)
    model.policy.set_training_mode(True)
    acted = model.policy.act(observations)
    predicted, _ = model.predict(observations, deterministic=True)
    masked = copy.deepcopy(model.policy)
    for mlp in sparse_mlps(masked):
        mlp.backend = "masked"
    np.testing.assert_allclose(model.policy.unscale_action(acted), predicted, atol=1e-6)
    np.testing.assert_allclose(predicted, masked.predict(observations, deterministic=True)[0], atol=1e-5)
    assert all(map(th.equal, before, statistics(model.policy)))


def test_training_mode_matters():
    policy = build().policy
    for mode in (True, False, True):
        policy.set_training_mode(mode)
        assert {norm.training for mlp in sparse_mlps(policy) for norm in mlp.norms} == {mode}


def test_parts_in_the_hosts_algorithm():
    model = CrossQ(
        SparseCrossQPolicy,
        TinyEnv(),
        learning_starts=20,
        batch_size=16,
        buffer_size=500,
        replay_buffer_class=RLx2ReplayBuffer,
        replay_buffer_kwargs={"n_steps": 3, "buffer_min_size": 30},
        policy_kwargs=SPARSE | {"net_arch": [16]},
        seed=0,
    )
    model.learn(80, callback=RLx2Callback(update_interval=10, n_steps_delay=0.0))
    assert_sound(model.policy)
    assert model.replay_buffer.uses_entropy_bonus
    assert model.policy.topology_updater.networks["critic"].updates == 5  # the last one, at the end, moves nothing


def test_steps_in_arrays_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="arrays=True cannot be served: RLx2CrossQ has no such steps yet"):
        build(arrays=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "in this run of")
        build().learn(30)


def test_only_the_policy_that_the_host_has():
    with pytest.raises(ValueError, match="policy='CnnPolicy' is unknown; choose one of 'MlpPolicy'"):
        RLx2CrossQ("CnnPolicy", DriftEnv())


@pytest.mark.parametrize("own", [{}, {"batch_norm": False}, {"share_features_extractor": True, "n_critics": 3}])
def test_policy_alone_saved_and_loaded(own, tmp_path):
    model = build(policy_kwargs=own).learn(60)
    model.policy.save(tmp_path / "policy.pth")
    loaded = SparseCrossQPolicy.load(tmp_path / "policy.pth")
    observations = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )
    assert loaded.critic_kwargs["share_features_extractor"] == own.get("share_features_extractor", False)
    assert len(loaded.critic.q_networks) == own.get("n_critics", 2)
    assert_sound(loaded)


def test_pickles_name_the_face():
    assert SparseCrossQPolicy.__module__ == "sb3_rlx2.policies"
    assert pickle.loads(pickle.dumps(SparseCrossQPolicy)) is SparseCrossQPolicy
