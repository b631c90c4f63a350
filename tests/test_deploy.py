"""Policies to deploy: which weights are chosen, what a zip keeps of them, and that training does not notice."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch as th
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rlx2 import RLx2SAC, RLx2TD3
from sb3_rlx2.compress.training import Sparsities, Task, probe, train
from sb3_rlx2.deploy import (
    ActorAverage,
    ActorCheckpoint,
    DeployAverageCallback,
    DeployCheckpointCallback,
    deployed_policy,
    policy_with,
)
from sb3_rlx2.zoo import agents, hyperparams_file
from tests import apart
from tests.checks import assert_equal
from tests.envs import DriftEnv

SHORT = {"learning_starts": 20, "buffer_size": 1_000, "batch_size": 16, "seed": 0, "device": "cpu"}
MOVING = {"update_interval": 10, "actor_sparsity": 0.8, "critic_sparsity": 0.8}
CLASSES = [TD3, SAC, RLx2TD3, RLx2SAC]
OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def make(agent_class, env=None, **more):
    sparse = MOVING | {"buffer_min_size": 100} if agent_class in (RLx2TD3, RLx2SAC) else {}
    narrow = {"policy_kwargs": {"net_arch": [16, 16]}}  # SB3 writes into it
    return agent_class("MlpPolicy", env or DriftEnv(), **(SHORT | narrow | sparse | more))


def actor(values, index=None):
    """A ``state_dict`` with the values given, of a sparse actor if there is an index."""
    sparse = {} if index is None else {"mu.index": th.tensor(index, dtype=th.int32)}
    return {"mu.values": th.tensor(values, dtype=th.float32), **sparse}


def test_an_average_by_hand():
    average = ActorAverage(0.5)
    average.follow(actor([8.0]), 0)
    average.follow(actor([0.0]), 1)
    assert average.state["weights"]["mu.values"].item() == 4.0
    average.follow(actor([0.0]), 1)  # the actor has not moved
    assert average.state["weights"]["mu.values"].item() == 4.0
    average.follow(actor([12.0]), 3)  # two updates at once, with the last one's result
    assert average.state["weights"]["mu.values"].item() == 4.0 / 4 + 12.0 * 3 / 4


def test_an_average_moves_with_the_links():
    average = ActorAverage(0.5)
    average.follow(actor([8.0, 4.0, 2.0], [0, 3, 5]), 0)
    average.follow(actor([8.0, 2.0, 6.0], [0, 5, 7]), 1)  # 3 is dropped, 7 is grown
    assert average.state["weights"]["mu.index"].tolist() == [0, 5, 7]
    assert average.state["weights"]["mu.values"].tolist() == [8.0, 2.0, 3.0]
    average.follow(actor([6.0], [7]), 2)  # the network is pruned
    assert average.state["weights"]["mu.index"].tolist() == [7]
    assert average.state["weights"]["mu.values"].tolist() == [4.5]


@pytest.mark.parametrize("agent_class", [TD3, RLx2TD3])
def test_the_average_of_decay_one_minus_tau_is_td3s_target_actor(agent_class):
    model = make(agent_class, gradient_steps=2)  # of which one updates the actor
    model.learn(200, callback=DeployAverageCallback(decay=1 - model.tau))
    if agent_class is RLx2TD3:
        assert model.policy.topology_updater.networks["actor"].updates > 3
    for name, weights in model.actor_target.state_dict().items():
        th.testing.assert_close(model.deployed_actor["weights"][name], weights, rtol=1e-5, atol=1e-7)


def counted(rule, returns, progress=0.0):
    """Give which of some episodes' actors are the checkpoint after each; an actor's one weight is its number."""
    chosen = []
    for number, total in enumerate(returns):
        rule.episode(total, progress, actor([float(number)]))
        chosen.append(None if rule.state["weights"] is None else int(rule.state["weights"]["mu.values"]))
    return chosen


def test_the_checkpoint_is_chosen_by_the_worst_episode_of_a_row():
    rule = ActorCheckpoint(episodes=3, early_episodes=3)
    assert counted(rule, [5.0, 2.0, 9.0]) == [None, None, 2]
    assert rule.state["worst"] == 2.0
    assert counted(rule, [8.0, 1.0]) == [2, 2]  # the row ends at its second episode
    assert counted(rule, [8.0, 3.0, 4.0]) == [2, 2, 2]
    assert rule.state["worst"] == 3.0
    assert int(rule.state["weights"]["mu.values"]) == 2
    assert counted(rule, [3.0] * 4) == [2, 2, 2, 2]  # as good is good enough: the third one's actor has the same number here


def test_rows_get_longer_at_the_switch_and_the_bar_falls():
    rule = ActorCheckpoint(episodes=2, early_episodes=1, switch=0.75, relax=0.1)
    assert counted(rule, [10.0, 30.0, 20.0], progress=0.7) == [0, 1, 1]
    assert counted(rule, [28.0, 27.0], progress=0.75) == [1, 1]  # 27 is not below 0.9 * 30
    assert rule.state["worst"] == 27.0
    rule.episode(26.9, 0.8, actor([7.0]))  # the bar falls once
    assert (rule.state["row"], rule.state["worst"]) == (0, 27.0)
    assert counted(ActorCheckpoint(1, 1, switch=0.5, relax=0.0), [1.0], progress=0.5) == [0]
    below_zero = ActorCheckpoint(episodes=1, early_episodes=1, switch=0.5, relax=0.1)
    below_zero.episode(-100.0, 0.0, actor([0.0]))
    below_zero.episode(-109.0, 0.5, actor([1.0]))
    assert below_zero.state["worst"] == -109.0


def test_a_checkpoint_with_more_links_gives_way():
    rule = ActorCheckpoint(episodes=1, early_episodes=1)
    rule.episode(9.0, 0.0, actor([1.0, 2.0], [0, 4]))
    rule.episode(1.0, 0.0, actor([3.0, 4.0], [1, 4]))
    assert rule.state["weights"]["mu.index"].tolist() == [0, 4]
    rule.episode(1.0, 0.0, actor([3.0], [4]))
    assert rule.state["weights"]["mu.index"].tolist() == [4]
    assert rule.state["worst"] == 1.0


@pytest.mark.parametrize("agent_class", CLASSES)
@pytest.mark.parametrize("callback", [DeployAverageCallback, DeployCheckpointCallback])
def test_training_does_not_notice(agent_class, callback):
    plain = make(agent_class).learn(150)
    watched = make(agent_class).learn(150, callback=callback())
    assert_equal(plain.policy.state_dict(), watched.policy.state_dict())
    assert (deployed_policy(watched).predict(OBS, deterministic=True)[0] != plain.predict(OBS, deterministic=True)[0]).any()


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("agent_class", CLASSES)
@pytest.mark.parametrize("callback", [partial(DeployAverageCallback, 0.9), partial(DeployCheckpointCallback, 2, 2)])
def test_the_zip_keeps_it(agent_class, callback, tmp_path):
    model = make(agent_class)
    model.learn(150, callback=callback())
    expected, _ = deployed_policy(model).predict(OBS, deterministic=True)
    model.save(tmp_path / "agent")
    loaded = agent_class.load(tmp_path / "agent", device="cpu")
    np.testing.assert_array_equal(loaded.predict(OBS, deterministic=True)[0], model.predict(OBS, deterministic=True)[0])
    np.testing.assert_array_equal(deployed_policy(loaded).predict(OBS, deterministic=True)[0], expected)
    state = loaded.deployed_actor
    loaded.set_env(DriftEnv())
    again = callback()
    loaded.learn(30, callback=again, reset_num_timesteps=False)
    assert loaded.deployed_actor is state is again.chooser.state


def test_a_zip_is_stock_sb3s_where_this_package_is_not_installed(tmp_path):
    model = make(TD3)
    model.learn(100, callback=DeployAverageCallback())
    model.save(tmp_path / "agent")
    code = (
        "import sys, warnings; sys.modules['sb3_rlx2'] = None\n"
        "warnings.simplefilter('error', UserWarning)\n"
        "from stable_baselines3 import TD3\n"
        f"model = TD3.load({str(tmp_path / 'agent')!r})\n"
        "assert set(model.deployed_actor['weights']) == set(model.actor.state_dict())"
    )
    done = apart.run(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


class Played(BaseCallback):
    """Notes after which step an action was chosen by which actor, and the gradient steps before it."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def _on_step(self):
        weight = next(iter(self.model.actor.state_dict().values())).flatten()[0].item()
        self.rows.append((bool(self.locals["dones"][0]), weight, self.model._n_updates, self.model.gradient_steps))
        return True


def test_a_held_policy_plays_whole_rows_and_makes_up_for_its_gradient_steps():
    """Episodes of 9 steps; the first 20 are the warm-up, so the first whole one of the policy's ends at step 36."""
    model = make(TD3, env=Constant(), train_freq=(1, "episode"), gradient_steps=-1)
    played = Played()
    model.learn(108, callback=[played, DeployCheckpointCallback(episodes=3, early_episodes=3, hold=True)])
    updates = [row[2] for row in played.rows[8::9]]  # before each episode's last step
    # Warm-up; then the episode that began in it ends, as in SB3, in a training; then rows of three of equal returns.
    assert updates == [0, 0, 0, 9, 9, 9, 36, 36, 36, 63, 63, 63]
    assert {row[3] for row in played.rows} == {-1}
    assert model.gradient_steps == -1
    held = [row[1] for row in played.rows[27:54]]
    assert len(set(held)) == 1
    assert model.deployed_actor["worst"] == 9.0


class Constant(DriftEnv):
    """Each step earns 1, but for the steps of a bad episode, which earn 0."""

    def __init__(self, bad=None):
        super().__init__()
        self.bad = bad

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, 0.0 if self.episodes == self.bad else 1.0, terminated, truncated, info


def test_a_held_policy_is_given_up_at_once():
    model = make(TD3, env=Constant(bad=8), train_freq=(1, "episode"), gradient_steps=-1)
    played = Played()
    model.learn(108, callback=[played, DeployCheckpointCallback(episodes=3, early_episodes=3, hold=True)])
    assert [row[2] for row in played.rows[8::9]] == [0, 0, 0, 9, 9, 9, 36, 36, 54, 54, 54, 81]


def test_misuse_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"decay=1\.0 must"):
        DeployAverageCallback(decay=1.0)
    with pytest.raises(ValueError, match="episodes=0 must"):
        DeployCheckpointCallback(episodes=0)
    with pytest.raises(ValueError, match="model=TD3 has no deployed actor"):
        deployed_policy(make(TD3))
    with pytest.raises(ValueError, match=r"train_freq=\(1, .*gradient_steps=1 must be \(1, 'episode'\) and -1"):
        make(TD3).learn(10, callback=DeployCheckpointCallback(hold=True))
    with pytest.raises(ValueError, match="model=PPO has no actor"):
        PPO("MlpPolicy", DriftEnv(), n_steps=8, batch_size=8, device="cpu").learn(8, callback=DeployAverageCallback())


def test_a_policy_with_other_weights_leaves_the_model_alone():
    model = make(RLx2TD3)
    model.learn(60)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items() if isinstance(tensor, th.Tensor)}
    weights = {name: tensor.clone() for name, tensor in model.actor.state_dict().items()}
    weights["mu.values"].zero_()
    weights["mu.bias"].zero_()
    assert not policy_with(model, weights).predict(OBS, deterministic=True)[0].any()
    after = {name: model.policy.state_dict()[name] for name in before}
    assert_equal(after, before)


DEPLOYS = "callback:'sb3_rlx2.deploy.DeployAverageCallback'"
PLAY = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs"]


def test_commands_use_it_if_asked_for(rlx2, monkeypatch):
    """What `enjoy` and `export` take is compared by what they load."""
    rlx2.train("rlx2td3", "-n", "300", parameters=[DEPLOYS])
    agent = "logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip"
    loaded = []
    load = agents.load_to_play
    monkeypatch.setattr(agents, "load_to_play", lambda *args, **kwargs: loaded.append(load(*args, **kwargs)) or loaded[-1])
    rlx2("enjoy", *PLAY, "--no-render", "-n", 5)
    rlx2("enjoy", *PLAY, "--no-render", "-n", 5, "--deployed")
    rlx2("export", agent)
    rlx2("export", *PLAY, "--deployed")
    expected = deployed_policy(RLx2TD3.load(agent)).actor.state_dict()
    weights = [model.policy.actor.state_dict() for model in loaded]
    assert_equal(weights[1], expected)
    assert_equal(weights[3], expected)
    assert_equal(weights[2], weights[0])
    assert not th.equal(weights[0]["mu.values"], expected["mu.values"])


def test_commands_say_that_none_was_chosen(rlx2):
    rlx2.train("rlx2td3", "-n", "100")
    assert "has no deployed actor" in rlx2.error("enjoy", *PLAY, "--no-render", "--deployed")
    assert "has no deployed actor" in rlx2.error("export", *PLAY, "--deployed")


def test_compress_judges_it(rlx2):
    task = Task(
        "rlx2td3", "Pendulum-v1", 300, 1, 1, str(hyperparams_file("rlx2td3")),
        {"learning_starts": 50, "buffer_size": 1_000, "buffer_min_size": 10, "policy_kwargs": {"net_arch": [8]}},
        deployed=True,
    )  # fmt: skip
    sparsities = Sparsities.from_densities("rlx2td3", [0.5, 0.5])
    with pytest.raises(ValueError, match="--deployed needs a callback"):
        probe(task, sparsities)
    task.hyperparams["callback"] = "sb3_rlx2.deploy.DeployAverageCallback"
    probe(task, sparsities)
    study = optuna.create_study()
    judged = train(task, 0, sparsities, study.ask(), Path("agent.zip"))
    last = train(replace(task, deployed=False), 0, sparsities, study.ask())
    assert judged is not None
    assert judged != last
    assert deployed_policy(RLx2TD3.load("agent.zip"))
