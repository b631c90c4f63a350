"""Environments that give what nobody can train on: training stops within the step, says why, and goes on from before."""

import os
import pickle
import threading
import time

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_rlx2 import RLx2SAC, RLx2TD3, environment_guard
from sb3_rlx2.checkpoint import Checkpoints, generations
from sb3_rlx2.checkpoint.run_state import non_finite
from sb3_rlx2.environment_guard import BrokenEnvironmentError
from sb3_rlx2.zoo.saving import Evaluation
from tests.faulty_envs import AT, FAULTS, Faulty, with_obs, with_reward

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"learning_starts": 10, "batch_size": 8, "buffer_size": 60, "seed": 0}
FORKED = {"start_method": "fork"}


def model(algorithm=RLx2TD3, env=None, **kwargs):
    return algorithm("MlpPolicy", env, **SMALL | {"policy_kwargs": {"net_arch": [8]}} | kwargs)


def two(fault=None, cls=DummyVecEnv, dtype=np.float32, **kwargs):
    return cls(
        [lambda: Faulty(dtype=dtype), lambda: Faulty(fault, dtype=dtype, **kwargs)], **(FORKED if cls is SubprocVecEnv else {})
    )


def check_last_checkpoint(folder, step, **kwargs):
    """It is of the step, finite, and what a run with environments that are whole goes on from."""
    newest = generations.newest(folder)
    assert newest.step == step
    assert not list(folder.glob(".unfinished-*"))
    state = newest.read()
    for module in state["parameters"]["modules"].values():
        for value in module.values():
            assert not isinstance(value, th.Tensor) or th.isfinite(value).all()
    trained = model(env=two(), **kwargs)
    trained.learn(60, callback=Checkpoints(folder, 10))
    assert trained.num_timesteps == 60
    assert all(np.isfinite(getattr(trained.replay_buffer, name)).all() for name in ("observations", "actions", "rewards"))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault, tmp_path):
    act, message, *_ = FAULTS[fault]
    trained = model(env=two(act))
    with pytest.raises((BrokenEnvironmentError, RuntimeError)) as error:
        trained.learn(60, callback=Checkpoints(tmp_path, 10))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert trained.num_timesteps == 28
    check_last_checkpoint(tmp_path, 20)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_processes(fault):
    act, message, *others = FAULTS[fault]
    trained = model(env=two(act, SubprocVecEnv))
    with pytest.raises((BrokenEnvironmentError, RuntimeError)) as error:
        trained.learn(60)
    expected = (others or [message])[0] or "the process of environment 1 of 2 has ended at step 30"
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    for process in trained.env.processes:
        process.kill()


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_numbers_that_are_none(value, dtype, cls, tmp_path):
    def change(obs):
        return np.array([obs[0], value, obs[2]])

    trained = model(RLx2SAC, VecNormalize(two(with_obs(change), cls, dtype=dtype)))
    shown = value if dtype is np.float64 or cls is SubprocVecEnv else np.float32(value)
    message = rf"environment 1 of 2 gave an observation with NaN or infinity at step 30: {shown} at \[1\] of \(3,\); "
    with pytest.raises(BrokenEnvironmentError, match=message.replace("+", r"\+")):
        trained.learn(60)
    assert np.isfinite(trained.env.obs_rms.mean).all()
    assert np.isfinite(trained.replay_buffer.observations).all()
    trained.env.close()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_observation_of_all_does_not_reach_statistics(value):
    normalizer = VecNormalize(two(lambda obs: obs * value, at=0))
    with pytest.raises(BrokenEnvironmentError, match="environment 1 of 2 gave an observation with NaN or infinity at step 0"):
        model(env=normalizer).learn(60)
    assert np.isfinite(normalizer.obs_rms.mean).all()


@pytest.mark.parametrize("at", [0, -1])
def test_a_first_observation_of_another_shape(at):
    message = rf"environment 1 of 2 gave an observation of float32, \(2,\) at step {-20 * at}, where"
    with pytest.raises(BrokenEnvironmentError, match=message):
        model(env=two(lambda obs: obs[:2], at=at)).learn(60)


def test_a_last_observation_of_another_shape(tmp_path):
    trained = model(env=two(with_obs(lambda obs: obs[:2]), at=20))
    with pytest.raises(BrokenEnvironmentError, match=r"environment 1 of 2 gave an observation of float32, \(2,\) at step 40"):
        trained.learn(60)


def poison(step):
    """Break an actor behind a gradient step, as nothing that is known of does."""

    def act(local, _):
        if local["self"].num_timesteps == step:
            with th.no_grad():
                next(local["self"].actor.parameters())[...] = float("nan")
        return True

    return ConvertCallback(act)


@pytest.mark.parametrize("algorithm", [RLx2TD3, TD3])
def test_an_action_that_is_none_is_not_executed(algorithm, tmp_path):
    trained = model(algorithm, two())
    message = r"environment 0 of 2 would be given an action with NaN or infinity at step 34: nan at \[0\] of \(2,\); it is not"
    with pytest.raises(BrokenEnvironmentError, match=message):
        trained.learn(60, callback=[poison(32), Checkpoints(tmp_path, 10)])
    assert np.isfinite([env.seen for env in trained.env.envs]).all()
    assert generations.newest(tmp_path).step == 30


def test_noise_that_is_none():
    trained = model(env=two(), action_noise=NormalActionNoise(np.zeros(2), np.full(2, np.nan)))
    with pytest.raises(
        BrokenEnvironmentError, match="environment 0 of 2 would be given an action with NaN or infinity at step 2:"
    ):
        trained.learn(60)


def test_stock_algorithms_with_checkpoints_are_guarded(tmp_path):
    trained = model(TD3, VecNormalize(two(with_reward(np.nan))))
    message = "environment 1 of 2 gave a reward with NaN or infinity at step 30: nan; training stops"
    with pytest.raises(BrokenEnvironmentError, match=message):
        trained.learn(60, callback=Checkpoints(tmp_path, 10))
    assert np.isfinite(trained.env.ret_rms.mean)
    assert generations.newest(tmp_path).step == 20


def test_what_is_no_number_is_found():
    """`Checkpoints` writes nothing of it."""
    trained = model(RLx2SAC, VecNormalize(two())).learn(30)
    assert non_finite(trained) is None
    moments = next(iter(trained.actor.optimizer.state.values()))["exp_avg"]
    for part, name in (
        (trained.env.returns, "VecNormalize.returns"),
        (trained.env.ret_rms, "VecNormalize.ret_rms.var"),
        (trained.env.obs_rms.mean, "VecNormalize.obs_rms.mean"),
        (trained.log_ent_coef.data, "log_ent_coef"),
        (moments, "exp_avg"),
        (next(trained.critic_target.parameters()).data, "critic_target"),
        (next(trained.actor.parameters()).data, "policy.actor"),
    ):
        if isinstance(part, RunningMeanStd):
            part.var = np.array(np.inf)
        else:
            part[...] = float("nan")
        assert name in non_finite(trained)


def test_a_process_that_is_killed(tmp_path):
    trained = model(env=SubprocVecEnv([Faulty, lambda: Faulty(lambda *_: os._exit(3))], **FORKED))
    with pytest.raises(RuntimeError, match="the process of environment 1 of 2 has ended at step 30; go back to the last"):
        trained.learn(60, callback=Checkpoints(tmp_path, 10))
    for process in trained.env.processes:
        process.kill()
    assert generations.newest(tmp_path).step == 20


def test_frames_are_stacked_before_they_are_normalised():
    """Around VecNormalize, SB3 would store frames and not stacks of them."""
    message = r"env=VecFrameStack: VecNormalize must come last, .* of shape \(\d+,\), where the policy reads \(\d+,\)"
    with pytest.raises(ValueError, match=message):
        model(env=VecFrameStack(VecNormalize(two()), 3))
    model(env=VecNormalize(VecFrameStack(two(), 3))).learn(30)


class Killer(BaseCallback):
    """Kills the process of an environment, behind a step or before a rollout, as a system that is short of memory does."""

    def __init__(self, number, step, before_rollout):
        super().__init__()
        self.number, self.step, self.before_rollout = number, step, before_rollout

    def kill(self, now):
        if now and self.num_timesteps == self.step:
            process = self.training_env.processes[self.number]
            process.kill()
            process.join()

    def _on_rollout_start(self):
        self.kill(self.before_rollout)

    def _on_step(self):
        self.kill(not self.before_rollout)
        return True


@pytest.mark.parametrize("number", [0, 1])  # the pipe of the second one stays open: the first one holds it, too
@pytest.mark.parametrize(
    ("step", "before_rollout", "when"), [(28, False, "at step 30"), (30, True, "by step 30"), (0, True, "at step 2")]
)
def test_a_process_that_is_killed_while_it_waits(number, step, before_rollout, when, tmp_path):
    trained = model(env=SubprocVecEnv([Faulty, Faulty], **FORKED))
    with pytest.raises(RuntimeError, match=f"the process of environment {number} of 2 has ended {when}; go back to the last"):
        trained.learn(60, callback=[Killer(number, step, before_rollout), Checkpoints(tmp_path, 10)])
    trained.env.close()  # the zoo does, and would end with another error
    for process in trained.env.processes:
        process.join(5)
    assert not any(process.is_alive() for process in trained.env.processes)
    assert "step_wait" not in vars(trained.env)
    if step:
        assert generations.newest(tmp_path).step == 20
    again = model(env=SubprocVecEnv([Faulty, Faulty], **FORKED)).learn(60, callback=Checkpoints(tmp_path, 10))
    assert again.num_timesteps == 60
    again.env.close()


def hang(*given):
    time.sleep(2.5)
    return given


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
def test_an_environment_that_hangs_is_named(cls, monkeypatch):
    before = {*threading.enumerate()}  # other tests have them too
    monkeypatch.setattr(environment_guard, "PATIENCE", 1.0)  # which no other step takes, even where other tests run beside
    trained = model(env=two(hang, cls))
    with pytest.warns(UserWarning, match="has not answered") as said:
        trained.learn(40)
    (message,) = (str(each.message) for each in said if "answered" in str(each.message))
    assert message.startswith("environment 1 of 2")
    assert "has not answered for 1 s at step 30; if it never will, Ctrl-C twice ends training, and go back to" in message
    assert cls is SubprocVecEnv or "(in hang, test_environment_guard.py:" in message
    trained.env.close()
    own = [each for each in threading.enumerate() if each not in before and each.name == "sb3_rlx2 environments"]
    assert not any(map(_still_runs, own))


def _still_runs(thread):
    thread.join(2)
    return thread.is_alive()


class Pixels(gym.Env):
    """Counts in numpy's integers, where its space has bytes, as many environments do."""

    observation_space = spaces.Box(0, 255, (3,), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (1,))
    steps = 0

    def __init__(self, last=255):
        self.last = last

    def reset(self, **kwargs):
        return np.array([0, 0, 0]), {}

    def step(self, action):
        self.steps += 1
        return np.array([0, 1, self.last if self.steps == AT else 2]), 0.0, False, False, {}


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
def test_integers_that_are_the_same_as_bytes(cls):
    made = FORKED if cls is SubprocVecEnv else {}
    model(env=cls([Pixels], **made)).learn(30)
    for wrong in (256, -1):
        with pytest.raises(BrokenEnvironmentError, match=rf"an observation of int64, \(3,\) at step {AT}, where .*uint8"):
            model(env=cls([lambda wrong=wrong: Pixels(wrong)], **made)).learn(30)


def test_an_evaluation_whose_environment_dies_is_no_full_disk(tmp_path):
    class Dies(Pixels):
        def step(self, action):
            raise BrokenPipeError("by peer")

    evaluation = Evaluation(DummyVecEnv([Dies]), eval_freq=10, best_model_save_path=str(tmp_path), log_path=str(tmp_path))
    with pytest.raises(BrokenPipeError):
        model(env=DummyVecEnv([Pixels])).learn(30, callback=evaluation)


class OfAnotherLibrary(VecEnvWrapper):
    """What other libraries' vectorised environments are wrapped in for SB3: what is inside has other methods."""

    def __init__(self, fault_at=None):
        envs = gym.vector.SyncVectorEnv([lambda: gym.make("Pendulum-v1") for _ in range(2)])
        self.fault_at, self.steps = fault_at, 0
        self.class_attributes = {}
        self.venv = envs
        VecEnv.__init__(self, 2, envs.single_observation_space, envs.single_action_space)

    def reset(self):
        return self.venv.reset(seed=0)[0]

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        self.steps += 1
        observations, rewards, terminated, truncated, _ = self.venv.step(self.actions)
        if self.steps == self.fault_at:
            observations[1, 0] = np.nan
        return observations, list(rewards), terminated | truncated, [{}, {}]

    def seed(self, seed=None):
        return [None, None]

    def get_attr(self, attr_name, indices=None):
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None, None]

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False, False]

    @property
    def unwrapped(self):
        return self.venv


def test_environments_of_other_libraries_are_trained_in_and_watched(tmp_path):
    assert model(env=VecMonitor(OfAnotherLibrary())).learn(60, callback=Checkpoints(tmp_path, 20)).num_timesteps == 60
    with pytest.raises(BrokenEnvironmentError, match="environment 1 of 2 gave an observation with NaN"):
        model(env=OfAnotherLibrary(fault_at=20)).learn(60)


def test_a_model_is_pickled_while_it_is_watched():
    copies = []

    def keep(local, _):
        if local["self"].num_timesteps in (20, 21):
            copies.append(pickle.loads(cloudpickle.dumps(local["self"])))
        return True

    trained = model(env=DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    trained.learn(30, callback=keep)
    for copy in copies:
        copy.learn(30)
        assert copy.num_timesteps == 30
