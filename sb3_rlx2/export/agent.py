"""Takes the networks of an agent of Stable-Baselines3 apart, and refuses what a description cannot hold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from sb3_contrib.common.torch_layers import BatchRenorm
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_rlx2 import __version__
from sb3_rlx2.export.description import LARGEST, Description, Stage
from sb3_rlx2.sparse_mlp import SparseMLP

ORIGIN = {"version": __version__, "command": "sb3_rlx2.export.describe"}
# Whoever defines one of these anew may compute something else; in these packages they are known.
KNOWN_PACKAGES = {"sb3_contrib", "sb3_rlx2", "stable_baselines3", "torch"}
METHODS = (
    *("forward", "forward_actor", "predict", "_predict", "act", "extract_features", "obs_to_tensor", "unscale_action"),
    *("get_action_dist_params", "get_distribution", "_get_action_dist_from_latent"),
)


class Parts(NamedTuple):
    """
    What of a policy makes the deterministic action.

    :param network: the network that is asked
    :param modules: from features to output
    :param output: what is done with the output, see :class:`Description`
    :param mix: what the last linear layer's outputs are multiplied by, ``[outputs, outputs before]``; None if by nothing
    :param squash: whether tanh follows
    """

    network: Any
    modules: Sequence[nn.Module]
    output: str
    mix: np.ndarray | None = None
    squash: bool = False


def describe(model: Any, vecnormalize: Any = None, **about: Any) -> Description:
    """
    Describe the deterministic policy of an agent.

    :param model: an agent of Stable-Baselines3, sb3-contrib or this package, for flat observations
    :param vecnormalize: the ``VecNormalize`` that it was trained with, None if it was with none
    :param about: texts and numbers that are to be stored with it
    :raises ValueError: if it computes what cannot be exported, by name, or one of them is something else
    """
    if not isinstance(model, BaseAlgorithm):
        raise ValueError(f"model={model!r} must be an agent, as RLx2TD3.load gives")
    if vecnormalize is not None and not isinstance(vecnormalize, VecNormalize):
        raise ValueError(f"vecnormalize={vecnormalize!r} must be None or a VecNormalize, as VecNormalize.load gives")
    if vecnormalize is None and model.get_vec_normalize_env() is not None:
        raise ValueError("vecnormalize=None must be the agent's, as model.get_vec_normalize_env() gives it")
    policy: Any = model.policy
    name = f"{type(model).__name__} with {type(policy).__name__}"
    parts = _parts(policy, name)
    if getattr(model, "use_sde", False):
        raise ValueError(f"use_sde=True of {name} cannot be exported: gSDE limits the mean by a layer of its own")
    _check_spaces(policy, parts.network, name)
    for part in (model, policy, parts.network, *parts.modules):
        _check_methods(part)
    chain = _Chain()
    for module in parts.modules:
        chain.add(module)
    stages = chain.finish(parts.mix, parts.squash)
    actions = policy.action_space
    low, high = np.zeros((2, 0)) if parts.output == "argmax" else np.stack([actions.low.ravel(), actions.high.ravel()])
    shape = list(policy.observation_space.shape)
    facts = {"algorithm": type(model).__name__, "env": "", "observation_shape": shape, **ORIGIN, **about}
    mean, std, clip = _normaliser(vecnormalize, policy.observation_space)
    return Description(tuple(stages), parts.output, low, high, mean, std, clip, chain.live, chain.size, facts)


def _td3(policy: Any) -> Parts:
    return Parts(policy.actor, (policy.actor.mu,), "unscale")


def _sac(policy: Any) -> Parts:
    """Where mean and log_std come from one network, as in our sparse actors, the mean comes first."""
    actor, actions = policy.actor, int(np.prod(policy.action_space.shape))
    if hasattr(actor, "mean_and_log_std"):
        return Parts(actor, (actor.mean_and_log_std,), "unscale", np.eye(actions, 2 * actions), squash=True)
    return Parts(actor, (actor.latent_pi, actor.mu), "unscale", squash=True)


def _dqn(policy: Any) -> Parts:
    return Parts(policy.q_net, (policy.q_net.q_net,), "argmax")


def _qrdqn(policy: Any) -> Parts:
    """The mean over quantiles is linear, so the last layer can give it at once: ``[quantiles, actions]``, flattened."""
    network, actions = policy.quantile_net, int(policy.action_space.n)
    mean = np.kron(np.ones((1, network.n_quantiles)) / network.n_quantiles, np.eye(actions))
    return Parts(network, (network.quantile_net,), "argmax", mean)


def _actor_critic(policy: Any) -> Parts:
    if policy.squash_output:
        raise ValueError(f"squash_output=True of {type(policy).__name__} cannot be exported")
    output = "argmax" if isinstance(policy.action_space, spaces.Discrete) else "clip"
    return Parts(policy.mlp_extractor, (policy.mlp_extractor.policy_net, policy.action_net), output)


# By the class of the policy as SB3 and sb3-contrib name it, whose subclasses are built alike.
PARTS: dict[str, Callable[[Any], Parts]] = {
    "TD3Policy": _td3,  # DDPG's too
    "SACPolicy": _sac,
    "TQCPolicy": _sac,
    "CrossQPolicy": _sac,
    "DQNPolicy": _dqn,
    "QRDQNPolicy": _qrdqn,
    "ActorCriticPolicy": _actor_critic,  # A2C's, PPO's, TRPO's
}


def _parts(policy: Any, name: str) -> Parts:
    classes = [cls.__name__ for cls in type(policy).__mro__]
    found = next((PARTS[cls] for cls in classes if cls in PARTS), None)
    if found is None or "RecurrentActorCriticPolicy" in classes:
        raise ValueError(f"{name} cannot be exported; policies of these kinds can: {', '.join(PARTS)}")
    if not isinstance(policy.action_space, spaces.Box | spaces.Discrete):
        raise ValueError(f"action_space={policy.action_space} of {name} cannot be exported, it must be a Box or Discrete")
    return found(policy)


def _check_spaces(policy: Any, network: Any, name: str) -> None:
    space = policy.observation_space
    if not isinstance(space, spaces.Box):
        raise ValueError(f"observation_space={space} of {name} cannot be exported, it must be a Box")
    extractor = getattr(network, "features_extractor", None) or policy.pi_features_extractor
    if type(extractor) is not FlattenExtractor:
        raise ValueError(
            f"features_extractor={type(extractor).__name__} of {name} cannot be exported, only FlattenExtractor can"
        )
    if is_image_space(space):  # of which SB3 also moves the channels
        raise ValueError(f"observation_space={space} of {name} cannot be exported: it holds images")


def _check_methods(part: Any) -> None:
    """Refuse what others have defined anew, in a class or on an object, and hooks."""
    for method in METHODS:
        owner = next((cls for cls in type(part).__mro__ if method in vars(cls)), object)
        known = owner is object or owner.__module__.partition(".")[0] in KNOWN_PACKAGES
        if not known or method in vars(part):
            raise ValueError(f"{type(part).__name__} cannot be exported: it has a method {method} of its own")
    if isinstance(part, nn.Module) and (part._forward_hooks or part._forward_pre_hooks):
        raise ValueError(f"{type(part).__name__} cannot be exported: it has forward hooks")


def count_frames(shape: tuple[int, ...], frame: tuple[int, ...]) -> int:
    """
    Count the frames that an agent sees at once, side by side in the last dimension, as ``VecFrameStack`` puts them.

    :param shape: of what the agent reads
    :param frame: shape of a frame
    :return: their number, 0 if what it reads does not consist of such frames
    """
    fits = len(shape) == len(frame) >= 1 and shape[:-1] == frame[:-1] and shape[-1] % frame[-1] == 0
    return shape[-1] // frame[-1] if fits else 0


def statistics_of_frames(vecnormalize: VecNormalize, shape: tuple[int, ...]) -> VecNormalize:
    """
    Give what normalises all frames that an agent sees at once, which the zoo stacks after each has been normalised.

    :param vecnormalize: normalises a frame
    :param shape: of what the agent reads
    :raises ValueError: if it does not consist of such frames
    """
    if not vecnormalize.norm_obs:
        return vecnormalize
    of_frame = vecnormalize.obs_rms
    count = 0 if isinstance(of_frame, dict) else count_frames(shape, of_frame.mean.shape)
    if count == 0:
        raise ValueError(f"vecnormalize: its statistics must be of the agent's observations, of shape {shape}")
    assert isinstance(of_frame, RunningMeanStd)
    # Not by `copy`, which takes the environment away, and one from a file has none.
    stacked = VecNormalize.__new__(VecNormalize)
    vars(stacked).update(vars(vecnormalize))
    stacked.obs_rms = RunningMeanStd(shape=shape)
    stacked.obs_rms.mean, stacked.obs_rms.var = np.tile(of_frame.mean, count), np.tile(of_frame.var, count)
    return stacked


def _normaliser(vecnormalize: Any, space: spaces.Box) -> tuple[np.ndarray | None, np.ndarray | None, float]:
    if vecnormalize is None or not vecnormalize.norm_obs:
        return None, None, 0.0
    statistics: Any = statistics_of_frames(vecnormalize, space.shape).obs_rms
    std = np.sqrt(statistics.var + vecnormalize.epsilon)
    mean, clip = statistics.mean.ravel().astype(np.float64), min(float(vecnormalize.clip_obs), LARGEST)
    return mean, std.ravel().astype(np.float64), clip


class _Chain:
    """Layers, as modules add to them; all that is linear ends up in weights and biases."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.live = self.size = 0
        self._open = False  # whether the last layer has no activation yet
        self._pending: tuple[np.ndarray, np.ndarray] | None = None  # scale and shift of the inputs of the next layer

    def add(self, module: nn.Module) -> None:
        """
        Add a module.

        :param module: linear layers, normalisation and activations, or a sequence of them
        :raises ValueError: if it is something else
        """
        _check_methods(module)
        if isinstance(module, nn.Sequential):
            for child in module:
                self.add(child)
        elif isinstance(module, SparseMLP):
            self._add_sparse(module)
        elif isinstance(module, nn.Linear):
            self._add_linear(
                _array(module.weight), np.zeros(module.out_features) if module.bias is None else _array(module.bias)
            )
            self.live, self.size = self.live + module.weight.numel(), self.size + module.weight.numel()
        elif isinstance(module, BatchRenorm):
            self._add_affine(module)
        else:
            self._add_activation(module)

    def _add_sparse(self, net: SparseMLP) -> None:
        biases = np.split(_array(net.bias), np.cumsum([layer.out_features for layer in net.layers])[:-1])
        last = len(net.layers) - 1
        for number, (weight, bias) in enumerate(zip(net.dense_weights(), biases, strict=True)):
            if net.norms is not None:
                self.add(net.norms[number])
            self._add_linear(_array(weight), bias)
            self.add(net.output_activation if number == last else net.hidden_activation)
        self.live, self.size = self.live + net.nnz, self.size + net.size

    def _add_linear(self, weight: np.ndarray, bias: np.ndarray) -> None:
        if self._pending is not None:
            scale, shift = self._pending
            weight, bias, self._pending = weight * scale, bias + weight @ shift, None
        self.stages.append(Stage(weight, bias))
        self._open = True

    def _add_affine(self, norm: BatchRenorm) -> None:
        """Add what BatchRenorm does in evaluation mode: to the layer before if nothing lies between, else to the next."""
        scale = 1 / np.sqrt(_array(norm.ra_var) + norm.eps)
        shift = -_array(norm.ra_mean) * scale
        if norm.affine:
            gain = _array(norm.scale)
            scale, shift = gain * scale, gain * shift + _array(norm.bias)
        if self._open:
            stage = self.stages[-1]
            self.stages[-1] = Stage(scale[:, None] * stage.weight, scale * stage.bias + shift)
        else:
            assert self._pending is None, "two normalisations in a row"
            self._pending = scale, shift

    def _add_activation(self, module: nn.Module) -> None:
        name = _activation(module)
        if name == "identity":
            return
        if not self._open:
            raise ValueError(f"{type(module).__name__} cannot be exported where no linear layer is before it")
        self.stages[-1] = replace(self.stages[-1], activation=name)
        self._open = False

    def finish(self, mix: np.ndarray | None, squash: bool) -> list[Stage]:
        """
        Give the layers.

        :param mix: what the outputs are multiplied by
        :param squash: whether tanh follows
        """
        if mix is not None:
            stage = self.stages[-1]
            assert self._open
            self.stages[-1] = Stage(mix @ stage.weight, mix @ stage.bias)
        if squash:
            self._add_activation(nn.Tanh())
        return self.stages


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().double())


def _activation(module: nn.Module) -> str:
    plain = {
        nn.Identity: "identity",
        nn.ReLU: "relu",
        nn.Tanh: "tanh",
        nn.ELU: "elu" if getattr(module, "alpha", None) == 1.0 else None,
        nn.LeakyReLU: "leaky_relu" if getattr(module, "negative_slope", None) == 0.01 else None,
    }
    name = plain.get(type(module))
    if name is None:
        raise ValueError(f"{module} cannot be exported; ReLU(), Tanh(), ELU(), LeakyReLU() and linear layers can")
    return name
