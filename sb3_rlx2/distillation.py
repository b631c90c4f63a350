"""
A policy learned from another agent's: the student sees what the teacher does in given observations, and earns nothing.

That is how policies are made small where a large trained one is there to begin with (Rusu et al., 2016, "Policy Distillation",
https://arxiv.org/abs/1511.06295; with pruning, Livne & Cohen, 2020, "PoPS", https://arxiv.org/abs/2001.05012)::

    student = RLx2TD3("MlpPolicy", env, actor_sparsity=0.98)
    distill(student, TD3.load("teacher"), observations, gradient_steps=20_000)
    student.predict(observation)

Only the network that acts learns, by its own optimizer, so that its links move on the way as they do when it learns by itself.
Critics stay as they were.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn
from torch.nn import functional

from sb3_rlx2.evolving import evolving, take_step
from sb3_rlx2.validation import check_integer, check_number

ACTING = ("actor", "q_net", "quantile_net")
COLDEST = 1e-6  # where a softmax is a maximum


def distill(
    student: OffPolicyAlgorithm,
    teacher: OffPolicyAlgorithm,
    observations: np.ndarray,
    gradient_steps: int,
    batch_size: int = 256,
    temperature: float = 0.01,
) -> np.ndarray:
    """
    Teach a policy: one of DQN or QR-DQN which actions are good (the Kullback-Leibler divergence of ``softmax(values /
    temperature)`` from the teacher's), one of TD3 or DDPG the deterministic actions (their mean squared error in ``[-1, 1]``),
    one of SAC, TQC or CrossQ to draw actions alike (the divergence of the Gaussians before tanh).

    The topology of an ``RLx2`` agent evolves by its own arguments over the given gradient steps, and begins anew in the next
    ``learn``. A target of the network is what the network is at the end.

    :param student: the agent that learns, sparse or dense
    :param teacher: the agent that it learns from, of the same spaces: for values one that has values, for Gaussians one that
        has such, for actions any with continuous ones in a bounded space
    :param observations: to learn on, as the environment gives them or a replay buffer holds them (an image whose three sizes
        are equal has its channels first, as there), ``[n, ...]``: some that the teacher has seen. The ``VecNormalize`` of
        each agent, if it has one, normalises them. No dicts
    :param gradient_steps: optimizer steps, those that topology updates take among them
    :param batch_size: observations of each
    :param temperature: what values are divided by before their softmax, at least 1e-6
    :return: loss of each step, ``[gradient_steps]``
    :raises ValueError: if one cannot learn this from the other, or an argument is wrong
    """
    check_integer("gradient_steps", gradient_steps, 1)
    check_integer("batch_size", batch_size, 1)
    check_number("temperature", temperature, COLDEST, np.inf, high_included=False)
    _check_spaces(student, teacher)
    observations = _as_read(student.observation_space, observations)
    says, compare = _lesson(student, teacher, temperature)
    network, optimizer = _acting(student)
    losses = np.zeros(gradient_steps)
    student.policy.set_training_mode(True)
    teacher.policy.set_training_mode(False)
    with evolving(student, gradient_steps) as step:
        for done in range(gradient_steps):
            seen = observations[th.randint(len(observations), (batch_size,)).numpy()]
            with th.no_grad():
                right = says(teacher.policy, _read(teacher, seen))
            with step(done):
                losses[done] = take_step(optimizer, compare(says(student.policy, _read(student, seen)), right))
    student.policy.set_training_mode(False)
    _copy_to_target(student, network)
    return losses


def _acting(model: Any) -> tuple[nn.Module, th.optim.Optimizer]:
    """Give the network that acts, and what trains it."""
    network = getattr(model.policy, _name(model))
    return network, getattr(network, "optimizer", None) or model.policy.optimizer


def _name(model: Any) -> str:
    """Give the attribute of a policy that holds the network that acts."""
    found = next((name for name in ACTING if hasattr(model.policy, name)), None)
    if found is None:
        raise ValueError(f"{type(model).__name__} cannot be distilled: its policy has none of {', '.join(ACTING)}")
    return found


def _copy_to_target(model: Any, network: nn.Module) -> None:
    target = getattr(model.policy, f"{_name(model)}_target", None)
    if target is not None:
        target.load_state_dict(network.state_dict())


def _check_spaces(student: Any, teacher: Any) -> None:
    for name in ("observation_space", "action_space"):
        if getattr(student, name) != getattr(teacher, name):
            raise ValueError(f"teacher: its {name} {getattr(teacher, name)} must be the student's, {getattr(student, name)}")


def _as_read(space: spaces.Space[Any], observations: Any) -> np.ndarray:
    """Give observations in the shape in which policies read them, ``[n, *space.shape]``."""
    shape = space.shape
    if shape is None or isinstance(space, spaces.Dict):
        raise ValueError(f"observation_space={space} must not be a Dict: distill() takes observations as one array")
    if isinstance(observations, np.ndarray) and len(observations) > 0:
        given = observations.shape[1:]
        if given == shape:
            return observations
        if is_image_space(space) and given == (*shape[1:], shape[0]):
            return np.moveaxis(observations, -1, 1)  # the environment's, which SB3 reads with channels first
        if shape == () and given == (1,):
            return observations[:, 0]  # a replay buffer's, of Discrete ones
    what = getattr(observations, "shape", type(observations).__name__)
    raise ValueError(f"observations of {what} must be an array of at least one observation of shape {shape}")


def _read(model: Any, observations: np.ndarray) -> Any:
    """Give observations as the model's networks read them."""
    vecnormalize = model.get_vec_normalize_env()
    seen = observations if vecnormalize is None else vecnormalize.normalize_obs(observations)
    return model.policy.obs_to_tensor(seen)[0]


Says = Callable[[Any, Any], Any]  # what a policy says of observations as its networks read them
Compare = Callable[[Any, Any], th.Tensor]  # the loss of what a student says, by what its teacher says


def _lesson(student: Any, teacher: Any, temperature: float) -> tuple[Says, Compare]:
    """Give what a student of its kind learns."""
    learns, gives = _kind(student), _kind(teacher)
    acts = gives != "values" and teacher.policy.squash_output
    if learns != gives and not (learns == "actions" and acts):
        raise ValueError(
            f"teacher={type(teacher).__name__} cannot teach {type(student).__name__}: the one gives {gives}, the other learns "
            f"{learns}"
        )
    if learns == "values":
        return _values, partial(divergence_of_values, temperature=temperature)
    return (_gaussian, divergence_of_gaussians) if learns == "Gaussians" else (_actions, functional.mse_loss)


def _kind(model: Any) -> str:
    name = _name(model)
    if name != "actor":
        return "values"
    return "Gaussians" if hasattr(model.policy.actor, "get_action_dist_params") else "actions"


def _values(policy: Any, observations: Any) -> th.Tensor:
    """Give the values of all actions, ``[n, A]``."""
    if hasattr(policy, "q_net"):
        return policy.q_net(observations)  # type: ignore[no-any-return]
    return policy.quantile_net(observations).mean(dim=1)  # type: ignore[no-any-return]


def _actions(policy: Any, observations: Any) -> th.Tensor:
    """Give deterministic actions in ``[-1, 1]``, ``[n, A]``."""
    return policy._predict(observations, deterministic=True)  # type: ignore[no-any-return]


def _gaussian(policy: Any, observations: Any) -> th.distributions.Normal:
    mean, log_std, _ = policy.actor.get_action_dist_params(observations)
    return th.distributions.Normal(mean, log_std.exp())


def divergence_of_values(student: th.Tensor, teacher: th.Tensor, temperature: float) -> th.Tensor:
    """
    Give the mean over observations of ``KL(softmax(teacher / temperature), softmax(student / temperature))``.

    :param student: values of the actions, ``[n, A]``
    :param teacher: the same
    :param temperature: the temperature
    """
    own, other = (functional.log_softmax(values / temperature, dim=1) for values in (student, teacher))
    return functional.kl_div(own, other, log_target=True, reduction="batchmean")


def divergence_of_gaussians(student: th.distributions.Normal, teacher: th.distributions.Normal) -> th.Tensor:
    """
    Give the mean over observations of ``KL(teacher, student)``, summed over actions.

    :param student: of ``[n, A]``
    :param teacher: the same
    """
    return th.distributions.kl_divergence(teacher, student).sum(dim=1).mean()
