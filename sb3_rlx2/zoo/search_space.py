"""What the tuning of our algorithms searches: SB3's hyper-parameters as RL Zoo does, and RLx2's own."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import optuna
from gymnasium import spaces
from rl_zoo3.hyperparams_opt import (
    HYPERPARAMS_CONVERTER,
    HYPERPARAMS_SAMPLER,
    convert_offpolicy_params,
    sample_sac_params,
)

from sb3_rlx2.algorithms.table import ALGORITHMS

HER_PARAMETERS = ("n_sampled_goal", "goal_selection_strategy")
# Distances of discrete actions lie around 1 where policies are unrelated, and beyond 1.5 where few are.
THRESHOLDS = {spaces.Box: (0.02, 2.0), spaces.Discrete: (0.3, 1.5)}


class _WithoutTau:
    """A trial that suggests all but ``tau``."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_float(self, name: str, *args: Any, **kwargs: Any) -> float:
        return math.nan if name == "tau" else self._trial.suggest_float(name, *args, **kwargs)


def sample_crossq(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Sample what RL Zoo does for SAC, which it does not for CrossQ, without ``tau``: there are no target networks.

    :param trial: the trial
    :param n_actions: size of the action
    :param n_envs: number of environments
    :param additional_args: the zoo's arguments about HER
    """
    reduced: Any = _WithoutTau(trial)
    sampled: dict[str, Any] = sample_sac_params(reduced, n_actions, n_envs, additional_args)
    del sampled["tau"]
    return sampled


# Those of the zoo's algorithms; it lacks CrossQ's.
HOSTS = {"crossq": sample_crossq} | HYPERPARAMS_SAMPLER


def make_sampler(algo: str) -> Callable[[optuna.Trial, int, int, dict[str, Any]], dict[str, Any]]:
    """
    Make the function that samples an algorithm's hyper-parameters: those of SB3's own as RL Zoo does, and RLx2's.

    :param algo: its name in the zoo
    :return: function of the trial, the size of the action, the number of environments and the zoo's arguments about HER
    """
    sample_hosts = HOSTS[algo.removeprefix("rlx2")]
    # The zoo says nothing where it samples no noise, which would leave our default's.
    no_noise = {"action_noise": None} if inspect.signature(ALGORITHMS[algo]).parameters.get("action_noise") else {}

    def sample(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
        hosts: dict[str, Any] = sample_hosts(trial, n_actions, n_envs, additional_args)
        return no_noise | hosts | _sample_own(algo, trial)

    return sample


def _sample_own(algo: str, trial: optuna.Trial) -> dict[str, Any]:
    policy_class = ALGORITHMS[algo].sparse_policy_class
    keywords = list(policy_class.networks.values())
    densities = [keyword.replace("sparsity", "density") for keyword in keywords]
    thresholds = THRESHOLDS[policy_class.action_spaces]
    sampled = {
        # A network of 1 % is to one of 2 % what one of 10 % is to one of 20 %.
        **{name: trial.suggest_float(name, 0.01, 0.5, log=True) for name in densities},
        "topology": trial.suggest_categorical("topology", ["rigl", "set", "static"]),
        "drop_fraction": trial.suggest_float("drop_fraction", 0.1, 0.8),
        "update_interval": trial.suggest_int("update_interval", 100, 20_000, log=True),
        "n_steps": trial.suggest_int("n_steps", 1, 5),
        "n_steps_delay": trial.suggest_float("n_steps_delay", 0.0, 0.5),
        "policy_distance_threshold": trial.suggest_float("policy_distance_threshold", *thresholds, log=True),
        # From 2**10=1,024 to 2**18=262,144
        "buffer_min_size_pow": trial.suggest_int("buffer_min_size_pow", 10, 18),
    }
    converted = _convert_own(sampled)
    for name in (*keywords, "buffer_min_size"):
        trial.set_user_attr(name, converted[name])
    return converted


def convert(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Convert the parameters of a trial to hyper-parameters, for any of our algorithms.

    :param sampled_params: as Optuna stores them
    :return: arguments of the algorithm, with noise in the zoo's terms (its type may be None)
    """
    hyperparams = _convert_own(convert_offpolicy_params(sampled_params))
    her = {name: hyperparams.pop(name) for name in HER_PARAMETERS if name in hyperparams}
    return hyperparams | ({"replay_buffer_kwargs": her} if her else {})


def _convert_own(sampled: dict[str, Any]) -> dict[str, Any]:
    hyperparams = sampled.copy()
    for name in [name for name in sampled if name.endswith("density")]:
        hyperparams[name.replace("density", "sparsity")] = 1 - hyperparams.pop(name)
    hyperparams["buffer_min_size"] = 2 ** hyperparams.pop("buffer_min_size_pow")
    return hyperparams


SAMPLERS = {algo: make_sampler(algo) for algo in ALGORITHMS}


def register() -> None:
    """Make the search spaces known to rl_zoo3."""
    HYPERPARAMS_SAMPLER.update(HOSTS | SAMPLERS)
    HYPERPARAMS_CONVERTER.update(
        {"crossq": convert_offpolicy_params} | HYPERPARAMS_CONVERTER | dict.fromkeys(SAMPLERS, convert)
    )
