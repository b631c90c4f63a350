import io
import math
import pickle
import zipfile
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_rlx2 import RLx2Callback, RLx2DQN, RLx2ReplayBuffer, RLx2TD3, SparseMLP
from sb3_rlx2.saved_objects import why_no_agent_zip
from tests.checks import assert_equal, assert_sound, learned, sparse_mlps
from tests.compilers import needs
from tests.envs import DriftDictEnv, DriftEnv
from tests.every import (
    ACTOR_CRITIC,
    ALGORITHMS,
    DELAYS,
    MAXIMUM_ENTROPY,
    POLICIES,
    STOCK,
    WITH_DICTS,
    env_for,
    is_discrete,
    keywords,
    learner,
    small,
    sparsities,
)

OBSERVATIONS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
SETTINGS = {
    "learning_starts": 20,
    "batch_size": 16,
    "buffer_size": 200,
    "train_freq": 1,
    "update_interval": 10,
    "n_steps_delay": 0.2,
    "buffer_min_size": 30,
    "buffer_check_interval": 25,
    "seed": 0,
}


def build(algorithm, env=None, policy="MlpPolicy", policy_kwargs=None, **kwargs):
    own = sparsities(algorithm, 0.6, 0.5) | {"policy_kwargs": small(algorithm, **(policy_kwargs or {"net_arch": [16, 16]}))}
    return algorithm(policy, env or env_for(algorithm)(), **deepcopy(SETTINGS) | own | kwargs)


def actions(model):
    """Give actions without noise; instead of discrete ones the values that they are chosen by, which tell more."""
    if not hasattr(model, "actor"):
        return model.policy.acting_network(th.from_numpy(OBSERVATIONS)).detach().numpy()
    return model.predict(OBSERVATIONS, deterministic=True)[0]


def updates(model):
    return {name: network.updates for name, network in model.policy.topology_updater.networks.items()}


def through_zip(model, **kwargs):
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return type(model).load(file, **kwargs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("init", ["magnitude", "random"])
@pytest.mark.parametrize("topology", ["rigl", "set"])
def test_all_that_was_learned_comes_back(algorithm, init, topology, tmp_path):
    model = build(algorithm, init=init, topology=topology).learn(80)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    assert_equal(learned(loaded), learned(model))  # weights, topology, moments, counters, progress, growth's generator
    np.testing.assert_array_equal(actions(loaded), actions(model))
    assert_sound(loaded.policy)
    assert updates(loaded) == updates(model)
    assert min(updates(loaded).values()) > 0
    assert loaded.policy.topology_updater.progress == 1.0
    for name in ("topology", "init", "policy_kwargs", *keywords(algorithm), *SETTINGS):
        assert getattr(loaded, name) == getattr(model, name)
    # the loaded one is a model of its own
    for mlp in sparse_mlps(loaded.policy):
        mlp.values.data.zero_()
    assert not np.array_equal(actions(loaded), actions(model))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_progress_and_n_step_state_come_back(algorithm, tmp_path):
    model = build(algorithm).learn(60)
    model.policy.topology_updater.progress = 0.6  # as if interrupted
    assert model.replay_buffer.n_steps == 3
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")

    loaded = algorithm.load(tmp_path / "model", env=env_for(algorithm)())
    assert loaded.replay_buffer.size() == 0
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.n_steps == 3
    assert loaded.replay_buffer.live == model.replay_buffer.live
    assert loaded.policy.topology_updater.drop_fraction == 0.0  # at rest until training starts
    # The zoo's -i counts steps from 0 again: neither n nor the drop fraction goes back.
    for reset in (True, False):
        again = algorithm.load(tmp_path / "model", env=env_for(algorithm)())
        again.learn(200, StopTraining(after=30), reset_num_timesteps=reset)  # 5 % of it
        assert again.replay_buffer.n_steps == 3
        assert again.policy.topology_updater.progress == 0.6


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("saved", "other"), [("csr", "masked"), ("masked", "csr"), ("auto", "masked"), ("csr", "auto")])
def test_other_backend(algorithm, saved, other):
    model = build(algorithm, backend=saved).learn(60)
    loaded = through_zip(model, backend=other, env=env_for(algorithm)())
    assert loaded.backend == other
    assert {mlp.backend for mlp in sparse_mlps(loaded.policy)} == {other}
    assert_equal(learned(loaded), learned(model))
    np.testing.assert_allclose(actions(loaded), actions(model), atol=1e-5)
    before = updates(loaded)[learner(algorithm)]
    loaded.policy.topology_updater.progress = 0.0
    loaded.learn(40, reset_num_timesteps=True)
    assert updates(loaded)[learner(algorithm)] > before
    assert_sound(loaded.policy)
    assert through_zip(loaded).backend == other


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changed_update_interval(algorithm):
    model = build(algorithm, drop_fraction=1.0).learn(50)
    assert model.policy.topology_updater.networks[learner(algorithm)].steps == 30
    counts = []
    for interval in (10, 3, 1000):
        loaded = through_zip(model, env=env_for(algorithm)(), update_interval=interval)
        loaded.policy.topology_updater.progress = 0.0
        before = updates(loaded)[learner(algorithm)]
        loaded.learn(200, StopTraining(after=31), reset_num_timesteps=False)  # behind 30 more gradient steps
        counts.append(updates(loaded)[learner(algorithm)] - before)
    assert counts == [3, 10, 0]


class StopTraining(BaseCallback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def _on_step(self):
        return self.n_calls < self.after


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changed_topology(algorithm):
    model = build(algorithm, topology="static").learn(50)
    assert set(updates(model).values()) == {0}
    for topology in ("rigl", "set", "static"):
        loaded = through_zip(model, env=env_for(algorithm)(), topology=topology)
        loaded.policy.topology_updater.progress = 0.0
        loaded.learn(40, reset_num_timesteps=False)
        assert (min(updates(loaded).values()) > 0) == (topology != "static")


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changed_n_steps(algorithm):
    model = build(algorithm).learn(50)
    loaded = through_zip(model, env=env_for(algorithm)(), n_steps=5)
    assert loaded.replay_buffer.final_n_steps == 5
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.replay_buffer.n_steps == 5
    assert through_zip(loaded).n_steps == 5


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changed_policy_distance_threshold(algorithm, tmp_path):
    model = build(algorithm, policy_distance_threshold=math.inf).learn(60)
    model.save_replay_buffer(tmp_path / "buffer")
    for threshold, shrinks in ((0.0, True), (math.inf, False)):
        loaded = through_zip(model, env=env_for(algorithm)(), policy_distance_threshold=threshold)
        loaded.load_replay_buffer(tmp_path / "buffer")
        assert loaded.replay_buffer.live == 60
        loaded.learn(40, reset_num_timesteps=False)
        assert (loaded.replay_buffer.live < 100) == shrinks


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("place", "share"),
    [(0, 0.7), (-1, 0.0), (-1, 0.55), (None, "uniform")],
)
def test_changed_sparsity_is_refused(algorithm, place, share):
    changed = {"distribution" if place is None else keywords(algorithm)[place]: share}
    with pytest.raises(RuntimeError, match="start_sparsity, distribution or net_arch differs from the saved agent's"):
        through_zip(build(algorithm), **changed)


def test_other_shares_of_the_same_number_of_links_are_refused():
    """Both distributions give the first layer another number of links here, but the same in total."""
    model, uniform = (build(RLx2TD3, policy_kwargs={"net_arch": [16]}, distribution=name) for name in ("erk", "uniform"))
    ours, others = sparse_mlps(model.policy), sparse_mlps(uniform.policy)
    assert [mlp.nnz for mlp in ours] == [mlp.nnz for mlp in others]
    assert all(mlp.layers[0] != other.layers[0] for mlp, other in zip(ours, others, strict=True))
    with pytest.raises(RuntimeError, match="start_sparsity, distribution or net_arch differs from the saved agent's"):
        through_zip(model, distribution="uniform")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_dense_zip_is_refused(algorithm, tmp_path):
    dense = STOCK[algorithm]("MlpPolicy", env_for(algorithm)(), buffer_size=10, policy_kwargs={"net_arch": [16, 16]})
    dense.save(tmp_path / "dense")
    with pytest.raises(RuntimeError, match=r"of the saved agent is dense.*train a sparse one from scratch"):
        algorithm.load(tmp_path / "dense")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_training_goes_on_with_another_environment(algorithm, n_envs, tmp_path):
    model = build(algorithm, make_vec_env(env_for(algorithm), n_envs)).learn(60)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    loaded.set_env(make_vec_env(env_for(algorithm), n_envs))
    steps = {name: network.steps for name, network in loaded.policy.topology_updater.networks.items()}
    loaded.policy.topology_updater.progress = 0.0
    before = updates(loaded)
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps == 120
    for name, network in loaded.policy.topology_updater.networks.items():
        per_step = n_envs * (DELAYS.get(algorithm, 1) if name == "actor" else 1)
        assert network.steps == steps[name] + 60 // per_step
        assert network.updates > before[name]
    assert_sound(loaded.policy)


@pytest.mark.filterwarnings("ignore:learning_starts=10000 is not below")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_zip_does_not_hold_the_buffer(algorithm, tmp_path):
    sizes = []
    for buffer_size, steps in ((100, 10), (100_000, 3000)):
        model = build(algorithm, buffer_size=buffer_size, learning_starts=10_000).learn(steps)
        model.ep_info_buffer.clear()  # of which 100 are kept
        model.save(tmp_path / "model.zip")
        with zipfile.ZipFile(tmp_path / "model.zip") as archive:
            names = archive.namelist()
        assert sorted(names) == sorted(
            [
                "data",
                "pytorch_variables.pth",
                "policy.pth",
                "rlx2.json",
                "rlx2.npz",
                *(["policy.optimizer.pth"] if is_discrete(algorithm) else ["actor.optimizer.pth", "critic.optimizer.pth"]),
                *(["ent_coef_optimizer.pth"] if algorithm in MAXIMUM_ENTROPY else []),
                "_stable_baselines3_version",
                "system_info.txt",
            ]
        )
        sizes.append((tmp_path / "model.zip").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 1000  # a transition takes more than 40 bytes


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_only(algorithm, tmp_path):
    model = build(algorithm).learn(60)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        state = th.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    assert_equal(state, model.policy.state_dict())
    other = build(algorithm, seed=1)
    other.policy.load_state_dict(state)
    assert other.policy.topology_updater.networks[learner(algorithm)].steps == 40


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_index_of_64_bits_is_taken(algorithm):
    """As agents hold it that were saved before it had 32, one for each target network."""
    model, other = build(algorithm, seed=1), build(algorithm).learn(60)
    state = {name: x.long().clone() if name.endswith("index") else x for name, x in other.policy.state_dict().items()}
    model.policy.load_state_dict(state)
    assert_sound(model.policy)
    assert_equal(model.policy.state_dict(), other.policy.state_dict())


@pytest.mark.parametrize("algorithm", ACTOR_CRITIC)
@pytest.mark.parametrize("part", ["actor", "bias", "parameters"])
def test_parts_of_a_state(algorithm, part):
    """As SB3's ``exact_match=False`` allows."""
    model, other = build(algorithm, seed=1), build(algorithm)
    if part == "parameters":  # of networks with the same links
        model = build(algorithm)
        other.learn(30)
    states = [dict(p.named_parameters()) if part == "parameters" else p.state_dict() for p in (other.policy, model.policy)]
    state, own = (
        {name: x.clone() for name, x in one.items() if name.startswith("actor.") and (part != "bias" or name.endswith("bias"))}
        for one in states
    )
    critic = deepcopy(model.critic.state_dict())
    assert any(not th.equal(one, other) for one, other in zip(state.values(), own.values(), strict=True))
    model.set_parameters({"policy": state}, exact_match=False)
    now = model.policy.state_dict()
    assert all(th.equal(now[name], x) for name, x in state.items())
    assert_equal(model.critic.state_dict(), critic)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.policy.load_state_dict(state)


class Deterministic(nn.Module):
    """As SB3's guide wraps a policy for export."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, obs):
        return self.policy(obs, deterministic=True)


@pytest.mark.filterwarnings("ignore")  # TorchScript is on its way out, and SB3 does not trace without warnings
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_torchscript(algorithm, backend, tmp_path):
    model = build(algorithm).learn(60)
    loaded, obs = through_zip(model, backend=backend), th.from_numpy(OBSERVATIONS)
    th.jit.trace(Deterministic(loaded.policy).eval(), obs).save(tmp_path / "policy.pt")
    expected = model.policy.act(OBSERVATIONS)
    np.testing.assert_allclose(th.jit.load(tmp_path / "policy.pt")(obs).detach(), expected, atol=1e-5)
    if algorithm not in MAXIMUM_ENTROPY:  # whose distributions, SB3's, torch.export does not follow, also without us
        exported = th.export.export(Deterministic(loaded.policy).eval(), (obs,), strict=False)
        np.testing.assert_allclose(exported.module()(obs).detach(), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch's older exporter is on its way out; the newer needs onnxscript
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2DQN])
def test_onnx_as_sb3_makes_it(algorithm, tmp_path):
    needs("onnx")
    model, path = build(algorithm).learn(60), str(tmp_path / "policy.onnx")
    policy = Deterministic(model.policy).eval()
    th.onnx.export(policy, (th.from_numpy(OBSERVATIONS),), path, input_names=["input"], dynamo=False)
    (actions,) = needs("onnxruntime").InferenceSession(path).run(None, {"input": OBSERVATIONS})
    np.testing.assert_allclose(actions, model.policy.act(OBSERVATIONS), atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_state_holds_tensors_alone(algorithm, tmp_path):
    """As safetensors wants it, and an evolution strategy, which moves what are numbers."""
    safetensors = needs("safetensors.torch")
    model, other = build(algorithm).learn(60), build(algorithm, seed=1)
    safetensors.save_model(model.policy, str(tmp_path / "policy"))
    safetensors.load_model(other.policy, str(tmp_path / "policy"))
    assert_equal(other.policy.state_dict(), model.policy.state_dict())
    state = other.policy.state_dict()
    other.policy.load_state_dict({name: x + 1 if x.is_floating_point() else x for name, x in state.items()})
    assert_sound(other.policy)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_loaded_to_play_only(algorithm, n_envs, tmp_path):
    model = build(algorithm, make_vec_env(env_for(algorithm), n_envs)).learn(60)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", buffer_size=1)
    assert loaded.replay_buffer.observations.shape[0] == 1
    np.testing.assert_array_equal(actions(loaded), actions(model))


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", WITH_DICTS)
def test_dict_observations(algorithm, tmp_path):
    make_env = env_for(algorithm, DriftDictEnv)
    model = build(algorithm, make_env(), "MultiInputPolicy", policy_kwargs={"net_arch": [16]})
    with pytest.warns(UserWarning, match="only the topology evolves"):
        model.learn(40)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=make_env())
    assert_equal(learned(loaded), learned(model))
    with pytest.warns(UserWarning, match="only the topology evolves"):
        loaded.learn(20, reset_num_timesteps=False)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_saved_by_a_checkpoint_in_the_middle_of_training(algorithm, tmp_path):
    checkpoint = CheckpointCallback(35, str(tmp_path), save_replay_buffer=True)
    build(algorithm).learn(80, callback=checkpoint)
    loaded = algorithm.load(tmp_path / "rl_model_70_steps.zip", env=env_for(algorithm)())
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_70_steps.pkl")
    assert loaded.num_timesteps == 70
    assert 0.8 < loaded.policy.topology_updater.progress < 0.9
    assert loaded.replay_buffer.entropy_bonus is None  # it would carry the model along
    loaded.learn(30, reset_num_timesteps=False)
    assert_sound(loaded.policy)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parts_on_stock_algorithms(algorithm, tmp_path):
    stock, policy = STOCK[algorithm], POLICIES[algorithm]
    model = stock(
        policy,
        env_for(algorithm)(),
        learning_starts=20,
        train_freq=1,
        batch_size=16,
        buffer_size=200,
        replay_buffer_class=RLx2ReplayBuffer,
        replay_buffer_kwargs={"n_steps": 3, "buffer_min_size": 30},
        policy_kwargs=small(algorithm, net_arch=[16, 16], init="random", **sparsities(algorithm, 0.6, 0.5)),
        seed=0,
    )
    model.learn(80, callback=RLx2Callback(update_interval=10))
    model.save(tmp_path / "model")
    loaded = stock.load(tmp_path / "model", env=env_for(algorithm)())
    assert type(loaded.policy) is policy
    assert isinstance(loaded.replay_buffer, RLx2ReplayBuffer)
    assert_equal(learned(loaded), learned(model))
    np.testing.assert_array_equal(actions(loaded), actions(model))
    loaded.policy.topology_updater.progress = 0.0
    before = updates(loaded)
    loaded.learn(60, callback=RLx2Callback(update_interval=10), reset_num_timesteps=False)
    assert all(count > before[name] for name, count in updates(loaded).items())
    assert_sound(loaded.policy)


def used_mlp(seed, backend="csr"):
    """Give a network that has computed, and that has kept what its backward pass needs for growth."""
    th.manual_seed(seed)
    mlp = SparseMLP.from_linears([nn.Linear(3, 8), nn.Linear(8, 2)], [10, 7], nn.ReLU(), init="random", backend=backend)
    mlp.records_dense_gradient = True
    mlp(th.as_tensor(OBSERVATIONS)).sum().backward()
    return mlp


@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("duplicate", [deepcopy, lambda mlp: pickle.loads(pickle.dumps(mlp))], ids=["deepcopy", "pickle"])
def test_duplicates_of_a_sparse_mlp(backend, duplicate):
    mlp, x = used_mlp(0, backend), th.as_tensor(OBSERVATIONS)
    expected = mlp(x)
    other = duplicate(mlp)
    assert other.compute_cache is None
    assert th.equal(other(x), expected)
    assert_equal(other.state_dict(), mlp.state_dict())
    other.set_index(used_mlp(1).index)
    assert not th.equal(other(x), expected)
    assert th.equal(mlp(x), expected)
    assert len(pickle.dumps(mlp)) < len(pickle.dumps(used_mlp(0).state_dict())) + 5000  # no activations in it


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_output_follows_a_loaded_state_dict(algorithm):
    """csr derives arrays from the topology; a new topology must not meet old arrays."""
    model, other = build(algorithm, backend="csr"), build(algorithm, backend="csr", seed=1).learn(60)
    assert not np.array_equal(actions(model), actions(other))
    model.policy.load_state_dict(other.policy.state_dict())
    np.testing.assert_array_equal(actions(model), actions(other))
    masked = build(algorithm, backend="masked")
    masked.policy.load_state_dict(model.policy.state_dict())
    np.testing.assert_allclose(actions(masked), actions(model), atol=1e-5)


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", ACTOR_CRITIC)  # those with action noise
@pytest.mark.parametrize("n_envs", [1, 2])
def test_training_goes_on_with_another_number_of_environments(algorithm, n_envs, tmp_path):
    noise = NormalActionNoise(np.zeros(2), 0.3 * np.ones(2))
    build(algorithm, make_vec_env(DriftEnv, 4), action_noise=noise).learn(80).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=make_vec_env(env_for(algorithm), n_envs))
    loaded.learn(80)
    base = loaded.action_noise if n_envs == 1 else loaded.action_noise.base_noise
    assert base._sigma.tolist() == [0.3, 0.3]


def test_the_algorithms_arguments_hold_for_a_loaded_buffer(tmp_path):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", learning_starts=20, buffer_size=500, buffer_min_size=50, n_steps=3).learn(30)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = RLx2TD3.load(tmp_path / "model", n_steps=5, buffer_min_size=60, gamma=0.9)
    loaded.replay_buffer.handle_timeout_termination = False
    loaded.load_replay_buffer(tmp_path / "buffer")
    buffer = loaded.replay_buffer
    assert buffer.handle_timeout_termination is False
    assert (buffer.final_n_steps, buffer.buffer_min_size, buffer.gamma, buffer.live) == (5, 60, 0.9, 30)


def test_a_loaded_buffer_that_is_too_small_is_refused_and_the_own_one_stays(tmp_path):
    build(RLx2TD3).save_replay_buffer(tmp_path / "buffer")
    model = build(RLx2TD3, buffer_size=500, buffer_min_size=300)
    own = model.replay_buffer
    with pytest.raises(ValueError, match=r"buffer_min_size=300 must be <= 200, the capacity of the buffer in .*buffer"):
        model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is own


def test_load_takes_the_name_of_an_environment(tmp_path):
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / "agent")
    assert RLx2TD3.load(tmp_path / "agent", env="Pendulum-v1").env.num_envs == 1


def test_another_learning_rate_takes_the_place_of_a_function(tmp_path):
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, learning_rate=lambda progress: progress).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="or give another learning_rate"):
        RLx2TD3.load(tmp_path / "agent")
    for given in ({"learning_rate": 1e-3}, {"custom_objects": {"learning_rate": 1e-3}}):
        assert RLx2TD3.load(tmp_path / "agent", **given).lr_schedule(1.0) == 1e-3


@pytest.mark.parametrize(("offset", "bit"), [(8, 1), (10, 1), (10, 8), (10, 14), (44, 1)])
def test_a_flipped_bit_in_the_directory_of_a_zip_is_damage(offset, bit, tmp_path):
    path = tmp_path / "agent.zip"
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10).save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        begin = archive.start_dir
    content[begin + offset] ^= bit
    path.write_bytes(content)
    assert "damaged" in why_no_agent_zip(path)
    with pytest.raises(ValueError, match=r"agent.zip: no agent that Stable-Baselines3 saved, or damaged"):
        RLx2TD3.load(path)


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "elsewhere/first.zip", tmp_path / "agent.zip"
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10)
    model.save(real)
    before = real.read_bytes()
    link.symlink_to(real)
    model.num_timesteps = 7
    model.save(link)
    assert link.is_symlink()
    assert real.read_bytes() != before
    assert RLx2TD3.load(real).num_timesteps == 7
    assert [path.name for path in real.parent.iterdir()] == ["first.zip"]


class OwnExtractor(FlattenExtractor):
    """A user's own class."""


def test_a_class_of_ones_own_is_given(tmp_path):
    policy_kwargs = {"net_arch": [8], "features_extractor_class": OwnExtractor}
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs=policy_kwargs).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="or give another policy_kwargs"):
        RLx2TD3.load(tmp_path / "agent")
    loaded = RLx2TD3.load(tmp_path / "agent", custom_objects={"policy_kwargs": policy_kwargs})
    assert isinstance(loaded.actor.features_extractor, OwnExtractor)


def test_a_path_for_logs_is_read_back(tmp_path):
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, tensorboard_log=tmp_path).save(tmp_path / "agent")
    assert RLx2TD3.load(tmp_path / "agent").tensorboard_log == str(tmp_path)


def test_first_weights_are_those_of_the_file(tmp_path):
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, weight_scale="live").save(tmp_path / "agent")
    assert RLx2TD3.load(tmp_path / "agent", weight_scale="live").weight_scale == "live"
    for given in ({"weight_scale": "dense"}, {"hidden_bias": 3.0}):
        name, value = next(iter(given.items()))
        with pytest.raises(ValueError, match=f"agent: {name}={value!r} is of the first weights, and these have been trained"):
            RLx2TD3.load(tmp_path / "agent", **given)


@pytest.mark.parametrize("start", [{}, {"actor_start_sparsity": 0.1}])
def test_a_network_that_is_loaded_alone_leaves_its_target_as_it_is(start):
    """But for the links that are gone; SB3 changes nothing of it."""
    one, other = (RLx2TD3("MlpPolicy", DriftEnv(), buffer_size=200, seed=seed, **start) for seed in (0, 1))
    if start:  # the saved one has fewer links
        network = one.policy.topology_updater.networks["actor"]
        for mlp, target in zip(network.mlps, network.targets, strict=True):
            index = th.cat([mlp.layer_index(i)[: mlp.final_nnz[i]] + mlp.offsets[i] for i in range(len(mlp.layers))])
            for holder in (mlp, target):
                holder.set_links(index, th.ones(len(index)))
    mlp, target = other.actor.mu, other.actor_target.mu
    before = dict(zip(target.index.tolist(), target.values.tolist(), strict=True))
    other.actor.load_state_dict(one.actor.state_dict())
    assert mlp.index.tolist() == target.index.tolist() == one.actor.mu.index.tolist()
    assert mlp.values.tolist() == one.actor.mu.values.tolist()
    assert target.values.tolist() == [before.get(position, 0.0) for position in target.index.tolist()]
    other.learn(120)


def test_copies_share_links_with_their_own_targets():
    model = RLx2TD3("MlpPolicy", DriftEnv(), buffer_size=200, seed=0)
    policy = deepcopy(model.policy)
    target = policy.actor_target.mu
    before = dict(zip(target.index.tolist(), target.values.tolist(), strict=True))
    policy.actor.load_state_dict(RLx2TD3("MlpPolicy", DriftEnv(), buffer_size=200, seed=1).actor.state_dict())
    assert target.index is policy.actor.mu.index
    assert target.values.tolist() == [before.get(position, 0.0) for position in target.index.tolist()]
    assert model.actor_target.mu.values.tolist() == model.actor.mu.values.tolist()


def test_what_is_no_zip_is_said_so_where_it_is_trusted(tmp_path):
    (tmp_path / "agent.zip").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="wasn't a zip-file"):
        RLx2TD3.load(tmp_path / "agent.zip", allow_pickle=True)
