"""The last word: a real run still learns. Slow, so run by hand: ``pytest -m slow``."""

import pytest

from benchmarks.returns.cells import hyperparams
from sb3_rlx2 import RLx2DQN, RLx2QRDQN, RLx2TD3, metrics
from tests.every import ACTOR_CRITIC


def settings(name, env):
    given = hyperparams(name, env)
    return given | {"policy_kwargs": eval(given.get("policy_kwargs", "{}"))}  # as the zoo reads it


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ACTOR_CRITIC)
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_pendulum(algorithm, backend):
    from stable_baselines3.common.evaluation import evaluate_policy

    name = algorithm.__name__.lower().removeprefix("rlx2")
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, backend=backend, **settings(name, "Pendulum-v1"))
    model.learn(15_000)
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    assert mean >= -250
    updates = {name: network.updates for name, network in model.policy.topology_updater.networks.items()}
    assert updates["critic"] > 0
    assert updates["actor"] > 0
    if algorithm is RLx2TD3:
        assert model.replay_buffer.live < 15_000  # the policy distance has made it shrink


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "algorithm"), [("dqn", RLx2DQN), ("qrdqn", RLx2QRDQN)])
def test_cartpole(name, algorithm, seed):
    """The zoo's settings, with 5 % of the links."""
    from stable_baselines3.common.evaluation import evaluate_policy

    model = algorithm("MlpPolicy", "CartPole-v1", seed=seed, **settings(name, "CartPole-v1"))
    assert metrics.density(metrics.acting_network(model.policy)) < 0.051
    model.learn(50_000)
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    assert mean >= 400
    (network,) = model.policy.topology_updater.networks.values()
    assert network.updates > 0
