"""
Looks at what goes into environments and what comes out of them, before a broken transition gets into a replay buffer or into
statistics: inside of all wrappers around them, of which SB3's ``VecNormalize`` clips what is infinite.

It does so at every step, so what is sound costs microseconds; what may be wrong is looked at again, and in words.
"""

import inspect
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType, MethodType
from typing import Any, NoReturn
from weakref import ReferenceType, ref

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecEnvWrapper, unwrap_vec_normalize

from sb3_rlx2.warning import warn

GO_BACK = "go back to the last checkpoint"
PATIENCE = 60.0  # seconds after which an environment that does not answer is named
GYMNASIUM = "reset() gives observation and info; step() observation, reward, terminated, truncated, info"
LARGE = 1e76  # a sum of squares below it has no part that is NaN, or infinite in 32 bits


class BrokenEnvironmentError(ValueError):
    """What an environment gave, or was to be given, is nothing to train on."""


def guard(model: OffPolicyAlgorithm) -> None:
    """
    Stop the training of a model at the step at which an environment of its gives what is not finite or has another shape or
    type than it should, raises an error, or ends with its process; or would be given an action that is not finite.

    :param model: the model, whose environments are guarded until :func:`unguard`
    """
    env: Any = model.env
    unguard(env)  # of a training that an error has ended
    base: Any = innermost(env)
    watch = _Guard(model, base)
    for name in _Guard.METHODS:
        if hasattr(base, name):
            vars(base)[name] = _Watched(watch, base, name)


def innermost(env: VecEnv) -> VecEnv:
    """
    Give the innermost of SB3's vectorised environments, which may hold another library's. Not ``unwrapped``, which would give
    those, or what a wrapper says.

    :param env: environments, with their wrappers
    """
    while isinstance(env, VecEnvWrapper) and isinstance(env.venv, VecEnv):
        env = env.venv
    return env


def unguard(env: VecEnv) -> None:
    """
    Let environments step by themselves again.

    :param env: environments, with their wrappers
    """
    for name in _Guard.METHODS:
        watched = vars(innermost(env)).pop(name, None)
        if isinstance(watched, _Watched):
            watched.guard.done.set()


def require_alive(env: VecEnv, step: int) -> None:
    """
    Check that the processes of environments live, before they are asked for something.

    :param env: environments, with their wrappers
    :param step: environment steps so far
    :raises RuntimeError: if one has ended
    """
    base = innermost(env)
    if not all(process.is_alive() for process in _processes(base)):
        raise RuntimeError(_end_others(base, f"by step {step}"))


def _processes(base: VecEnv) -> Sequence[Any]:
    """Give the processes of environments, if SB3 has made any."""
    return base.processes if isinstance(base, SubprocVecEnv) else ()


def _end_others(base: Any, when: str) -> str:
    """Say which processes of environments have ended, and end the others, which nobody can step or close without them."""
    dead = [str(number) for number, process in enumerate(base.processes) if not process.is_alive()]
    for process in base.processes:
        process.terminate()
    base.closed = True
    return f"the process of environment {' and '.join(dead)} of {base.num_envs} has ended {when}; {GO_BACK}"


def check_statistics(env: VecEnv) -> None:
    """
    Check that no wrapper around ``VecNormalize`` changes the shape of observations: SB3's off-policy algorithms store what
    ``VecNormalize`` got.

    :param env: environments, with their wrappers
    :raises ValueError: if one does, as ``VecFrameStack``
    """
    normaliser = unwrap_vec_normalize(env)
    if normaliser is None:
        return
    stored, read = _shapes(normaliser.observation_space), _shapes(env.observation_space)
    if stored != read:
        raise ValueError(
            f"env={type(env).__name__}: VecNormalize must come last, around what changes the shape of observations; "
            f"off-policy training would store those that it got, of shape {stored}, where the policy reads {read} (in "
            "hyper-parameters, vec_env_wrapper stacks frames before normalize, frame_stack after it)"
        )


def _shapes(space: spaces.Space[Any]) -> Any:
    return {key: part.shape for key, part in space.spaces.items()} if isinstance(space, spaces.Dict) else space.shape


def require_finite(what: str, value: Any, step: int, count: int, number: int | None = None) -> None:
    """
    Check what environments gave.

    :param what: what it is
    :param value: it, of all environments unless ``number`` says of which; a dict has one for each key
    :param step: environment steps so far, with this one
    :param count: number of environments
    :param number: the environment's
    :raises BrokenEnvironmentError: if it holds NaN or infinity, also once it is stored in 32 bits
    """
    found = find_non_finite(value)
    if found is None:
        return
    key, array, place = found
    which, place = (place[0], place[1:]) if number is None else (number, place)
    shape = array.shape if number is not None else array.shape[1:]
    where = f" at {key}[{', '.join(map(str, place))}] of {shape}" if place else ""
    entry = array[(which, *place) if number is None else place]
    raise BrokenEnvironmentError(
        f"{_name(which, count)} {what} with NaN or infinity at step {step}: {entry}{where}; training stops before it is "
        f"stored, {GO_BACK}"
    )


def find_non_finite(value: Any) -> tuple[str, np.ndarray, tuple[int, ...]] | None:
    """
    Find an entry that is not finite in 32 bits.

    :param value: an array, or arrays by name
    :return: its key, empty if there are none, the array and the place in it; None if all are finite
    """
    if _is_sound(value):
        return None
    for key, part in value.items() if isinstance(value, dict) else (("", value),):
        array = np.asarray(part)
        if _is_sound(array):
            continue
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32))
        if not finite.all():
            return key, array, tuple(int(each) for each in np.argwhere(~finite)[0])
    return None


def _is_sound(value: Any) -> bool:
    """Tell at once of most arrays that they are finite in 32 bits; of those with large numbers it is not told."""
    return type(value) is np.ndarray and (value.dtype.kind != "f" or float(np.vdot(value, value)) < LARGE)


def _are_the_same_integers(array: np.ndarray, dtype: np.dtype[Any]) -> bool:
    """Tell whether SB3, which casts without a word, changes none: `np.array([0, 255])` is of 64 bits, with a sign."""
    return array.dtype.kind in "iu" and dtype.kind in "iu" and bool((array == array.astype(dtype)).all())


def _name(number: int, count: int, verb: str = " gave") -> str:
    return f"{'the environment' if count == 1 else f'environment {number} of {count}'}{verb}"


def _in_one_line(value: Any, length: int = 100) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= length else f"{text[:length]}..."


class _Watched:
    """
    Stands in the place of a method of environments. A copy of them has their own again.

    :param guard: has a method of that name, called with the method and its arguments
    :param base: the environments, without wrappers
    :param name: of the method
    """

    def __init__(self, guard: "_Guard", base: Any, name: str) -> None:
        self.guard, self.base, self.name, self.method = guard, base, name, getattr(base, name)

    def __call__(self, *args: Any) -> Any:
        return getattr(self.guard, self.name)(self.method, *args)

    def __reduce__(self) -> Any:
        return _own_method, (self.base, self.name)


def _own_method(base: Any, name: str) -> MethodType:
    return MethodType(getattr(type(base), name), base)


class _Guard:
    """
    What is looked at where.

    :param model: what is trained in the environments
    :param base: the environments, without wrappers
    """

    # Of SB3's `VecEnv`; the last one is `DummyVecEnv`'s, which fits what an environment gives to an array.
    METHODS = ("reset", "step_async", "step_wait", "_save_obs")

    def __init__(self, model: OffPolicyAlgorithm, base: Any) -> None:
        self.model, self.base, self.count = model, base, base.num_envs
        space = base.observation_space
        self.parts: dict[Any, Any] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        self.known: set[Any] = set()  # forms of observations that are right
        floats = space.shape is not None and space.dtype is not None and space.dtype.kind == "f"
        self.usual = ((self.count, *space.shape), space.dtype, (self.count,), np.dtype(np.float32)) if floats else None
        self.processes = [*zip(_processes(base), getattr(base, "remotes", ()), strict=True)] if _processes(base) else []
        self.stepping = 0  # environments' steps that SB3 has not counted yet
        self.thread, self.done = threading.get_ident(), threading.Event()
        self.asked: float | None = None  # when, if they have not answered yet
        self.told: float | None = None  # of which time it has been said that they had not
        threading.Thread(target=_watch, args=(ref(self), self.done), name="sb3_rlx2 environments", daemon=True).start()

    @property
    def step(self) -> int:
        """Environment steps so far, with this one."""
        return int(self.model.num_timesteps + self.stepping)

    def reset(self, reset: Callable[[], Any]) -> Any:
        """Reset, and check what comes."""
        self.stepping = 0
        require_alive(self.base, self.step)
        observations = self._ask(reset)
        self._check_forms(observations)
        require_finite("an observation", observations, self.step, self.count)
        return observations

    def step_async(self, start: Callable[[Any], None], actions: np.ndarray) -> None:
        """Check actions before they are executed."""
        self.stepping = self.count
        found = find_non_finite(actions)
        if found is not None:
            number, *place = found[2]
            raise BrokenEnvironmentError(
                f"{_name(number, self.count, '')} would be given an action with NaN or infinity at step {self.step}: "
                f"{actions[found[2]]} at {place} of {actions.shape[1:]}; it is not executed, {GO_BACK}"
            )
        self._ask(lambda: start(actions))

    def step_wait(self, step_wait: Callable[[], Any]) -> Any:
        """Check what comes of a step."""
        given = self._ask(step_wait, is_asked=True)
        observations, rewards, _, infos = given
        if not self._is_as_usual(observations, rewards):
            self._check_forms(observations)
            self._check_rewards(np.asarray(rewards))
            require_finite("a reward", np.asarray(rewards), self.step, self.count)
            require_finite("an observation", observations, self.step, self.count)
        for number, info in enumerate(infos):
            if "terminal_observation" in info:
                self._check_form(number, info["terminal_observation"])
                require_finite("an observation", info["terminal_observation"], self.step, self.count, number)
        return given

    def _is_as_usual(self, observations: Any, rewards: Any) -> bool:
        """Tell at once of most steps that nothing is wrong with them; of the others it is not told."""
        return (
            type(observations) is np.ndarray
            and type(rewards) is np.ndarray
            and (observations.shape, observations.dtype, rewards.shape, rewards.dtype) == self.usual
            and float(np.vdot(observations, observations)) + float(np.vdot(rewards, rewards)) < LARGE
        )

    def _save_obs(self, save: Callable[[int, Any], None], number: int, observation: Any) -> None:
        """Check an observation before it is cast to what it should be."""
        self._check_form(number, observation)
        save(number, observation)

    def _ask(self, method: Callable[[], Any], is_asked: bool = False) -> Any:
        self.asked = time.monotonic()
        try:
            if is_asked and self.processes:
                self._await_processes()
            return method()
        except BrokenEnvironmentError:
            raise
        except Exception as error:
            if isinstance(error, EOFError | ConnectionError) and self.processes:
                for process, _ in self.processes:
                    process.join(timeout=0.2)
                raise RuntimeError(_end_others(self.base, f"at step {self.step}")) from error
            self._explain(error)
        finally:
            self.asked = None

    def complain(self) -> None:
        """Name environments that have not answered for long, once; some take their time, so nothing is done about it."""
        asked = self.asked
        if asked is None or asked == self.told or time.monotonic() - asked < PATIENCE:
            return
        self.told = asked
        warn(
            f"{self._silent()} has not answered for {PATIENCE:g} s at step {self.step}; if it never will, Ctrl-C twice ends "
            f"training, and {GO_BACK}"
        )

    def _silent(self) -> str:
        """Say which environment is being waited for: a process that has not answered, or what the thread is at."""
        silent = [number for number, (_, remote) in enumerate(self.processes) if not wait([remote], 0)]
        if silent:
            return _name(silent[0], self.count, "")
        innermost = frame = sys._current_frames().get(self.thread)
        while frame is not None and frame.f_locals.get("self") is not self.base:
            frame = frame.f_back
        number = 0 if frame is None else frame.f_locals.get("env_idx", 0)
        return f"{_name(number, self.count, '')}{_place(innermost)}"

    def _explain(self, error: Exception) -> NoReturn:
        """Say which environment an error comes from, which the local variables of SB3's method tell."""
        frames = [each.frame for each in inspect.getinnerframes(error.__traceback__)] if error.__traceback__ else []
        held = next((each.f_locals for each in frames if each.f_locals.get("self") is self.base), {})
        for number, observation in enumerate(held.get("obs", ()) if "results" in held else ()):  # `SubprocVecEnv`'s
            self._check_form(number, observation)
        gave = bool(frames) and frames[-1].f_locals is held  # nothing that it called has raised it
        asked = "reset" if self.stepping == 0 else "step"
        verb = f" gave what no {asked} gives" if gave else f" raised {type(error).__name__}"
        who = _name(held["env_idx"], self.count, verb) if "env_idx" in held else f"one of {self.count} environments{verb}"
        hint = f" ({GYMNASIUM})" if "to unpack" in str(error) else ""
        raise RuntimeError(f"{who} at step {self.step}: {_in_one_line(error)}{hint}; {GO_BACK}") from error

    def _check_forms(self, observations: Any) -> None:
        """Check observations of all environments, where nobody has seen them one by one: arrays of other types mix."""
        for key, space in self.parts.items():
            array = observations if key is None else observations[key]
            if array.shape[1:] != space.shape or array.dtype != space.dtype:
                who = _name(0, 1) if self.count == 1 else f"one of {self.count} environments gave"
                self._check_part(who, key, array[0])

    def _check_form(self, number: int, observation: Any) -> None:
        for key in self.parts:
            part = observation if key is None else observation[key]
            if (key, getattr(part, "shape", None), getattr(part, "dtype", None)) not in self.known:
                self._check_part(_name(number, self.count), key, part)

    def _check_part(self, who: str, key: Any, part: Any) -> None:
        space, array = self.parts[key], np.asarray(part)
        always = np.can_cast(array.dtype, np.dtype(space.dtype), "same_kind")
        if array.shape != space.shape or not (always or _are_the_same_integers(array, np.dtype(space.dtype))):
            what = "an observation" if key is None else f"an observation with {key}"
            raise BrokenEnvironmentError(
                f"{who} {what} of {array.dtype}, {array.shape} at step {self.step}, where its space has {space.dtype}, "
                f"{space.shape}: {_in_one_line(part)}; {GO_BACK}"
            )
        if isinstance(part, np.ndarray) and always:
            self.known.add((key, array.shape, array.dtype))

    def _check_rewards(self, rewards: np.ndarray) -> None:
        if rewards.shape != (self.count,) or rewards.dtype.kind not in "biuf":
            who = _name(0, 1) if self.count == 1 else f"one of {self.count} environments gave"
            raise BrokenEnvironmentError(
                f"{who} a reward of {rewards.dtype}, {rewards.shape[1:]} at step {self.step}, where it should "
                f"be a number: {_in_one_line(rewards)}; {GO_BACK}"
            )

    def _await_processes(self) -> None:
        """Wait until all processes have answered; of the end of one SB3 may never hear, because others hold its pipe."""
        for process, remote in self.processes:
            if remote not in wait([remote, process.sentinel]):
                raise EOFError


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return f" (in {frame.f_code.co_name}, {Path(frame.f_code.co_filename).name}:{frame.f_lineno})"


def _watch(watched: "ReferenceType[_Guard]", done: threading.Event) -> None:
    """Look after environments that do not answer, for as long as there is anybody who asks them."""
    while not done.wait(min(PATIENCE / 4, 5.0)):
        guard = watched()
        if guard is None:
            return
        guard.complain()
        del guard
