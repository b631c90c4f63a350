"""
All that a training run is, from weights to random generators, taken at the start of a rollout and given to another process.

There, behind gradient steps and before the next action, all that has happened lies in the objects; in the middle of a step
some of it lies in local variables of SB3's.
"""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.her import HerReplayBuffer

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.buffers.replay import cut_last
from sb3_rlx2.checkpoint import attributes, environments, tensorboard, transitions
from sb3_rlx2.deploy import ATTRIBUTE as DEPLOYED
from sb3_rlx2.packing import Arrays, is_plain, pack

# Attributes of SB3's algorithms that change while they train. The planned end (`_total_timesteps`) is the new call's.
COUNTERS = (
    *("num_timesteps", "_episode_num", "_n_updates", "_n_calls", "exploration_rate", "_current_progress_remaining"),
    *("_last_obs", "_last_original_obs", "ep_info_buffer", "ep_success_buffer", DEPLOYED),
)
FILES = {"file", "events"}  # of the state of a logger's output that writes into files
PARTS_OF_NOISE = {"_base_noise", "_noises"}  # of `VectorizedActionNoise`
WITHOUT_STATE = {"CallbackList", "_Callbacks", "ProgressBarCallback"}  # callbacks that may be there in one process only
COUNTED = {"n_calls", "num_timesteps"}  # by all callbacks
OF_CALLBACKS = {"model", "parent", "locals", "globals", "logger"}  # no state of a callback's own


class Run(NamedTuple):
    """
    A run.

    :param model: the algorithm
    :param callbacks: those whose state belongs to the run, by name
    :param begun: what each callback's attributes held when training began
    """

    model: OffPolicyAlgorithm
    callbacks: dict[str, BaseCallback]
    begun: dict[str, Any]

    @property
    def env(self) -> VecEnv:
        """The environments."""
        env = self.model.get_env()
        assert env is not None
        return env


class Part(NamedTuple):
    """
    A part of a run's state, under its name in :data:`PARTS`.

    :param get: gives it
    :param put: gives it to another run
    """

    get: Callable[[Run], Any]
    put: Callable[[Run, Any], None]


def why_not(model: Any) -> str | None:
    """
    Say why a model's training cannot be resumed exactly.

    :param model: the model
    :return: the reason, None if it can
    """
    if not isinstance(model, OffPolicyAlgorithm):
        return f"{type(model).__name__} is no off-policy algorithm"
    return transitions.why_not(model.replay_buffer)


def capture(run: Run) -> dict[str, Any]:
    """
    Take the state of a run, all but the rows of its replay buffer.

    :param run: the run
    """
    return {name: part.get(run) for name, part in PARTS.items()}


def lost(run: Run, state: dict[str, Any]) -> list[str]:
    """
    Name what cannot be taken of a run's state, beside what its environments hold.

    :param run: the run
    :param state: what :func:`capture` gave
    """
    of_noise = [(noise, name) for noise in _noises(run) for name in attributes.capture(noise, PARTS_OF_NOISE)[1]]
    of_evaluations = [name for each in state["evaluations"].values() for name in each["missing"]]
    of_model = [name for name in COUNTERS if hasattr(run.model, name) and name not in state["counters"]]
    names = [f"{type(run.model).__name__}.{name}" for name in of_model]
    return [*names, *of_evaluations, *(f"{type(noise).__name__}.{name}" for noise, name in of_noise)]


def restore(run: Run, state: dict[str, Any]) -> None:
    """
    Give a run the state of another.

    :param run: the run
    :param state: what :func:`capture` gave
    """
    for name, part in PARTS.items():
        if name in state:
            part.put(run, state[name])


def callback_name(kind: str, number: int) -> str:
    """
    Name a callback, so that another process, where there may be a progress bar besides, finds it.

    :param kind: name of its class
    :param number: how many of that class come before it
    """
    return f"{kind}.{number}"


def left_over(run: Run, state: dict[str, Any]) -> list[str]:
    """
    Name the callbacks that training has changed, and that are not there any more.

    :param run: the run
    :param state: what :func:`capture` gave
    """
    held = _by_name(state["callbacks"])
    changed = {
        name
        for name, (begun, now) in held.items()
        if any(not _same(value, begun.get(each)) for each, value in now.items() if each not in COUNTED)
    }
    return sorted(changed - run.callbacks.keys())


def _by_name(states: dict[str, Any]) -> dict[str, Any]:
    """Give states of callbacks by their names: up to format 2 those began with the place among all, containers too."""
    if not any(name[0].isdigit() for name in states):
        return states
    named, count = {}, Counter[str]()
    for name in sorted(states, key=lambda each: int(each.partition(".")[0])):
        kind = name.partition(".")[2]
        if kind not in WITHOUT_STATE:
            named[callback_name(kind, count[kind])] = states[name]
            count[kind] += 1
    return named


def _get_parameters(run: Run) -> Any:
    _, variables = run.model._get_torch_save_params()
    return {
        "modules": run.model.get_parameters(),
        "variables": {name: recursive_getattr(run.model, name) for name in variables},
        "arrays": getattr(run.model, "_steps", None) is not None,
    }


def _put_parameters(run: Run, state: Any) -> None:
    run.model.set_parameters(state["modules"], exact_match=True, device=run.model.device)
    for name, value in state["variables"].items():
        if value is not None:
            recursive_getattr(run.model, name).data = value.to(run.model.device)
    if isinstance(run.model, RLx2Algorithm):
        run.model.choose_steps_anew(state["arrays"])


def non_finite(model: OffPolicyAlgorithm) -> str | None:
    """
    Find what training has made of a model that is no number: weights, moments, statistics of ``VecNormalize``.

    :param model: the algorithm
    :return: the name of the first part that holds NaN or infinity, None if none does
    """
    _, variables = model._get_torch_save_params()
    parts = {**model.get_parameters(), **{name: recursive_getattr(model, name) for name in variables}}
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        statistics = {name: getattr(normalizer, name, None) for name in ("obs_rms", "ret_rms", "returns")}
        parts["VecNormalize"] = {name: _numbers(value) for name, value in statistics.items()}
    return next((name for name, value in _leaves("", parts) if _is_broken(value)), None)


def _numbers(statistics: Any) -> Any:
    """Give the numbers of running statistics, of which dict observations have some for each key."""
    if isinstance(statistics, dict):
        return {key: _numbers(value) for key, value in statistics.items()}
    return vars(statistics) if isinstance(statistics, RunningMeanStd) else statistics


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), each)
    else:
        yield name, value


def _is_broken(value: Any) -> bool:
    if isinstance(value, th.Tensor):
        return value.is_floating_point() and not bool(th.isfinite(value).all())
    return isinstance(value, float | np.ndarray) and not bool(np.isfinite(value).all())


def _get_counters(run: Run) -> Any:
    held = {name: getattr(run.model, name) for name in COUNTERS if hasattr(run.model, name)}
    return {name: value for name, value in held.items() if is_plain(value)}  # what Monitor is told to keep may not be


def _put_counters(run: Run, state: Any) -> None:
    vars(run.model).update(state)


def _put_buffer(run: Run, state: Any) -> None:
    transitions.set_counters(run.model.replay_buffer, state)


def _noises(run: Run) -> Iterator[Any]:
    noise = run.model.action_noise
    if noise is not None:
        yield noise
    if isinstance(noise, VectorizedActionNoise):
        yield from noise.noises


def _get_noise(run: Run) -> Any:
    return [attributes.capture(noise)[0] for noise in _noises(run)]


def _put_noise(run: Run, state: Any) -> None:
    for noise, held in zip(_noises(run), state, strict=True):  # in place: SB3 holds it while it collects
        attributes.restore(noise, held)


def _explorers(run: Run) -> Iterator[Any]:
    """Give the distributions that explore by gSDE, whose matrices are drawn before a rollout."""
    for module in run.model.policy.modules():
        distribution = getattr(module, "action_dist", None)
        if hasattr(distribution, "exploration_mat"):
            yield distribution


def _get_sde(run: Run) -> Any:
    return [[each.exploration_mat, each.exploration_matrices] for each in _explorers(run)]


def _put_sde(run: Run, state: Any) -> None:
    for each, (one, all_) in zip(_explorers(run), state, strict=True):
        each.exploration_mat, each.exploration_matrices = (value.to(run.model.device) for value in (one, all_))


def _put_environments(run: Run, state: Any) -> None:
    is_there = environments.restore_envs(run.env, state)
    if state["missing"] or not is_there:
        _begin_episodes(run)


def _begin_episodes(run: Run) -> None:
    """Go on from a new episode, as an environment that cannot be put where it was must."""
    model, env = run.model, run.env
    model._last_obs = env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones(env.num_envs, dtype=bool)
    if isinstance(model._vec_normalize_env, VecNormalize):
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    buffer: Any = model.replay_buffer
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # which says what is wanted here
            buffer.truncate_last_trajectory()
    elif hasattr(buffer, "timeouts"):
        cut_last(buffer, np.ones(env.num_envs, dtype=bool))


def _get_evaluations(run: Run) -> Any:
    return {name: environments.capture_envs(env) for name, env in _evaluation_envs(run)}


def _put_evaluations(run: Run, state: Any) -> None:
    held = _by_name(state)
    for name, env in _evaluation_envs(run):
        if name in held:
            environments.restore_envs(env, held[name])


def _evaluation_envs(run: Run) -> Iterator[tuple[str, VecEnv]]:
    for name, callback in run.callbacks.items():
        env = getattr(callback, "eval_env", None)
        if isinstance(env, VecEnv):
            yield name, env


def plain_attributes(callback: BaseCallback) -> dict[str, Any]:
    """
    Give what a callback's attributes hold, as far as it is plain.

    :param callback: the callback
    """
    return {name: value for name, value in vars(callback).items() if name not in OF_CALLBACKS and is_plain(value)}


def _get_callbacks(run: Run) -> Any:
    return {name: [run.begun[name], plain_attributes(callback)] for name, callback in run.callbacks.items()}


def _put_callbacks(run: Run, state: Any) -> None:
    """Give callbacks what has changed in training. What has not is their arguments, which may be others now."""
    held = _by_name(state)
    for name, callback in run.callbacks.items():
        begun, now = held.get(name, ({}, {}))
        changed = {each: value for each, value in now.items() if not _same(value, begun.get(each))}
        run.begun[name] |= {each: begun[each] for each in changed if each in begun}
        vars(callback).update(changed)


def _get_callback_generators(run: Run) -> Any:
    return {name: attributes.generators(callback) for name, callback in run.callbacks.items()}


def _put_callback_generators(run: Run, state: Any) -> None:
    held = _by_name(state)
    for name, callback in run.callbacks.items():
        attributes.restore(callback, held.get(name, {}))


def _same(one: Any, other: Any) -> bool:
    arrays: Arrays = {}
    others: Arrays = {}
    if type(one) is not type(other) or pack(one, arrays) != pack(other, others):
        return False
    return all(np.array_equal(arrays[name], others[name]) for name in arrays)


def _get_logger(run: Run) -> Any:
    logger = run.model.logger
    values = {name: value for name, value in logger.name_to_value.items() if is_plain(value)}
    outputs = [[type(output).__name__, _get_output(output)] for output in logger.output_formats]
    counts, excluded = dict(logger.name_to_count), dict(logger.name_to_excluded)
    return {"values": values, "counts": counts, "excluded": excluded, "outputs": outputs}


def _put_logger(run: Run, state: Any) -> None:
    logger = run.model.logger
    for held, saved in (
        (logger.name_to_value, state["values"]),
        (logger.name_to_count, state["counts"]),
        (logger.name_to_excluded, state["excluded"]),
    ):
        held.clear()
        held.update(saved)
    kept = [(name, saved) for name, saved in state["outputs"] if FILES & saved.keys()]  # what was on a screen is gone
    own = [output for output in logger.output_formats if FILES & _get_output(output).keys()]
    for output, (name, saved) in zip(own, kept, strict=False):
        if type(output).__name__ != name:
            continue
        if isinstance(output, TensorBoardOutputFormat):
            tensorboard.go_on(logger, output, saved)
        else:
            attributes.restore(output, saved)


def _get_output(output: KVWriter) -> dict[str, Any]:
    if isinstance(output, TensorBoardOutputFormat):
        return tensorboard.written(output)
    return attributes.capture(output)[0]


def _get_generators(run: Run) -> Any:
    return {
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if run.model.device.type == "cuda" else [],
        "numpy": np.random.get_state(),  # noqa: NPY002 as SB3 draws
        "python": random.getstate(),
        "spaces": [attributes.freeze(space) for space in (run.model.action_space, run.model.observation_space)],
    }


def _put_generators(run: Run, state: Any) -> None:
    for space, frozen in zip((run.model.action_space, run.model.observation_space), state["spaces"], strict=True):
        attributes.thaw(space, frozen)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002 as SB3 draws
    if state["cuda"]:
        th.cuda.set_rng_state_all(state["cuda"])
    th.set_rng_state(state["torch"])


# In the order in which they are given back: an environment that begins a new episode touches the buffer and draws numbers.
PARTS = {
    "parameters": Part(_get_parameters, _put_parameters),
    "counters": Part(_get_counters, _put_counters),
    "buffer": Part(lambda run: transitions.counters(run.model.replay_buffer), _put_buffer),
    "noise": Part(_get_noise, _put_noise),
    "sde": Part(_get_sde, _put_sde),
    "environments": Part(lambda run: environments.capture_envs(run.env), _put_environments),
    "evaluations": Part(_get_evaluations, _put_evaluations),
    "callbacks": Part(_get_callbacks, _put_callbacks),
    "callback_generators": Part(_get_callback_generators, _put_callback_generators),
    "logger": Part(_get_logger, _put_logger),
    "generators": Part(_get_generators, _put_generators),
}
