"""What `Checkpoints` does where all is not as it should be."""

import math
import os
import re
import signal
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.her import HerReplayBuffer

from sb3_rlx2 import RLx2Callback, RLx2TD3, SparseTD3Policy
from sb3_rlx2.checkpoint import Checkpoints, Interrupted, context, generations, interruptible, run_state
from tests import apart, runs
from tests.envs import DriftEnv, GoalEnv
from tests.faults import ERRORS, failing
from tests.runs import Cut, CutAt, scramble

SMALL = {"learning_starts": 20, "batch_size": 8, "buffer_size": 60, "seed": 0, "policy_kwargs": {"net_arch": [8]}}


def model(env=None, **kwargs):
    return RLx2TD3("MlpPolicy", env or DummyVecEnv([DriftEnv]), **{**SMALL, "policy_kwargs": {"net_arch": [8]}} | kwargs)


def steps(folder):
    return sorted(int(generations.NAME.fullmatch(path.name)["step"]) for path in folder.glob("*_step_*"))


class Act(BaseCallback):
    """Does something at a step."""

    def __init__(self, step, act):
        super().__init__()
        self.step, self.act = step, act

    def _on_step(self):
        if self.num_timesteps == self.step:
            self.act(self.model)
        return True


def test_a_full_disk_is_a_warning(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", 10)

    def fail():
        raise ERRORS["ENOSPC"]

    class Full(BaseCallback):
        def _on_rollout_start(self):
            self.context = failing(tmp_path / "run", fail, 1, once=False)
            if self.model.num_timesteps in (20, 30):
                self.context.__enter__()

        def _on_rollout_end(self):
            if self.model.num_timesteps in (21, 31):
                self.context.__exit__(None, None, None)

        def _on_step(self):
            return True

    with pytest.warns(UserWarning, match=r"no checkpoint at step [23]0: .*No space left on device"):
        model().learn(50, callback=[Full(), checkpoints])
    assert steps(tmp_path / "run") == [40, 50]


def test_after_damage_the_last_two_are_whole_again(tmp_path):
    model().learn(40, callback=Checkpoints(tmp_path, 10))
    (tmp_path / "000004_step_40" / "state.json").write_text("")
    with pytest.warns(UserWarning, match="000004_step_40 is left out"):
        model().learn(40, callback=Checkpoints(tmp_path, 10))
    found = [generations.check(path) for path in sorted(tmp_path.glob("*_step_*"))]
    assert [each.step for each in found] == [30, 40]


def test_a_model_that_is_no_number_is_not_saved(tmp_path):
    def poison(trained):
        with th.no_grad():
            next(trained.actor.parameters())[0] = float("nan")

    settings = {"learning_starts": 40}
    with pytest.raises(ValueError, match=r"actor\.mu\S* holds NaN or infinity at step 1[56]; go back to step 10 in .*run"):
        model(**settings).learn(50, callback=[Act(15, poison), Checkpoints(tmp_path / "run", 5)])
    assert steps(tmp_path / "run") == [5, 10]
    model(**settings).learn(50, callback=Checkpoints(tmp_path / "run", 5))  # goes on


class Opaque(gym.Wrapper):
    """Holds something that is no plain value."""

    def __init__(self, env):
        super().__init__(env)
        self.world = memoryview(bytes(3))


@pytest.mark.parametrize("algorithm", [RLx2TD3, TD3])
def test_an_environment_that_gives_no_state_begins_an_episode(algorithm, tmp_path):
    def make():
        kwargs = SMALL | {"policy_kwargs": {"net_arch": [8]}}
        return algorithm("MlpPolicy", DummyVecEnv([lambda: Opaque(DriftEnv(length=100))]), **kwargs)

    message = r"begins a new episode, because the state of Opaque.world cannot be saved; environments with get_state\(\)"
    with pytest.warns(UserWarning, match=message), pytest.raises(runs.Cut):
        make().learn(50, callback=[Checkpoints(tmp_path, 20), CutAt(25)])
    begun = make()
    with pytest.warns(UserWarning, match=message):
        begun.learn(50, callback=Checkpoints(tmp_path, 20))
    assert begun.num_timesteps == 50
    assert begun.replay_buffer.timeouts[19] == 1.0  # the next observation in the buffer is of another episode


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_a_progress_bar_takes_no_evaluations_away(tmp_path):
    # A run that began without a terminal and goes on in one.
    def train(folder, cut=None, **how):
        evaluation = EvalCallback(
            DummyVecEnv([lambda: Monitor(DriftEnv())]), eval_freq=10, n_eval_episodes=1, verbose=0, log_path=str(folder)
        )
        given = [evaluation, Checkpoints(folder / "run", 10), *([CutAt(cut)] if cut else [])]
        model().learn(60, callback=given, **how)
        return np.load(folder / "evaluations.npz")["timesteps"].tolist()

    with pytest.raises(Cut):
        train(tmp_path, 35)
    assert train(tmp_path, progress_bar=True) == [10, 20, 30, 40, 50, 60]


def test_a_callbacks_arguments_are_those_of_today(tmp_path):
    class Notes(BaseCallback):
        def __init__(self, factor):
            super().__init__()
            self.factor, self.sum = factor, 0

        def _on_step(self):
            self.sum += 1
            return True

    for factor, cut in ((1, 25), (2, 35), (3, 45)):
        notes = Notes(factor)
        with pytest.raises(Cut):
            model().learn(50, callback=[notes, Checkpoints(tmp_path, 10), CutAt(cut)])
        assert (notes.factor, notes.sum) == (factor, cut)


def test_a_callback_that_is_gone_is_said(tmp_path):
    class Counts(BaseCallback):
        seen = 0

        def _on_step(self):
            self.seen += 1
            return True

    with pytest.raises(Cut):
        model().learn(50, callback=[Act(99, print), Counts(), Checkpoints(tmp_path, 10), CutAt(25)])
    with pytest.warns(UserWarning, match=r"goes on without Counts\.0, whose state is lost"):
        model().learn(50, callback=Checkpoints(tmp_path, 10))


def test_callbacks_of_earlier_checkpoints_are_found():
    names = {"0.CallbackList": 0, "1.ProgressBarCallback": 1, "2._Callbacks": 2, "3.RLx2Callback": 3, "10.Act": 10, "4.Act": 4}
    assert run_state._by_name(names) == {"RLx2Callback.0": 3, "Act.0": 4, "Act.1": 10}
    assert run_state._by_name({"Act.0": 1}) == {"Act.0": 1}


def test_what_else_is_lost_is_said(tmp_path):
    class Chance(NormalActionNoise):
        def __init__(self):
            super().__init__(np.zeros(2), np.ones(2))
            self.dice = memoryview(bytes(3))

    evaluation = EvalCallback(DummyVecEnv([lambda: Monitor(Opaque(DriftEnv()))]), eval_freq=10, n_eval_episodes=1, verbose=0)
    message = "a run that goes on ends otherwise, because the state of Opaque.world, Chance.dice cannot be saved"
    for _ in range(2):
        with pytest.warns(UserWarning, match=message):
            model(action_noise=Chance()).learn(30, callback=[evaluation, Checkpoints(tmp_path, 20)])


def test_infos_that_cannot_be_kept_end_no_training(tmp_path):
    class Telling(DriftEnv):
        def step(self, action):
            *given, info = super().step(action)
            return *given, info | {"world": self}

    env = DummyVecEnv([lambda: Monitor(Telling(), info_keywords=("world",))])
    with pytest.warns(UserWarning, match="ends otherwise, because the state of RLx2TD3.ep_info_buffer cannot be saved"):
        model(env).learn(30, callback=Checkpoints(tmp_path, 10))
    assert steps(tmp_path) == [20, 30]


class Spoken(DriftEnv):
    """Has state that is no plain value, and says it."""

    def reset(self, **kwargs):
        self.hidden = memoryview(np.zeros(1))
        return super().reset(**kwargs)

    def step(self, action):
        self.hidden[0] += 1.0
        obs, reward, *others = super().step(action)
        return obs, reward + 0.01 * self.hidden[0], *others

    def get_state(self):
        return {"hidden": self.hidden[0], "state": self.state, "steps": self.steps, "episodes": self.episodes}

    def set_state(self, state):
        self.hidden = memoryview(np.array([state["hidden"]]))
        self.state, self.steps, self.episodes = state["state"], state["steps"], state["episodes"]


@pytest.mark.parametrize("cut", [13, 31])
def test_an_environment_speaks_for_itself(cut, tmp_path):
    ended = []
    for folder, cuts in (("whole", []), ("cut", [cut])):
        for each in [*cuts, None]:
            scramble(cut if each else 0)
            trained = model(DummyVecEnv([Spoken]))
            try:
                trained.learn(60, callback=[Checkpoints(tmp_path / folder, 7), *([CutAt(each)] if each else [])])
            except runs.Cut:
                continue
        ended.append(runs.digest([trained.get_parameters(), trained.replay_buffer.rewards]))
    assert ended[0] == ended[1]


def test_another_machine_is_said(tmp_path, monkeypatch):
    with pytest.raises(runs.Cut):
        model().learn(50, callback=[Checkpoints(tmp_path, 10), CutAt(25)])
    monkeypatch.setattr(context.th, "get_num_threads", lambda: 3)
    with pytest.warns(UserWarning, match="goes on, but not to the last bit: threads 1 -> 3$"):
        model().learn(50, callback=Checkpoints(tmp_path, 10))
    assert generations.newest(tmp_path).manifest["arguments"]["device"] == "cpu"


def test_other_arguments_are_said_or_refused(tmp_path):
    with pytest.raises(runs.Cut):
        model().learn(50, callback=[Checkpoints(tmp_path, 10), CutAt(25)])
    with pytest.warns(UserWarning, match="goes on, but not to the last bit: gamma 0.99 -> 0.9$"):
        model(gamma=0.9).learn(50, callback=Checkpoints(tmp_path, 10))
    with pytest.warns(UserWarning, match="to the last bit: policy_delay 2 -> 3, seed 0 -> 1$"):
        model(gamma=0.9, policy_delay=3, seed=1).learn(50, callback=Checkpoints(tmp_path, 10))
    for size in (50, 70):
        with pytest.raises(ValueError, match=f"buffer_size={size} must be 60, as in the run in .* that goes on"):
            model(gamma=0.9, buffer_size=size).learn(50, callback=Checkpoints(tmp_path, 10))
    with (
        pytest.warns(UserWarning, match=r"begun with, and not with what is given now: policy_kwargs.net_arch \[8\] -> \[9\]"),
        pytest.raises(ValueError, match="was begun with other arguments: "),
    ):
        model(gamma=0.9, policy_kwargs={"net_arch": [9]}).learn(50, callback=Checkpoints(tmp_path, 10))
    with pytest.raises(ValueError, match="holds checkpoints of RLx2TD3, not of SAC"):
        SAC("MlpPolicy", DummyVecEnv([DriftEnv]), buffer_size=60).learn(50, callback=Checkpoints(tmp_path, 10))


def test_another_optimizer_is_refused(tmp_path):
    with pytest.raises(Cut):
        model().learn(50, callback=[Checkpoints(tmp_path, 10), CutAt(25)])
    with pytest.raises(ValueError, match=r"optimizer_class=torch.*RMSprop must be torch.optim.adam.Adam, as in the run"):
        model(policy_kwargs={"net_arch": [8], "optimizer_class": th.optim.RMSprop}).learn(50, callback=Checkpoints(tmp_path))


def test_arguments_that_have_no_effect_are_said(tmp_path):
    def task(clip, g, sigma, eps):
        env = VecNormalize(DummyVecEnv([lambda: Monitor(gym.make("Pendulum-v1", g=g))]), clip_obs=clip)
        kwargs = {"net_arch": [8], "optimizer_class": th.optim.Adam, "optimizer_kwargs": {"eps": eps}}
        return model(env, action_noise=NormalActionNoise(np.zeros(1), sigma * np.ones(1)), policy_kwargs=kwargs)

    with pytest.raises(Cut):
        task(5.0, 10.0, 0.1, 1e-5).learn(50, callback=[Checkpoints(tmp_path, 10), CutAt(25)])
    task(5.0, 10.0, 0.1, 1e-5).learn(50, callback=Checkpoints(tmp_path, 10))
    changed = (
        r"NormalActionNoise.sigma \[0.1\] -> \[0.2\], PendulumEnv.g 10.0 -> 9.0, VecNormalize.clip_obs 5.0 -> 6.0, "
        r"policy_kwargs.optimizer_kwargs {'eps': 1e-05} -> {'eps': 0.0001}$"
    )
    for steps in (60, 70):  # nor are those of now written down
        with pytest.warns(UserWarning, match=changed), pytest.warns(UserWarning, match="total_timesteps"):
            task(6.0, 9.0, 0.2, 1e-4).learn(steps, callback=Checkpoints(tmp_path, 10))


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
def test_a_script_that_calls_learn_in_a_loop(tmp_path):
    def script(folder, cut=None):
        trained = model(DummyVecEnv([lambda: Monitor(DriftEnv())]), planned_timesteps=100)
        cutting = [] if cut is None else [CutAt(cut)]
        for number in range(4):
            callbacks = [Checkpoints(folder, 10), *cutting]
            trained.learn(25, callback=callbacks, reset_num_timesteps=number == 0)
        return trained

    whole = script(tmp_path / "whole")
    with pytest.raises(Cut):
        script(tmp_path / "cut", 66)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again, finished = script(tmp_path / "cut"), script(tmp_path / "cut")
    lines = [str(each.message) for each in said]
    assert not [line for line in lines if "the run in" in line]  # which would say that something is not as it was
    passed = re.findall(r"learn\(\) for (\d+) steps passes by: the model is that of step (\d+)", "".join(lines))
    assert passed == [("25", "60"), ("50", "60"), ("25", "100"), ("50", "100"), ("75", "100")]
    assert [each.num_timesteps for each in (whole, again, finished)] == [100] * 3
    assert [each._n_updates for each in (whole, again, finished)] == [whole._n_updates] * 3
    assert runs.digest(again.get_parameters()) == runs.digest(whole.get_parameters())
    assert runs.digest(finished.get_parameters()) == runs.digest(whole.get_parameters())


def test_calls_that_end_behind_their_steps_are_counted_so(tmp_path):
    def script(folder, calls, cut=None):
        trained = model(DummyVecEnv([DriftEnv]), train_freq=16, planned_timesteps=100)
        for number in range(calls):
            callbacks = [Checkpoints(folder, 10), *([] if cut is None else [CutAt(cut)])]
            trained.learn(40, callback=callbacks, reset_num_timesteps=number == 0)
        return trained.num_timesteps

    assert [script(tmp_path / "whole", calls) for calls in (1, 1, 2)] == [48, 48, 96]
    with pytest.raises(Cut):
        script(tmp_path / "cut", 2, 70)
    with pytest.warns(UserWarning, match=r"learn\(\) for 40 steps passes by"):
        assert script(tmp_path / "cut", 2) == 96


def test_arguments_of_environments_may_be_anything(tmp_path):
    class Walled(DriftEnv):
        def __init__(self, walls, tags):
            super().__init__()
            self.walls, self.tags = walls, tags

    def train(steps, walls):
        model(DummyVecEnv([lambda: Walled(walls, {"b", "a"})])).learn(steps, callback=Checkpoints(tmp_path, 10))

    train(30, {(0, 1): math.nan, np.int64(3): np.zeros(300)})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the run in .* begun with")
        with pytest.warns(UserWarning, match="total_timesteps"):
            train(40, {(0, 1): math.nan, np.int64(3): np.zeros(300)})
    with pytest.warns(UserWarning, match=r"begun with, and not .*: Walled\.walls"):
        train(40, {})


def test_a_clock_tells_for_how_long_the_run_has_been_trained(tmp_path, monkeypatch):
    def train(callbacks):
        trained = model(DummyVecEnv([lambda: Monitor(DriftEnv())]))
        trained.learn(50, callback=[Checkpoints(tmp_path, 10), *callbacks])
        return trained

    with pytest.raises(Cut):
        train([CutAt(25)])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 10_000)
    trained = train([])
    assert trained.ep_info_buffer[-1]["t"] < 1_000
    assert trained._num_timesteps_at_start == 20


def test_what_cannot_be_served(tmp_path):
    with pytest.raises(ValueError, match="callback=Checkpoints cannot serve: PPO is no off-policy algorithm"):
        PPO("MlpPolicy", DummyVecEnv([DriftEnv]), n_steps=8, batch_size=8).learn(8, callback=Checkpoints(tmp_path))
    policy_kwargs = {"actor_sparsity": 0.5, "critic_sparsity": 0.5}
    stock = TD3(SparseTD3Policy, DummyVecEnv([DriftEnv]), buffer_size=60, policy_kwargs=policy_kwargs)
    with pytest.raises(ValueError, match="must hold Checkpoints behind RLx2Callback"):
        stock.learn(200, callback=[Checkpoints(tmp_path), RLx2Callback()])
    goals = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"copy_info_dict": True}}
    with pytest.raises(ValueError, match="cannot serve: HerReplayBuffer with copy_info_dict=True holds Python objects"):
        TD3("MultiInputPolicy", GoalEnv(), **goals).learn(8, callback=Checkpoints(tmp_path))
    for argument in ({"every": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match=rf"{next(iter(argument))}=0 must be an integer >= 1"):
            Checkpoints(tmp_path, **argument)


def test_a_finished_run_goes_no_further_and_further_on_demand(tmp_path):
    first = model().learn(30, callback=Checkpoints(tmp_path, 10))
    again = model().learn(30, callback=Checkpoints(tmp_path, 10))
    assert (again.num_timesteps, again._n_updates) == (30, first._n_updates)
    assert runs.digest(again.get_parameters()) == runs.digest(first.get_parameters())
    with pytest.warns(UserWarning, match="goes on, but not to the last bit: total_timesteps 30 -> 40"):
        assert model().learn(40, callback=Checkpoints(tmp_path, 10)).num_timesteps == 40


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
def test_one_callback_for_several_trainings(tmp_path):
    checkpoints, trained = Checkpoints(tmp_path, 10), model()
    trained.learn(30, callback=checkpoints)
    trained.learn(25, callback=checkpoints, reset_num_timesteps=False)
    assert trained.num_timesteps == 55
    assert steps(tmp_path) == [50, 55]


def test_a_training_that_a_callback_ends_is_not_saved_in_the_middle_of_a_step(tmp_path):
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 25

    model().learn(50, callback=[Stop(), Checkpoints(tmp_path, 10)])
    assert steps(tmp_path) == [10, 20]


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def heard():
    """Have nobody ignore a signal, as nohup does for the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_a_whole_step(number, heard, tmp_path):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Interrupted, match=rf"interrupted at step 25; the same call goes on from {tmp_path}"):
        model().learn(50, callback=[Act(25, lambda _: os.kill(os.getpid(), number)), Checkpoints(tmp_path, 10)])
    assert steps(tmp_path) == [20, 25]
    assert [signal.getsignal(each) for each in SIGNALS] == before
    model().learn(50, callback=Checkpoints(tmp_path, 10))


def test_a_closed_terminal_is_ignored_where_the_user_has_asked_for_it(heard, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    hang_up = Act(25, lambda _: os.kill(os.getpid(), signal.SIGHUP))
    assert model().learn(30, callback=[hang_up, Checkpoints(tmp_path, 10)]).num_timesteps == 30


def test_a_second_signal_ends_the_process(tmp_path):
    child = os.fork()
    if child == 0:
        act = Act(25, lambda _: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
        model().learn(50, callback=[act, Checkpoints(tmp_path, 10)])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    assert steps(tmp_path) == [10, 20]


SCRIPT = """
import sys, torch, warnings
from sb3_rlx2 import RLx2TD3
from sb3_rlx2.checkpoint import Checkpoints

torch.set_num_threads(1)
settings = dict(learning_starts=20, batch_size=8, buffer_size=60, seed=0, policy_kwargs=dict(net_arch=[32]))
RLx2TD3("MlpPolicy", "Pendulum-v1", **settings).learn(40, callback=Checkpoints(sys.argv[1], 10, verbose=1)).save(sys.argv[2])
"""


def test_a_script_that_is_started_again(tmp_path):
    for _ in range(2):
        done = apart.run(SCRIPT, tmp_path / "run", tmp_path / "agent.zip", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "Training goes on from step 40" in done.stdout


def test_dict_observations(tmp_path):
    class Both(DriftEnv):
        def __init__(self):
            super().__init__(length=7)
            self.observation_space = spaces.Dict({"a": self.observation_space, "b": spaces.Box(-1, 1, (2,))})

        def observe(self):
            return {"a": super().observe(), "b": np.tanh(self.state[:2]).astype(np.float32)}

    ended = []
    for folder, cuts in (("whole", [None]), ("cut", [33, None])):
        for cut in cuts:
            scramble(cut or 0)
            trained = TD3("MultiInputPolicy", DummyVecEnv([Both]), **SMALL | {"policy_kwargs": {"net_arch": [8]}})
            try:
                trained.learn(70, callback=[Checkpoints(tmp_path / folder, 7), *([CutAt(cut)] if cut else [])])
            except runs.Cut:
                continue
        ended.append(runs.digest(trained.get_parameters()))
    assert ended[0] == ended[1]


def test_signals_are_the_programs_own_again_after_an_error(tmp_path):
    """Nobody tells a callback that `learn` has raised, and children of the process inherit what listens."""
    own = signal.getsignal(signal.SIGTERM)
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with pytest.raises(runs.Cut):
            model().learn(60, callback=[Checkpoints(tmp_path / "run", 20), CutAt(45)])
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, own)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads
def test_a_child_hears_signals_as_the_program_does(tmp_path, monkeypatch):
    # `multiprocessing.Pool` terminates children that wait for a lock, where no handler of Python's is ever called.
    statuses = []

    def fork(_):
        child = os.fork()
        if child == 0:
            os._exit(int(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL))
        statuses.append(os.waitpid(child, 0)[1])

    # Earlier tests have left listeners, and handlers that they set themselves.
    monkeypatch.setattr(interruptible, "_LISTENING", [])
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Cut):
            model().learn(30, callback=[Checkpoints(tmp_path / "cut", 20), CutAt(15)])
        model().learn(30, callback=[Checkpoints(tmp_path / "run", 20), Act(15, fork)])
        fork(None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert statuses == [0, 0]
