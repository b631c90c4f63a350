import os
import re

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, ConvertCallback
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from torch import nn

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, RLx2TD3, SparseMLP, backends
from sb3_rlx2.algorithms.policies import KINDS
from sb3_rlx2.algorithms.table import CLASSES
from sb3_rlx2.checkpoint import Checkpoints
from tests.checks import sparse_mlps
from tests.envs import GoalEnv, TinyEnv
from tests.every import (
    ACTOR_CRITIC,
    ALGORITHMS,
    DELAYS,
    MAXIMUM_ENTROPY,
    POLICIES,
    STOCK,
    VALUE_BASED,
    env_for,
    is_discrete,
    keywords,
    learner,
    small,
    sparsities,
)

NAN, INF = float("nan"), float("inf")
every = pytest.mark.parametrize("algorithm", ALGORITHMS)

HALF_OPEN = r"must be a number in \[0, 1\)"
CLOSED = r"must be a number in \[0, 1\]"
BAD_SPARSITIES = [-0.1, 1, 1.0, 1.5, NAN, INF, -INF, "0.9", True]
BAD_INTERVALS = [0, -1, 1.5, NAN, INF, "10", None, True]
BAD_FRACTIONS = [-0.1, 1.1, NAN, "0.5", None]
BAD_ARGUMENTS = [
    *(("update_interval", value, "must be an integer >= 1") for value in BAD_INTERVALS),
    *(("buffer_check_interval", value, "must be an integer >= 1") for value in BAD_INTERVALS),
    *(("n_steps", value, "must be an integer >= 1") for value in BAD_INTERVALS),
    *(("drop_fraction", value, CLOSED) for value in BAD_FRACTIONS),
    *(("n_steps_delay", value, CLOSED) for value in BAD_FRACTIONS),
    *(("policy_distance_threshold", value, r"must be a number in \[0, inf\]") for value in (-0.1, NAN, None)),
    *(("buffer_min_size", value, "must be an integer >= 0") for value in (-1, 1.5, NAN, INF, None)),
    ("buffer_min_size", 101, "must be <= buffer_size=100"),
    ("topology", "RigL2", "choose one of 'rigl', 'set', 'static', 'snip', 'active', 'predictive'; did you mean 'rigl'"),
    ("topology", "sets", "choose one of 'rigl', 'set', 'static', 'snip', 'active', 'predictive'; did you mean 'set'"),
    ("topology", None, "choose one of 'rigl', 'set', 'static', 'snip', 'active', 'predictive'"),
    (
        "distribution",
        "erdos_reny",
        "choose one of .*'uniform', 'dense_output'; did you mean 'erdos_renyi'",
    ),
    ("distribution", "unform", "choose one of .*; did you mean 'uniform'"),
    ("init", "magnitud", "choose one of 'magnitude', 'random', 'fan_in', 'spatial'; did you mean 'magnitude'"),
    ("backend", "csc", "choose one of 'auto', 'csr', 'masked'; did you mean 'csr'"),
    ("backend", "cuda", "choose one of 'auto', 'csr', 'masked'"),
]
POLICY_ARGUMENTS = ("distribution", "init", "backend")
BUFFER_ARGUMENTS = ("n_steps", "buffer_min_size")


def make(algorithm, env=None, policy_kwargs=None, **kwargs):
    defaults = {"learning_starts": 10, "batch_size": 4, "buffer_size": 100, "train_freq": 1, "seed": 0, "backend": "masked"}
    own = {"policy_kwargs": small(algorithm, **(policy_kwargs or {"net_arch": [16]}))}
    return algorithm("MlpPolicy", env or env_for(algorithm, TinyEnv)(), device="cpu", **(defaults | own | kwargs))


@pytest.mark.parametrize(("name", "value", "message"), BAD_ARGUMENTS)
@every
def test_bad_argument(algorithm, name, value, message):
    with pytest.raises(ValueError, match=rf"^{name}={value!r}.*{message}"):
        make(algorithm, **{name: value})


@pytest.mark.parametrize("value", [*BAD_SPARSITIES, None])
@pytest.mark.parametrize(
    ("algorithm", "name"), [(algorithm, name) for algorithm in ALGORITHMS for name in keywords(algorithm)]
)
def test_bad_sparsity(algorithm, name, value):
    message = rf"^{name}={value!r}.*{'has no default' if value is None else HALF_OPEN}"
    with pytest.raises(ValueError, match=message):
        make(algorithm, **{name: value})
    with pytest.raises(ValueError, match=message):
        STOCK[algorithm](
            POLICIES[algorithm],
            env_for(algorithm, TinyEnv)(),
            buffer_size=10,
            policy_kwargs=sparsities(algorithm, 0.5, 0.5) | {name: value},
        )


# A callback knows no policy before it is used, so None has a meaning there.
OF_PARTS = [bad for bad in BAD_ARGUMENTS if bad[:2] != ("policy_distance_threshold", None)]


@pytest.mark.parametrize(("name", "value", "message"), OF_PARTS)
@every
def test_bad_argument_of_a_part(algorithm, name, value, message):
    part, args = STOCK[algorithm], (POLICIES[algorithm], env_for(algorithm, TinyEnv)())
    if name in POLICY_ARGUMENTS:
        kwargs = {"policy_kwargs": sparsities(algorithm, 0.5, 0.5) | {name: value}}
    elif name in BUFFER_ARGUMENTS:
        args = ("MlpPolicy", args[1], 1e-3, 100)
        kwargs = {"replay_buffer_class": RLx2ReplayBuffer, "replay_buffer_kwargs": {name: value}}
    else:
        part, args, kwargs = RLx2Callback, (), {name: value}
    with pytest.raises(ValueError, match=rf"^{name}={value!r}.*{message}"):
        part(*args, **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"update_interval": 1e3, "buffer_check_interval": np.int64(7), "n_steps": 2.0},  # as YAML and Optuna give them
        {"drop_fraction": 0, "n_steps_delay": 1, "policy_distance_threshold": INF},
        {"drop_fraction": 1, "n_steps_delay": 0, "policy_distance_threshold": 0},
        {"buffer_min_size": 100},
        {"buffer_min_size": 0, "topology": "static", "distribution": "erk", "init": "random"},
    ],
)
@every
def test_good_arguments(algorithm, kwargs):
    make(algorithm, **kwargs).learn(15)


@pytest.mark.parametrize("shares", [(0, np.float64(0.5)), (np.float32(0.5), 0)])
@every
def test_good_sparsities(algorithm, shares):
    make(algorithm, **sparsities(algorithm, *shares)).learn(15)


@every
def test_policy_that_lost_its_sparsity(algorithm):
    for name in keywords(algorithm):
        given = sparsities(algorithm, 0.5, 0.5)
        del given[name]
        with pytest.raises(ValueError, match=f"^{name}=None.*has no default sparsity"):
            STOCK[algorithm](POLICIES[algorithm], env_for(algorithm, TinyEnv)(), buffer_size=10, policy_kwargs=given)


def test_layer_without_a_link():
    with pytest.raises(ValueError, match=r"nnz=0 of layer 1 must lie in \[1, 8\]"):
        SparseMLP.from_linears([nn.Linear(3, 4), nn.Linear(4, 2)], [5, 0], nn.ReLU())


@every
def test_default_minimum_follows_a_smaller_buffer(algorithm):
    assert make(algorithm).replay_buffer.min_size == 100


@every
def test_load_with_a_tiny_buffer_to_play(algorithm, tmp_path):
    model = make(algorithm, buffer_min_size=50)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", buffer_size=1, device="cpu")
    obs = np.ones(3, np.float32)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@every
def test_csr_without_a_kernel_for_the_activation(algorithm):
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*not for Tanh.*choose backend='auto' or 'masked'"):
        make(algorithm, backend="csr", policy_kwargs={"net_arch": [16, 16], "activation_fn": nn.Tanh})
    model = make(algorithm, backend="auto", policy_kwargs={"net_arch": [16, 16], "activation_fn": nn.Tanh})
    obs = np.ones(3, np.float32)
    backends._warned.clear()
    with pytest.warns(UserWarning, match=r"backend='auto' takes 'masked'.*not for Tanh"):
        model.predict(obs)
    model.predict(obs)  # says so once


@every
def test_csr_on_another_device(algorithm):
    # "meta" stands in for a GPU, which the tests' machine may not have.
    policy = make(algorithm, backend="csr").policy
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*CPU, not for device 'meta'.*choose backend='auto'"):
        policy.to("meta")
    make(algorithm, backend="auto").policy.to("meta")


@every
def test_csr_in_another_precision(algorithm):
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*float16"):
        make(algorithm, backend="csr").policy.half()


@pytest.mark.parametrize(
    ("algorithms", "env_id", "space", "kind"),
    [
        (ACTOR_CRITIC, "CartPole-v1", spaces.Discrete(2), "a Box: {} is for continuous actions"),
        (VALUE_BASED, "Pendulum-v1", spaces.Box(-2, 2, (1,)), "Discrete: {} is for discrete actions"),
    ],
)
def test_actions_of_the_other_kind(algorithms, env_id, space, kind):
    for algorithm in algorithms:
        subject = f"action_space={re.escape(str(space))}"
        for env in (env_id, DummyVecEnv([lambda: gym.make(env_id)])):
            with pytest.raises(ValueError, match=f"^env has {subject}, which must be {kind.format(algorithm.__name__)}"):
                make(algorithm, env)
        with pytest.raises(ValueError, match=f"^{subject} must be {kind.format(POLICIES[algorithm].__name__)}"):
            POLICIES[algorithm](spaces.Box(-1, 1, (3,)), space, FloatSchedule(1e-3), **sparsities(algorithm, 0.5, 0.5))


def test_algorithms_for_actions_of_the_other_kind_are_named():
    for cls in CLASSES:
        named = {kind for kind, text in KINDS.items() if re.search(rf"\b{cls.__name__}\b", text)}
        assert named == KINDS.keys() - {cls.sparse_policy_class.action_spaces}


@pytest.mark.parametrize("algorithm", MAXIMUM_ENTROPY)
def test_gsde_is_refused(algorithm):
    policy_class, policy_kwargs = POLICIES[algorithm], sparsities(algorithm, 0.5, 0.5)
    with pytest.raises(ValueError, match=f"use_sde=True is not supported by {policy_class.__name__}, use_sde must be False"):
        make(algorithm, use_sde=True)
    with pytest.raises(ValueError, match="use_sde=True is not supported"):
        STOCK[algorithm](policy_class, TinyEnv(), use_sde=True, policy_kwargs=policy_kwargs)


@every
def test_dense_policy_is_refused(algorithm):
    dense = STOCK[algorithm].policy_aliases["MlpPolicy"]
    with pytest.raises(ValueError, match=f"policy={dense.__name__} must be 'MlpPolicy'.*{POLICIES[algorithm].__name__}"):
        algorithm(dense, env_for(algorithm, TinyEnv)(), buffer_size=10)


@every
def test_dense_zip_is_refused(algorithm, tmp_path):
    env = env_for(algorithm, TinyEnv)()
    dense = STOCK[algorithm]("MlpPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [16]})
    dense.save(tmp_path / "dense")
    with pytest.raises(RuntimeError, match=r"is dense.*load it with the algorithm that saved it, or train a sparse one"):
        algorithm.load(tmp_path / "dense")
    with pytest.raises(RuntimeError, match="dense"):
        algorithm.load(tmp_path / "dense", env=env, device="cpu")


@every
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored")  # SB3's, of a replay buffer class
def test_zip_of_the_other_algorithm_is_refused(algorithm, tmp_path):
    others = VALUE_BASED if is_discrete(algorithm) else ACTOR_CRITIC
    other = next(each for each in others if POLICIES[each] is not POLICIES[algorithm])  # DDPG's policy is TD3's
    make(other).save(tmp_path / "other")
    with pytest.raises(RuntimeError, match=f"is another algorithm's, {algorithm.__name__}.load needs a Sparse"):
        algorithm.load(tmp_path / "other")
    with pytest.raises(ValueError, match=r"An agent that an RLx2 class has saved is loaded by that class, as RLx2TD3.load"):
        STOCK[other].load(tmp_path / "other")


@every
def test_dense_parameters_are_refused(algorithm):
    env = env_for(algorithm, TinyEnv)()
    dense = STOCK[algorithm]("MlpPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [16]}, device="cpu")
    with pytest.raises(RuntimeError, match=r"is not sparse.*load it with the algorithm that saved it"):
        make(algorithm).set_parameters(dense.get_parameters())


def learn_until_error(model, match, steps=60, **kwargs):
    with pytest.raises(ValueError, match=match):
        model.learn(steps, **kwargs)


def assert_finite(model):
    assert all(th.isfinite(tensor).all() for tensor in model.policy.state_dict().values() if isinstance(tensor, th.Tensor))
    buffer = model.replay_buffer
    for name in ("observations", "next_observations", "actions", "policy_actions", "rewards"):
        assert np.isfinite(getattr(buffer, name)).all(), name


CASES = [("reward", "a reward", 25), ("observation", "an observation", 25), ("terminal", "an observation", 30)]
BROKEN = [
    (*case, value, normalize)
    for case in CASES
    for value in (NAN, INF, -INF, (INF, -INF), 1e300)  # the last one in 64 bits, of which 32 are stored
    for normalize in (False, True)
]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of rewards, by SB3
@pytest.mark.parametrize(("poison", "name", "step", "value", "normalize"), BROKEN)
@every
def test_broken_environment(algorithm, poison, name, step, value, normalize, tmp_path):
    make_env = env_for(algorithm, TinyEnv)
    env = DummyVecEnv([make_env, lambda: make_env(poison=poison, value=value, at=25)])
    if normalize:
        env = VecNormalize(env)
    model = make(algorithm, env, learning_starts=20)
    obs, seen = np.ones((2, 3), np.float32), {}

    def watch(*_):
        seen[model.num_timesteps] = model.predict(obs, deterministic=True)[0]
        return True

    checkpoints = CheckpointCallback(20, str(tmp_path))
    message = f"environment 1 of 2 gave {name} with NaN or infinity at step {2 * step}: .*last checkpoint"
    learn_until_error(model, "(?s)" + message, steps=100, callback=[checkpoints, ConvertCallback(watch)])
    assert model.num_timesteps == 2 * step - 2
    assert model.replay_buffer.size() == step - 1
    assert not normalize or np.isfinite([*env.obs_rms.mean, env.ret_rms.mean, *env.returns]).all()
    assert_finite(model)
    loaded = algorithm.load(tmp_path / "rl_model_40_steps", device="cpu")
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], seen[40])


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize(("poison", "name", "step"), CASES[:2])
def test_broken_environment_behind_fixed_statistics(poison, name, step, value):
    # With statistics that do not follow, normalisation clips an infinite value to a finite one.
    env = VecNormalize(DummyVecEnv([lambda: TinyEnv(poison=poison, value=value, at=step)]), training=False)
    model = make(RLx2TD3, env)
    learn_until_error(model, f"the environment gave {name} with NaN or infinity at step {step}")
    assert_finite(model)


class Mortal(TinyEnv):
    """Ends its process, or raises an error, at a step."""

    def __init__(self, at, act):
        super().__init__()
        self.end, self.act = at, act

    def step(self, action):
        if self.steps + 1 == self.end:
            self.act()
        return super().step(action)


@pytest.mark.filterwarnings("ignore")
def test_a_process_that_ends():
    makers = [TinyEnv, lambda: Mortal(15, lambda: os._exit(1))]
    model = make(RLx2TD3, SubprocVecEnv(makers, start_method="fork"))
    message = "the process of environment 1 of 2 has ended at step 30; go back to the last checkpoint"
    with pytest.raises(RuntimeError, match=message):
        model.learn(100)
    for process in model.env.processes:
        process.kill()


@pytest.mark.filterwarnings("ignore:the run in .* goes on, but not to the last bit")  # it is another length
def test_an_environment_that_raises_is_no_longer_looked_at(tmp_path):
    def fail():
        raise ZeroDivisionError("of the environment")

    env = DummyVecEnv([lambda: Mortal(15, fail)])
    model = make(RLx2TD3, env)
    message = "the environment raised ZeroDivisionError at step 15: of the environment; go back to the last checkpoint"
    with pytest.raises(RuntimeError, match=message):
        model.learn(100, callback=Checkpoints(tmp_path, 10))
    env.envs[0].act = lambda: None
    model = make(RLx2TD3, env)
    model.learn(30, callback=Checkpoints(tmp_path, 10))
    assert model.num_timesteps == 30
    assert "step_wait" not in vars(env)


@pytest.mark.parametrize("key", ["observation", "desired_goal"])
def test_broken_dict_environment(key):
    class Broken(GoalEnv):
        def observe(self):
            return super().observe() | ({key: np.full(2, np.nan, np.float32)} if self.steps == 7 else {})

    model = RLx2TD3(
        "MultiInputPolicy", Broken(), learning_starts=10, buffer_size=100, policy_kwargs={"net_arch": [16]}, device="cpu"
    )
    with pytest.warns(UserWarning, match="only the topology evolves"):
        learn_until_error(model, "the environment gave an observation with NaN or infinity at step 7")


@pytest.mark.filterwarnings("ignore:learning_starts=50 is not below")
@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # the optimizers are called by hand
def test_large_finite_values_are_no_error():
    # Their sum overflows, so a check by the sum alone would stop here.
    model = make(RLx2TD3, TinyEnv(poison="observation", value=(3e38, 3e38, 3e38), at=5), learning_starts=50)
    model.learn(20)
    for name in ("actor", "critic"):
        network = getattr(model, name)
        network.optimizer.zero_grad()
        for mlp in sparse_mlps(network):
            mlp.values.grad = th.full_like(mlp.values, 3e38)
        assert mlp.values.grad.sum().isinf()
        network.optimizer.step()


def failing(model, name, parameter, value):
    """Break one entry of one gradient, as an overflow would."""
    state = {"armed": False}

    def hook(gradient):
        gradient = gradient.clone()
        if state["armed"]:
            gradient[-1] = value
        return gradient

    getattr(sparse_mlps(getattr(model.policy, name))[-1], parameter).register_hook(hook)
    return state


def weights(network):
    """Give a network's state but for the statistics that a forward pass moves."""
    statistics = ("ra_mean", "ra_var", "steps")
    return {key: tensor for key, tensor in network.state_dict().items() if key.rpartition(".")[2] not in statistics}


@pytest.mark.parametrize("update_interval", [1, 10_000])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("parameter", ["values", "bias"])
@pytest.mark.parametrize(
    ("algorithm", "name"), [(algorithm, name) for algorithm in ALGORITHMS for name in POLICIES[algorithm].networks]
)
def test_broken_gradient(algorithm, name, parameter, value, update_interval, tmp_path):
    kwargs = {"policy_delay": 1} if algorithm in DELAYS else {}
    model = make(algorithm, update_interval=update_interval, **kwargs)
    state = failing(model, name, parameter, value)
    network = getattr(model.policy, name)
    before = {}

    def watch(*_):
        if model.num_timesteps == 20:
            model.save(tmp_path / "checkpoint")
            before.update({key: tensor.clone() for key, tensor in weights(network).items()})
            state["armed"] = True
        return True

    message = f"the gradient of the {name} holds NaN or infinity at its optimizer step 10; .*last checkpoint"
    learn_until_error(model, message, callback=watch)
    assert model.num_timesteps == 20
    assert_finite(model)
    for key, tensor in weights(network).items():
        assert th.equal(tensor, before[key]), key
    loaded = algorithm.load(tmp_path / "checkpoint", env=env_for(algorithm, TinyEnv)(), device="cpu")
    for key, tensor in weights(getattr(loaded.policy, name)).items():
        assert th.equal(tensor, before[key]), key
    loaded.learn(20)


@every
def test_broken_gradient_stops_stock_algorithms_too(algorithm):
    policy_kwargs = small(algorithm, net_arch=[16], backend="masked", **sparsities(algorithm, 0.5, 0.5))
    model = STOCK[algorithm](
        POLICIES[algorithm],
        env_for(algorithm, TinyEnv)(),
        train_freq=1,
        buffer_size=100,
        learning_starts=10,
        batch_size=4,
        policy_kwargs=policy_kwargs,
        device="cpu",
    )
    name = learner(algorithm)
    failing(model, name, "values", NAN)["armed"] = True
    learn_until_error(model, f"the gradient of the {name} holds NaN or infinity at its optimizer step 1")


@pytest.mark.parametrize("steps", [NAN, -5, 0.5, "many"])
def test_numbers_of_steps(steps):
    with pytest.raises(ValueError, match=rf"total_timesteps={steps!r} must be an integer >= 0"):
        make(RLx2TD3).learn(steps)


def test_an_empty_buffer_gives_nothing():
    with pytest.raises(ValueError, match="batch_size=8 must be 0: the replay buffer is empty"):
        make(RLx2TD3).replay_buffer.sample(8)
