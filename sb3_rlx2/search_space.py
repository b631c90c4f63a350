"""What the tuning of RLx2TD3 and RLx2SAC searches: SB3's hyper-parameters as RL Zoo does, and RLx2's own."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_offpolicy_params, sample_sac_params, sample_td3_params

from sb3_rlx2.topology import TOPOLOGIES

HER_PARAMETERS = ("n_sampled_goal", "goal_selection_strategy")


def sample_rlx2td3(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Sample hyper-parameters of RLx2TD3.

    :param trial: the trial that suggests them
    :param n_actions: size of the action, for the exploration noise
    :param n_envs: number of environments
    :param additional_args: the zoo's, about HER
    :return: arguments of the algorithm
    """
    hyperparams = sample_td3_params(trial, n_actions, n_envs, additional_args)
    # The zoo says nothing where it samples no noise, which would leave the default's.
    return {"action_noise": None} | hyperparams | _sample_own(trial)


def sample_rlx2sac(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Sample hyper-parameters of RLx2SAC.

    :param trial: the trial that suggests them
    :param n_actions: not used
    :param n_envs: number of environments
    :param additional_args: the zoo's, about HER
    :return: arguments of the algorithm
    """
    return sample_sac_params(trial, n_actions, n_envs, additional_args) | _sample_own(trial)


def _sample_own(trial: optuna.Trial) -> dict[str, Any]:
    sampled = {
        # A network of 1 % is to one of 2 % what one of 10 % is to one of 20 %.
        "actor_density": trial.suggest_float("actor_density", 0.01, 0.5, log=True),
        "critic_density": trial.suggest_float("critic_density", 0.01, 0.5, log=True),
        "topology": trial.suggest_categorical("topology", list(TOPOLOGIES)),
        "drop_fraction": trial.suggest_float("drop_fraction", 0.1, 0.8),
        "update_interval": trial.suggest_int("update_interval", 100, 20_000, log=True),
        "n_steps": trial.suggest_int("n_steps", 1, 5),
        "n_steps_delay": trial.suggest_float("n_steps_delay", 0.0, 0.5),
        "policy_distance_threshold": trial.suggest_float("policy_distance_threshold", 0.02, 2.0, log=True),
        # From 2**10=1,024 to 2**18=262,144
        "buffer_min_size_pow": trial.suggest_int("buffer_min_size_pow", 10, 18),
    }
    converted = _convert_own(sampled)
    for name in ("actor_sparsity", "critic_sparsity", "buffer_min_size"):
        trial.set_user_attr(name, converted[name])
    return converted


def convert(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Convert the parameters of a trial to hyper-parameters, for either algorithm.

    :param sampled_params: as Optuna stores them
    :return: arguments of the algorithm, with noise in the zoo's terms (its type may be None)
    """
    hyperparams = _convert_own(convert_offpolicy_params(sampled_params))
    her = {name: hyperparams.pop(name) for name in HER_PARAMETERS if name in hyperparams}
    return hyperparams | ({"replay_buffer_kwargs": her} if her else {})


def _convert_own(sampled: dict[str, Any]) -> dict[str, Any]:
    hyperparams = sampled.copy()
    for network in ("actor", "critic"):
        hyperparams[f"{network}_sparsity"] = 1 - hyperparams.pop(f"{network}_density")
    hyperparams["buffer_min_size"] = 2 ** hyperparams.pop("buffer_min_size_pow")
    return hyperparams


SAMPLERS = {"rlx2td3": sample_rlx2td3, "rlx2sac": sample_rlx2sac}
