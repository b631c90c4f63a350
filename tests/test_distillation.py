"""Policies learned from other agents': the losses, what moves and what stays, and who can teach whom."""

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.distributions import Normal

from sb3_rlx2 import RLx2CrossQ, RLx2DQN, RLx2QRDQN, RLx2SAC, RLx2TD3, SparseTD3Policy
from sb3_rlx2.distillation import distill, divergence_of_gaussians, divergence_of_values
from tests.checks import assert_equal, learned
from tests.envs import DriftDictEnv, DriftEnv, PixelEnv
from tests.every import ALGORITHMS, STOCK, env_for, is_discrete, sparsities


def make(algorithm, seed=0, env=None, **kwargs):
    kwargs = {"policy_kwargs": {"net_arch": [24, 24]}, "buffer_size": 10, "device": "cpu"} | kwargs
    if algorithm in STOCK:
        kwargs = sparsities(algorithm, 0.5, 0.5) | {"buffer_min_size": 10} | kwargs
    kind = algorithm if algorithm in STOCK else next(own for own, host in STOCK.items() if host is algorithm)
    return algorithm("MlpPolicy", env or env_for(kind)(), seed=seed, **copy.deepcopy(kwargs))


def some(model, count=300):
    return np.stack([model.observation_space.sample() for _ in range(count)])


def test_divergence_of_values_by_hand():
    # softmax([1, 0]) against softmax([0, 0]): p = e / (e + 1), and p log 2p + (1 - p) log 2(1 - p)
    p = math.e / (math.e + 1)
    expected = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    values = th.tensor([[2.0, 0.0], [3.0, 3.0]])
    assert float(divergence_of_values(th.zeros(2, 2), values, 2.0)) == pytest.approx(expected / 2)
    assert float(divergence_of_values(values + 7, values, 0.01)) == pytest.approx(0, abs=1e-6)


def test_divergence_of_gaussians_by_hand():
    # log(s / t) + (t^2 + (m - n)^2) / 2 s^2 - 1 / 2, of N(n, t) from N(m, s)
    teacher = Normal(th.tensor([[1.0, 0.0]]), th.tensor([[2.0, 1.0]]))
    student = Normal(th.tensor([[0.0, 0.0]]), th.tensor([[1.0, 1.0]]))
    assert float(divergence_of_gaussians(student, teacher)) == pytest.approx(-math.log(2) + (4 + 1) / 2 - 0.5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_student_learns_and_nothing_but_its_policy_changes(algorithm):
    student, teacher = make(algorithm, update_interval=20, learning_rate=3e-3), make(STOCK[algorithm], seed=1)
    network = student.policy.acting_network
    before, first = (
        learned(teacher),
        {name: value.clone() for name, value in student.policy.state_dict().items() if "critic" in name},
    )
    mlp = network.sparse_heads()[0]
    index, nnz = mlp.index.clone(), mlp.nnz
    student.set_random_seed(0)
    losses = distill(student, teacher, some(student), 100, batch_size=64, temperature=1.0)
    assert losses.shape == (100,)
    assert losses[-10:].mean() < 0.7 * losses[:10].mean()
    assert_equal(before, learned(teacher))
    assert_equal(first, {name: value for name, value in student.policy.state_dict().items() if name in first})
    assert mlp.nnz == nnz
    assert not th.equal(mlp.index, index)
    updater = student.policy.topology_updater
    assert next(iter(updater.networks.values())).updates == 4  # of 5 that are due; the last would move none
    assert (updater.method, updater.progress) == (None, 0.0)
    target = student.policy.target_of(next(iter(student.policy.networks)))
    if target is not None:
        assert_equal(dict(network.state_dict()), dict(target.state_dict()))


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each is not RLx2CrossQ])  # of batches
def test_who_is_its_own_teacher_has_nothing_to_learn(algorithm):
    model = make(algorithm, topology="static")
    copied = make(algorithm)
    copied.set_parameters(model.get_parameters())
    assert distill(model, copied, some(model), 1)[0] == pytest.approx(0, abs=1e-5)


def test_first_loss_is_the_mean_squared_error_of_actions():
    student, teacher = make(RLx2TD3), make(SAC, seed=1)
    seen = some(student)
    own, other = (model.policy.scale_action(model.predict(seen, deterministic=True)[0]) for model in (student, teacher))
    assert distill(student, teacher, seen[:1], 1)[0] == pytest.approx(((own - other) ** 2)[0].mean(), rel=1e-4)


def test_links_that_are_too_many_leave():
    student = make(RLx2TD3, topology="static", actor_start_sparsity=0.0)
    assert student.policy.actor.mu.nnz > sum(student.policy.actor.mu.final_nnz)
    distill(student, make(TD3, seed=1), some(student), 30)
    assert student.policy.actor.mu.nnz == sum(student.policy.actor.mu.final_nnz)
    assert student.policy.actor_target.mu.nnz == student.policy.actor.mu.nnz
    student.learn(110)


def test_links_that_a_warm_up_chooses():
    student, teacher = make(RLx2TD3, topology="predictive"), make(TD3, seed=1)
    before = learned(student)
    message = "topology='predictive' chooses links by the data of a warm-up, of which there is none: take 'rigl', 'set'"
    with pytest.raises(ValueError, match=message):
        distill(student, teacher, some(student), 5)
    assert_equal(before, learned(student))
    student.policy.topology_updater.has_warm_up_links = True  # as of an agent that has learned by itself
    distill(student, teacher, some(student), 5)


def test_what_moved_is_not_logged_by_the_next_learn(tmp_path):
    student = make(RLx2TD3, update_interval=5, learning_starts=10, batch_size=4)
    distill(student, make(TD3, seed=1), some(student), 30)
    assert student.policy.topology_updater.latest_updates == []


class Rooms(gym.Env):
    """One of some rooms, and a way out of it."""

    observation_space, action_space = gym.spaces.Discrete(5), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return int(self.np_random.integers(5)), 0.0, False, True, {}


def test_observations_as_a_replay_buffer_holds_them():
    student, teacher = make(RLx2DQN, env=Rooms()), make(DQN, seed=1, env=Rooms())
    seen = np.arange(5).repeat(4)
    teacher.replay_buffer.observations[:, 0, 0] = np.arange(10) % 5
    assert distill(student, teacher, teacher.replay_buffer.observations[:, 0], 3).shape == (3,)
    assert distill(student, teacher, seen, 3).shape == (3,)


def test_images_as_an_environment_and_as_a_replay_buffer_has_them():
    def agents():
        kwargs = {"buffer_size": 10, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
        env = PixelEnv((36, 40, 1))
        student = RLx2DQN("CnnPolicy", env, sparsity=0.5, buffer_min_size=1, seed=0, **kwargs)
        return student, DQN("CnnPolicy", env, seed=1, **kwargs)

    student, teacher = agents()
    seen = np.random.default_rng(0).integers(0, 256, (6, 36, 40, 1)).astype(np.uint8)
    expected = distill(student, teacher, seen, 3)
    student, teacher = agents()
    np.testing.assert_array_equal(distill(student, teacher, np.moveaxis(seen, -1, 1), 3), expected)


def test_dicts_are_refused():
    model = RLx2TD3("MultiInputPolicy", DriftDictEnv(), buffer_size=10, device="cpu")
    with pytest.raises(
        ValueError, match=r"observation_space=Dict\(.*\) must not be a Dict: distill\(\) takes observations as one"
    ):
        distill(model, model, {}, 1)


def test_a_dense_student_and_one_of_parts():
    teacher = make(TD3, seed=1)
    for student in (
        make(TD3),
        TD3(SparseTD3Policy, DriftEnv(), policy_kwargs={"actor_sparsity": 0.5, "critic_sparsity": 0.5}),
    ):
        if isinstance(student.policy, SparseTD3Policy):
            with pytest.warns(UserWarning, match="its topology stays fixed"):
                losses = distill(student, teacher, some(student), 50)
        else:
            losses = distill(student, teacher, some(student), 50)
        assert losses[-1] < losses[0]


def test_each_reads_by_its_own_statistics():
    env = VecNormalize(DummyVecEnv([DriftEnv]))
    env.obs_rms.mean += 3
    teacher, student = make(TD3, env=env, seed=1), make(RLx2TD3)
    seen = some(student)[:1]
    expected = teacher.policy.scale_action(teacher.predict(env.normalize_obs(seen), deterministic=True)[0])
    own = student.policy.scale_action(student.predict(seen, deterministic=True)[0])
    assert distill(student, teacher, seen, 1)[0] == pytest.approx(((own - expected) ** 2).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (RLx2SAC, TD3, r"teacher=TD3 cannot teach RLx2SAC: the one gives actions, the other learns Gaussians"),
        (
            RLx2TD3,
            lambda: PPO("MlpPolicy", DriftEnv(), device="cpu"),
            r"PPO cannot be distilled: its policy has none of actor",
        ),
        (RLx2DQN, TD3, r"teacher: its action_space Box.* must be the student's, Discrete\(3\)"),
        (RLx2DQN, lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10), r"teacher: its observation_space"),
    ],
)
def test_who_cannot_teach_whom(student, teacher, message):
    learner = make(student)
    before = learned(learner)
    with pytest.raises(ValueError, match=message):
        distill(learner, teacher() if not isinstance(teacher, type) else make(teacher), some(learner), 1)
    assert_equal(before, learned(learner))


def test_values_are_taught_across_algorithms():
    student, teacher = make(RLx2DQN), make(RLx2QRDQN, seed=1)
    losses = distill(student, teacher, some(student), 100, temperature=1.0)
    assert losses[-10:].mean() < losses[:10].mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradient_steps": 0}, "gradient_steps=0 must be an integer >= 1"),
        ({"batch_size": 0}, "batch_size=0 must be an integer >= 1"),
        ({"temperature": 0}, r"temperature=0 must be a number in \[1e-06, inf\)"),
        ({"observations": np.zeros((0, 2))}, "must be an array of at least one observation of shape"),
        ({"observations": np.zeros((3, 7))}, r"observations of \(3, 7\) must be an array"),
        ({"observations": [1]}, "observations of list must be an array"),
    ],
)
def test_wrong_arguments(arguments, message):
    student = make(RLx2TD3)
    with pytest.raises(ValueError, match=message):
        distill(**({"student": student, "teacher": student, "observations": some(student), "gradient_steps": 1} | arguments))


def test_a_discrete_student_acts_as_its_teacher():
    env = gym.make("CartPole-v1")
    teacher = make(DQN, seed=1, env=env, policy_kwargs={"net_arch": [16]})
    student = make(RLx2DQN, env=env, policy_kwargs={"net_arch": [32]}, learning_rate=1e-2)
    seen = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    distill(student, teacher, seen, 300, temperature=0.1)
    actions = [model.predict(seen, deterministic=True)[0] for model in (student, teacher)]
    assert (actions[0] == actions[1]).mean() > 0.95
    assert is_discrete(RLx2DQN)
