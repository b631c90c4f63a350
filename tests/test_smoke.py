import pytest
import torch as th

from sb3_rlx2 import RLx2SAC, RLx2TD3
from sb3_rlx2.distributions import erdos_renyi
from tests.checks import assert_sound, pairs


@pytest.mark.parametrize("topology", ["rigl", "set", "static"])
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
def test_smoke(algorithm, backend, topology):
    model = algorithm(
        "MlpPolicy",
        "Pendulum-v1",
        learning_starts=40,
        batch_size=32,
        buffer_size=1000,
        actor_sparsity=0.6,
        critic_sparsity=0.5,
        topology=topology,
        backend=backend,
        update_interval=10,
        policy_kwargs={"net_arch": [16]},
        seed=0,
    )
    nnz = {
        "actor": erdos_renyi([(16, 3), (2 if algorithm is RLx2SAC else 1, 16)], 0.6),
        "critic": erdos_renyi([(16, 4), (1, 16)], 0.5),
    }
    assert_sound(model.policy, nnz)
    before = [(mlp.index.clone(), mlp.values.detach().clone()) for _, mlp, _, _ in pairs(model.policy)]
    model.learn(120)
    assert_sound(model.policy, nnz)
    evolves = topology != "static"
    for network in model.policy.topology_updater.networks.values():
        assert network.steps == (40 if network.name == "actor" and algorithm is RLx2TD3 else 80)
        assert (network.updates > 0) == evolves
    for (_, mlp, _, _), (index, values) in zip(pairs(model.policy), before, strict=True):
        assert th.equal(mlp.index, index) != evolves
        assert not th.equal(mlp.values, values)
    assert model.replay_buffer.n_steps == 3
    action, _ = model.predict(model.get_env().reset(), deterministic=True)
    assert model.action_space.contains(action[0])
