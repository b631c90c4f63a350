"""SAC's policy with sparse actor and critics."""

from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.sac.policies import Actor as SACActor
from stable_baselines3.sac.policies import SACPolicy

from sb3_rlx2.algorithms.networks import GaussianActor, SparseCritic
from sb3_rlx2.algorithms.policies import SparseGaussianPolicy, WithExtractor


class SparseSACActor(GaussianActor, SACActor):
    """SAC's actor as one sparse network; see :class:`GaussianActor` for the arguments."""


class SparseSACPolicy(SparseGaussianPolicy, SACPolicy):
    """
    SAC's policy with sparse actor and critics, for SB3's own ``SAC`` (with :class:`RLx2Callback`) and for ``RLx2SAC``.

    :param observation_space: observation space
    :param action_space: action space, a Box
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers, a list or a dict with ``pi`` and ``qf``; ``[256, 256]`` by default, as in the paper
    :param use_sde: must be False: gSDE needs the dense last layer that it perturbs
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``; has no default
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``; has no default
    :param actor_start_sparsity: share of zeros that the actor begins with; it then loses links as the callback's
        ``prune_begin`` and ``prune_end`` say. None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param kwargs: the options of all sparse policies, :class:`NetworkOptions`, and the other arguments of
        SB3's ``SACPolicy``
    :raises ValueError: with ``use_sde``, or if a keyword is out of its range
    """

    actor_class = SparseSACActor
    critic_class = SparseCritic


class SparseSACCnnPolicy(WithExtractor, SparseSACPolicy):
    """:class:`SparseSACPolicy` for image observations."""

    default_extractor = NatureCNN


class SparseSACMultiInputPolicy(WithExtractor, SparseSACPolicy):
    """:class:`SparseSACPolicy` for dict observations."""

    default_extractor = CombinedExtractor
