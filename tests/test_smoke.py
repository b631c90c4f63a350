import pytest
import torch as th

from sb3_rlx2 import RLx2DDPG, RLx2TD3, RLx2TQC
from sb3_rlx2.distributions import erdos_renyi
from tests.checks import assert_sound, pairs
from tests.every import ALGORITHMS, DELAYS, MAXIMUM_ENTROPY, VALUE_BASED, small, sparsities

# Of an actor; a value-based network has one for each of CartPole's two actions.
OUTPUTS = {RLx2TD3: 1, RLx2DDPG: 1} | dict.fromkeys(MAXIMUM_ENTROPY, 2)


@pytest.mark.parametrize("topology", ["rigl", "set", "static"])
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_smoke(algorithm, backend, topology):
    model = algorithm(
        "MlpPolicy",
        "CartPole-v1" if algorithm in VALUE_BASED else "Pendulum-v1",
        learning_starts=40,
        batch_size=32,
        buffer_size=1000,
        train_freq=1,
        topology=topology,
        backend=backend,
        update_interval=10,
        policy_kwargs=small(algorithm, net_arch=[16]),
        seed=0,
        **sparsities(algorithm, 0.6, 0.5),
    )
    if algorithm in VALUE_BASED:
        (name,) = model.policy.networks
        nnz = {name: erdos_renyi([(16, 4), (2 * getattr(model, "n_quantiles", 1), 16)], 0.5)}
    else:
        nnz = {
            "actor": erdos_renyi([(16, 3), (OUTPUTS[algorithm], 16)], 0.6),
            "critic": erdos_renyi([(16, 4), (5 if algorithm is RLx2TQC else 1, 16)], 0.5),
        }
    assert_sound(model.policy, nnz)
    before = [(mlp.index.clone(), mlp.values.detach().clone()) for _, mlp, _, _ in pairs(model.policy)]
    model.learn(120)
    assert_sound(model.policy, nnz)
    evolves = topology != "static"
    for network in model.policy.topology_updater.networks.values():
        assert network.steps == 80 // (DELAYS.get(algorithm, 1) if network.name == "actor" else 1)
        assert (network.updates > 0) == evolves
    for (_, mlp, _, _), (index, values) in zip(pairs(model.policy), before, strict=True):
        assert th.equal(mlp.index, index) != evolves
        assert not th.equal(mlp.values, values)
    assert model.replay_buffer.n_steps == 3
    action, _ = model.predict(model.get_env().reset(), deterministic=True)
    assert model.action_space.contains(action[0])
