import numpy as np
import pytest
import torch as th
from sb3_contrib import CrossQ
from stable_baselines3 import SAC, TD3
from torch.utils.flop_counter import FlopCounterMode

from sb3_rlx2 import RLx2CrossQ, RLx2DDPG, RLx2DQN, RLx2QRDQN, RLx2SAC, RLx2TD3, RLx2TQC, metrics
from tests.envs import PixelEnv, TinyEnv
from tests.every import DELAYS, MAXIMUM_ENTROPY, VALUE_BASED, small
from tests.every import STOCK as ALL_STOCK

HALF_CHEETAH = {"obs_dim": 17, "action_dim": 6}
STOCK = {RLx2TD3: TD3, RLx2SAC: SAC}


def make(algorithm, env=None, net_arch=(256, 256), **kwargs):
    policy_kwargs = {"net_arch": list(net_arch)}
    return algorithm(
        "MlpPolicy", env or TinyEnv(**HALF_CHEETAH), buffer_size=100, policy_kwargs=policy_kwargs, device="cpu", **kwargs
    )


def make_small(algorithm, **kwargs):
    """Observations 4, actions 2, one hidden layer of 8: an actor of 4x8 + 8x2 (SAC: 8x4) and critics of 6x8 + 8x1."""
    own = {"actor_sparsity": 0.5, "critic_sparsity": 0.75, "distribution": "uniform", "backend": "masked"}
    return make(algorithm, TinyEnv(obs_dim=4, action_dim=2), (8,), **(own | kwargs))


def fill(model, steps=40):
    rng = np.random.default_rng(0)
    obs_dim, action_dim = model.observation_space.shape[0], model.action_space.shape[0]
    for _ in range(steps):
        obs, next_obs = rng.normal(size=(2, 1, obs_dim))
        model.replay_buffer.add(obs, next_obs, rng.uniform(-1, 1, (1, action_dim)), np.ones(1), np.zeros(1), [{}])


def count_flops(model, steps=2, batch=256):
    """Of one gradient step, by torch, over a whole policy delay."""
    with FlopCounterMode(display=False) as counter:
        model.train(gradient_steps=steps, batch_size=batch)
    return counter.get_total_flops() / steps


def quiet(model):
    model.learn(0)  # gives it a logger, and lends the buffer what it needs
    return model


@pytest.mark.parametrize("algorithm", [RLx2DDPG, RLx2TQC])
@pytest.mark.parametrize("n_critics", [1, 3])
def test_dense_training_flops_of_further_algorithms(algorithm, n_critics):
    kwargs = {"buffer_size": 100, "device": "cpu"}
    shape = small(algorithm, net_arch=[16, 8], n_critics=n_critics)
    dense = quiet(ALL_STOCK[algorithm]("MlpPolicy", TinyEnv(**HALF_CHEETAH), policy_kwargs=shape.copy(), **kwargs))
    fill(dense)
    counted = count_flops(dense, batch=32)
    zero = {"actor_sparsity": 0, "critic_sparsity": 0, "policy_kwargs": shape.copy()}
    model = algorithm("MlpPolicy", TinyEnv(**HALF_CHEETAH), **zero, **kwargs)
    for one in (dense, model):
        assert metrics.step_flops(one) * 32 == counted


@pytest.mark.parametrize(("algorithm", "mega_flops"), [(RLx2TD3, 433), (RLx2SAC, 655)])
def test_dense_training_flops(algorithm, mega_flops):
    dense = quiet(make(STOCK[algorithm]))
    fill(dense)
    counted = count_flops(dense)
    assert counted / 1e6 == pytest.approx(mega_flops, abs=0.5)
    for model in (make(algorithm), make(algorithm, actor_sparsity=0, critic_sparsity=0)):
        assert metrics.step_flops(model, dense=True) * 256 == counted
    assert metrics.step_flops(model) * 256 == counted


@pytest.mark.parametrize("policy_delay", [1, 3])
def test_dense_training_flops_of_other_shapes(policy_delay):
    env = TinyEnv(obs_dim=5, action_dim=3)
    dense = quiet(make(TD3, env, (16, 8, 4), policy_delay=policy_delay))
    fill(dense)
    model = make(RLx2TD3, env, (16, 8, 4), policy_delay=policy_delay, actor_sparsity=0.5)
    assert metrics.step_flops(model, dense=True) * 10 == pytest.approx(count_flops(dense, policy_delay, batch=10))


@pytest.mark.parametrize("policy_delay", [1, 3])
def test_dense_training_flops_of_crossq(policy_delay):
    """Layers behind a normalisation that learns compute the gradient by their inputs, also the first one."""
    env, shape = TinyEnv(obs_dim=5, action_dim=3), {"net_arch": (16, 8, 4), "policy_delay": policy_delay}
    dense = quiet(make(CrossQ, env, **shape))
    fill(dense)
    counted = count_flops(dense, policy_delay, batch=10)
    for model in (dense, make(RLx2CrossQ, env, **shape)):
        assert metrics.step_flops(model, dense=True) * 10 == pytest.approx(counted)
    assert metrics.step_flops(make(RLx2CrossQ, env, actor_sparsity=0, critic_sparsity=0, **shape)) * 10 == pytest.approx(
        counted
    )


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
@pytest.mark.parametrize("algorithm", MAXIMUM_ENTROPY)
def test_soft_n_step_flops(algorithm, n_steps):
    # The masked backend does all products densely, so torch counts them as the dense agent's.
    model = quiet(make_small(algorithm, n_steps=n_steps, n_steps_delay=0.0))
    fill(model)
    buffer = model.replay_buffer
    buffer.sample = lambda size, env: buffer._get_samples(np.arange(size), env=env)  # whole windows only
    steps = DELAYS.get(algorithm, 1)
    assert metrics.step_flops(model, dense=True) * 16 == pytest.approx(count_flops(model, steps, batch=16))


def test_sparse_training_flops_by_hand():
    # Actor 16 + 8 links, each critic 12 + 2; a link costs 2 FLOPs forward, 2 for its gradient, 2 for its input's.
    model = make_small(RLx2TD3, policy_delay=2)
    target = 2 * 24 + 2 * 2 * 14
    critic = 2 * (2 * 14 + 2 * 14 + 2 * 2)
    actor = (2 * 24 + 2 * 24 + 2 * 8) + (2 * 14 + 2 * 14 + 2 * 14)  # through the first critic, to its input
    assert metrics.step_flops(model) == target + critic + actor / 2
    assert metrics.inference_flops(model.actor) == 48
    assert metrics.inference_flops(model.actor, dense=True) == 96


def make_value_based(algorithm, **kwargs):
    policy_kwargs = {"net_arch": [16, 8]} | ({"n_quantiles": 7} if algorithm.__name__.endswith("QRDQN") else {})
    env = TinyEnv(obs_dim=5, n_actions=3)
    return algorithm("MlpPolicy", env, buffer_size=100, policy_kwargs=policy_kwargs, device="cpu", **kwargs)


def fill_value_based(model):
    rng = np.random.default_rng(0)
    for _ in range(40):
        obs, next_obs = rng.normal(size=(2, 1, 5))
        model.replay_buffer.add(obs, next_obs, rng.integers(0, 3, (1, 1)), np.ones(1), np.zeros(1), [{}])


@pytest.mark.parametrize("algorithm", VALUE_BASED)
def test_dense_training_flops_of_value_based_agents(algorithm):
    dense = quiet(make_value_based(ALL_STOCK[algorithm]))
    fill_value_based(dense)
    counted = count_flops(dense, batch=32)
    assert metrics.step_flops(dense) * 32 == counted
    assert metrics.step_flops(make_value_based(algorithm, sparsity=0.5), dense=True) * 32 == counted
    assert metrics.step_flops(make_value_based(algorithm, sparsity=0)) * 32 == counted
    with FlopCounterMode(display=False) as counter:
        metrics.acting_network(dense.policy)(th.zeros(1, 5))
    assert metrics.cost(dense).inference_flops == counter.get_total_flops()


@pytest.mark.parametrize("algorithm", VALUE_BASED)
def test_flops_of_image_agents(algorithm):
    """Behind the convolutions: the wide layer, which the host has in its extractor and we in the network, and the rest."""
    kwargs = {"buffer_size": 50, "device": "cpu", "policy_kwargs": small(algorithm, net_arch=[])}
    dense = quiet(ALL_STOCK[algorithm]("CnnPolicy", PixelEnv(), **kwargs))
    rng = np.random.default_rng(0)
    for _ in range(40):
        obs, next_obs = rng.integers(0, 256, (2, 1, 1, 36, 36), np.uint8)
        dense.replay_buffer.add(obs, next_obs, rng.integers(0, 3, (1, 1)), np.ones(1), np.zeros(1), [{}])
    with FlopCounterMode(display=False) as counter:
        dense.train(gradient_steps=1, batch_size=16)
    counted = sum(flops for name, flops in counter.get_flop_counts()["Global"].items() if "conv" not in str(name))
    kwargs["policy_kwargs"] = small(algorithm, net_arch=[512])
    half = algorithm("CnnPolicy", PixelEnv(), sparsity=0.5, **kwargs)
    for model, as_dense in ((dense, False), (half, True), (algorithm("CnnPolicy", PixelEnv(), sparsity=0, **kwargs), False)):
        assert metrics.step_flops(model, dense=as_dense) * 16 == counted
    acting = metrics.acting_network(half.policy)
    assert metrics.inference_flops(acting, dense=True) == metrics.inference_flops(metrics.acting_network(dense.policy))


@pytest.mark.parametrize(("algorithm", "outputs"), [(RLx2DQN, 3), (RLx2QRDQN, 21)])
def test_value_based_costs_by_hand(algorithm, outputs):
    """Layers of 5 -> 16 -> 8 -> outputs at half of their links."""
    model = make_value_based(algorithm, sparsity=0.5, distribution="uniform")
    links = [40, 64, 4 * outputs]
    assert metrics.inference_flops(metrics.acting_network(model.policy)) == 2 * sum(links)
    # The target's forward pass, the network's own, both gradients; none by the observations.
    assert metrics.step_flops(model) == 2 * (4 * sum(links) - links[0])
    cost = metrics.cost(model)
    assert cost.weights == 2 * sum(links)
    assert cost.paper_training_flops is None
    biases = 16 + 8 + outputs
    assert cost.memory_bytes == 2 * 4 * (sum(links) + biases) + 4 * sum(links)  # a network and its target share the index
    name = next(iter(model.policy.networks))
    assert [line.split()[0] for line in metrics.summary(model).splitlines()[1:4]] == [f"{name}.{name}.{i}" for i in range(3)]


def test_density():
    model = make_small(RLx2SAC)
    assert metrics.density(model.actor) == 0.5
    assert metrics.density(model.critic) == 0.25
    assert metrics.density(model.policy) == (32 + 4 * 14) / (64 + 4 * 56)


def test_parameter_bytes():
    model = make_small(RLx2TD3)
    # 24 of 48 links and 10 biases, 4 bytes each
    assert metrics.parameter_bytes(model.actor) == (4 * (24 + 10), 4 * (48 + 10))
    assert metrics.parameter_bytes(model.critic) == (2 * 4 * (14 + 9), 2 * 4 * (56 + 9))
    dense = make(TD3, TinyEnv(obs_dim=4, action_dim=2), (8,))
    assert metrics.parameter_bytes(model.policy)[1] == sum(4 * p.numel() for p in dense.policy.parameters())


# Table 2 of the paper: dimensions of the v3 environments, sparsities of actor and critics, total size, FLOPs of training
# and of inference, all relative to dense. How SAC's FLOPs of training are counted is not known.
DIMENSIONS = {"HalfCheetah": (17, 6), "Hopper": (11, 3), "Walker2d": (17, 6), "Ant": (111, 8)}
TABLE_2 = [
    (RLx2TD3, "HalfCheetah", (0.90, 0.85), 0.133, 0.138, 0.100),
    (RLx2TD3, "Hopper", (0.98, 0.95), 0.040, 0.043, 0.020),
    (RLx2TD3, "Walker2d", (0.97, 0.95), 0.043, 0.045, 0.030),
    (RLx2TD3, "Ant", (0.96, 0.88), 0.093, 0.100, 0.040),
    (RLx2SAC, "HalfCheetah", (0.90, 0.80), 0.180, None, 0.100),
    (RLx2SAC, "Hopper", (0.98, 0.95), 0.044, None, 0.020),
    (RLx2SAC, "Walker2d", (0.90, 0.90), 0.100, None, 0.100),
    (RLx2SAC, "Ant", (0.90, 0.75), 0.220, None, 0.100),
]


@pytest.mark.parametrize(("algorithm", "env", "sparsities", "size", "training", "inference"), TABLE_2)
def test_papers_costs(algorithm, env, sparsities, size, training, inference):
    obs_dim, action_dim = DIMENSIONS[env]
    sparse, dense = (
        metrics.cost(make(kind, TinyEnv(obs_dim=obs_dim, action_dim=action_dim), **kwargs))
        for kind, kwargs in (
            (algorithm, {"actor_sparsity": sparsities[0], "critic_sparsity": sparsities[1]}),
            (STOCK[algorithm], {}),
        )
    )
    assert sparse.weights / dense.weights == pytest.approx(size, abs=5.1e-4)
    assert sparse.inference_flops / dense.inference_flops == pytest.approx(inference, abs=5.1e-4)
    if training is None:
        assert sparse.paper_training_flops is dense.paper_training_flops is None
    else:
        assert sparse.paper_training_flops / dense.paper_training_flops == pytest.approx(training, abs=5.1e-4)


@pytest.mark.parametrize("algorithm", [TD3, SAC])
def test_stock_agents_are_counted_exactly(algorithm):
    dense = quiet(make(algorithm))
    fill(dense)
    assert metrics.cost(dense).training_flops * 256 == count_flops(dense)
    with FlopCounterMode(display=False) as counter:
        dense.policy.actor(th.zeros(1, HALF_CHEETAH["obs_dim"]))
    assert metrics.cost(dense).inference_flops == counter.get_total_flops()


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
def test_bytes_by_hand():
    model = make_small(RLx2TD3)
    # Actor: 24 links and 10 biases, of 4 bytes each. Each critic: 14 links, 9 biases. All of it twice (targets), and an index
    # of 4 bytes that a network and its target share; Adam has no state before its first step.
    networks = 2 * 4 * (24 + 10 + 2 * (14 + 9)) + 4 * (24 + 2 * 14)
    assert metrics.cost(model).memory_bytes == networks
    quiet(model)
    fill(model)
    model.train(gradient_steps=2, batch_size=8)
    # Two moments for each parameter, and a step count of 4 bytes for each of the two tensors of three networks.
    moments = 2 * 4 * (24 + 10 + 2 * (14 + 9)) + 3 * 2 * 4
    assert metrics.cost(model).memory_bytes == networks + moments
    assert metrics.cost(model).disk_bytes > networks + moments


def test_released_link_counts():
    model = make(RLx2TD3)
    assert [sum(mlp.nnz for mlp in metrics.sparse_mlps(net)) for net in (model.actor, model.critic)] == [7_143, 21_506]


def test_flops_follow_the_n_in_force():
    model = make_small(RLx2SAC)
    model.replay_buffer.uses_entropy_bonus = True
    costs = []
    for model.replay_buffer.n_steps in (1, 2, 3):
        costs.append(metrics.step_flops(model))
    assert np.diff(costs).tolist() == [64, 64]  # one more actor forward per state on the way
    model.replay_buffer.uses_entropy_bonus = False
    assert metrics.step_flops(model) == costs[0]


def test_summary():
    model = make_small(RLx2TD3)
    lines = metrics.summary(model).splitlines()
    assert [line.split() for line in lines[:7]] == [
        ["layer", "shape", "nnz", "sparsity"],
        ["actor.mu.0", "8", "x", "4", "16", "50.0%"],
        ["actor.mu.1", "2", "x", "8", "8", "50.0%"],
        ["critic.qf0.0", "8", "x", "6", "12", "75.0%"],
        ["critic.qf0.1", "1", "x", "8", "2", "75.0%"],
        ["critic.qf1.0", "8", "x", "6", "12", "75.0%"],
        ["critic.qf1.1", "1", "x", "8", "2", "75.0%"],
    ]
    assert [line.partition(":")[0] for line in lines[7:10]] == ["actor.mu", "critic.qf0", "critic.qf1"]
    own, dense = metrics.parameter_bytes(model.policy)
    assert f"{own / 1e3:,.1f} kB, {own / dense:.1%} of the dense {dense / 1e3:,.1f}" in lines[10]
    assert "inference: 0.0 kFLOP, 50.0% of the dense 0.1" in lines[11]
    assert lines[12].startswith("training, per sample:")


def test_sparse_mlps_of_nothing():
    assert metrics.sparse_mlps(None) == []
    assert metrics.sparse_mlps(th.nn.Linear(2, 2)) == []


def test_a_module_without_sparse_networks_is_dense():
    assert metrics.density(th.nn.Linear(2, 2)) == 1.0
