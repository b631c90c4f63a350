import math
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3

from sb3_rlx2 import RLx2SAC, RLx2TD3
from tests.checks import assert_equal, learned, pairs
from tests.envs import DriftEnv

ALGORITHMS = [RLx2TD3, RLx2SAC]
SETTINGS = {
    "learning_starts": 30,
    "batch_size": 16,
    "buffer_size": 500,
    "actor_sparsity": 0.5,
    "critic_sparsity": 0.5,
    "update_interval": 10,
    "policy_distance_threshold": math.inf,
    "policy_kwargs": {"net_arch": [16, 16]},
}


def train(algorithm, seed, steps=70, **kwargs):
    """Give all that was learned, the actions taken, the topologies, and where the global streams of numbers stand."""
    model = algorithm("MlpPolicy", DriftEnv(), seed=seed, **deepcopy(SETTINGS) | kwargs).learn(steps)
    numpy = np.random.get_state()[1:3]  # noqa: NPY002 as SB3 draws
    streams = [th.get_rng_state(), th.as_tensor(numpy[0].astype(np.int64)), numpy[1]]
    topologies = [mlp.index for _, mlp, _, _ in pairs(model.policy)]
    return learned(model), th.as_tensor(model.replay_buffer.actions), topologies, streams


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("topology", ["rigl", "set"])
@pytest.mark.parametrize("init", ["magnitude", "random"])
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_same_seed_same_run(algorithm, topology, init, backend):
    kwargs = {"topology": topology, "init": init, "backend": backend, "policy_distance_threshold": 0.0, "buffer_min_size": 20}
    first = train(algorithm, 1, buffer_check_interval=40, **kwargs)
    assert_equal(train(algorithm, 1, buffer_check_interval=40, **kwargs), first)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("topology", ["rigl", "set"])
@pytest.mark.parametrize("init", ["magnitude", "random"])
def test_other_seed_other_run(algorithm, topology, init):
    (_, actions, topologies, _), (_, other_actions, other_topologies, _) = (
        train(algorithm, seed, steps=50, topology=topology, init=init) for seed in (1, 2)
    )
    assert not th.equal(actions, other_actions)
    assert all(not th.equal(a, b) for a, b in zip(topologies, other_topologies, strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_random_growth_depends_on_the_seed_alone(algorithm):
    """The same numbers from the environment and SB3, another generator for growth: only the topology differs at first."""
    runs = []
    for seed in (5, 6):
        model = algorithm("MlpPolicy", DriftEnv(), seed=0, topology="set", **deepcopy(SETTINGS))
        model.policy.topology_updater.generator.manual_seed(seed)
        model.learn(45)  # one update of the critics
        runs.append([mlp.index for name, mlp, _, _ in pairs(model.policy) if name == "critic"])
    assert all(not th.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize(("algorithm", "stock"), [(RLx2TD3, TD3), (RLx2SAC, SAC)])
@pytest.mark.parametrize("init", ["magnitude", "random"])
def test_building_the_policy_draws_what_stock_draws(algorithm, stock, init):
    states = []
    for cls, kwargs in ((stock, {}), (algorithm, {"init": init})):
        cls("MlpPolicy", DriftEnv(), buffer_size=10, seed=3, policy_kwargs={"net_arch": [16, 16]}, **kwargs)
        states.append((th.get_rng_state(), np.random.get_state()[1].tolist()))  # noqa: NPY002
    assert th.equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_topology_draws_nothing_from_the_global_streams(algorithm):
    """Training moves the streams of torch and numpy as far as with a fixed topology."""
    _, _, topologies, expected = train(algorithm, 4, topology="static")
    for kwargs in ({"topology": "set"}, {"topology": "rigl"}, {"topology": "set", "init": "random"}):
        _, _, others, streams = train(algorithm, 4, **kwargs)
        assert not all(th.equal(a, b) for a, b in zip(topologies, others, strict=True))
        assert_equal(streams, expected)
