"""SB3's actor and critic networks with sparse heads. Features extractors stay dense."""

from collections.abc import Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from stable_baselines3.sac.policies import Actor as SACActor
from stable_baselines3.td3.policies import Actor as TD3Actor
from torch import nn

from sb3_rlx2 import backends
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.sparse_mlp import SparseMLP
from sb3_rlx2.validation import lookup


class SparseTD3Actor(TD3Actor):
    """
    TD3's actor with a sparse ``mu``.

    :param args: arguments of SB3's actor
    :param sparsity: see :func:`thin`
    :param kwargs: keyword arguments of SB3's actor
    """

    def __init__(self, *args: Any, sparsity: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        self.mu = thin(self.mu, **sparsity)  # type: ignore[assignment]

    def sparse_heads(self) -> Sequence[SparseMLP]:
        """Give the one sparse network."""
        return (self.mu,)  # type: ignore[return-value]

    def forward(self, obs: th.Tensor) -> th.Tensor:
        """
        Choose actions.

        :param obs: observations
        :return: actions in ``[-1, 1]``, ``[batch, A]``
        """
        return self.mu(features_of(self, obs))  # type: ignore[no-any-return]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"sparsity": _without_generator(self.sparsity)}


class SparseSACActor(SACActor):
    """
    SAC's actor as one sparse network, whose last layer gives mean and log standard deviation together, ``(2A, features)``.

    :param args: arguments of SB3's actor
    :param sparsity: see :func:`thin`
    :param kwargs: keyword arguments of SB3's actor
    """

    def __init__(self, *args: Any, sparsity: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        mean, log_std = self.mu, self.log_std
        assert isinstance(log_std, nn.Linear)
        both = nn.Linear(mean.in_features, 2 * mean.out_features, device="meta").to_empty(device="cpu")  # draws no numbers
        with th.no_grad():
            both.weight.copy_(th.cat([mean.weight, log_std.weight]))
            both.bias.copy_(th.cat([mean.bias, log_std.bias]))
        self.mean_and_log_std: SparseMLP = thin(nn.Sequential(*self.latent_pi, both), **sparsity)
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
        features = features_of(self, obs)
        mean, log_std = self.mean_and_log_std(features).chunk(2, dim=1)
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
        return super()._get_constructor_parameters() | {"sparsity": _without_generator(self.sparsity)}


class SparseCritic(ContinuousCritic):
    """
    SB3's critic with sparse Q-networks: the same number of links in each, each with its own topology.

    :param args: arguments of SB3's critic
    :param sparsity: see :func:`thin`
    :param kwargs: keyword arguments of SB3's critic
    """

    def __init__(self, *args: Any, sparsity: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.q_networks: list[SparseMLP] = [thin(q_net, **sparsity) for q_net in self.q_networks]  # type: ignore[assignment]
        for number, q_net in enumerate(self.q_networks):
            setattr(self, f"qf{number}", q_net)

    def sparse_heads(self) -> Sequence[SparseMLP]:
        """Give the Q-networks."""
        return self.q_networks

    def forward(self, obs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        Compute all Q-values in one call of the backend.

        :param obs: observations
        :param actions: actions in ``[-1, 1]``, ``[batch, A]``
        :return: Q-values of each network, ``[batch, 1]``
        """
        if self.share_features_extractor:
            with th.no_grad():
                features = features_of(self, obs)
        else:
            features = features_of(self, obs)
        x = th.cat([features, actions], dim=1)
        if any(map(has_hooks, self.q_networks)):
            return tuple(q_net(x) for q_net in self.q_networks)
        return backends.forward(self.q_networks, x)


def hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """
    Give what calling a module does besides its ``forward``, there and on the way back: dicts that stay the module's.

    :param module: any
    """
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def has_hooks(module: nn.Module) -> bool:
    """
    Tell whether calling a module does more than its ``forward``.

    :param module: any
    """
    return any(hooks(module))


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


def thin(
    net: nn.Module, share: float, distribution: str, init: str, backend: str, generator: th.Generator | None = None
) -> SparseMLP:
    """
    Turn a dense head into a sparse one.

    :param net: what SB3's ``create_mlp`` built
    :param share: share of zeros, in ``[0, 1)``
    :param distribution: ``"erdos_renyi"`` (``"erk"``) or ``"uniform"``
    :param init: ``"magnitude"`` or ``"random"``
    :param backend: ``"auto"``, ``"csr"`` or ``"masked"``
    :param generator: CPU generator for random draws
    """
    assert isinstance(net, nn.Sequential)
    shapes = [(linear.out_features, linear.in_features) for linear in net if isinstance(linear, nn.Linear)]
    nnz = lookup("distribution", distribution, DISTRIBUTIONS)(shapes, share)
    return SparseMLP.from_sequential(net, nnz, init=init, generator=generator, backend=backend)


def _without_generator(sparsity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sparsity.items() if name != "generator"}
