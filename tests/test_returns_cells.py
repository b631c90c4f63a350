"""The benchmark's grid: each method is the configuration that its name says."""

import math
from itertools import combinations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from sb3_contrib import QRDQN
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import environments
from benchmarks.returns import agents, teacher, training
from benchmarks.returns.cells import (
    CELLS,
    COMBINATIONS,
    FACTORS,
    HYPERPARAMS,
    INTERVALS,
    METHODS,
    PAPER,
    SETS,
    Cell,
    cells,
)
from sb3_rlx2 import RLx2QRDQN, RLx2SAC, RLx2TD3, metrics
from sb3_rlx2.plan import LEAST, steps_of
from tests.envs import DriftEnv

MILLION = 1_000_000


def make(method, algorithm="td3", env="Hopper-v4", teacher=None, sparsity=None):
    cell = Cell(method, algorithm, env, 0, MILLION, 10_000, sparsity)
    return agents.make(cell, DummyVecEnv([lambda: Monitor(training.make_env(env))]), teacher)


def test_table_2_methods_differ_in_what_their_names_say():
    rlx2, rigl, set_, static = (make(method) for method in ("rlx2", "rigl", "set", "static"))
    assert [type(model) for model in (rlx2, rigl, set_, static)] == [RLx2TD3] * 4
    assert [model.topology for model in (rlx2, rigl, set_, static)] == ["rigl", "rigl", "set", "static"]
    assert [model.init for model in (rlx2, rigl, set_, static)] == ["magnitude", "magnitude", "magnitude", "random"]
    assert [model.n_steps for model in (rlx2, rigl, set_, static)] == [3, 1, 1, 1]
    assert [model.policy_distance_threshold for model in (rlx2, rigl, set_, static)] == [0.2, math.inf, math.inf, math.inf]
    for model in (rlx2, rigl, set_, static):
        assert metrics.density(model.actor) == pytest.approx(0.02, abs=1e-4)
        assert metrics.density(model.critic) == pytest.approx(0.05, abs=1e-4)
        assert (model.learning_starts, model.buffer_size, model.action_noise._sigma[0]) == (25_000, MILLION, 0.1)


@pytest.mark.parametrize(("algorithm", "stock"), [("td3", TD3), ("sac", SAC)])
def test_dense_is_stock_sb3_with_the_papers_hyper_parameters(algorithm, stock):
    model = make("dense", algorithm)
    assert type(model) is stock
    assert (model.learning_rate, model.batch_size, model.gamma, model.tau) == (3e-4, 256, 0.99, 0.005)
    assert (model.learning_starts, model.gradient_steps, model.train_freq.frequency) == (25_000, 1, 1)
    assert [linear.out_features for linear in model.critic.q_networks[0] if isinstance(linear, th.nn.Linear)] == [256, 256, 1]
    if algorithm == "td3":
        assert model.action_noise._sigma.tolist() == [0.1] * 3


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
@pytest.mark.parametrize("env", ["Hopper-v4", "HalfCheetah-v4", "Ant-v4"])
def test_tiny_holds_as_many_weights_as_the_sparse_agent(algorithm, env):
    tiny, sparse = make("tiny", algorithm, env), make("rlx2", algorithm, env)
    for part in ("actor", "critic"):
        own, theirs = (sum(mlp.nnz for mlp in metrics.sparse_mlps(getattr(model, part))[:1]) for model in (tiny, sparse))
        layers = metrics.sparse_mlps(getattr(tiny, part))[0].layers
        width = layers[0].out_features
        wider = (width + 1) ** 2 + (width + 1) * (layers[0].in_features + layers[-1].out_features)
        assert layers[1].shape == (width, width)
        assert metrics.density(getattr(tiny, part)) == 1.0
        assert abs(own - theirs) <= abs(wider - theirs)
        assert abs(own - theirs) / theirs < 0.05
    assert (tiny.n_steps, tiny.policy_distance_threshold) == (1, math.inf)
    assert make("rlx2-tiny", algorithm, env).n_steps == 3


def test_ablations_change_one_thing():
    reference = Cell("rlx2", "td3", "Hopper-v4", 0, MILLION, 10_000).arguments
    changed = {
        "rlx2-n1": {"n_steps": 1},
        "rlx2-n5": {"n_steps": 5},
        "rlx2-static": {"topology": "static", "init": "random"},
        "rlx2-set": {"topology": "set"},
        "rlx2-delay-0.3": {"n_steps_delay": 0.3},
        "rlx2-buffer-100k": {"buffer_size": 100_000, "policy_distance_threshold": math.inf},
        "rlx2-buffer-unlimited": {"buffer_size": 3 * MILLION, "policy_distance_threshold": math.inf},
    }
    for method, difference in changed.items():
        own = Cell(method, "td3", "Hopper-v4", 0, MILLION, 10_000).arguments
        assert {name: value for name, value in own.items() if reference.get(name) != value} == difference


def test_every_cell_has_its_own_name_and_the_papers_evaluations():
    assert all(CELLS[cell.name] == cell for group in SETS.values() for cell in group)
    assert {cell.method for cell in CELLS.values()} == set(METHODS)
    assert {cell.eval_every for cell in SETS["table-2"]} == {10_000}
    assert {cell.eval_every for cell in SETS["paper-table-2"]} == {5_000}
    assert len(SETS["paper-table-2"]) == 2 * 4 * 6 * 8
    assert [cell.seed for cell in cells(["rlx2", "rigl"], "Hopper-v4", (0, 1))] == [0, 0, 1, 1]  # all methods of a seed first


def test_stored_results_stay_those_of_their_cells():
    """A cell's digest is part of what machines share: a new method or field leaves those of the others alone."""
    digests = {
        "td3_Walker2d-v4_rlx2_1000000_seed0": "4b1a0e7ba2ec",
        "td3_Walker2d-v4_rlx2_0.85_1000000_seed0": "1178e418d250",
        "td3_Hopper-v4_dense_1000000_seed1": "b0d6e5b22f49",
        "sac_Hopper-v4_rlx2_1000000_seed0": "990f150dc261",
    }
    assert {name: CELLS[name].fingerprint for name in digests} == digests


def test_the_screening_is_a_half_fraction_of_resolution_v():
    """U = -SPGL: no main effect and no pair has the same signs as another, and each block of four is balanced."""
    signs = np.array([[1 if factor in letters else -1 for factor in FACTORS] for letters in COMBINATIONS])
    assert (signs.prod(axis=1) == -1).all()
    assert len({tuple(row) for row in signs}) == 16
    columns = [signs[:, i] for i in range(5)] + [signs[:, i] * signs[:, j] for i, j in combinations(range(5), 2)]
    assert all(first @ second == 0 for first, second in combinations(columns, 2))
    assert (signs.reshape(4, 4, 5).sum(axis=1) == 0).all()


def test_screening_cells_have_the_factors_of_their_names():
    plain, crowded = (SETS["screening"][at].arguments for at in (0, 5))
    assert plain == CELLS["td3_Walker2d-v4_rlx2_1000000_seed0"].arguments
    assert SETS["screening"][5].name == "td3_Walker2d-v4_screening-SPGL_1000000_seed10"
    schedule = {"actor_start_sparsity": 0.85, "critic_start_sparsity": 0.85, "prune_begin": 0.2, "prune_end": 0.8}
    assert crowded == plain | {"weight_scale": "live", "drop_dead_links": True, "learning_rate": 1e-3} | schedule
    faster = CELLS["td3_Walker2d-v4_screening-LU_1000000_seed11"].arguments
    assert faster == plain | {"learning_rate": 1e-3, "gradient_steps": 2, "update_interval": 20_000}
    elsewhere = Cell("screening-SG", "sac", "HalfCheetah-v4", 0, 1_000_000, 10_000).arguments  # critics end at 80 %
    assert elsewhere.keys() & schedule.keys() == {"actor_start_sparsity", "prune_begin", "prune_end"}


def test_no_seed_that_chose_confirms():
    recipe = {cell.seed for cell in CELLS.values() if cell.method.startswith("live")}
    assert recipe == set(range(20, 25))
    assert {cell.seed for name in ("screening", "diagnosis") for cell in SETS[name]} == {10, 11}
    assert [cell.seed for cell in SETS["screening"]] == [10] * 16 + [11] * 16


def test_half_the_size_has_half_the_links():
    sparsities = {name: cell.arguments[f"{name}_sparsity"] for cell in SETS["half-size"][2:3] for name in ("actor", "critic")}
    assert SETS["half-size"][2].env == "Hopper-v4"  # 98% and 95% in the paper
    assert sparsities == {"actor": 0.99, "critic": 0.975}


def test_the_teacher_gives_the_bootstrap_value(tmp_path):
    teaching = make("dense", env="Pendulum-v1")
    teaching.save(tmp_path / "teacher.zip")
    taught = make("rigl-q*", env="Pendulum-v1", teacher=str(tmp_path / "teacher.zip"), sparsity=0.9)
    buffer = taught.replay_buffer
    rng = np.random.default_rng(0)
    next_obs = rng.normal(size=(20, 3)).astype(np.float32)
    terminated = np.arange(20) % 4 == 0
    for row in range(20):
        info = {"TimeLimit.truncated": row % 4 == 1}
        obs, done = rng.normal(size=(1, 3)), np.array([terminated[row] or row % 4 == 1])
        buffer.add(obs, next_obs[row : row + 1], rng.uniform(-1, 1, (1, 1)), np.array([row]), done, [info])
    samples = buffer.sample(64)
    assert not samples.discounts.any()  # nothing is left for the learner's own target critics
    rows = [int(np.flatnonzero((next_obs == seen).all(axis=1))[0]) for seen in samples.next_observations.numpy()]
    with th.no_grad():
        states = th.as_tensor(next_obs)
        values = th.minimum(*teaching.critic(states, teaching.actor(states))).numpy()[:, 0]
    expected = np.arange(20) + 0.99 * ~terminated * values
    np.testing.assert_allclose(samples.rewards[:, 0], expected[rows], rtol=1e-5)
    assert isinstance(taught, RLx2TD3)
    assert not isinstance(taught, RLx2SAC)


def test_a_teachers_values_are_compared_with_what_it_earns():
    """An environment of five rewards of 1, then a time limit, and a teacher to whom each state is worth 10."""
    policy = make("dense", env="Pendulum-v1").policy
    for q_network in policy.critic.q_networks:
        th.nn.init.zeros_(q_network[-1].weight)
        th.nn.init.constant_(q_network[-1].bias, 10.0)
    found = teacher.quality(policy, FiveRewards(), episodes=2)
    expected = sum(0.99**step for step in range(5)) + 0.99**5 * 10
    assert found == {"mean_return": 5.0, "value_at_start": 10.0, "discounted_return": pytest.approx(expected, abs=0.005)}


class FiveRewards(DriftEnv):
    def __init__(self):
        super().__init__(obs_shape=(3,), action_shape=(1,), length=5)

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, 1.0, False, terminated or truncated, info


def test_only_the_expected_warning_of_mujoco_is_left_out(capfd):
    environments.silence_age()
    environments._warn(f"compiler attribute '{environments.EXPECTED}' is deprecated")
    environments._warn("Nan in QACC")
    assert capfd.readouterr().err == "MuJoCo: Nan in QACC\n"
    gym.make("Hopper-v4").close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["rlx2", "dense"])
def test_agents_of_other_algorithms_have_the_zoos_settings(method):
    model = make(method, "qrdqn", "CartPole-v1")
    assert type(model) is (RLx2QRDQN if method == "rlx2" else QRDQN)
    assert (model.learning_rate, model.batch_size, model.train_freq.frequency, model.gradient_steps) == (2.3e-3, 64, 256, 128)
    assert (model.quantile_net.net_arch, model.quantile_net.n_quantiles) == ([256, 256], 10)
    assert 1 - metrics.density(model.quantile_net) == pytest.approx(0.95 if method == "rlx2" else 0.0, abs=1e-3)


def test_shares_are_of_a_cells_steps_and_dense_has_room_for_no_more():
    cell = Cell("rlx2", "tqc", "HalfCheetah-v4", 0, 300_000, 5_000)
    assert {name: cell.arguments[name] for name in ("learning_starts", "update_interval", "buffer_min_size")} == {
        "learning_starts": 7_500,
        "update_interval": 3_000,
        "buffer_min_size": 60_000,
    }
    env = DummyVecEnv([lambda: Monitor(training.make_env(cell.env))])
    assert agents.arguments(Cell("dense", "tqc", "HalfCheetah-v4", 0, 300_000, 5_000), env.envs[0]) == {
        "learning_starts": 7_500,
        "buffer_size": 300_000,
    }


@pytest.mark.parametrize("algorithm", ["tqc", "crossq", "dqn"])
def test_the_dense_reference_of_other_algorithms(algorithm):
    env = DummyVecEnv([lambda: Monitor(training.make_env("CartPole-v1" if algorithm == "dqn" else "Pendulum-v1"))])
    cell = Cell("rlx2", algorithm, "CartPole-v1" if algorithm == "dqn" else "Pendulum-v1", 0, 15_000, 250)
    model = agents.make(cell, env)
    own, dense = metrics.cost(model), metrics.cost(agents.dense_reference(cell, env))
    assert own.weights < 0.35 * dense.weights


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
@pytest.mark.parametrize("env", ["Hopper-v4", "HalfCheetah-v4", "Walker2d-v4", "Ant-v4"])
def test_the_zoos_shares_of_a_million_steps_are_what_the_stored_runs_had(algorithm, env):
    settings = yaml.safe_load((HYPERPARAMS / f"rlx2{algorithm}.yml").read_text())[env]
    steps = {name: steps_of(name, settings[name], MILLION) for name in LEAST if name in settings}
    assert steps == PAPER[algorithm] | INTERVALS
