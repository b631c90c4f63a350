"""The state of environments: what they, their wrappers and MuJoCo hold in the middle of an episode."""

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor

from sb3_rlx2.checkpoint import attributes
from sb3_rlx2.checkpoint.attributes import OtherObjectError
from sb3_rlx2.environment_guard import innermost
from sb3_rlx2.packing import is_plain
from sb3_rlx2.warning import warn

# How environments and wrappers were made.
NO_STATE = {"spec", "_cached_spec", "metadata", "_metadata", "_saved_kwargs", "_ezpickle_args", "_ezpickle_kwargs"}
SHOWS = ("screen", "clock", "surf", "window", "viewer", "font", "mujoco_renderer")  # unless plain: then it is something else
# Ctrl-C, and the end of a terminal, which all processes get that were begun in it. Windows has no SIGHUP.
FROM_TERMINAL = {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}
PHYSICS = {"model", "data"}  # of a MuJoCo environment, kept in MuJoCo's own words
PENDING = ("_seeds", "_options")  # of vectorised environments, for their next reset
NO_STATE_VEC = {"venv", "class_attributes", "observation_space", "action_space", "metadata"}


class Resumable(gym.Wrapper[Any, Any, Any, Any]):
    """
    Gives an environment's state and takes it back, also in a process of its own: ``SubprocVecEnv`` reaches no further than the
    methods of its environments, so there it is the outermost wrapper (``make_vec_env(..., wrapper_class=Resumable)``).
    ``DummyVecEnv`` needs none.

    :param env: the environment, with the wrappers inside
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
            for number in FROM_TERMINAL:  # the training process decides
                signal.signal(number, signal.SIG_IGN)

    def capture_state(self) -> dict[str, Any]:
        """Give the state, see :func:`capture_env`."""
        return capture_env(self.env)

    def restore_state(self, state: dict[str, Any]) -> ValueError | None:
        """
        Take a state back.

        :param state: what :meth:`capture_state` gave
        :return: why it cannot; raised, it would end the environment's process
        """
        try:
            restore_env(self.env, state)
        except ValueError as error:
            return error
        return None


def capture_env(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """
    Take the state of an environment and its wrappers: their own (``get_state``, ``set_state``) where they have both methods,
    MuJoCo's for its environments, and what is plain in their attributes.

    :param env: the environment
    :return: the state, with what cannot be taken under ``missing``
    """
    layers, missing = [], []
    for layer in _layers(env):
        name, state = type(layer).__name__, {}
        if _speaks(layer):
            own = layer.get_state()  # type: ignore[attr-defined]
            if is_plain(own):
                state["own"] = own
            else:
                missing.append(f"{name}.get_state()")
            held, _ = attributes.capture(layer, NO_STATE)
            state["held"] = {each: value for each, value in held.items() if value[0] in ("numpy generator", "space")}
        else:
            physical = _is_mujoco(layer)
            state["held"], unknown = attributes.capture(layer, NO_STATE | _shown(layer) | (PHYSICS if physical else set()))
            missing += [f"{name}.{each}" for each in (*unknown, *_other_envs(layer, env))]
            if physical:
                state["physics"] = _capture_physics(layer)
        layers.append([name, state])
    return {"layers": layers, "missing": missing, "time": time.time()}


def restore_env(env: gym.Env[Any, Any], state: dict[str, Any]) -> None:
    """
    Give an environment the state of one like it.

    :param env: the environment
    :param state: what :func:`capture_env` gave
    :raises ValueError: if it has other wrappers
    :raises OtherObjectError: if it holds other objects
    """
    # The zoo puts a subclass of its own, `PatchedTimeLimit`, in the place of Gymnasium's where it has been imported.
    own = [type(layer).__name__.removeprefix("Patched") for layer in _layers(env)]
    saved = [name.removeprefix("Patched") for name, _ in state["layers"]]
    if own != saved:
        raise ValueError(f"the environment is made of {', '.join(own)}, the checkpoint's of {', '.join(saved)}")
    pause = _pause(state)
    for layer, (_, held) in zip(_layers(env), state["layers"], strict=True):
        attributes.restore(layer, held["held"])
        if isinstance(layer, Monitor):
            layer.t_start += pause  # its clock tells for how long the run has been trained
        if "own" in held:
            layer.set_state(held["own"])  # type: ignore[attr-defined]
        if "physics" in held:
            _restore_physics(layer, held["physics"])


def capture_envs(env: VecEnv) -> dict[str, Any]:
    """
    Take the state of vectorised environments.

    :param env: the environments, with the wrappers around them
    :return: the state, with what cannot be taken under ``missing``
    """
    wrappers, missing = [], []
    for wrapper in _wrappers(env):
        held, unknown = attributes.capture(wrapper, NO_STATE_VEC)
        wrappers.append([type(wrapper).__name__, held])
        missing += [f"{type(wrapper).__name__}.{each}" for each in unknown]
    base = innermost(env)
    if isinstance(base, DummyVecEnv):
        envs = [capture_env(each) for each in base.envs]
    elif not isinstance(base, VecEnvWrapper) and base.has_attr("capture_state"):  # a wrapper asks what another library made
        envs = base.env_method("capture_state")
    else:
        envs = []
        missing.append(f"{type(base).__name__}, whose environments are not wrapped in sb3_rlx2.checkpoint.Resumable")
    pending = {name: getattr(base, name) for name in PENDING}
    missing += _unique(envs)
    return {"wrappers": wrappers, "envs": envs, "pending": pending, "missing": missing, "time": time.time()}


def restore_envs(env: VecEnv, state: dict[str, Any]) -> bool:
    """
    Give vectorised environments the state of others like them.

    :param env: the environments
    :param state: what :func:`capture_envs` gave
    :return: whether all are where they were; a warning says which is not
    :raises ValueError: if they are others
    """
    own, saved = [type(wrapper).__name__ for wrapper in _wrappers(env)], [name for name, _ in state["wrappers"]]
    if own != saved:
        raise ValueError(f"env is wrapped in {own or 'nothing'}, the checkpoint's in {saved or 'nothing'}")
    pause = _pause(state)
    for wrapper, (_, held) in zip(_wrappers(env), state["wrappers"], strict=True):
        attributes.restore(wrapper, held)
        if isinstance(wrapper, VecMonitor):
            wrapper.t_start += pause
    base = innermost(env)
    vars(base).update(state["pending"])
    is_there = True
    for number, each in enumerate(state["envs"]):
        if isinstance(base, DummyVecEnv):
            error = Resumable(base.envs[number]).restore_state(each)
        else:
            (error,) = base.env_method("restore_state", each, indices=number)
        if isinstance(error, OtherObjectError):
            warn(f"environment {number} of {base.num_envs} begins a new episode, because {error}")
            is_there = False
        elif error is not None:
            raise ValueError(str(error))
    return is_there


def parts_of_envs(env: VecEnv) -> list[Any]:
    """
    Give what environments are made of: the wrappers around all, and of the first one its own and itself, unless they are in
    processes of their own.

    :param env: the environments
    """
    base = innermost(env)
    return [*_wrappers(env), *(_layers(base.envs[0]) if isinstance(base, DummyVecEnv) else ())]


def _pause(state: dict[str, Any]) -> float:
    """Give the seconds since a state was taken, which earlier versions did not note."""
    now = time.time()
    return float(now - state.get("time", now))


def _unique(envs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for each in envs for name in each["missing"]))


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _wrappers(env: VecEnv) -> Iterator[VecEnvWrapper]:
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv


def _shown(layer: gym.Env[Any, Any]) -> set[str]:
    """Name the attributes by which a layer shows itself."""
    held = {name: vars(layer).get(name) for name in SHOWS}
    return {name for name, value in held.items() if value is None or not is_plain(value)}


def _other_envs(layer: gym.Env[Any, Any], env: gym.Env[Any, Any]) -> list[str]:
    """Name the attributes that hold environments which nobody looks after, because they are none of the layers."""
    layers = [*_layers(env)]
    held = {name: value for name, value in vars(layer).items() if isinstance(value, gym.Env | VecEnv)}
    return [name for name, value in held.items() if not any(value is each for each in layers)]


def _speaks(layer: gym.Env[Any, Any]) -> bool:
    return callable(getattr(type(layer), "get_state", None)) and callable(getattr(type(layer), "set_state", None))


def _is_mujoco(layer: gym.Env[Any, Any]) -> bool:
    module = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")  # there if such an environment is
    return module is not None and isinstance(layer, module.MujocoEnv)


def _capture_physics(layer: Any) -> dict[str, np.ndarray]:
    """
    Take MuJoCo's integration state, and its derived arrays: Gymnasium's Ant and Humanoid observe some of these, which lag
    behind by a call, so that computing them again gives other numbers.
    """
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(layer.model, kind))
    mujoco.mj_getState(layer.model, layer.data, integration, kind)
    return {"integration": integration, **_derived(layer.data)}


def _restore_physics(layer: Any, state: dict[str, np.ndarray]) -> None:
    import mujoco

    mujoco.mj_setState(layer.model, layer.data, state["integration"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, array in _derived(layer.data).items():
        if name in state and state[name].shape == array.shape:
            array[...] = state[name]


def _derived(data: Any) -> dict[str, np.ndarray]:
    """Give the arrays of fixed size; those of constraints (``efc_``) are as long as there are contacts."""
    names = [name for name in dir(data) if not name.startswith(("_", "efc_", "iefc_"))]
    arrays = {name: getattr(data, name) for name in names}
    return {
        name: array
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and array.dtype == np.float64 and array.size and array.flags.writeable
    }
