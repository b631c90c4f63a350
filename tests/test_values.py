"""What a script gets wrong ends where it is written, in one line that names the argument, its value and what is allowed."""

import re
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, TD3
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from sb3_rlx2 import (
    RLx2Callback,
    RLx2DDPG,
    RLx2DQN,
    RLx2QRDQN,
    RLx2ReplayBuffer,
    RLx2SAC,
    RLx2TD3,
    RLx2TD3BC,
    RLx2TQC,
    SparseTD3Policy,
)
from sb3_rlx2.algorithms.values import CHECKS, OPTIONAL
from sb3_rlx2.export import describe
from sb3_rlx2.validation import known_arguments
from tests.envs import DriftEnv, GoalEnv
from tests.every import ALGORITHMS, POLICIES, STOCK, env_for, sparsities

NAN, INF = float("nan"), float("inf")
RATE = "must be a number in [0, inf), or a function of the remaining progress"
SHARE, POSITIVE = "must be a number in [0, 1]", "must be an integer >= 1"
WIDTHS = "must be a list of widths, integers >= 1, or for actor and critics a dict of two, 'pi' and 'qf'"
FREQUENCY = "must be an integer >= 1, or a tuple of one and 'step' or 'episode', as (1, 'episode')"
ENTROPY = "must be a number in [0, inf), 'auto', or 'auto_0.1'"

# Of the algorithm's arguments: the class, the argument, values, and what is allowed.
ARGUMENTS = [
    (RLx2TD3, "tau", (5, -0.1, "no", None, [0.1]), SHARE),
    (RLx2TD3, "gamma", (2, -1, "0.99", None), SHARE),
    (RLx2TD3, "batch_size", (0, "256", 2.5, None), POSITIVE),
    (RLx2QRDQN, "batch_size", (0, "256"), POSITIVE),
    (RLx2TD3, "buffer_size", (0, -1, "1e6", None), POSITIVE),
    (RLx2TD3, "gradient_steps", (-7, 0.5, "1"), "must be an integer >= -1"),
    (RLx2TD3, "policy_delay", (0, "2"), POSITIVE),
    (RLx2TD3, "learning_rate", ("3e-4", "lin_3e-4", None, [1e-3], lambda now, then: 1e-3), RATE),
    (RLx2TD3, "learning_rate", (-1e-3, NAN, INF), "must be a number in [0, inf)"),
    (RLx2TD3, "train_freq", ((1, "epoch"), (0, "step"), 0, "episode", 1.5, [1, "episode"], (1,), None), FREQUENCY),
    (RLx2TD3, "seed", (-1, "abc", 1.5), "must be an integer >= 0"),
    (RLx2TD3, "seed", (2**32,), "must be below 2**32"),
    (RLx2TD3, "stats_window_size", (0, "100"), POSITIVE),
    (RLx2TD3, "verbose", ("1", -1), "must be an integer >= 0"),
    (RLx2TD3, "tensorboard_log", (True, 3), "must be the path of a folder"),
    (RLx2TD3, "policy_kwargs", ([64, 64], "net_arch"), "must be a dict of arguments"),
    (RLx2SAC, "policy_kwargs", ([64, 64],), "must be a dict of arguments"),
    (RLx2TD3, "replay_buffer_class", ("RLx2ReplayBuffer", dict), "must be a class of replay buffers, as RLx2ReplayBuffer"),
    (RLx2TD3, "replay_buffer_kwargs", (3,), "must be a dict of arguments"),
    (RLx2SAC, "ent_coef", ("atuo", "auto_x", "auto_0", "auto0.1", None), ENTROPY),
    (RLx2SAC, "ent_coef", (-0.1, NAN), "must be a number in [0, inf)"),
    (RLx2SAC, "target_entropy", ("high", NAN, None), "must be 'auto' or a number"),
    (RLx2SAC, "target_update_interval", (0,), POSITIVE),
    (RLx2SAC, "soft_n_step", ("no",), "must be True or False"),
    (RLx2TD3, "target_noise_clip", (-1,), "must be a number in [0, inf]"),
    (RLx2TD3, "target_policy_noise", (-0.1,), "must be a number in [0, inf]"),
    (RLx2TD3, "optimize_memory_usage", ("no",), "must be True or False"),
    (RLx2DQN, "exploration_fraction", (0, 1.5), "must be a number in (0, 1]"),
    (RLx2DQN, "exploration_final_eps", (2, "0.1"), SHARE),
    (RLx2DQN, "max_grad_norm", (-1,), "must be a number in [0, inf]"),
    (RLx2TQC, "top_quantiles_to_drop_per_net", (30, 25), "must be below n_quantiles=25"),
    (RLx2TQC, "top_quantiles_to_drop_per_net", (-1,), "must be an integer >= 0"),
]
# Of the policy's arguments.
IN_POLICY_KWARGS = [
    (RLx2TD3, "net_arch", ([0], ["64", "64"], "64", 64, [64.0], [-1], [[64]], {"pi": 64, "qf": [64]}, [{"pi": [64]}]), WIDTHS),
    (RLx2DQN, "net_arch", ([0], 64), WIDTHS),
    (RLx2DQN, "net_arch", ({"pi": [64], "qf": [64]},), "must be a list of widths: there is one network"),
    (RLx2TD3, "activation_fn", ("relu", nn.ReLU(), th.relu, None), "must be a class of torch.nn, as torch.nn.ReLU"),
    (RLx2TD3, "optimizer_class", ("adam", None, dict), "must be a class of optimizers, as torch.optim.Adam"),
    (RLx2SAC, "optimizer_class", (th.optim.LBFGS,), "must be an optimizer that needs no closure, as torch.optim.Adam"),
    (RLx2TD3, "optimizer_kwargs", ({"lr": 1e-3},), "must be without lr, which is the algorithm's argument learning_rate"),
    (RLx2TD3, "optimizer_kwargs", ([1e-5],), "must be a dict of arguments"),
    (RLx2TD3, "features_extractor_class", ("nature",), "must be a class of features extractors, as FlattenExtractor"),
    (RLx2TD3, "features_extractor_kwargs", (64,), "must be a dict of arguments"),
    (RLx2TD3, "n_critics", (0, "2"), POSITIVE),
    (RLx2QRDQN, "n_quantiles", (0,), POSITIVE),
    (RLx2DDPG, "share_features_extractor", ("no",), "must be True or False"),
]
TINY = {"buffer_size": 50, "learning_starts": 5, "batch_size": 4, "policy_kwargs": {"net_arch": [8]}}


def rows(table):
    return [(algorithm, name, value, allowed) for algorithm, name, values, allowed in table for value in values]


def make(algorithm=RLx2TD3, env=None, policy="MlpPolicy", **kwargs):
    return algorithm(policy, env or env_for(algorithm)(), **(TINY | kwargs))


@pytest.mark.parametrize(("algorithm", "name", "value", "allowed"), rows(ARGUMENTS))
def test_values(algorithm, name, value, allowed):
    if value is None and name in OPTIONAL:
        pytest.skip("None is a value of it")
    with pytest.raises(ValueError, match=rf"^{name}={re.escape(repr(value))} {re.escape(allowed)}"):
        make(algorithm, **{name: value})


def test_gradients_may_go_unclipped_where_the_host_lets_them():
    assert make(RLx2QRDQN, max_grad_norm=None).max_grad_norm is None
    with pytest.raises(ValueError, match=r"^max_grad_norm=None must be a number in \[0, inf\]"):
        make(RLx2DQN, max_grad_norm=None)  # by which DQN's `train` would compute


@pytest.mark.parametrize(("algorithm", "name", "value", "allowed"), rows(IN_POLICY_KWARGS))
def test_values_of_policies(algorithm, name, value, allowed):
    """The host's algorithms with our policies say the same."""
    message = rf"^{name}={re.escape(repr(value))} {re.escape(allowed)}"
    with pytest.raises(ValueError, match=message):
        make(algorithm, policy_kwargs={"net_arch": [8], name: value})
    own = {"net_arch": [8], **sparsities(algorithm, 0.5, 0.5), name: value}
    with pytest.raises(ValueError, match=message):
        STOCK[algorithm](POLICIES[algorithm], env_for(algorithm)(), buffer_size=50, policy_kwargs=own)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_default_is_a_value(algorithm):
    model = make(algorithm)
    for name in CHECKS.keys() & vars(model).keys():
        value = getattr(model, name)
        assert (value is None and name in OPTIONAL) or CHECKS[name](name, value) == value
    assert CHECKS.keys() - OPTIONAL <= set.union(
        *(known_arguments(each) for each in (*ALGORITHMS, RLx2TD3BC, *POLICIES.values()))
    )


GOOD = [
    {"train_freq": (2, "episode"), "gradient_steps": -1, "verbose": False, "seed": np.int64(3)},
    {"train_freq": 4.0, "gradient_steps": 1.0, "batch_size": 4.0, "buffer_size": 5e1},  # as YAML gives them
    {"learning_rate": lambda left: 1e-3 * left, "tau": 1, "gamma": np.float32(0.5), "policy_kwargs": {"net_arch": []}},
    {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8, np.int64(8)]}, "optimizer_class": th.optim.AdamW}},
    {"policy_kwargs": {"net_arch": [8], "activation_fn": partial(nn.LeakyReLU, 0.1), "optimizer_kwargs": {"eps": 1e-5}}},
    {
        "action_noise": NormalActionNoise(np.zeros(1), np.ones(1)),
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    },
]


@pytest.mark.parametrize("given", GOOD)
@pytest.mark.filterwarnings("ignore")
def test_values_that_look_odd(given):
    make(**given).learn(20)


@pytest.mark.parametrize("value", ["auto", "auto_0.1", "0.2", 0, 0.5])
def test_entropy_coefficients(value):
    make(RLx2SAC, ent_coef=value).learn(10)


class Wide(DriftEnv):
    """Has three actions."""

    def __init__(self):
        super().__init__(action_shape=(3,))


def saved(algorithm, folder, **kwargs):
    algorithm("MlpPolicy", DriftEnv(), **kwargs).save(folder / "agent")
    return folder / "agent"


class AsOfGym(DriftEnv):
    """Is reset as Gym's environments were."""

    def reset(self, **kwargs):
        return super().reset(**kwargs)[0]


class Forgetful(BaseCallback):
    """Does not say whether to go on."""

    def _on_step(self):
        self.logger.record("steps", self.num_timesteps)


def changed(model, **values):
    for name, value in values.items():
        setattr(model, name, value)
    return model


# What else goes wrong in a script, and the line that says so.
MISTAKES = {
    "a policy's name": (lambda _: make(policy="MlpPolcy"), r"policy='MlpPolcy' is unknown; .*did you mean 'MlpPolicy'"),
    "no policy": (lambda _: make(policy=None), r"policy=None must be 'MlpPolicy'"),
    "SB3's policy": (lambda _: make(policy=TD3.policy_aliases["MlpPolicy"]), r"policy=TD3Policy must be 'MlpPolicy'"),
    "a policy of dicts": (
        lambda _: make(policy="MultiInputPolicy"),
        r"policy='MultiInputPolicy' must be 'MlpPolicy': .* no Dict",
    ),
    "an argument of the policy": (
        lambda _: make(net_arch=[8]),
        r"RLx2TD3 has no argument net_arch: it goes into policy_kwargs",
    ),
    "a logger's folder": (lambda _: make().set_logger("logs"), r"logger='logs' must be a Logger"),
    "no environment": (lambda _: RLx2TD3("MlpPolicy", None), r"env=None must be an environment"),
    "the class of an environment": (lambda _: make(env=DriftEnv), r"env=DriftEnv must be an environment \(not its class\)"),
    "a function that makes one": (lambda _: make(env=lambda: DriftEnv()), r"env=<function .* must be an environment"),
    "Gymnasium's vector": (
        lambda _: make(env=gym.make_vec("Pendulum-v1", num_envs=2)),
        r"env=.*Vec.* must be an environment .* or a VecEnv of SB3, as make_vec_env gives",
    ),
    "an environment's name": (lambda _: RLx2TD3("MlpPolicy", "Pendulun-v1"), r"Pendulun.* Did you mean: `Pendulum`"),
    "an argument in policy_kwargs": (
        lambda _: make(policy_kwargs={"net_ach": [8]}),
        r"SparseTD3Policy has no argument net_ach \(in policy_kwargs\); did you mean net_arch",
    ),
    "the same, of SB3's class": (
        lambda _: TD3(SparseTD3Policy, DriftEnv(), policy_kwargs={"actor_sparsity": 0.5, "critic_sparsty": 0.5}),
        r"SparseTD3Policy has no argument critic_sparsty \(in policy_kwargs\); did you mean critic_sparsity",
    ),
    "an argument in replay_buffer_kwargs": (
        lambda _: make(replay_buffer_class=RLx2ReplayBuffer, replay_buffer_kwargs={"n_step": 3}),
        r"RLx2ReplayBuffer has no argument n_step \(in replay_buffer_kwargs\); did you mean n_steps",
    ),
    "noise of another shape": (
        lambda _: make(env=Wide(), action_noise=NormalActionNoise(np.zeros(2), np.ones(2))),
        r"action_noise=NormalActionNoise.* has shape \(2,\), and actions have \(3,\)",
    ),
    "noise of several environments": (
        lambda _: make(env=Wide(), action_noise=OrnsteinUhlenbeckActionNoise(np.zeros(4), np.ones(4))),
        r"has shape \(4,\), and actions have \(3,\)",
    ),
    "noise by name": (
        lambda _: make(action_noise="normal"),
        r"action_noise='normal' must be None, an ActionNoise, or a number",
    ),
    "the class of a callback": (
        lambda _: make().learn(10, callback=EvalCallback),
        r"callback=<class .*EvalCallback'> must be a callback \(not its class\)",
    ),
    "our callback's class": (lambda _: make().learn(10, callback=RLx2Callback), r"must be a callback \(not its class\)"),
    "no callback": (lambda _: make().learn(10, callback=[3]), r"callback=3 must be a callback"),
    "a callback that does not say": (
        lambda _: make().learn(10, callback=[Forgetful()]),
        r"callback=Forgetful gives None at a step; it must be True to go on, or False to end training",
    ),
    "a list of such": (lambda _: make().learn(10, callback=CallbackList([Forgetful()])), r"gives None at a step"),
    "a function that does not": (lambda _: make().learn(10, callback=lambda *_: None), r"callback=<lambda> gives None"),
    "a switch as text": (
        lambda _: make().learn(10, reset_num_timesteps="False"),
        r"reset_num_timesteps='False' must be True or False",
    ),
    "another switch as text": (lambda _: make().learn(10, progress_bar="no"), r"progress_bar='no' must be True or False"),
    "gradient steps before there is a log": (lambda _: make().train(1), r"train\(\) logs: learn\(\) brings a logger"),
    "steps as text": (lambda _: make().learn("100"), r"total_timesteps='100' must be an integer >= 0"),
    "steps below 0": (lambda _: make().learn(-5), r"total_timesteps=-5 must be an integer >= 0"),
    "a log every 0 episodes": (lambda _: make().learn(10, log_interval=0), r"log_interval=0 must be an integer >= 1"),
    "an argument of load": (
        lambda path: RLx2TD3.load(saved(RLx2TD3, path, buffer_size=50), topolgy="static"),
        r"RLx2TD3 has no argument topolgy; did you mean topology",
    ),
    "a value of load": (
        lambda path: RLx2TD3.load(saved(RLx2TD3, path, buffer_size=50), batch_size="256"),
        r"batch_size='256' must be an integer >= 1",
    ),
    "an agent of SB3": (
        lambda path: RLx2TD3.load(saved(TD3, path, buffer_size=50)),
        r"is dense, RLx2TD3.load needs a SparseTD3Policy",
    ),
    "another algorithm's agent": (
        lambda path: RLx2TD3.load(saved(RLx2SAC, path, buffer_size=50)),
        r"policy=SparseSACPolicy of the saved agent is another algorithm's",
    ),
    "an agent of PPO": (
        lambda path: RLx2TD3.load(saved(PPO, path, n_steps=8, batch_size=8)),
        r"policy=ActorCriticPolicy of the saved agent is dense",
    ),
    "a sparse agent with SB3's class": (
        lambda path: TD3.load(saved(RLx2TD3, path, buffer_size=50)),
        r"actor_sparsity=None.* loaded by that class, as RLx2TD3.load\(path\)",
    ),
    "a sparsity set afterwards": (
        lambda path: (vars(model := make(actor_sparsity=0.5)).update(actor_sparsity=0.9), model.save(path / "agent")),
        r"actor_sparsity=0.9 must be 0.5, with which the actor was built: .*actor_start_sparsity",
    ),
    "the same, and learning": (
        lambda _: (vars(model := make(actor_sparsity=0.5)).update(actor_sparsity=0.9), model.learn(10)),
        r"actor_sparsity=0.9 must be 0.5",
    ),
    "a backend set afterwards": (
        lambda _: changed(make(), backend="masked").learn(10),
        r"backend='masked' must be 'auto', with which the networks were built: .*load\(path, backend=...\)",
    ),
    "the same, and saving": (
        lambda path: changed(make(), weight_scale="live").save(path / "agent"),
        r"weight_scale='live' must be 'dense', with which the networks were built",
    ),
    "a value set afterwards": (
        lambda _: changed(make(), batch_size="64").learn(10),
        r"batch_size='64' must be an integer >= 1",
    ),
    "a minimum set afterwards": (
        lambda _: changed(make(), buffer_min_size=60).learn(10),
        r"buffer_min_size=60 must be <= buffer_size=50",
    ),
    "another algorithm's argument": (lambda _: make(ent_coef="auto"), r"RLx2TD3 has no argument ent_coef$"),
    "another network's sparsity": (
        lambda _: make(RLx2DQN, actor_sparsity=0.5),
        r"RLx2DQN has no argument actor_sparsity; did you mean sparsity\?$",
    ),
    "a goal of HER": (
        lambda _: make(
            env=GoalEnv(),
            policy="MultiInputPolicy",
            replay_buffer_class=HerReplayBuffer,
            replay_buffer_kwargs={"goal_selection_strategy": "futur"},
        ),
        r"goal_selection_strategy='futur' is unknown; choose one of .*did you mean 'future'",
    ),
    "a device by number": (lambda _: make(device="gpu"), r"device='gpu' must be 'auto', or a device of PyTorch"),
    "SNIP without a dense start": (
        lambda _: make(topology="snip"),
        r"topology='snip' needs actor_start_sparsity=0.0: it chooses among all links",
    ),
    "a file to export": (lambda _: describe("agent.zip"), r"model='agent.zip' must be an agent, as RLx2TD3.load gives"),
    "statistics' file to export": (
        lambda _: describe(make(), "v.pkl"),
        r"vecnormalize='v.pkl' must be None or a VecNormalize",
    ),
    "a reset as of Gym": (
        lambda _: make(env=AsOfGym()).learn(10),
        r"to unpack.* \(reset\(\) gives observation and info; step\(\) observation, reward, terminated, truncated, info\)",
    ),
    "the same, without a monitor": (
        lambda _: make(env=DummyVecEnv([AsOfGym])).learn(10),
        r"the environment gave what no reset gives at step 0: .*to unpack.* \(reset\(\) gives observation and info",
    ),
    "layers of a network": (lambda _: make().actor.mu[0], r"a SparseMLP has no module \[0\]: dense_weights\(\) gives"),
    "an observation of NaN": (lambda _: make().predict(np.full(3, NAN, np.float32)), r"observation=.* must be finite"),
    "infinite observations": (lambda _: make().predict(np.full((2, 3), INF, np.float32)), r"observation=.* must be finite"),
    "Gymnasium's pair of reset": (lambda _: make().predict(DriftEnv().reset()), r"You have passed a tuple to the predict"),
    "an observation of another shape": (lambda _: make().predict(np.zeros(4)), r"Unexpected observation shape \(4,\)"),
    "no file": (lambda path: RLx2TD3.load(path / "nothing"), r"nothing.zip"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore")
def test_mistakes(mistake, tmp_path):
    act, message = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError, RuntimeError, FileNotFoundError, gym.error.Error), match=message):
        act(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 256}, "batch_size=256 draws from buffer_size=50 transitions at most"),
        ({"learning_starts": 60}, "learning_starts=60 is more than buffer_size=50 can hold"),
        ({"env": "Pendulum-v1", "n_steps": 1_000}, "n_steps=1,000 is more than an episode has, 200"),
    ],
)
def test_what_hardly_goes_together_is_named(given, message):
    with pytest.warns(UserWarning, match=f"in this run of 70 steps .*{message}"):
        make(**given).learn(70)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(th.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="device='cuda' is not there, so SB3 takes the CPU") as caught:
        make(device="cuda")
    assert caught[0].filename == __file__


def test_the_buffer_follows_what_is_set_afterwards():
    model = changed(make(n_steps_delay=0.0), n_steps=7, buffer_min_size=20, gamma=0.5).learn(20)
    buffer = model.replay_buffer
    assert (buffer.n_steps, buffer.final_n_steps, buffer.min_size, buffer.gamma) == (7, 7, 20, 0.5)


def test_what_the_constructor_resolves_is_resolved_afterwards():
    model = changed(make(), train_freq=4, action_noise=0.2).learn(20)
    assert model.train_freq.frequency == 4
    assert isinstance(model.action_noise, NormalActionNoise)
    entropy = changed(make(RLx2SAC, target_entropy=-3.0), target_entropy="auto").learn(10)
    assert entropy.target_entropy == -2.0  # of two actions


def test_an_entropy_coefficient_follows(tmp_path):
    fixed = changed(make(RLx2SAC, ent_coef=0.2), ent_coef=5.0).learn(30)
    assert fixed.ent_coef_tensor.item() == 5.0
    fixed.save(tmp_path / "fixed")
    again = RLx2SAC.load(tmp_path / "fixed", DriftEnv(), ent_coef=0.1)
    again.restart_topology()
    again.learn(10)
    assert again.ent_coef_tensor.item() == pytest.approx(0.1)
    learned = make(RLx2SAC)
    learned.save(tmp_path / "learned")
    needed = "must be a number, because it was not learned: for the other make a new agent"
    with pytest.raises(RuntimeError, match=f"ent_coef='auto' {needed}"):
        RLx2SAC.load(tmp_path / "fixed", ent_coef="auto")
    with pytest.raises(
        RuntimeError, match=r"ent_coef=0\.2 must be 'auto', because it was learned: for the other make a new agent"
    ):
        RLx2SAC.load(tmp_path / "learned", ent_coef=0.2)
    fixed.ent_coef = "auto"
    for act in (lambda: fixed.learn(10), lambda: fixed.save(tmp_path / "not this")):
        with pytest.raises(ValueError, match=f"ent_coef='auto' {needed}"):
            act()


def test_exploration_that_is_not_taken():
    model = RLx2DQN("MlpPolicy", "CartPole-v1", learning_starts=5, buffer_size=50, buffer_min_size=10)
    model.exploration_final_eps = 0.9
    with pytest.warns(
        UserWarning, match="exploration_final_eps=0.9 was set after .* goes on with exploration_schedule that is"
    ):
        model.learn(10)


def test_a_loaded_agent_needs_an_environment_to_train(tmp_path):
    make().save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"env=None must be an environment: load\(path, env\) or set_env\(env\)"):
        RLx2TD3.load(tmp_path / "agent").learn(10)


def test_a_policy_of_another_precision_acts():
    model = make()
    model.policy.double()
    action, _ = model.predict(np.zeros(3))
    assert np.isfinite(action).all()


def test_a_learning_rate_that_is_not_taken():
    model = changed(make(learning_rate=1e-3), learning_rate=1e-5)
    with pytest.warns(
        UserWarning, match="learning_rate=1e-05 was set after construction, and .* lr_schedule, made of 0.001"
    ) as caught:
        model.learn(10)
    assert caught[0].filename == __file__
    assert model.actor.optimizer.param_groups[0]["lr"] == 1e-3


def test_a_schedule_that_is_not_taken():
    for given, changed_to in ((1e-3, LinearSchedule(1e-5, 0.0, 1.0)), (LinearSchedule(1e-3, 0.0, 1.0), 1e-5)):
        model = changed(make(learning_rate=given), learning_rate=changed_to)
        with pytest.warns(UserWarning, match="learning_rate=.* was set after construction, and .* lr_schedule, made of"):
            model.learn(10)
        model = changed(make(learning_rate=given), learning_rate=changed_to)
        model._setup_lr_schedule()  # the user has seen to it
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "learning_rate")
            model.learn(10)


def test_another_start_is_refused():
    model = changed(make(), actor_start_sparsity=0.2)
    with pytest.raises(ValueError, match=r"actor_start_sparsity=0\.2 must be None, with which the actor was built"):
        model.learn(10)


def test_a_buffer_size_that_is_not_taken(tmp_path):
    model = changed(make(), buffer_size=20)
    with pytest.warns(UserWarning, match="buffer_size=20 was set after construction, and .* made of 50: have load") as caught:
        model.learn(10)
    assert caught[0].filename == __file__
    assert model.replay_buffer.buffer_size == 50
    model.save(tmp_path / "agent")
    make().save_replay_buffer(tmp_path / "of 50")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = RLx2TD3.load(tmp_path / "agent", DriftEnv(), buffer_size=20).learn(10)
        assert loaded.replay_buffer.buffer_size == 20
        loaded.load_replay_buffer(tmp_path / "of 50")  # comes with its size
        loaded.learn(10)
    assert not [each for each in said if "buffer_size" in str(each.message)]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("pos", 50, "pos=50"),
        ("live", 51, "live=51"),
        ("pos", -1, "pos=-1"),
        ("pos", 1.0, "pos=1.0"),
        ("buffer_size", 99, r"observations of shape \(50, 1, 3\) must be \(99, 1, 3\)"),
        ("rewards", np.zeros((50, 2)), r"rewards of shape \(50, 2\) must be \(50, 1\)"),
    ],
)
def test_a_buffer_whose_parts_do_not_fit(name, value, says, tmp_path):
    """Kernels would read and write beside its arrays."""
    model = make().learn(20)
    changed(model.replay_buffer, **{name: value})
    model.save_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match=f"buffer.* holds a replay buffer that is none: .*{says}"):
        make().load_replay_buffer(tmp_path / "buffer")


@pytest.mark.parametrize("option", [{"sde_sample_freq": 4}, {"use_sde_at_warmup": True}])
def test_options_of_gsde_without_it(option):
    with pytest.warns(UserWarning, match=f"{next(iter(option))}=.* does nothing: it is about gSDE") as caught:
        make(RLx2SAC, **option)
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
def test_functions_may_stand_beside_callbacks():
    steps = []
    make().learn(
        10, callback=(EvalCallback(env_for(RLx2TD3)(), eval_freq=5, n_eval_episodes=1), lambda *_: steps.append(1) or True)
    )
    assert len(steps) == 10


def test_names_of_attributes_may_be_replaced(tmp_path):
    path = saved(RLx2TD3, tmp_path, buffer_size=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RLx2TD3.load(path, num_timesteps=7, gamma=1).num_timesteps == 7


def test_arguments_are_those_that_constructors_hand_on():
    class Root:
        def __init__(self, size, *, depth=1):
            pass

    class Middle(Root):
        def __init__(self, *args, width=2, **kwargs):
            pass

    class Leaf(Middle):
        pass

    assert known_arguments(Leaf) == {"size", "depth", "width"}
    assert known_arguments(Root) == {"size", "depth"}
