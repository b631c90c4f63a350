import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import CheckpointCallback, ConvertCallback
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, RLx2SAC, RLx2TD3, SparseMLP, SparseSACPolicy, SparseTD3Policy, backends
from tests.checks import sparse_mlps
from tests.envs import GoalEnv, TinyEnv

STOCK = {RLx2TD3: TD3, RLx2SAC: SAC}
POLICIES = {RLx2TD3: SparseTD3Policy, RLx2SAC: SparseSACPolicy}
NAN, INF = float("nan"), float("inf")
both = pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])

HALF_OPEN = r"must be a number in \[0, 1\)"
CLOSED = r"must be a number in \[0, 1\]"
BAD_SPARSITIES = [-0.1, 1, 1.0, 1.5, NAN, INF, -INF, "0.9", True]
BAD_INTERVALS = [0, -1, 0.5, NAN, INF, "10", None, True]
BAD_FRACTIONS = [-0.1, 1.1, NAN, "0.5", None]
BAD_ARGUMENTS = [
    *(("actor_sparsity", value, HALF_OPEN) for value in BAD_SPARSITIES),
    *(("critic_sparsity", value, HALF_OPEN) for value in BAD_SPARSITIES),
    ("actor_sparsity", None, "has no default"),
    ("critic_sparsity", None, "has no default"),
    *(("update_interval", value, "must be an integer >= 1") for value in BAD_INTERVALS),
    *(("buffer_check_interval", value, "must be an integer >= 1") for value in BAD_INTERVALS),
    *(("n_steps", value, "must be an integer >= 1") for value in BAD_INTERVALS),
    *(("drop_fraction", value, CLOSED) for value in BAD_FRACTIONS),
    *(("n_steps_delay", value, CLOSED) for value in BAD_FRACTIONS),
    *(("policy_distance_threshold", value, r"must be a number in \[0, inf\]") for value in (-0.1, NAN, None)),
    *(("buffer_min_size", value, "must be an integer >= 0") for value in (-1, 0.5, NAN, INF, None)),
    ("buffer_min_size", 101, "must be <= buffer_size=100"),
    ("topology", "RigL2", "choose one of 'rigl', 'set', 'static'; did you mean 'rigl'"),
    ("topology", "sets", "choose one of 'rigl', 'set', 'static'; did you mean 'set'"),
    ("topology", None, "choose one of 'rigl', 'set', 'static'"),
    ("distribution", "erdos_reny", "choose one of 'erdos_renyi', 'erk', 'uniform'; did you mean 'erdos_renyi'"),
    ("distribution", "unform", "choose one of .*; did you mean 'uniform'"),
    ("init", "magnitud", "choose one of 'magnitude', 'random'; did you mean 'magnitude'"),
    ("backend", "csc", "choose one of 'auto', 'csr', 'masked'; did you mean 'csr'"),
    ("backend", "cuda", "choose one of 'auto', 'csr', 'masked'"),
]
POLICY_ARGUMENTS = ("actor_sparsity", "critic_sparsity", "distribution", "init", "backend")
BUFFER_ARGUMENTS = ("n_steps", "buffer_min_size")


def make(algorithm, env=None, **kwargs):
    defaults = {"learning_starts": 10, "batch_size": 4, "buffer_size": 100, "policy_kwargs": {"net_arch": [16]}, "seed": 0}
    own = {} if "backend" in kwargs else {"backend": "masked"}
    return algorithm("MlpPolicy", env or TinyEnv(), device="cpu", **(defaults | own | kwargs))


@pytest.mark.parametrize(("name", "value", "message"), BAD_ARGUMENTS)
@both
def test_bad_argument(algorithm, name, value, message):
    with pytest.raises(ValueError, match=rf"^{name}={value!r}.*{message}"):
        make(algorithm, **{name: value})


@pytest.mark.parametrize(("name", "value", "message"), BAD_ARGUMENTS)
def test_bad_argument_of_a_part(name, value, message):
    if name in POLICY_ARGUMENTS:
        part, args = TD3, (SparseTD3Policy, TinyEnv())
        kwargs = {"policy_kwargs": {"actor_sparsity": 0.5, "critic_sparsity": 0.5} | {name: value}}
    elif name in BUFFER_ARGUMENTS:
        part, args = TD3, ("MlpPolicy", TinyEnv(), 1e-3, 100)
        kwargs = {"replay_buffer_class": RLx2ReplayBuffer, "replay_buffer_kwargs": {name: value}}
    else:
        part, args, kwargs = RLx2Callback, (), {name: value}
    with pytest.raises(ValueError, match=rf"^{name}={value!r}.*{message}"):
        part(*args, **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"actor_sparsity": 0, "critic_sparsity": np.float64(0.5)},
        {"update_interval": 1e3, "buffer_check_interval": np.int64(7), "n_steps": 2.0},  # as YAML and Optuna give them
        {"drop_fraction": 0, "n_steps_delay": 1, "policy_distance_threshold": INF},
        {"drop_fraction": 1, "n_steps_delay": 0, "policy_distance_threshold": 0},
        {"actor_sparsity": np.float32(0.5), "critic_sparsity": np.float64(0.5)},
        {"buffer_min_size": 100},
        {"buffer_min_size": 0, "topology": "static", "distribution": "erk", "init": "random"},
    ],
)
@both
def test_good_arguments(algorithm, kwargs):
    make(algorithm, **kwargs).learn(15)


@pytest.mark.parametrize("name", ["actor_sparsity", "critic_sparsity"])
@both
def test_policy_that_lost_its_sparsity(algorithm, name):
    given = {"actor_sparsity": 0.5, "critic_sparsity": 0.5}
    del given[name]
    with pytest.raises(ValueError, match=f"{name}=None.*has no default sparsity"):
        STOCK[algorithm](POLICIES[algorithm], TinyEnv(), buffer_size=10, policy_kwargs=given)


def test_layer_without_a_link():
    with pytest.raises(ValueError, match=r"nnz=0 of layer 1 must lie in \[1, 8\]"):
        SparseMLP.from_linears([nn.Linear(3, 4), nn.Linear(4, 2)], [5, 0], nn.ReLU())


@both
def test_default_minimum_follows_a_smaller_buffer(algorithm):
    assert make(algorithm).replay_buffer.buffer_min_size == 100


@both
def test_load_with_a_tiny_buffer_to_play(algorithm, tmp_path):
    model = make(algorithm, buffer_min_size=50)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", buffer_size=1, device="cpu")
    obs = np.ones(3, np.float32)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@both
def test_csr_without_a_kernel_for_the_activation(algorithm):
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*not for Tanh.*choose backend='auto' or 'masked'"):
        make(algorithm, backend="csr", policy_kwargs={"net_arch": [16, 16], "activation_fn": nn.Tanh})
    model = make(algorithm, backend="auto", policy_kwargs={"net_arch": [16, 16], "activation_fn": nn.Tanh})
    obs = np.ones(3, np.float32)
    backends._warned.clear()
    with pytest.warns(UserWarning, match=r"backend='auto' takes 'masked'.*not for Tanh"):
        model.predict(obs)
    model.predict(obs)  # says so once


@both
def test_csr_on_another_device(algorithm):
    # "meta" stands in for a GPU, which the tests' machine may not have.
    policy = make(algorithm, backend="csr").policy
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*CPU, not for device 'meta'.*choose backend='auto'"):
        policy.to("meta")
    make(algorithm, backend="auto").policy.to("meta")


@both
def test_csr_in_another_precision(algorithm):
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*float16"):
        make(algorithm, backend="csr").policy.half()


@both
def test_discrete_actions(algorithm):
    for env in ("CartPole-v1", DummyVecEnv([lambda: gym.make("CartPole-v1")])):
        with pytest.raises(ValueError, match=r"action_space=Discrete\(2\).*must be a Box"):
            make(algorithm, env)


@both
def test_discrete_actions_of_the_policy(algorithm):
    with pytest.raises(ValueError, match=r"action_space=Discrete\(2\) must be a Box"):
        POLICIES[algorithm](
            spaces.Box(-1, 1, (3,)), spaces.Discrete(2), FloatSchedule(1e-3), actor_sparsity=0.5, critic_sparsity=0.5
        )


def test_gsde_is_refused():
    with pytest.raises(ValueError, match="use_sde=True is not supported by SparseSACPolicy, use_sde must be False"):
        make(RLx2SAC, use_sde=True)
    with pytest.raises(ValueError, match="use_sde=True is not supported"):
        SAC(SparseSACPolicy, TinyEnv(), use_sde=True, policy_kwargs={"actor_sparsity": 0.5, "critic_sparsity": 0.5})


@both
def test_dense_policy_is_refused(algorithm):
    dense = STOCK[algorithm].policy_aliases["MlpPolicy"]
    with pytest.raises(ValueError, match=f"policy={dense.__name__} must be 'MlpPolicy'.*{POLICIES[algorithm].__name__}"):
        algorithm(dense, TinyEnv(), buffer_size=10)


@both
def test_dense_zip_is_refused(algorithm, tmp_path):
    dense = STOCK[algorithm]("MlpPolicy", TinyEnv(), buffer_size=10, policy_kwargs={"net_arch": [16]})
    dense.save(tmp_path / "dense")
    with pytest.raises(RuntimeError, match=r"is dense.*load it with the algorithm that saved it, or train a sparse one"):
        algorithm.load(tmp_path / "dense")
    with pytest.raises(RuntimeError, match="dense"):
        algorithm.load(tmp_path / "dense", env=TinyEnv(), device="cpu")


@both
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored")  # SB3's, of a replay buffer class
def test_zip_of_the_other_algorithm_is_refused(algorithm, tmp_path):
    other = RLx2SAC if algorithm is RLx2TD3 else RLx2TD3
    make(other).save(tmp_path / "other")
    with pytest.raises(RuntimeError, match=f"is another algorithm's, {algorithm.__name__}.load needs a Sparse"):
        algorithm.load(tmp_path / "other")
    with pytest.raises(ValueError, match="an agent of RLx2TD3 or RLx2SAC is loaded with these"):
        STOCK[other].load(tmp_path / "other")


@both
def test_dense_parameters_are_refused(algorithm):
    dense = STOCK[algorithm]("MlpPolicy", TinyEnv(), buffer_size=10, policy_kwargs={"net_arch": [16]}, device="cpu")
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
    (*case, value, normalize) for case in CASES for value in (NAN, INF, -INF, (INF, -INF)) for normalize in (False, True)
]
# VecNormalize clips an infinite terminal observation before anyone else sees it, so that what is stored is finite.
BROKEN = [case for case in BROKEN if case[0] != "terminal" or not case[4] or np.isnan(case[3]).any()]


@pytest.mark.filterwarnings("ignore:invalid value encountered in (?!reduce)")  # VecNormalize's statistics
@pytest.mark.parametrize(("poison", "name", "step", "value", "normalize"), BROKEN)
@both
def test_broken_environment(algorithm, poison, name, step, value, normalize, tmp_path):
    env = DummyVecEnv([TinyEnv, lambda: TinyEnv(poison=poison, value=value, at=25)])
    if normalize:
        env = VecNormalize(env)
    model = make(algorithm, env, learning_starts=20)
    obs, seen = np.ones((2, 3), np.float32), {}

    def watch(*_):
        seen[model.num_timesteps] = model.predict(obs, deterministic=True)[0]
        return True

    checkpoints = CheckpointCallback(20, str(tmp_path))
    message = f"the environment gave {name} with NaN or infinity at step {2 * step}: .*last checkpoint"
    learn_until_error(model, "(?s)" + message, steps=100, callback=[checkpoints, ConvertCallback(watch)])
    assert model.num_timesteps == 2 * step
    assert model.replay_buffer.size() == step - 1
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


@pytest.mark.parametrize("update_interval", [1, 10_000])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("parameter", ["values", "bias"])
@pytest.mark.parametrize("name", ["actor", "critic"])
@both
def test_broken_gradient(algorithm, name, parameter, value, update_interval, tmp_path):
    kwargs = {"policy_delay": 1} if algorithm is RLx2TD3 else {}
    model = make(algorithm, update_interval=update_interval, **kwargs)
    state = failing(model, name, parameter, value)
    network = getattr(model.policy, name)
    before = {}

    def watch(*_):
        if model.num_timesteps == 20:
            model.save(tmp_path / "checkpoint")
            before.update({key: tensor.clone() for key, tensor in network.state_dict().items()})
            state["armed"] = True
        return True

    message = f"the gradient of the {name} holds NaN or infinity at its optimizer step 10; .*last checkpoint"
    learn_until_error(model, message, callback=watch)
    assert model.num_timesteps == 20
    assert_finite(model)
    for key, tensor in network.state_dict().items():
        assert th.equal(tensor, before[key]), key
    loaded = algorithm.load(tmp_path / "checkpoint", env=TinyEnv(), device="cpu")
    for key, tensor in getattr(loaded.policy, name).state_dict().items():
        assert th.equal(tensor, before[key]), key
    loaded.learn(20)


@both
def test_broken_gradient_stops_stock_algorithms_too(algorithm):
    policy_kwargs = {"net_arch": [16], "actor_sparsity": 0.5, "critic_sparsity": 0.5, "backend": "masked"}
    model = STOCK[algorithm](
        POLICIES[algorithm],
        TinyEnv(),
        buffer_size=100,
        learning_starts=10,
        batch_size=4,
        policy_kwargs=policy_kwargs,
        device="cpu",
    )
    failing(model, "critic", "values", NAN)["armed"] = True
    learn_until_error(model, "the gradient of the critic holds NaN or infinity at its optimizer step 1")
