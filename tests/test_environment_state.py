"""What the state of an environment holds, and that what it cannot hold is said."""

import json
from collections import Counter
from enum import Enum
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_rlx2.checkpoint.environments import Resumable, capture_env, capture_envs, restore_env, restore_envs
from sb3_rlx2.packing import pack, unpack
from tests.envs import DriftEnv


class Light(Enum):
    RED = 1
    GREEN = 2


class Track(list):
    """A list, and more."""


class Kilograms(float):
    """A number, and more."""


class World:
    """Holds plain values only."""

    def __init__(self, sensor=None):
        self.time, self.places, self.sensor = 0, np.zeros(3), sensor


class Sensor:
    """Looks at what others hold."""

    def __init__(self, world, places, arrays):
        self.world, self.places, self.first = world, places, arrays[0]


class Linked(DriftEnv):
    """Its parts point at each other and share what they hold, and what was one thing at first becomes two."""

    def __init__(self):
        super().__init__()
        self.places, self.arrays = [0.0], [np.zeros(1)]
        self.world = World()
        self.world.sensor = Sensor(self.world, self.places, self.arrays)
        self.before = self.now = np.zeros(1)

    def move(self):
        self.places[0] += 1.0
        self.arrays[0] += 1.0
        self.before, self.now = self.now, self.now + 1.0

    def seen(self):
        sensor = self.world.sensor
        return [sensor.places[0], sensor.first[0], sensor.world.time, self.before[0], self.now[0]]


def packed(state):
    """As a checkpoint holds it."""
    arrays = {}
    content = json.dumps(pack(state, arrays))
    return unpack(json.loads(content), {name: array.copy() for name, array in arrays.items()})


def test_what_is_shared_stays_shared():
    one, other = Linked(), Linked()
    one.move()
    one.world.time = 5
    state = packed(capture_env(one))
    assert state["missing"] == []
    restore_env(other, state)
    for _ in range(2):
        one.move()
        other.move()
    assert other.seen() == one.seen() == [3.0, 3.0, 5, 2.0, 3.0]
    assert other.world.sensor.world is other.world


class Rooms(DriftEnv):
    """One of its parts is also at another place, and at which changes."""

    def __init__(self, here_first):
        super().__init__()
        first, second = World(), World()
        second.time = 1
        if here_first:
            self.here = first
        else:
            first.sensor, second.sensor = second, first
        self.rooms = {"first": first, "second": second}
        self.here = first


def test_objects_that_are_at_several_places():
    one, other = Rooms(here_first=False), Rooms(here_first=False)
    one.here = one.rooms["second"]
    one.here.time = 7
    restore_env(other, packed(capture_env(one)))
    assert other.here is other.rooms["second"] is other.rooms["first"].sensor
    assert [room.time for room in other.rooms.values()] == [0, 7]


def test_objects_that_were_two_and_are_one():
    one, other = Rooms(here_first=True), Rooms(here_first=True)
    one.here = one.rooms["second"]
    with pytest.raises(ValueError, match="is the same object as another, which it was not"):
        restore_env(other, packed(capture_env(one)))


class Holding(DriftEnv):
    """Holds something under a name."""

    def __init__(self, value, name="held"):
        super().__init__()
        vars(self)[name] = value


LOOP = [1]
LOOP.append(LOOP)
CHAIN = World()
for _ in range(10_000):
    CHAIN = World(CHAIN)


@pytest.mark.parametrize(
    "value",
    [
        Light.RED,
        Counter(a=1),
        Track([1]),
        Kilograms(1.0),
        DriftEnv(),
        [DriftEnv()],
        memoryview(b""),
        np.longdouble(1),
        LOOP,
        CHAIN,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("name", ["held", "env"])
def test_what_cannot_be_taken_is_missing(value, name):
    assert capture_env(Holding(value, name))["missing"] == [f"Holding.{name}"]


@pytest.mark.parametrize("name", ["held", "env", "clock", "window"])
def test_what_is_plain_is_taken_by_any_name(name):
    state = capture_env(Holding(np.arange(3.0), name))
    other = Holding(np.zeros(3), name)
    restore_env(other, state)
    assert vars(other)[name].tolist() == [0.0, 1.0, 2.0]
    assert state["missing"] == []


def test_an_object_is_taken_by_its_attributes():
    first, other = World(), World()
    first.time, first.places[1] = 7, 0.5
    restore_env(Holding(other, "env"), capture_env(Holding(first, "env")))
    assert (other.time, other.places.tolist()) == (7, [0.0, 0.5, 0.0])


def test_what_only_shows_is_left_out():
    assert capture_env(Holding(memoryview(b""), "screen"))["missing"] == []


def test_a_wrapper_may_know_what_is_inside():
    class Knowing(gym.Wrapper):
        def __init__(self, env):
            super().__init__(env)
            self.base = env.unwrapped

    assert capture_env(Knowing(gym.wrappers.TimeLimit(DriftEnv(), 9)))["missing"] == []


def test_a_state_that_is_not_plain_is_missing():
    class Speaking(DriftEnv):
        def get_state(self):
            return {"world": World()}

        def set_state(self, state):
            raise AssertionError("not called")

    state = capture_env(Speaking())
    assert state["missing"] == ["Speaking.get_state()"]
    restore_env(Speaking(), state)


CLASSIC = ("Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
MUJOCO = (
    *("Ant-v4", "Humanoid-v4", "Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5"),
    *("InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5"),
)


@pytest.mark.filterwarnings("ignore")  # of Gymnasium, on versions
@pytest.mark.parametrize("name", [*CLASSIC, *MUJOCO])
def test_an_episode_goes_on_in_its_middle(name):
    first, other = gym.make(name), gym.make(name)
    first.action_space.seed(1)
    actions = [first.action_space.sample() for _ in range(40)]
    first.reset(seed=2)
    for action in actions[:15]:
        first.step(action)
    state = capture_env(first)
    assert state["missing"] == []
    other.reset(seed=3)
    restore_env(other, state)
    for action in actions[15:]:
        (obs, *given, _), (own, *others, _) = first.step(action), other.step(action)
        assert obs.tobytes() == own.tobytes()
        assert given == others
        if given[1]:
            assert first.reset()[0].tobytes() == other.reset()[0].tobytes()  # by the same generator
    first.close()
    other.close()


class Pair:
    """Another class of objects."""


def wrapped(held, time_limit=None):
    env = Holding(held)
    return Resumable(env if time_limit is None else gym.wrappers.TimeLimit(env, time_limit))


def vectorised(cls, *args):
    kwargs = {"start_method": "fork"} if cls is SubprocVecEnv else {}
    return cls([partial(wrapped, *args)], **kwargs)


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
@pytest.mark.parametrize(
    ("held", "now", "message"),
    [
        (World(), None, "Holding.held is a builtins.NoneType and no tests.test_environment_state.World"),
        (World(), Pair(), "Holding.held is a tests.test_environment_state.Pair and no tests.test_environment_state.World"),
        ({"a": World()}, {"b": World()}, "Holding.held has no a and nothing else"),
        ({"a": World()}, {"a": Pair()}, "Holding.held.a is a tests.test_environment_state.Pair and no "),
    ],
)
def test_other_objects_are_said_and_an_episode_begins(held, now, message, cls):
    env, other = vectorised(cls, held), vectorised(cls, now)
    state = capture_envs(env)
    assert state["missing"] == []
    assert restore_envs(env, state)
    with pytest.warns(UserWarning, match=f"environment 0 of 1 begins a new episode, because {message}"):
        assert not restore_envs(other, state)
    env.close()
    other.close()


@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
def test_other_wrappers_are_refused(cls):
    env, other = vectorised(cls, 0), vectorised(cls, 0, 5)
    with pytest.raises(ValueError, match=r"the environment is made of .*TimeLimit, Holding, the checkpoint's of .*Holding"):
        restore_envs(other, capture_envs(env))
    other.reset()  # its process lives
    env.close()
    other.close()
