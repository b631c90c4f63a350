"""TD3+BC on given transitions: its loss, what it learns, and where data come from."""

import csv
import gc
import signal
import sys
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import CallbackList, EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2Callback, RLx2DQN
from sb3_rlx2.algorithms.td3bc.td3bc import RLx2TD3BC
from sb3_rlx2.checkpoint import Checkpoints
from sb3_rlx2.deploy import DeployAverageCallback, DeployCheckpointCallback, deployed_policy
from sb3_rlx2.extras import MissingExtra
from sb3_rlx2.offline import add_episodes, minari_episodes, normalised
from tests.checks import assert_sound
from tests.envs import DriftEnv
from tests.runs import Cut, CutAt, fingerprint, scramble
from tests.test_docs import DOCS, blocks


@dataclass
class Episode:
    """As Minari has them."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


def episodes(count=20, length=10):
    """Actions are twice the first two observations, within [-2, 2]; each second episode ends by termination."""
    generator = np.random.default_rng(0)
    for number in range(count):
        observations = generator.normal(size=(length + 1, 3)).astype(np.float32)
        actions = np.clip(2 * observations[:-1, :2], -2, 2)
        last = np.arange(length) == length - 1
        yield Episode(observations, actions, generator.normal(size=length), last & (number % 2 == 1), last & (number % 2 == 0))


def make(env=None, **kwargs):
    kwargs = {"policy_kwargs": {"net_arch": [24, 24]}, "buffer_size": 1000, "buffer_min_size": 100, "device": "cpu"} | kwargs
    return RLx2TD3BC("MlpPolicy", env or DriftEnv(), actor_sparsity=0.5, critic_sparsity=0.5, seed=0, **kwargs)


def filled(**kwargs):
    model = make(**kwargs)
    assert add_episodes(model, episodes()) == 200
    return model


def test_episodes_become_transitions():
    buffer, (first, second, *_) = filled().replay_buffer, episodes()
    np.testing.assert_array_equal(buffer.observations[:10, 0], first.observations[:-1])
    np.testing.assert_array_equal(buffer.next_observations[:10, 0], first.observations[1:])
    np.testing.assert_allclose(buffer.actions[:10, 0], first.actions / 2, rtol=1e-6)  # of [-2, 2] in [-1, 1]
    np.testing.assert_allclose(buffer.rewards[10:20, 0], second.rewards, rtol=1e-6)
    assert buffer.dones[:20, 0].nonzero()[0].tolist() == [9, 19]
    assert buffer.timeouts[:20, 0].nonzero()[0].tolist() == [9]


def cut_off(count=3, length=10):
    """Give parts of episodes, whose last step is no end; all rewards of a part are its number."""
    for number, episode in enumerate(episodes(count, length)):
        never = np.zeros(length, bool)
        yield replace(episode, rewards=np.full(length, float(number)), terminations=never, truncations=never)


@pytest.mark.parametrize("kind", [None, NStepReplayBuffer])
def test_windows_end_where_a_part_of_an_episode_does(kind):
    model = make(n_steps=3, gamma=1.0, replay_buffer_class=kind, replay_buffer_kwargs={"gamma": 1.0} if kind else None)
    add_episodes(model, cut_off())
    samples = model.replay_buffer._get_samples(np.array([7, 8, 9, 18, 19]))
    assert samples.rewards[:, 0].tolist() == [0, 0, 0, 2, 1]
    assert samples.dones.sum() == 0


@pytest.mark.parametrize("kind", [None, ReplayBuffer, NStepReplayBuffer])
def test_terminations_stay_such(kind):
    model = make(replay_buffer_class=kind)
    add_episodes(model, episodes(2))
    assert model.replay_buffer._get_samples(np.array([9, 18, 19])).dones[:, 0].tolist() == [0, kind is NStepReplayBuffer, 1]


def test_discrete_actions_are_taken_as_they_are():
    model = RLx2DQN("MlpPolicy", "CartPole-v1", buffer_size=10, buffer_min_size=1, device="cpu")
    ends = np.array([False, False, True])
    given = Episode(np.zeros((4, 4), np.float32), np.array([1, 0, 1]), np.ones(3), ends, ~ends & False)
    assert add_episodes(model, [given]) == 3
    assert model.replay_buffer.actions[:3].ravel().tolist() == [1, 0, 1]


def test_data_that_do_not_fit():
    with pytest.raises(ValueError, match="buffer_size=150 must be at least the number of transitions"):
        add_episodes(make(buffer_size=150), episodes())
    with pytest.raises(ValueError, match=r"^n_envs=2 must be 1: episodes are those of one environment$"):
        add_episodes(make(DummyVecEnv([DriftEnv, DriftEnv])), episodes())


@pytest.mark.filterwarnings("ignore:no RLx2Callback")
@pytest.mark.parametrize("n_steps", [1, 3])
def test_actor_loss_by_hand(n_steps):
    model = filled(n_steps=n_steps, behaviour_cloning=1.5)
    data = model.replay_buffer.sample(32)
    with th.no_grad():
        actions = model.actor(data.observations)
        values = model.critic.q1_forward(data.observations, actions)
        expected = ((actions - data.actions) ** 2).mean() - 1.5 * values.mean() / values.abs().mean()
    assert model._update_actor(data) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.filterwarnings("ignore:no RLx2Callback")
def test_critics_learn_as_td3s():
    """The host's critic loss on the same sample and the same noise."""
    model = filled(actor_start_sparsity=0.0)
    host = TD3("MlpPolicy", DriftEnv(), policy_delay=10**6, batch_size=32, seed=0, device="cpu")
    host.policy, host.replay_buffer = model.policy, model.replay_buffer
    host._create_aliases()
    losses = []
    state = {name: value.clone() for name, value in model.critic.state_dict().items()}
    for each in (host, model):
        model.critic.load_state_dict(state)
        each.set_logger(configure(None, []))
        set_random_seed(1)
        each.train(1, 32)
        losses.append(each.logger.name_to_value["train/critic_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Normalising(FlattenExtractor):
    """Has statistics, which are no parameters."""

    def __init__(self, space):
        super().__init__(space)
        self.norm = th.nn.BatchNorm1d(self.features_dim)

    def forward(self, observations):
        return self.norm(super().forward(observations))


def test_statistics_reach_targets_as_td3s_do():
    model = filled(policy_kwargs={"net_arch": [8], "features_extractor_class": Normalising})
    model.learn_offline(20)
    for network, target in ((model.actor, model.actor_target), (model.critic, model.critic_target)):
        own, other = network.features_extractor.norm, target.features_extractor.norm
        assert th.equal(own.running_mean, other.running_mean)
        assert own.running_mean.abs().sum() > 0


@pytest.mark.parametrize("topology", ["rigl", "static"])
def test_it_learns_to_do_as_the_data_do(topology):
    model = filled(behaviour_cloning=0.0, learning_rate=3e-3, update_interval=50, topology=topology)
    nnz, index = model.actor.mu.nnz, model.actor.mu.index.clone()

    def error():
        data = model.replay_buffer.observations[:200, 0]
        return np.abs(model.predict(data, deterministic=True)[0] - np.clip(2 * data[:, :2], -2, 2)).mean()

    before = error()
    assert model.learn_offline(600) is model
    assert error() < 0.3 * before
    assert (model.num_timesteps, model._n_updates) == (600, 600)
    assert model.actor.mu.nnz == nnz
    assert th.equal(model.actor.mu.index, index) == (topology == "static")
    assert_sound(model.policy)
    assert model.policy.topology_updater.method is None


def test_links_leave_and_an_agent_is_saved(tmp_path):
    model = filled(actor_start_sparsity=0.0, critic_start_sparsity=0.2, topology="static").learn_offline(50)
    assert [layer.nnz for layer in model.actor.mu.layers] == list(model.actor.mu.final_nnz)
    model.save(tmp_path / "agent.zip")
    loaded = RLx2TD3BC.load(tmp_path / "agent.zip", env=DriftEnv())
    assert loaded.behaviour_cloning == 2.5
    seen = np.zeros((3, 3), np.float32)
    np.testing.assert_array_equal(loaded.predict(seen)[0], model.predict(seen)[0])


def test_n_steps_come_after_their_delay():
    model, seen = filled(n_steps=3, n_steps_delay=0.5), []
    train = model.train
    model.train = lambda *args: (seen.append(model.replay_buffer.n_steps), train(*args))
    model.learn_offline(6)
    assert seen == [1, 1, 1, 3, 3, 3]


def test_statistics_come_from_the_data():
    model = filled()
    env = normalised(DummyVecEnv([DriftEnv]), model.replay_buffer)
    assert isinstance(env, VecNormalize)
    assert not env.training
    assert not env.norm_reward
    data = model.replay_buffer.observations[:200, 0]
    np.testing.assert_allclose(env.normalize_obs(data).mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(env.normalize_obs(data).std(axis=0), 1, atol=1e-4)
    learner = filled(env=env)
    sample = learner.replay_buffer.sample(500, env=env).observations
    assert float(sample.mean().abs()) < 0.15
    evaluating = EvalCallback(normalised(DummyVecEnv([DriftEnv]), model.replay_buffer), eval_freq=10, warn=False, verbose=0)
    learner.learn_offline(20, callback=evaluating)
    assert np.isfinite(evaluating.last_mean_reward)
    with pytest.raises(ValueError, match="buffer holds 0 transitions"):
        normalised(DummyVecEnv([DriftEnv]), make().replay_buffer)


def test_statistics_are_of_what_can_be_sampled():
    buffer = filled().replay_buffer
    assert buffer.shrink(0.5) == 100
    statistics = normalised(DummyVecEnv([DriftEnv]), buffer).obs_rms
    np.testing.assert_allclose(statistics.mean, buffer.observations[100:200, 0].mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(statistics.var, buffer.observations[100:200, 0].var(axis=0, dtype=np.float64))


class Evaluated(EvalCallback):
    """Remembers when it has evaluated."""

    def __init__(self, eval_freq):
        super().__init__(Monitor(DriftEnv()), eval_freq=eval_freq, n_eval_episodes=1, warn=False, verbose=0)
        self.at = []

    def _on_step(self):
        before, self.last_mean_reward = self.last_mean_reward, None
        goes_on = super()._on_step()
        self.at += [] if self.last_mean_reward is None else [(self.num_timesteps, self.model._n_updates)]
        self.last_mean_reward = before if self.last_mean_reward is None else self.last_mean_reward
        return goes_on


def test_callbacks_come_after_gradient_steps():
    model, evaluating, seen = filled(), Evaluated(20), []

    def look(names, _):
        seen.append((model.num_timesteps, model._n_updates, names["total_timesteps"]))
        return True

    model.learn_offline(40, callback=[look, evaluating])
    assert seen == [(step, step, 40) for step in range(1, 41)]
    assert evaluating.at == [(20, 20), (40, 40)]


def test_a_callback_ends_training():
    model = filled()
    assert model.learn_offline(40, callback=lambda *_: model.num_timesteps < 7).num_timesteps == 7


def test_the_average_is_one(tmp_path):
    model = filled().learn_offline(30, callback=DeployAverageCallback(decay=0.9))
    assert model.deployed_actor["updates"] == 15  # every second step is one of the actor
    average, last = deployed_policy(model).actor.state_dict(), model.actor.state_dict()
    assert not th.equal(average["mu.values"], last["mu.values"])


def pruned_run(folder, cut=None):
    """Begin a run, or go on with it; None if it was cut."""
    changes = {"actor_start_sparsity": 0.0, "critic_start_sparsity": 0.2, "update_interval": 7, "topology": "set"}
    model = filled(n_steps=3, n_steps_delay=0.3, batch_size=8, **changes)
    model.set_env(normalised(DummyVecEnv([DriftEnv]), model.replay_buffer))
    model.set_logger(configure(str(folder / "logs"), ["csv"]))
    env = normalised(DummyVecEnv([lambda: Monitor(DriftEnv())]), model.replay_buffer)
    env.seed(7)
    evaluating = EvalCallback(env, eval_freq=30, n_eval_episodes=1, verbose=0, log_path=str(folder / "logs"))
    callbacks = [DeployAverageCallback(0.9), evaluating, Checkpoints(folder / "checkpoints", every=20)]
    try:
        return model.learn_offline(100, callback=[*callbacks, *([CutAt(cut)] if cut else [])], log_interval=9)
    except Cut:
        return None
    finally:
        model.logger.close()


def test_a_run_that_was_cut_ends_the_same(tmp_path):
    scramble(0)
    whole = fingerprint(pruned_run(tmp_path / "whole"), tmp_path / "whole")
    for seed, cut in enumerate((33, 33, 81)):
        scramble(seed)
        assert pruned_run(tmp_path / "cut", cut) is None
    scramble(9)
    assert fingerprint(pruned_run(tmp_path / "cut"), tmp_path / "cut") == whole
    assert len([*(tmp_path / "cut/checkpoints").glob("*_step_100")]) == 1


def test_data_are_written_to_checkpoints_once(tmp_path):
    filled().learn_offline(50, callback=Checkpoints(tmp_path, every=10, keep=9))
    rows = [path.name.split("_")[1:3] for path in sorted((tmp_path / "rows").glob("rows_*"))]
    assert sum(int(last) - int(first) > 1 for first, last in rows) == 1


def test_a_run_that_is_interrupted_ends_behind_a_step(tmp_path):
    model = filled()

    def interrupt(*_):
        if model.num_timesteps == 25:
            signal.raise_signal(signal.SIGTERM)
        return True

    with pytest.raises(KeyboardInterrupt, match="interrupted at step 25; the same call goes on from"):
        model.learn_offline(50, callback=[interrupt, Checkpoints(tmp_path)])
    assert filled().learn_offline(50, callback=Checkpoints(tmp_path)).num_timesteps == 50


def test_the_environment_is_left_alone():
    model = filled()
    model.learn_offline(3)
    assert "reset" not in vars(model.env.unwrapped)

    def fail(*_):
        raise Cut

    with pytest.raises(Cut):
        model.learn_offline(3, callback=fail)
    assert "reset" not in vars(model.env.unwrapped)


def test_what_is_set_later_holds():
    model = filled(n_steps=3)
    model.gamma, model.n_steps = 0.5, 2
    model.learn_offline(5)
    assert (model.replay_buffer.gamma, model.replay_buffer.n_steps) == (0.5, 2)
    model.learning_rate = 1.0
    with pytest.warns(UserWarning, match="learning_rate=1.0 was set after construction"):
        model.learn_offline(5)


def test_gamma_reaches_a_loaded_buffer_of_the_host(tmp_path):
    model = make(n_steps=3, replay_buffer_class=NStepReplayBuffer, gamma=0.5)
    add_episodes(model, episodes())
    model.learn_offline(5)
    assert model.replay_buffer.gamma == 0.5


def test_topology_updates_are_logged_at_their_step(tmp_path):
    model = filled(update_interval=10)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn_offline(50, log_interval=None)
    model.logger.close()
    with (tmp_path / "progress.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    updates = [(row["rlx2/critic_updates"], row["time/total_timesteps"]) for row in rows if "rlx2/critic_updates" in row]
    assert updates == [(number, 10.0 * number) for number in range(1, 5)]  # a fifth would move none
    assert [row["time/total_timesteps"] for row in rows if "rlx2/actor_churn" in row] == [20, 40]
    assert model.policy.topology_updater.latest_updates == []


def assigned(**values):
    model = filled()
    vars(model).update(values)
    return model


def loaded(folder, **kwargs):
    make().save(folder / "agent")
    return RLx2TD3BC.load(folder / "agent", env=DriftEnv(), **kwargs)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: assigned(batch_size=0).learn_offline(5), "batch_size=0 must be an integer >= 1"),
        (lambda: assigned(tau=5).learn_offline(5), r"tau=5 must be a number in \[0, 1\]"),
        (lambda: assigned(behaviour_cloning=-3).learn_offline(5), r"behaviour_cloning=-3 must be a number in \[0, inf\)"),
        (lambda: assigned(backend="masked").learn_offline(5), "backend='masked' must be 'auto', with which"),
        (
            lambda: assigned(policy_distance_threshold=0.2).learn_offline(5),
            "policy_distance_threshold=0.2 must be inf: the data",
        ),
        (lambda: assigned(action_noise=0.2).learn_offline(5), "action_noise=0.2 must be None: the data are fixed"),
        (lambda: make(action_noise=0.1), "action_noise=0.1 must be None: the data are fixed"),
        (lambda: make(learning_starts=100), "learning_starts=100 must be 0: the data are fixed"),
        (lambda: filled().train(1), r"train\(\) logs: learn\(\) brings a logger"),
        (lambda: filled().learn_offline(5, log_interval=0), "log_interval=0 must be an integer >= 1"),
        (lambda: filled().learn_offline(5, progress_bar="no"), "progress_bar='no' must be True or False"),
        (
            lambda: filled(topology="predictive").learn_offline(5),
            "topology='predictive' chooses links by the data of a warm-up",
        ),
        (lambda: filled(topology="active").learn_offline(5), "there is none: take 'rigl', 'set', 'static', 'snip'"),
        (lambda: filled().learn_offline(5, lambda *_: None), "callback=<lambda> gives None at a step"),
        (lambda: filled().learn_offline(5, [lambda *_: None]), "callback=<lambda> gives None at a step"),
        (lambda: filled().learn_offline(5, [CutAt]), "callback=<class .*CutAt'> must be a callback"),
        (
            lambda: filled().learn_offline(5, RLx2Callback()),
            r"callback holds RLx2Callback, which needs an environment's steps, and learn_offline\(\) does none",
        ),
        (
            lambda: filled().learn_offline(5, CallbackList([EvalCallback(DriftEnv(), callback_after_eval=RLx2Callback())])),
            "callback holds RLx2Callback",
        ),
        (lambda: filled().learn_offline(5, DeployCheckpointCallback()), "callback holds DeployCheckpointCallback"),
    ],
)
def test_what_cannot_be_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_load_checks_its_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"behaviour_cloning=-3 must be a number in \[0, inf\)"):
        loaded(tmp_path, behaviour_cloning=-3)
    assert loaded(tmp_path, behaviour_cloning=1).behaviour_cloning == 1
    assert make(action_noise=None, learning_starts=0).action_noise is None


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: filled().learn(10), r"learn\(\) needs an environment to explore; RLx2TD3BC trains with learn_offline\(\)"),
        (lambda: make().learn_offline(10), "replay_buffer holds 0 transitions"),
        (lambda: make(policy_distance_threshold=0.2), "policy_distance_threshold=0.2 must be inf: the data are fixed"),
        (lambda: make(behaviour_cloning=-1), r"behaviour_cloning=-1 must be a number in \[0, inf\)"),
        (lambda: filled().learn_offline(0), "gradient_steps=0 must be an integer >= 1"),
        *(
            (
                lambda name=name: RLx2TD3BC("MlpPolicy", DriftEnv(), **{name: 4}),
                f"{name} must not be given: it counts steps of",
            )
            for name in ("train_freq", "gradient_steps", "planned_timesteps")
        ),
    ],
)
def test_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_data_of_a_dense_agent(tmp_path):
    teacher = TD3("MlpPolicy", DriftEnv(), learning_starts=10, buffer_size=200, seed=0, device="cpu").learn(60)
    teacher.save_replay_buffer(tmp_path / "buffer.pkl")
    model = make()
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.learn_offline(5)
    model = make(n_steps=3)
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    with pytest.raises(ValueError, match="n_steps=3 must be 1: the loaded ReplayBuffer has no n-step returns"):
        model.learn_offline(5)


class StandIn:
    """Of Minari, as far as it is asked."""

    __spec__ = "as modules have"

    def __init__(self, name, make):
        self.name, self.iterate_episodes = name, make

    def load_dataset(self, dataset, download):
        assert (dataset, download) == (self.name, True)
        return self


def of_hopper():
    generator = np.random.default_rng(0)
    for _ in range(20):
        ends = np.arange(30) == 29
        yield Episode(generator.normal(size=(31, 11)), generator.uniform(-1, 1, (30, 3)), np.ones(30), ends, ends & ~ends)


@pytest.mark.parametrize("number", [0, 1])
def test_scripts_of_the_page(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "minari", StandIn("mujoco/hopper/medium-v0", of_hopper))
    script = blocks(DOCS / "offline.md", "python")[number].replace("500_000", "20").replace("10_000", "10")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # logs are left to the end of the process
        exec(script, names := {"__name__": "__main__"})
        assert names["model"].num_timesteps == names["model"]._n_updates == (200, 20)[number]
        names.clear()
        gc.collect()


@pytest.fixture(params=["stand-in", *(["minari"] if find_spec("minari") else [])])
def minari_dataset(request, monkeypatch, tmp_path):
    """A data set of the episodes above, by its name: of a stand-in, and of Minari itself where it is installed."""
    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "minari", StandIn("drift/medium-v0", episodes))
        return "drift/medium-v0"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = [
        EpisodeBuffer(
            observations=list(each.observations),
            actions=list(each.actions),
            rewards=list(each.rewards),
            terminations=list(each.terminations),
            truncations=list(each.truncations),
        )
        for each in episodes()
    ]
    spaces = {"observation_space": DriftEnv().observation_space, "action_space": DriftEnv().action_space}
    minari.create_dataset_from_buffers("drift/medium-v0", buffers, **spaces)
    return "drift/medium-v0"


@pytest.mark.filterwarnings("ignore::UserWarning:minari")  # of what a data set may also say about itself
def test_data_of_minari(minari_dataset):
    model, expected = make(), filled()
    assert add_episodes(model, minari_episodes(minari_dataset)) == 200
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_allclose(getattr(model.replay_buffer, name), getattr(expected.replay_buffer, name), rtol=1e-6)
    model.learn_offline(5)


def test_minari_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    message = r"^dataset='mujoco/hopper/medium-v0' needs minari: pip install 'sb3_rlx2\[minari\]'$"
    with pytest.raises(MissingExtra, match=message):  # at once, not when the first episode is asked for
        minari_episodes("mujoco/hopper/medium-v0")
