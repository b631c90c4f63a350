"""The last word: a real run still learns. Slow, so run by hand: ``pytest -m slow``."""

import pytest

from benchmarks.learning.__main__ import EventCounter
from benchmarks.learning.cells import PENDULUM
from sb3_rlx2 import RLx2SAC, RLx2TD3


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_pendulum(algorithm, backend):
    from stable_baselines3.common.evaluation import evaluate_policy

    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, backend=backend, **PENDULUM)
    events = EventCounter()
    model.learn(15_000, callback=events)
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    assert mean >= -250
    counts = events.counts()
    assert counts["critic_updates"] > 0
    assert counts["actor_updates"] > 0
    if algorithm is RLx2TD3:
        assert counts["shrinks"] > 0
