"""N gradient steps, save, load, N more are 2N gradient steps, bit for bit, wherever the cut lies."""

import random
from copy import deepcopy
from functools import cache, partial

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rlx2 import RLx2TD3
from tests.checks import assert_equal, assert_sound, learned
from tests.envs import DriftEnv
from tests.every import ALGORITHMS, DELAYS, env_for, small, sparsities

TOTAL, WARM_UP = 115, 40
SETTINGS = {
    "learning_starts": WARM_UP,  # then one gradient step behind each environment step
    "batch_size": 8,
    "buffer_size": 60,  # the ring goes round
    "buffer_min_size": 20,
    "train_freq": 1,
    "learning_rate": 3e-3,
    "drop_fraction": 1.0,
    "update_interval": 15,
    "n_steps_delay": 0.29,
    "policy_distance_threshold": 0.0,  # every check shrinks
    "buffer_check_interval": 37,
    "seed": 0,
}
# Environment steps behind which these things have happened. The first network of a policy may be an actor that is
# delayed, every step of which is a second gradient step, so that an update comes with every second one of the critics.
EVENTS = {
    "update of the last network": [55, 70, 85, 100],
    "update of the first network": [55, 70, 85, 100],
    "n-step switch": [62],
    "shrink": [74, 111],  # at 37 too, if that were not in warm-up
}
EVENTS_OF_DELAYED = EVENTS | {"update of the first network": [70, 100]}
MOMENTS = [20, 54, 55, 56, 61, 62, 63, 69, 70, 71, 73, 74, 75, 110]
RUNS = [(a, b, t) for a in ALGORITHMS for b in ("csr", "masked") for t in ("rigl", "set")]


def generators(model):
    torch, numpy, python = th.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 as SB3 draws
    return torch, numpy, python, deepcopy(model.action_space.np_random.bit_generator.state)


def restore(model, states):
    torch, numpy, python, warm_up_actions = states
    th.set_rng_state(torch)
    np.random.set_state(numpy)  # noqa: NPY002
    random.setstate(python)
    model.action_space.np_random.bit_generator.state = warm_up_actions


class Recorder(BaseCallback):
    """Notes when things happen, and at some moments keeps all that a later run needs to go on."""

    def __init__(self, path, moments):
        super().__init__()
        self.path, self.moments = path, moments
        self.snapshots, self.events, self.before = {}, {name: [] for name in EVENTS}, None

    def _on_rollout_start(self):
        model, step = self.model, self.model.num_timesteps
        now = self.state()
        if self.before is not None:
            for name, changed in zip(EVENTS, self.changes(self.before, now), strict=True):
                if changed:
                    self.events[name].append(step)
        self.before = now
        if step in self.moments:
            model.save(self.path / f"{step}.zip")
            model.save_replay_buffer(self.path / f"{step}.pkl")
            self.snapshots[step] = generators(model), deepcopy(model.get_env())

    def _on_step(self):
        return True

    def state(self):
        networks, buffer = list(self.model.policy.topology_updater.networks.values()), self.model.replay_buffer
        return networks[-1].updates, networks[0].updates, buffer.n_steps, buffer.live, buffer.buffer_size

    def changes(self, before, now):
        full = before[3] == before[4]
        return now[0] > before[0], now[1] > before[1], now[2] > before[2], now[3] < before[3] + (not full)


class Restorer(BaseCallback):
    """Loading and `_setup_learn` seed and reset the generators, so their states come back behind that."""

    def __init__(self, states):
        super().__init__()
        self.states = states

    def _on_training_start(self):
        restore(self.model, self.states)

    def _on_step(self):
        return True


def outcome(model):
    buffer = {name: value for name, value in vars(model.replay_buffer).items() if isinstance(value, np.ndarray)}
    buffer = {name: th.as_tensor(value) for name, value in buffer.items()}
    window = [model.replay_buffer.pos, model.replay_buffer.live, model.replay_buffer.n_steps]
    return deepcopy([learned(model), buffer, window, model._n_updates, model.num_timesteps])


def run(algorithm, env, path, moments, **kwargs):
    own = sparsities(algorithm, 0.5, 0.5) | {"policy_kwargs": small(algorithm, net_arch=[12])}
    own |= {"policy_delay": 2} if algorithm in DELAYS else {}
    model = algorithm("MlpPolicy", env, **deepcopy(SETTINGS) | own | kwargs)
    recorder = Recorder(path, moments)
    model.learn(TOTAL, callback=recorder)
    return recorder, outcome(model)


def resume(algorithm, path, step, snapshot):
    states, env = snapshot
    model = algorithm.load(path / f"{step}.zip", env=deepcopy(env), force_reset=False)
    assert model.num_timesteps == step
    model.load_replay_buffer(path / f"{step}.pkl")
    model.learn(TOTAL - step, callback=Restorer(states), reset_num_timesteps=False)
    assert_sound(model.policy)
    return outcome(model)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Give a function that trains without interruption, once per setting."""

    @cache
    def train(algorithm, backend, topology):
        th.set_num_threads(1)
        path = tmp_path_factory.mktemp("reference")
        return path, *run(algorithm, env_for(algorithm)(), path, MOMENTS, backend=backend, topology=topology)

    return train


@pytest.mark.parametrize(("algorithm", "backend", "topology"), RUNS)
def test_things_happen_when_the_moments_expect_them(reference, algorithm, backend, topology):
    _, recorder, _ = reference(algorithm, backend, topology)
    events = EVENTS_OF_DELAYED if algorithm in DELAYS else EVENTS
    assert recorder.events == events
    for steps in events.values():
        assert {steps[0] - 1, steps[0], steps[0] + 1} <= set(MOMENTS)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("algorithm", "backend", "topology"), RUNS)
def test_resume_at_any_moment(reference, algorithm, backend, topology, moment):
    path, recorder, expected = reference(algorithm, backend, topology)
    assert_equal(resume(algorithm, path, moment, recorder.snapshots[moment]), expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resume_with_several_environments(algorithm, tmp_path):
    """Their episodes end at different steps, so that at some moments a few have just ended and the others go on."""
    env = DummyVecEnv([partial(env_for(algorithm), length=length) for length in (5, 7, 8)])
    moments = list(range(60, 99, 3))
    recorder, expected = run(algorithm, env, tmp_path, moments, gradient_steps=2, buffer_size=90)
    assert sorted(recorder.snapshots) == moments
    for moment in moments:
        assert_equal(resume(algorithm, tmp_path, moment, recorder.snapshots[moment]), expected)


def test_resume_with_train_freq_in_episodes(tmp_path):
    recorder, expected = run(RLx2TD3, DriftEnv(), tmp_path, range(TOTAL), train_freq=(1, "episode"), gradient_steps=-1)
    assert len(recorder.snapshots) == 13  # episodes of 9 steps
    for moment in (45, 63, 72, 99):
        assert_equal(resume(RLx2TD3, tmp_path, moment, recorder.snapshots[moment]), expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_lost_generator_shows(reference, algorithm):
    """What the tests above compare does depend on what they carry over."""
    path, recorder, expected = reference(algorithm, "csr", "rigl")
    states, env = recorder.snapshots[62]
    other = (th.Generator().manual_seed(1).get_state(), np.random.RandomState(1).get_state(), *states[2:])
    with pytest.raises(AssertionError):
        assert_equal(resume(algorithm, path, 62, (other, env)), expected)
