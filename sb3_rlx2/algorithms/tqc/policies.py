"""TQC's policy with sparse actor and critics."""

import torch as th
from sb3_contrib.tqc.policies import Actor as TQCActor
from sb3_contrib.tqc.policies import Critic as TQCCritic
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_rlx2.algorithms.networks import Critics, GaussianActor
from sb3_rlx2.algorithms.policies import SparseGaussianPolicy, WithExtractor


class SparseTQCActor(GaussianActor, TQCActor):
    """TQC's actor as one sparse network; see :class:`GaussianActor` for the arguments."""


class SparseTQCCritic(Critics, TQCCritic):
    """TQC's critics, each a sparse network that gives quantiles of the return; see :class:`Critics` for the arguments."""

    def forward(self, obs: PyTorchObs, action: th.Tensor) -> th.Tensor:  # type: ignore[override]
        """
        Compute all quantiles.

        :param obs: observations
        :param action: actions in ``[-1, 1]``, ``[batch, A]``
        :return: quantiles, ``[batch, critics, quantiles]``
        """
        return th.stack(tuple(self.outputs(obs, action)), dim=1)


class SparseTQCPolicy(SparseGaussianPolicy, TQCPolicy):
    """
    TQC's policy with sparse actor and critics, for sb3-contrib's own ``TQC`` (with :class:`RLx2Callback`) and for ``RLx2TQC``.

    :param observation_space: observation space
    :param action_space: action space, a Box
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers, a list or a dict with ``pi`` and ``qf``; ``[256, 256]`` by default
    :param use_sde: must be False: gSDE needs the dense last layer that it perturbs
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``; has no default
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``; has no default
    :param actor_start_sparsity: share of zeros that the actor begins with; it then loses links as the callback's
        ``prune_begin`` and ``prune_end`` say. None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param kwargs: the options of all sparse policies, :class:`NetworkOptions`, and the other arguments of
        sb3-contrib's ``TQCPolicy``
    """

    actor_class = SparseTQCActor
    critic_class = SparseTQCCritic


class SparseTQCCnnPolicy(WithExtractor, SparseTQCPolicy):
    """:class:`SparseTQCPolicy` for image observations."""

    default_extractor = NatureCNN


class SparseTQCMultiInputPolicy(WithExtractor, SparseTQCPolicy):
    """:class:`SparseTQCPolicy` for dict observations."""

    default_extractor = CombinedExtractor
