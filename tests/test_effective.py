"""What of a network lies on a path: said in tables, and an agent of which nothing does is refused."""

import pytest
import torch as th
from stable_baselines3 import TD3

from sb3_rlx2 import RLx2Callback, RLx2DQN, RLx2TD3, SparseMLP, SparseTD3Policy, metrics
from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.patching import patched
from sb3_rlx2.paths import architecture, find_paths
from tests.conftest import CHECK_CONNECTED
from tests.envs import DriftEnv

# Units 0 and 1 of the hidden layer read input 0; unit 2 reads nothing. Output 0 reads units 0 and 2, output 1 reads nothing.
FIRST = [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
SECOND = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    monkeypatch.setattr(SparsePolicy, "check_connected", CHECK_CONNECTED)


def by_hand():
    layers = [th.nn.Linear(2, 3), th.nn.Linear(3, 2)]
    for layer, weight in zip(layers, (FIRST, SECOND), strict=True):
        layer.weight.data = th.tensor(weight)
    return SparseMLP.from_linears(layers, [2, 2], th.nn.ReLU(), th.nn.Identity())


def test_units_and_links_by_hand():
    mlp = by_hand()
    assert find_paths(mlp).units == [1, 1, 1]
    assert architecture(mlp) == "1-1-1 of 2-3-2 units, 2 of 4 links idle"


def test_the_summary_says_it():
    model = RLx2TD3("MlpPolicy", DriftEnv(), buffer_size=10, policy_kwargs={"net_arch": [16, 16]}, actor_sparsity=0.9)
    assert f"actor.mu: {architecture(model.actor.mu)}" in metrics.summary(model).splitlines()


@pytest.mark.parametrize(
    ("algorithm", "keyword", "env"), [(RLx2TD3, "actor_sparsity", DriftEnv()), (RLx2DQN, "sparsity", "CartPole-v1")]
)
def test_an_agent_that_sees_nothing_is_refused(algorithm, keyword, env):
    with pytest.raises(ValueError, match=rf"^{keyword}=0\.999 must be lower: with \d+ links no path leads"):
        algorithm("MlpPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [256, 256]}, seed=0, **{keyword: 0.999})


def test_so_is_one_of_parts():
    kwargs = {"net_arch": [256, 256], "actor_sparsity": 0.999, "critic_sparsity": 0.9}
    model = TD3(SparseTD3Policy, DriftEnv(), buffer_size=10, policy_kwargs=kwargs, seed=0)
    with pytest.raises(ValueError, match=r"^actor_sparsity=0\.999 must be lower"):
        model.learn(10, callback=RLx2Callback())


def test_a_saved_one_that_has_found_paths_loads(tmp_path):
    """Its links at first, before the saved ones are read, may lead nowhere."""
    make = {"policy": "MlpPolicy", "env": DriftEnv(), "buffer_size": 10, "policy_kwargs": {"net_arch": [64, 64]}}
    models = {}
    with patched(SparsePolicy, check_connected=lambda _: None):
        for seed in range(40):
            model = RLx2TD3(**make, seed=seed, actor_sparsity=0.985, critic_sparsity=0.5)
            models[find_paths(model.actor.mu).units[0] > 0] = model
    assert len(models) == 2
    model, model.seed = models[True], models[False].seed
    model.save(tmp_path / "agent")
    assert RLx2TD3.load(tmp_path / "agent").actor.mu.nnz == model.actor.mu.nnz


def test_dead_links_are_logged_and_counted_again_when_links_have_moved():
    model = RLx2TD3(
        "MlpPolicy", DriftEnv(), buffer_size=200, policy_kwargs={"net_arch": [16, 16]}, learning_starts=20, batch_size=4,
        actor_sparsity=0.8, critic_sparsity=0.8, update_interval=10, seed=0,
    )  # fmt: skip
    logged = []

    def look(given, _):
        own = given["self"].policy.topology_updater.networks["actor"]
        value = given["self"].logger.name_to_value.get("rlx2/actor_dead_links")
        if value is not None:
            logged.append((own.updates, value))
        return True

    model.learn(120, callback=look)
    assert logged[-1][1] == sum(find_paths(model.actor.mu).dead)
    assert len({updates for updates, _ in logged}) > 2
