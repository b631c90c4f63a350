"""TD3's policy with sparse actor and critics."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.td3.policies import Actor as TD3Actor
from stable_baselines3.td3.policies import TD3Policy

from sb3_rlx2.algorithms.networks import SparseCritic, Sparsity, features_of, sparsify
from sb3_rlx2.algorithms.policies import SparseActorCriticPolicy, WithExtractor
from sb3_rlx2.sparse_mlp import SparseMLP


class SparseTD3Actor(TD3Actor):
    """
    TD3's actor with a sparse ``mu``.

    :param args: arguments of SB3's actor
    :param sparsity: how sparse it is
    :param kwargs: keyword arguments of SB3's actor
    """

    mu: SparseMLP  # type: ignore[assignment]

    def __init__(self, *args: Any, sparsity: Sparsity | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = Sparsity.of(sparsity)
        self.mu = sparsify(self, "mu", self.mu)

    def sparse_heads(self) -> Sequence[SparseMLP]:
        """Give the one sparse network."""
        return (self.mu,)

    def forward(self, obs: th.Tensor) -> th.Tensor:
        """
        Choose actions.

        :param obs: observations
        :return: actions in ``[-1, 1]``, ``[batch, A]``
        """
        return self.mu(features_of(self, obs))  # type: ignore[no-any-return]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"sparsity": self.sparsity.as_dict()}


class SparseTD3Policy(SparseActorCriticPolicy, TD3Policy):
    """
    TD3's policy with sparse actor and critics, for SB3's own ``TD3`` (with :class:`RLx2Callback`) and for ``RLx2TD3``.

    :param observation_space: observation space
    :param action_space: action space, a Box
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers, a list or a dict with ``pi`` and ``qf``; ``[256, 256]`` by default, as in the paper
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``; has no default
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``; has no default
    :param actor_start_sparsity: share of zeros that the actor begins with; it then loses links as the callback's
        ``prune_begin`` and ``prune_end`` say. None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param kwargs: the options of all sparse policies, :class:`NetworkOptions`, and the other arguments of
        SB3's ``TD3Policy``
    """

    default_net_arch: ClassVar[list[int] | None] = [256, 256]
    actor_class = SparseTD3Actor
    critic_class = SparseCritic

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        return output


class SparseTD3CnnPolicy(WithExtractor, SparseTD3Policy):
    """:class:`SparseTD3Policy` for image observations."""

    default_extractor = NatureCNN


class SparseTD3MultiInputPolicy(WithExtractor, SparseTD3Policy):
    """:class:`SparseTD3Policy` for dict observations."""

    default_extractor = CombinedExtractor
