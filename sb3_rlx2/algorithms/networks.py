"""What the algorithms' networks share: sparse heads behind SB3's features extractors, which stay dense."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from stable_baselines3.sac.policies import Actor as SACActor
from torch import nn

from sb3_rlx2 import backends
from sb3_rlx2.algorithms.extractors import channels_first
from sb3_rlx2.algorithms.keywords import NetworkOptions
from sb3_rlx2.distributions import find_distribution
from sb3_rlx2.hooks import has_hooks
from sb3_rlx2.inits import Surroundings
from sb3_rlx2.sparse_mlp import SparseMLP, is_normalisation

# What the mixins below stand in front of: SB3's classes, and those of sb3-contrib, which are copies of these.
if TYPE_CHECKING:
    GaussianActorHost = SACActor
    CriticHost = ContinuousCritic
else:
    GaussianActorHost = CriticHost = object


@dataclass(frozen=True)
class Sparsity:
    """
    How the networks of one kind (an actor; the critics) are made sparse.

    :param share: share of zeros, in ``[0, 1)``
    :param options: what all networks of a policy have in common
    :param start: share of zeros to begin with, at most ``share``; None if it is that throughout
    :param generator: CPU generator for random draws, None for one of its own
    :param kind: the policy's name for them, as ``"critic"``
    """

    share: float
    options: NetworkOptions
    start: float | None = None
    generator: th.Generator | None = field(default=None, compare=False, repr=False)
    kind: str = field(default="", compare=False, repr=False)

    @classmethod
    def of(cls, given: "Sparsity | Mapping[str, Any]") -> "Sparsity":
        """
        Read what a network is constructed with.

        :param given: the sparsity itself, or what :meth:`as_dict` gave when the network was saved
        """
        if isinstance(given, Sparsity):
            return given
        options = {name: value for name, value in given.items() if name not in ("share", "start", "kind")}
        return cls(given["share"], NetworkOptions(**options), given.get("start"), kind=given.get("kind", ""))

    def as_dict(self) -> dict[str, Any]:
        """Give what a network is saved with: plain values, which know no class."""
        return {"share": self.share, "start": self.start, "kind": self.kind, **vars(self.options.without_path())}


def sparsify(network: Any, head: str, net: nn.Module) -> SparseMLP:
    """
    Turn a dense head into a sparse one.

    :param network: what it is a head of, with its ``sparsity``
    :param head: its name in there
    :param net: what SB3's ``create_mlp`` built
    :raises ValueError: if an option needs a hidden layer and there is none
    """
    assert isinstance(net, nn.Sequential)
    sparsity: Sparsity = network.sparsity
    options, linears = sparsity.options, [module for module in net if isinstance(module, nn.Linear)]
    shapes = [(linear.out_features, linear.in_features) for linear in linears]
    if len(linears) == 1 and (options.fixed or options.l1 > 0.0):
        asked = "hidden_weights='fixed'" if options.fixed else f"l1={options.l1}"
        raise ValueError(f"{asked} is about hidden layers, and net_arch=[] has none")
    if options.fixed and any(map(is_normalisation, net)):
        raise ValueError("hidden_weights='fixed' must be 'learned': behind normalisations, which learn, layers learn too")
    if options.hidden_bias is not None:
        for linear in linears[:-1]:
            nn.init.constant_(linear.bias, options.hidden_bias)
    name = f"{sparsity.kind}.{head}"
    count = find_distribution(options.distribution, name)
    mlp = SparseMLP.from_sequential(
        net,
        count(shapes, sparsity.share if sparsity.start is None else sparsity.start),
        init=options.init,
        generator=sparsity.generator,
        backend=options.backend,
        weight_scale=options.weight_scale,
        final_nnz=count(shapes, sparsity.share),
        surroundings=_surroundings(network, name, shapes[0][1]),
    )
    mlp.freeze(len(linears) - 1 if options.fixed else 0)
    return mlp


def _surroundings(network: Any, name: str, inputs: int) -> Surroundings:
    """Say what the head of a network reads."""
    space, extractor = network.observation_space, type(network.features_extractor)
    if extractor is not FlattenExtractor or not isinstance(space, spaces.Box):
        return Surroundings(name, reads=f"a {extractor.__name__}")
    if inputs != math.prod(space.shape):
        return Surroundings(name, reads="observations and actions")
    if len(space.shape) != 3:
        return Surroundings(name, reads=f"observations of shape {space.shape}")
    grid = th.arange(inputs).view(space.shape)
    return Surroundings(name, grid.permute(1, 2, 0) if channels_first(space) else grid)


class GaussianActor(GaussianActorHost):
    """
    An actor that draws from a squashed Gaussian, as one sparse network whose last layer gives mean and log standard deviation
    together, ``(2A, features)``. Goes before the actor of SB3's SAC, or one like it.

    :param args: arguments of the host's actor
    :param sparsity: how sparse it is
    :param kwargs: keyword arguments of the host's actor
    """

    mean_and_log_std: SparseMLP

    def __init__(self, *args: Any, sparsity: Sparsity | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = Sparsity.of(sparsity)
        mean, log_std = self.mu, self.log_std
        assert isinstance(mean, nn.Linear)
        assert isinstance(log_std, nn.Linear)
        both = nn.Linear(mean.in_features, 2 * mean.out_features, device="meta").to_empty(device="cpu")  # draws no numbers
        with th.no_grad():
            both.weight.copy_(th.cat([mean.weight, log_std.weight]))
            both.bias.copy_(th.cat([mean.bias, log_std.bias]))
        self.mean_and_log_std = sparsify(self, "mean_and_log_std", nn.Sequential(*self.latent_pi, both))
        del self.latent_pi, self.mu, self.log_std

    def sparse_heads(self) -> Sequence[SparseMLP]:
        """Give the one sparse network."""
        return (self.mean_and_log_std,)

    def get_action_dist_params(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, dict[str, th.Tensor]]:
        """
        Give the parameters of the action distribution.

        :param obs: observations
        :return: mean and log standard deviation, ``[batch, A]`` each, and no further arguments
        """
        mean, log_std = self.mean_and_log_std(features_of(self, obs)).chunk(2, dim=1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX), {}

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        Sample actions as SB3's squashed Gaussian does, without torch's distribution objects, which check every argument.

        :param obs: observations
        :return: actions in ``[-1, 1]``, ``[batch, A]``, and their log-probability, ``[batch]``
        """
        raw = self.mean_and_log_std(features_of(self, obs))
        noise = th.randn(len(raw), raw.shape[1] // 2, dtype=raw.dtype, device=raw.device)  # as `Normal.rsample` draws
        return backends.squash(raw, noise, self.mean_and_log_std)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"sparsity": self.sparsity.as_dict()}


class Critics(CriticHost):
    """
    Critics with sparse Q-networks: the same number of links in each, each with its own topology. Goes before the critic of
    SB3, or one like it.

    :param args: arguments of the host's critic
    :param sparsity: how sparse each is
    :param kwargs: keyword arguments of the host's critic
    """

    q_networks: list[Any]  # of SparseMLP, where SB3 has its own

    def __init__(self, *args: Any, sparsity: Sparsity | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = Sparsity.of(sparsity)
        self.q_networks = [sparsify(self, f"qf{number}", q_net) for number, q_net in enumerate(self.q_networks)]
        for number, q_net in enumerate(self.q_networks):
            setattr(self, f"qf{number}", q_net)

    def sparse_heads(self) -> Sequence[SparseMLP]:
        """Give the Q-networks."""
        return self.q_networks

    def forward(self, obs: PyTorchObs, actions: th.Tensor) -> Any:
        """
        Compute all Q-values.

        :param obs: observations
        :param actions: actions in ``[-1, 1]``, ``[batch, A]``
        :return: Q-values of each network, ``[batch, 1]``
        """
        return self.outputs(obs, actions)

    def outputs(self, obs: PyTorchObs, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        Compute all Q-networks in one call of the backend.

        :param obs: observations
        :param actions: actions in ``[-1, 1]``, ``[batch, A]``
        :return: output of each network, ``[batch, outputs]``
        """
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            features = features_of(self, obs)
        x = th.cat([features, actions], dim=1)
        if any(map(has_hooks, self.q_networks)):
            return tuple(q_net(x) for q_net in self.q_networks)
        return backends.forward(self.q_networks, x)


class SparseCritic(Critics, ContinuousCritic):
    """SB3's critic with sparse Q-networks; see :class:`Critics` for the arguments."""


def features_of(network: Any, obs: PyTorchObs) -> th.Tensor:
    """
    Give what SB3's ``extract_features`` gives, at no cost where that hands flat observations through.

    :param network: actor or critic
    :param obs: observations
    """
    extractor = network.features_extractor
    if (
        type(extractor) is FlattenExtractor
        and isinstance(obs, th.Tensor)
        and obs.dtype == th.float32
        and obs.ndim == 2
        and isinstance(network.observation_space, spaces.Box)
        and not has_hooks(extractor)
    ):
        return obs
    features: th.Tensor = network.extract_features(obs, extractor)
    return features
