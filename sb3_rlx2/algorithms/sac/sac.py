"""RLx2SAC: SB3's SAC put together with the sparse parts."""

from typing import Any, ClassVar

from stable_baselines3 import SAC
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.sac.policies import SACPolicy
from typing_extensions import Unpack

from sb3_rlx2.algorithms.entropy_coefficient import EntropyAlgorithm
from sb3_rlx2.algorithms.keywords import TargetKeywords
from sb3_rlx2.algorithms.networks import SparseCritic
from sb3_rlx2.algorithms.sac.policies import SparseSACActor, SparseSACCnnPolicy, SparseSACMultiInputPolicy, SparseSACPolicy
from sb3_rlx2.plan import LEARNING_STARTS


class SACKeywords(TargetKeywords, total=False):
    """The types of the keyword arguments that ``RLx2SAC`` takes besides those in its signature."""

    soft_n_step: bool
    action_noise: ActionNoise | float | None
    ent_coef: str | float
    target_update_interval: int
    target_entropy: str | float
    use_sde: bool
    sde_sample_freq: int
    use_sde_at_warmup: bool


class RLx2SAC(EntropyAlgorithm, SAC):
    """
    SAC trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``SAC(...)`` in an existing script: the import and the name. Defaults are :class:`RLx2TD3`'s; what the
    paper has for SAC alone (sparsities, a buffer of 3M that keeps 200,000) is in ``hyperparams/rlx2sac.yml``.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseSACPolicy`
    :param env: environment with a Box action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training, or a share of the planned ones, by default a
        fortieth, 100 at least; SB3's default is 100
    :param batch_size: minibatch size
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)`` (default ``0.9``)
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)`` (default ``0.85``)
    :param actor_start_sparsity: share of zeros that the actor begins with; None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param topology: how links grow, ``"rigl"`` (by gradient), ``"set"`` (at random) or ``"static"`` (not at all);
        ``"snip"``, which chooses the links of a dense start once, by gradient, in its first step; or where
        those of the first layers are once the warm-up is over, ``"predictive"`` or ``"active"`` (default ``"rigl"``)
    :param distribution: how links are shared out to layers, ``"erdos_renyi"`` (alias ``"erk"``), ``"uniform"`` or
        ``"dense_output"``; or their numbers, by layer, for each network (default ``"erdos_renyi"``)
    :param init: which links live at first: ``"magnitude"`` (largest of the dense init), ``"random"``, ``"fan_in"``,
        ``"spatial"``, or the path of an agent that a sparse policy saved (default ``"magnitude"``; see :mod:`sb3_rlx2.inits`)
    :param weight_scale: weights at the start as in the dense network (``"dense"``), or each unit's live ones scaled to the
        sum of squares of all its dense ones (``"live"``) (default ``"dense"``)
    :param drop_fraction: share of each layer's links that an update moves at first, in ``[0, 1]`` (default ``0.5``);
        cosine-annealed to 0 over training
    :param update_interval: optimizer steps of a network between its topology updates, or a share of the planned gradient
        steps; by default a hundredth, 500 at least
    :param drop_dead_links: whether updates drop first all links on no path from an input to an output, and grow none from a
        unit that no input reaches (default ``False``)
    :param prune_begin: share of training after which the number of links falls, of networks that begin with more than they
        are to have; in ``[0, 1)`` and below ``prune_end`` (default ``0.2``)
    :param prune_end: share of training after which it is what it is to be, below 1 (default ``0.8``)
    :param n_steps: length of the n-step return, 1 or more (default ``3``)
    :param n_steps_delay: share of training after ``learning_starts`` with one-step targets, in ``[0, 1]`` (default ``0.1``)
    :param soft_n_step: add the entropy of every state on the way of the n-step return, as released; else only the
        bootstrap state's, as SB3 does (default ``True``)
    :param buffer_min_size: transitions that the dynamic buffer keeps at least, or a share of the planned steps; by default a
        tenth of them, 1,000 at least
    :param policy_distance_threshold: policy distance above which the oldest transitions leave, half the mean squared
        difference of actions in ``[-1, 1]``, so from 0 to 2 (default ``0.2``); infinity keeps everything
    :param buffer_check_interval: environment steps between looks at the policy distance, or a share of the planned ones; by
        default a hundredth, 1,000 at least
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
        (default ``"auto"``)
    :param arrays: whether gradient steps are done in arrays and kernels: ``"auto"`` (where they can, a warning says why not),
        True (an error says why not) or False (SB3's own ``train``) (default ``"auto"``)
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3`, and of SB3's ``SAC``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseSACPolicy,
        "CnnPolicy": SparseSACCnnPolicy,
        "MultiInputPolicy": SparseSACMultiInputPolicy,
    }
    sparse_policy_class = SparseSACPolicy
    own_defaults: ClassVar[dict[str, Any]] = {"soft_n_step": True}

    actor: SparseSACActor
    critic: SparseCritic
    critic_target: SparseCritic

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int | float = LEARNING_STARTS,
        batch_size: int = 256,
        *,
        actor_sparsity: float = 0.9,
        critic_sparsity: float = 0.85,
        actor_start_sparsity: float | None = None,
        critic_start_sparsity: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[SACKeywords],
    ) -> None:
        own, others = self._split(kwargs)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,  # type: ignore[arg-type]  # `learn` makes a number of a share
            batch_size,
            _init_setup_model=False,
            **others,
        )
        own |= {"actor_sparsity": actor_sparsity, "critic_sparsity": critic_sparsity}
        own |= {"actor_start_sparsity": actor_start_sparsity, "critic_start_sparsity": critic_start_sparsity}
        self._configure(own, _init_setup_model)

    def _make_steps(self) -> Any:
        from sb3_rlx2.algorithms.sac.steps import SACSteps  # late, because it imports numba

        return SACSteps(self)
