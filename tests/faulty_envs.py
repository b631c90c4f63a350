"""An environment that gives at one step what nobody can train on, and what is to be said of it."""

import numpy as np
from gymnasium import spaces

from tests.envs import TinyEnv

AT = 15  # step of the environment at which it breaks, the middle of its second episode


class Faulty(TinyEnv):
    """
    Gives something else at one step, or at the reset before it.

    :param fault: called with what a step gives (or the first observation), gives what comes instead
    """

    def __init__(self, fault=None, at=AT, dtype=np.float32):
        super().__init__()
        self.fault, self.fault_at = fault, at
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), dtype)
        self.seen = []

    def step(self, action):
        self.seen.append(action)
        given = super().step(action)
        return given if self.fault is None or self.steps != self.fault_at else self.fault(*given)

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return (self.fault(obs), info) if self.fault is not None and self.fault_at == -self.episode else (obs, info)

    def observe(self):
        return super().observe().astype(self.observation_space.dtype)


def with_obs(change):
    return lambda obs, *others: (change(obs), *others)


def with_reward(reward):
    return lambda obs, _, *others: (obs, reward, *others)


def disconnect(*_):
    raise ConnectionResetError("by peer")


def fail(*_):
    raise ZeroDivisionError("division by\nzero")


GAVE, RAISED = "environment 1 of 2 gave", "environment 1 of 2 raised"
ONE_GAVE = "one of 2 environments gave"  # of which one is not to be told, once their arrays are one
SPACE = "at step 30, where its space has float32, (3,): "
# What the environment gives, and what is said of it; by `SubprocVecEnv` if that is something else.
FAULTS = {
    "a shape that numpy spreads": (with_obs(lambda obs: obs[:1]), f"{GAVE} an observation of float32, (1,) {SPACE}[5.]"),
    "a longer one": (with_obs(lambda obs: np.append(obs, obs)), f"{GAVE} an observation of float32, (6,) {SPACE}[5. 1."),
    "a scalar": (with_obs(lambda obs: 0.5), f"{GAVE} an observation of float64, () {SPACE}0.5"),
    "nothing": (with_obs(lambda obs: None), f"{GAVE} an observation of object, () {SPACE}None"),
    "texts": (
        with_obs(lambda obs: np.array(["a", "b", "c"])),
        f"{GAVE} an observation of <U1, (3,) {SPACE}['a' 'b' 'c']",
        f"{ONE_GAVE} an observation of <U32, (3,) {SPACE}[",
    ),
    "complex numbers": (
        with_obs(lambda obs: obs * 1j),
        f"{GAVE} an observation of complex64, (3,) {SPACE}[",
        f"{ONE_GAVE} an observation of complex64, (3,) {SPACE}[",
    ),
    "objects": (
        with_obs(lambda obs: obs.astype(object)),
        f"{GAVE} an observation of object, (3,) {SPACE}[",
        f"{ONE_GAVE} an observation of object, (3,) {SPACE}[",
    ),
    "no reward": (
        with_reward(None),
        f"{GAVE} a reward with NaN or infinity at step 30: nan",  # as numpy has it
        f"{ONE_GAVE} a reward of object, () at step 30, where it should be a number: [0.5377838015556335 None]",
    ),
    "a reward of texts": (
        with_reward("much"),
        f"{GAVE} what no step gives at step 30: could not convert string to float: 'much'",
        "gave a reward of <U",
    ),
    "two rewards": (
        with_reward(np.zeros(2)),
        f"{GAVE} what no step gives at step 30: setting an array element with a sequence.",
        "one of 2 environments raised ValueError at step 30: all input arrays must have the same shape",
    ),
    "four values": (lambda *given: given[:4], f"{GAVE} what no step gives at step 30: not enough values to unpack", None),
    "no info": (lambda *given: (*given[:4], None), f"{GAVE} what no step gives at step 30: 'NoneType' object does not", None),
    "a lost connection": (
        disconnect,
        f"{RAISED} ConnectionResetError at step 30: by peer; go back to the last checkpoint",
        None,
    ),
    "an error": (fail, f"{RAISED} ZeroDivisionError at step 30: division by zero; go back to the last checkpoint", None),
}
