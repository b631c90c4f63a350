"""The last word: a real run still learns. Slow, so run by hand: ``pytest -m slow``."""

import pytest

from benchmarks.returns.cells import hyperparams
from sb3_rlx2 import RLx2SAC, RLx2TD3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "algorithm"), [("td3", RLx2TD3), ("sac", RLx2SAC)])
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_pendulum(name, algorithm, backend):
    from stable_baselines3.common.evaluation import evaluate_policy

    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, backend=backend, **hyperparams(name, "Pendulum-v1"))
    model.learn(15_000)
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    assert mean >= -250
    updates = {name: network.updates for name, network in model.policy.topology_updater.networks.items()}
    assert updates["critic"] > 0
    assert updates["actor"] > 0
    if algorithm is RLx2TD3:
        assert model.replay_buffer.live < 15_000  # the policy distance has made it shrink
