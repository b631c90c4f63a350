from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3

from sb3_rlx2 import RLx2SAC, RLx2TD3, SparseMLP
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.topology import TOPOLOGIES, RigL
from sb3_rlx2.updater import TopologyUpdater

SMALL = {
    "learning_starts": 20,
    "batch_size": 16,
    "buffer_size": 1000,
    "buffer_min_size": 100,
    "policy_kwargs": {"net_arch": [16, 16]},
    "actor_sparsity": 0.5,
    "critic_sparsity": 0.5,
    "seed": 0,
}


def sparse(module):
    return [mlp for mlp in module.modules() if isinstance(mlp, SparseMLP)]


def snapshot(model):
    """Copy everything that belongs to links, per online network: index, values, target values, moments."""
    policy, out = model.policy, {}
    for name in ("actor", "critic"):
        targets = sparse(getattr(policy, f"{name}_target", None) or th.nn.Module())
        for i, mlp in enumerate(sparse(getattr(policy, name))):
            state = getattr(policy, name).optimizer.state[mlp.values]
            parts = {"index": mlp.index, "values": mlp.values.detach(), **{k: v for k, v in state.items() if v.numel() > 1}}
            if targets:
                parts |= {"target_index": targets[i].index, "target_values": targets[i].values.detach()}
            out[name, i] = {key: value.clone() for key, value in parts.items()}
    return out


def build(algorithm, backend="csr", **kwargs):
    return algorithm("MlpPolicy", "Pendulum-v1", backend=backend, **(deepcopy(SMALL) | kwargs))  # SB3 writes into it


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("topology", ["rigl", "set"])
def test_an_update_replaces_the_step_and_moves_the_state(algorithm, backend, topology, monkeypatch):
    model = build(algorithm, backend, topology=topology, update_interval=7)
    seen = []
    original = TopologyUpdater._update

    def spy(updater, network):
        before = snapshot(model)
        moved = original(updater, network)
        seen.append((network.name, network.steps, before, snapshot(model)))
        return moved

    monkeypatch.setattr(TopologyUpdater, "_update", spy)
    steps = []
    for name in ("actor", "critic"):
        optimizer = getattr(model.policy, name).optimizer
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append((name, snapshot(model))))
    model.learn(20 + 40)
    updated = {name: [step for other, step, *_ in seen if other == name] for name in ("actor", "critic")}
    n_actor = 20 if algorithm is RLx2TD3 else 40
    assert updated == {"actor": list(range(7, n_actor + 1, 7)), "critic": list(range(7, 41, 7))}
    for name, step, before, after in seen:
        own_steps = [state for other, state in steps if other == name]
        assert_equal_states(own_steps[step - 1], after, name)  # the optimizer's step behind the update was a no-op
        for key in before:
            (assert_moved if key[0] == name else assert_same)(before[key], after[key])


def assert_same(before, after):
    assert all(th.equal(before[key], after[key]) for key in before)


def assert_equal_states(a, b, name):
    for key in a:
        if key[0] == name:
            assert_same(a[key], b[key])


def assert_moved(before, after):
    old, new = before["index"].tolist(), after["index"].tolist()
    assert len(new) == len(old) == len(set(new))
    assert new == sorted(new)
    assert new != old
    for key in before.keys() - {"index", "target_index"}:
        was = dict(zip(old, before[key].tolist(), strict=True))
        # kept (or grown back) links keep value and moments, grown ones start at 0
        assert after[key].tolist() == [was.get(position, 0.0) for position in new]
    if "target_index" in before:
        assert after["target_index"].tolist() == new


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_growth_gradient_is_of_the_critics_own_loss(algorithm, backend, monkeypatch):
    """Actor steps lie between: their loss also goes backward through the critic."""
    model = build(algorithm, backend, update_interval=5, **({"policy_delay": 1} if algorithm is RLx2TD3 else {}))
    model.arrays = False  # SB3's own `train`, whose loss can be watched; test_gradient_steps.py compares the two
    losses, scores = [], []

    def mse_loss(q, target):
        losses.append((q, target.detach()))
        return th.nn.functional.mse_loss(q, target)

    module = TD3.train.__module__ if algorithm is RLx2TD3 else SAC.train.__module__
    functional = type("F", (), {"mse_loss": staticmethod(mse_loss)})
    monkeypatch.setattr(f"{module}.F", functional)
    replay = []
    sample = model.replay_buffer.sample
    monkeypatch.setattr(model.replay_buffer, "sample", lambda *a, **k: replay.append(sample(*a, **k)) or replay[-1])
    monkeypatch.setattr(RigL, "grow_scores", record_scores(scores))

    original = TopologyUpdater._update
    checked = []

    def spy(updater, network):
        scores.clear()
        if network.name == "critic":
            expected = own_gradients(model, replay[-1], [target for _, target in losses[-2:]], algorithm is RLx2SAC)
        moved = original(updater, network)
        if network.name == "critic":
            assert len(scores) == len(expected) == 4  # the last layers are fully dense, nothing to move there
            for actual, dense in zip(scores, expected, strict=True):
                np.testing.assert_allclose(actual, dense, atol=1e-5)
            checked.append(network.steps)
        return moved

    monkeypatch.setattr(TopologyUpdater, "_update", spy)
    model.learn(20 + 19)
    assert checked == [5, 10, 15]


def record_scores(scores):
    def grow_scores(self, size, dense_gradient, generator):
        scores.append(dense_gradient().detach().clone())
        return scores[-1].abs().flatten()

    return grow_scores


def own_gradients(model, replay, targets, halved):
    """The gradient of the critics' loss alone by all dense weights, with plain torch."""
    x = th.cat([replay.observations.float(), replay.actions], dim=1)
    gradients = []
    with th.enable_grad():
        for mlp, target in zip(model.critic.q_networks, targets, strict=True):
            weights = [weight.detach().requires_grad_() for weight in mlp.dense_weights()]
            biases = mlp.bias.detach().split([layer.out_features for layer in mlp.layers])
            h = x
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                h = th.relu(h @ weight.T + bias)
            q = h @ weights[-1].T + biases[-1]
            loss = th.nn.functional.mse_loss(q, target) * (0.5 if halved else 1.0)
            of_layers = zip(mlp.layers, th.autograd.grad(loss, weights), strict=True)
            gradients += [gradient for layer, gradient in of_layers if layer.nnz < layer.size]
    return gradients


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
def test_static_and_zero_drop_fraction_take_every_step(algorithm):
    reference = build(algorithm, topology="static").learn(60)
    for kwargs in ({"topology": "static", "update_interval": 3}, {"drop_fraction": 0.0, "update_interval": 3}):
        model = build(algorithm, **kwargs).learn(60)
        assert_same(dict(model.policy.named_parameters()), dict(reference.policy.named_parameters()))
        assert all(net.updates == 0 for net in model.policy.topology_updater.networks.values())
        assert model.policy.topology_updater.networks["critic"].steps == 40


def test_drop_fraction_follows_progress_and_never_rises():
    updater = TopologyUpdater(th.Generator())
    updater.configure("rigl", 0.5, 10)
    assert updater.drop_fraction == 0.5
    updater.advance(0.5)
    assert updater.drop_fraction == pytest.approx(0.25)
    updater.advance(0.1)
    assert updater.drop_fraction == pytest.approx(0.25)


@pytest.mark.parametrize("gradient_steps", [1, 3, 8])
def test_gradients_are_recorded_for_due_steps_only(gradient_steps):
    model = build(RLx2TD3, update_interval=4, gradient_steps=gradient_steps)
    recorded = []
    critic = model.policy.critic
    critic.optimizer.register_step_post_hook(lambda *_: recorded.append(critic.q_networks[0].records_dense_gradient))
    model.learn(20 + 8)
    expected = [(step + 1) % 4 == 0 for step in range(1, 8 * gradient_steps + 1)]
    assert recorded == expected


def test_counters_are_of_each_network():
    model = build(RLx2TD3, update_interval=10, policy_delay=2).learn(20 + 60)
    networks = model.policy.topology_updater.networks
    assert (networks["critic"].steps, networks["critic"].updates) == (60, 6 - 1)  # the last falls on drop fraction 0
    assert (networks["actor"].steps, networks["actor"].updates) == (30, 3 - 1)


def test_churn_counts_new_links():
    model = build(RLx2TD3, topology="set", update_interval=10, drop_fraction=1.0)
    before = snapshot(model)
    model.learn(20 + 19)
    after = snapshot(model)
    new = sum(
        len(set(after[key]["index"].tolist()) - set(before[key]["index"].tolist())) for key in after if key[0] == "critic"
    )
    total = sum(len(after[key]["index"]) for key in after if key[0] == "critic")
    assert model.policy.topology_updater.networks["critic"].churn == pytest.approx(new / total)
    assert new > 0


def test_every_topology_is_tested():
    assert set(TOPOLOGIES) == {"rigl", "set", "static", "snip", "active", "predictive"}  # the last three in files of their own


@dataclass(frozen=True)
class Sensitivity:
    """A toy: links go whose loss of weight would change the loss least, and those that are in their place grow at random."""

    evolves: ClassVar[bool] = True
    uses_gradient: ClassVar[bool] = True

    def grow_scores(self, size, dense_gradient, generator):
        return th.rand(size, generator=generator)

    def drop_scores(self, weights, index, dense_gradient, generator):
        return (weights * dense_gradient().flatten()[index]).abs()


@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_a_method_may_say_what_to_drop(backend, monkeypatch):
    monkeypatch.setitem(TOPOLOGIES, "sensitivity", Sensitivity())
    # Two inputs with gradients 1 and 10: the sensitivities are 3, 10 of the first unit, 2, 40 of the second.
    weights = th.tensor([3.0, 1.0, 2.0, 4.0, 0.0, 0.0])
    mlp = SparseMLP([LayerSpec(2, 3, 4)], weights[:4], th.zeros(3), th.arange(4), th.nn.ReLU(), th.nn.Identity(), backend)
    optimizer = th.optim.SGD(mlp.parameters(), lr=1.0)
    updater = TopologyUpdater(th.Generator())
    updater.register("actor", [mlp], [], optimizer)
    updater.configure("sensitivity", 0.5, 1)
    mlp(th.tensor([[1.0, 10.0]])).sum().backward()
    scores = th.rand(6, generator=th.Generator())
    optimizer.step()
    scores[[1, 3]] = -1  # kept: magnitudes would keep 0 and 3
    grown = scores.topk(2).indices.tolist()
    assert mlp.index.tolist() == sorted([1, 3, *grown])


class NestedAdam(th.optim.Adam):
    def step(self, closure=None):
        return super().step(closure)


def test_an_optimizer_whose_step_calls_its_parents_counts_once():
    model = build(RLx2TD3, update_interval=10)
    nested = build(RLx2TD3, update_interval=10, policy_kwargs=SMALL["policy_kwargs"] | {"optimizer_class": NestedAdam})
    for one in (model, nested):
        one.set_random_seed(0)
        one.learn(20 + 40)
    assert nested.policy.topology_updater.networks["critic"].steps == 40
    for name, parameter in model.policy.named_parameters():
        np.testing.assert_allclose(dict(nested.policy.named_parameters())[name].detach(), parameter.detach(), atol=1e-6)


def test_activations_with_parameters_are_refused():
    with pytest.raises(ValueError, match="activation_fn=PReLU must have no parameters"):
        build(RLx2TD3, "auto", policy_kwargs={"activation_fn": th.nn.PReLU})
