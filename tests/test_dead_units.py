"""Units that cannot matter are removed, and the agent acts as it did."""

import numpy as np
import pytest
import torch as th

from sb3_rlx2 import RLx2CrossQ, RLx2SAC, RLx2TD3, SparseMLP
from sb3_rlx2.dead_units import folded, hidden_units
from sb3_rlx2.deploy import DeployAverageCallback, deployed_policy
from sb3_rlx2.metrics import acting_network, live_weights
from sb3_rlx2.paths import find_paths
from sb3_rlx2.sparse_mlp import sparse_mlps
from tests.envs import DriftEnv
from tests.every import ALGORITHMS, env_for, small, sparsities

# Unit 0 reads input 0, unit 1 reads nothing, unit 2 reads input 1 and nobody reads it.
FIRST = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
SECOND = np.array([[1.0, 4.0, 0.0], [0.0, 5.0, 0.0]])


def trained(algorithm, seed=0, steps=120, **kwargs):
    model = algorithm(
        "MlpPolicy", env_for(algorithm)(), learning_starts=20, batch_size=4, buffer_size=200, update_interval=15, seed=seed,
        train_freq=2, policy_kwargs=small(algorithm, net_arch=[24, 24]), **sparsities(algorithm, 0.9, 0.9) | kwargs,
    )  # fmt: skip
    return model.learn(steps) if steps else model


def test_units_by_hand():
    units = hidden_units([FIRST != 0, SECOND != 0])
    (alive,), (constant,) = units.alive, units.constant
    assert alive.tolist() == [True, False, False]
    assert constant.tolist() == [False, True, False]
    _, bias = folded([FIRST, SECOND], [np.array([0.0, 0.5, 9.0]), np.zeros(2)], units, lambda _, bias, mask: bias[mask])
    assert bias.tolist() == [2.0, 2.5]


def test_they_are_those_on_no_path():
    for seed in range(5):
        th.manual_seed(seed)
        layers = [th.nn.Linear(*shape) for shape in ((5, 20), (20, 20), (20, 3))]
        mlp = SparseMLP.from_linears(layers, [12, 25, 12], th.nn.ReLU(), init="random")
        units = hidden_units([weight.detach().numpy() != 0 for weight in mlp.dense_weights()])
        assert [int(alive.sum()) for alive in units.alive] == find_paths(mlp).units[1:-1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_smaller_agent_acts_alike(algorithm, tmp_path):
    model = trained(algorithm)
    seen = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    before, policy = model.predict(seen, deterministic=True)[0], model.policy
    values = {name: outputs(net) for name, net in networks(model)}
    counts, (on_paths, *_) = live_weights(policy), (find_paths(mlp) for mlp in sparse_mlps(acting_network(policy)))

    assert model.prune_dead_units() is model
    np.testing.assert_allclose(model.predict(seen, deterministic=True)[0], before, atol=1e-5)
    for name, net in networks(model):
        th.testing.assert_close(outputs(net), values[name], atol=1e-5, rtol=1e-4)
    (acting,) = sparse_mlps(acting_network(policy))
    assert [layer.out_features for layer in acting.layers[:-1]] == on_paths.units[1:-1]
    assert sum(find_paths(acting).dead) == 0
    assert all(live_weights(policy)[name][0] < counts[name][0] for name in counts)

    model.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", env_for(algorithm)())
    np.testing.assert_array_equal(loaded.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0])
    assert live_weights(loaded.policy) == live_weights(policy)
    for each in (model, loaded):
        each.restart_topology()
        each.learn(80, reset_num_timesteps=False)  # goes on, also with links that move
    assert live_weights(loaded.policy) == live_weights(policy)
    loaded.policy.save(tmp_path / "policy")
    again = type(policy).load(tmp_path / "policy")
    np.testing.assert_array_equal(again.predict(seen, deterministic=True)[0], loaded.predict(seen, deterministic=True)[0])


@th.no_grad()
def outputs(network):
    return [mlp(th.linspace(-1, 1, 7 * mlp.layers[0].in_features).view(7, -1)) for mlp in sparse_mlps(network)]


def networks(model):
    return [(name, model.policy._modules[name]) for name in model.policy.network_names()]


def test_moments_stay_with_what_stays():
    model = trained(RLx2TD3)
    actor = model.actor
    state, (mlp,) = actor.optimizer.state, sparse_mlps(actor)
    before = dict(zip(mlp.values.tolist(), state[mlp.values]["exp_avg"].tolist(), strict=True))
    model.prune_dead_units()
    after = dict(zip(mlp.values.tolist(), state[mlp.values]["exp_avg"].tolist(), strict=True))
    assert 0 < len(after) < len(before)
    assert after.items() <= before.items()
    assert state[mlp.bias]["exp_avg_sq"].shape == mlp.bias.shape


def test_pruning_again_changes_nothing():
    model = trained(RLx2SAC).prune_dead_units()
    before = {name: value.clone() for name, value in model.policy.state_dict().items() if isinstance(value, th.Tensor)}
    model.prune_dead_units()
    after = model.policy.state_dict()
    assert all(th.equal(after[name], value) for name, value in before.items())


def test_normalisations_lose_the_same_units():
    model = trained(RLx2CrossQ).prune_dead_units()
    (mlp,) = sparse_mlps(model.actor)
    assert [norm.num_features for norm in mlp.norms] == [layer.in_features for layer in mlp.layers]
    assert [len(norm.ra_mean) for norm in mlp.norms] == [layer.in_features for layer in mlp.layers]


def test_a_critic_that_sees_nothing_stays():
    model = trained(RLx2TD3, steps=0, critic_sparsity=0.99, seed=7)
    assert all(0 in find_paths(mlp).units for mlp in sparse_mlps(model.critic))
    before = live_weights(model.policy)["critic"]
    model.prune_dead_units()
    assert live_weights(model.policy)["critic"] == before


def test_not_while_links_are_to_leave():
    model = trained(RLx2TD3, steps=0, actor_start_sparsity=0.5)
    with pytest.raises(ValueError, match=r"^the actor has 348 links, of which \d+ are to be left at prune_end"):
        model.prune_dead_units()


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"actor.mu": [1, 2]}, r"distribution of actor.mu=\[1, 2\] must have a number of links for each of 3 layers"),
        ({"actor.mu": [0, 2, 3]}, "distribution of actor.mu=0 must be an integer >= 1"),
        ({"actor.nu": [1, 2, 3]}, "distribution names 'actor.nu', and must have links for 'actor.mu', too"),
        (
            {"actor.mu": [4, 4, 2], "critic.qf0": [9, 9, 2], "critic.qf1": [9, 9, 2], "critic.qf2": [9, 9, 2]},
            "distribution names 'critic.qf2', which must be one of actor.mu, critic.qf0, critic.qf1",
        ),
        (
            {"actor.mu": [4, 4, 2], "critic.qf0": [9, 9, 2], "critic.qf1": [9, 9, 2]},
            r"distribution gives the actor 10 links of 36, so actor_sparsity=0.5 must be 0.72",
        ),
    ],
)
def test_numbers_of_links_may_be_given(distribution, message):
    make = {"policy": "MlpPolicy", "env": DriftEnv(), "buffer_size": 10, "policy_kwargs": {"net_arch": [4, 4]}}
    with pytest.raises(ValueError, match=message):
        RLx2TD3(**make, actor_sparsity=0.5, critic_sparsity=0.5, distribution=distribution)


def test_they_are_what_is_built():
    links = {"actor.mu": [8, 8, 2], "critic.qf0": [9, 9, 2], "critic.qf1": [9, 10, 1]}
    model = RLx2TD3(
        "MlpPolicy", DriftEnv(), buffer_size=10, policy_kwargs={"net_arch": [4, 4]}, distribution=links,
        actor_sparsity=0.5, critic_sparsity=0.5,
    )  # fmt: skip
    assert [[layer.nnz for layer in mlp.layers] for mlp in sparse_mlps(model.critic)] == [[9, 9, 2], [9, 10, 1]]


def test_the_actor_that_was_chosen_to_be_deployed_had_them():
    model = trained(RLx2TD3, steps=0)
    model.learn(60, callback=DeployAverageCallback(0.9))
    deployed_policy(model)
    with pytest.warns(UserWarning, match="chosen to be deployed had the units that are gone, so none is chosen now"):
        model.prune_dead_units()
    with pytest.raises(ValueError, match="has no deployed actor"):
        deployed_policy(model)
    model.restart_topology()
    model.learn(60, callback=DeployAverageCallback(0.9))
    deployed_policy(model)
