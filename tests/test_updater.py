from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch as th

from sb3_rlx2 import RLx2DDPG, RLx2SAC, RLx2TD3, RLx2TQC, SparseMLP
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.topology import TOPOLOGIES, RigL
from sb3_rlx2.updater import TopologyUpdater
from tests.envs import DriftEnv
from tests.every import ACTOR_CRITIC, STOCK, VALUE_BASED, env_for, small, sparsities

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


# CrossQ's, whose gradients go through statistics of a batch, have a test of their own (`test_crossq.py`).
OF_DENSE_COPIES = [
    (RLx2TD3, {"policy_delay": 1}),
    (RLx2DDPG, {}),
    (RLx2SAC, {"ent_coef": 0.2, "soft_n_step": False}),
    (RLx2TQC, {"ent_coef": 0.2, "soft_n_step": False, "top_quantiles_to_drop_per_net": 1}),
    *((algorithm, {"max_grad_norm": norm, "train_freq": 1}) for algorithm in VALUE_BASED for norm in (1e-3, 1e9)),
]


@pytest.mark.parametrize(("backend", "arrays"), [("csr", True), ("csr", False), ("masked", False)])
@pytest.mark.parametrize(("algorithm", "own"), OF_DENSE_COPIES)
def test_growth_is_by_the_gradient_of_a_dense_copy(algorithm, own, backend, arrays, monkeypatch):
    """
    Of the network's own loss: a step of the actor, whose loss goes backward through the critics too, lies before each of
    theirs. Before the gradient is clipped, which would rank it the same.
    """
    settings = {name: value for name, value in SMALL.items() if "sparsity" not in name} | sparsities(algorithm, 0.8, 0.8) | own
    settings["policy_kwargs"] = small(algorithm, net_arch=[32, 32])
    model = algorithm("MlpPolicy", env_for(algorithm)(), 1e-3, backend=backend, arrays=arrays, update_interval=5, **settings)
    scores, drawn, checked = [], [], []
    draw, update = model.replay_buffer._draw_rows, TopologyUpdater._update
    monkeypatch.setattr(
        model.replay_buffer, "_draw_rows", lambda size: drawn.append((draw(size), th.get_rng_state())) or drawn[-1][0]
    )
    monkeypatch.setattr(RigL, "grow_scores", record_scores(scores))

    def spy(updater, evolving):
        scores.clear()
        rows, noise = drawn[-1]
        with th.random.fork_rng(devices=[]):
            replay = model.replay_buffer._get_samples(rows)
            expected = dense_gradients(algorithm, model, replay, noise, own)[evolving.name]
        moved = update(updater, evolving)
        layers = [layer for mlp in evolving.mlps for layer in mlp.layers]
        moving = [dense for layer, dense in zip(layers, expected, strict=True) if layer.nnz < layer.size]
        assert len(scores) == len(moving) >= 2
        for score, dense in zip(scores, moving, strict=True):
            assert dense.abs().max() > 1e-4
            np.testing.assert_allclose(score, dense, atol=1e-6 if algorithm in VALUE_BASED else 1e-5)
        checked.append((evolving.name, evolving.steps))
        return moved

    monkeypatch.setattr(TopologyUpdater, "_update", spy)
    model.learn(20 + 19)
    names = ["critic", "actor"] if algorithm in ACTOR_CRITIC else [*model.policy.networks]
    assert checked == [(name, steps) for steps in (5, 10, 15) for name in names]


def record_scores(scores):
    def grow_scores(self, size, dense_gradient, generator):
        scores.append(dense_gradient().detach().clone())
        return scores[-1].abs().flatten()

    return grow_scores


def dense_gradients(algorithm, model, replay, noise, own):
    """
    Let the host do a gradient step with the same noise and dense networks of the same weights, which stay as they are. Give
    its gradients by the weights of each network's layers.
    """
    own = {name: value for name, value in own.items() if name != "soft_n_step"}
    if "max_grad_norm" in own:
        own["max_grad_norm"] = 1e9
    host = STOCK[algorithm](
        "MlpPolicy", env_for(algorithm)(), 0.0, buffer_size=1, policy_kwargs=deepcopy(model.policy_kwargs), **own
    )
    host.set_logger(model.logger)
    host.replay_buffer = SimpleNamespace(sample=lambda *args, **kwargs: replay)
    for name in model.policy.network_names():
        copy_weights(sparse(getattr(model.policy, name)), layers_of(getattr(host.policy, name)))
    gradients = {}
    for name in model.policy.networks:
        network = getattr(host.policy, name)

        def keep(*_, name=name, network=network):
            gradients[name] = [th.cat([linear.weight.grad for linear in layer]) for layer in layers_of(network)]

        (network if hasattr(network, "optimizer") else host.policy).optimizer.register_step_pre_hook(keep)
    th.set_rng_state(noise)
    with th.enable_grad():
        host.train(1, len(replay.rewards))
    return gradients


def layers_of(network):
    """Give a dense network's layers; the two behind the last hidden one of an actor that draws are one in a sparse network."""
    linears = [[module] for module in network.modules() if isinstance(module, th.nn.Linear)]
    return [*linears[:-2], [*linears[-2], *linears[-1]]] if hasattr(network, "log_std") else linears


@th.no_grad()
def copy_weights(mlps, layers):
    weights = [weight for mlp in mlps for weight in mlp.dense_weights()]
    biases = [bias for mlp in mlps for bias in mlp.bias.split([layer.out_features for layer in mlp.layers])]
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        for linear, own_weight, own_bias in zip(layer, weight.chunk(len(layer)), bias.chunk(len(layer)), strict=True):
            linear.weight.copy_(own_weight)
            linear.bias.copy_(own_bias)


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


@pytest.mark.parametrize("arrays", [True, False])
def test_another_optimizer_is_followed(arrays):
    """Somebody tunes an agent with a fresh one; swapped back, the first one counts each step once."""
    model = RLx2TD3(
        "MlpPolicy", DriftEnv(), arrays=arrays, update_interval=5, learning_starts=20, policy_delay=1, buffer_size=200
    )
    first = model.critic.optimizer
    for optimizer in (th.optim.Adam(model.critic.parameters(), lr=1e-4), first):
        before = {name: network.steps for name, network in model.policy.topology_updater.networks.items()}
        model.critic.optimizer = optimizer
        model.restart_topology()
        updates = model.policy.topology_updater.networks["critic"].updates
        model.learn(60, reset_num_timesteps=False)
        after = {name: network.steps for name, network in model.policy.topology_updater.networks.items()}
        assert after["critic"] - before["critic"] == after["actor"] - before["actor"] > 30
        assert model.policy.topology_updater.networks["critic"].updates > updates
