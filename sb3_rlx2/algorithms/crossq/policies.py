"""CrossQ's policy with sparse actor and critics."""

from typing import TYPE_CHECKING, Any

import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm1d
from sb3_contrib.crossq.policies import Actor as HostActor
from sb3_contrib.crossq.policies import CrossQCritic, CrossQPolicy
from torch import nn

from sb3_rlx2.algorithms.networks import Critics, GaussianActor
from sb3_rlx2.algorithms.policies import SparseGaussianPolicy
from sb3_rlx2.backends.batch_renorm import Renorm

if TYPE_CHECKING:
    NetworkHost = nn.Module
else:
    NetworkHost = object


class SparseBatchRenorm1d(Renorm, BatchRenorm1d):
    """sb3-contrib's, for units that may have no links; see :class:`Renorm`."""


class WithRenorm(NetworkHost):
    """Puts :class:`SparseBatchRenorm1d` in the place of the host's; goes before a network of CrossQ."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parent in list(self.modules()):
            for name, norm in parent.named_children():
                if type(norm) is BatchRenorm1d:
                    options = norm.eps, norm.momentum, norm.affine, norm.warmup_steps
                    setattr(parent, name, SparseBatchRenorm1d(norm.num_features, *options))


class SparseCrossQActor(GaussianActor, WithRenorm, HostActor):
    """CrossQ's actor as one sparse network; see :class:`GaussianActor` for the arguments."""


class SparseCrossQCritic(Critics, WithRenorm, CrossQCritic):
    """CrossQ's critics with sparse Q-networks; see :class:`Critics` for the arguments."""


class SparseCrossQPolicy(SparseGaussianPolicy, CrossQPolicy):
    """
    CrossQ's policy with sparse actor and critics, for sb3-contrib's own ``CrossQ`` (with :class:`RLx2Callback`) and for
    ``RLx2CrossQ``. BatchRenorm stays dense, it has two parameters for each input of a layer. Links are dropped by the size of
    their weight as it is, because behind a normalisation all inputs of a layer are of one size.

    :param observation_space: observation space
    :param action_space: action space, a Box
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers, a list or a dict with ``pi`` and ``qf``; ``pi`` of ``[256, 256]`` and ``qf`` of
        ``[1024, 1024]`` by default
    :param use_sde: must be False: gSDE needs the dense last layer that it perturbs
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``; has no default
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``; has no default
    :param actor_start_sparsity: share of zeros that the actor begins with; it then loses links as the callback's
        ``prune_begin`` and ``prune_end`` say. None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param kwargs: the options of all sparse policies, :class:`NetworkOptions` (but for ``hidden_weights="fixed"``), and the
        other arguments of sb3-contrib's ``CrossQPolicy``
    """

    actor_class = SparseCrossQActor
    critic_class = SparseCrossQCritic

    def entropy_bonus(self, model: Any, obs: th.Tensor) -> th.Tensor:
        """
        Give the entropy bonus as :class:`SparseGaussianPolicy` does, without a trace in BatchRenorm's statistics.

        :param model: the algorithm
        :param obs: observations, ``[n, ...]``
        :return: the entropy bonus, ``[n]``
        """
        self.actor.set_bn_training_mode(False)  # as the host before it asks for next actions, which comes after this
        return super().entropy_bonus(model, obs)
