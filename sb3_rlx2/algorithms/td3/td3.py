"""RLx2TD3: SB3's TD3 put together with the sparse parts."""

from typing import Any, ClassVar

from stable_baselines3 import TD3
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.td3.policies import TD3Policy
from typing_extensions import Unpack

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.keywords import TargetKeywords
from sb3_rlx2.algorithms.networks import SparseCritic
from sb3_rlx2.algorithms.td3.policies import SparseTD3Actor, SparseTD3CnnPolicy, SparseTD3MultiInputPolicy, SparseTD3Policy
from sb3_rlx2.plan import LEARNING_STARTS


class TD3Keywords(TargetKeywords, total=False):
    """The types of the keyword arguments that ``RLx2TD3`` takes besides those in its signature."""

    policy_delay: int
    target_policy_noise: float
    target_noise_clip: float


class RLx2TD3(RLx2Algorithm, TD3):
    """
    TD3 trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``TD3(...)`` in an existing script: the import and the name. Defaults are the paper's, the sparsities
    its HalfCheetah's.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseTD3Policy`
    :param env: environment with a Box action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training, or a share of the planned ones, by default a
        fortieth, 100 at least; SB3's default is 100
    :param batch_size: minibatch size
    :param action_noise: exploration noise; a number is the standard deviation of Gaussian noise in ``[-1, 1]`` action space
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
    :param hidden_weights: whether hidden layers are ``"learned"``, or stay as they are at first (``"fixed"``)
        (default ``"learned"``)
    :param hidden_bias: biases of the hidden layers at first (default ``None``, those of the dense network)
    :param l1: coefficient of the sum of the hidden weights' magnitudes, which is added to the loss of each network, 0 or more
        (default ``0.0``)
    :param drop_fraction: share of each layer's links that an update moves at first, in ``[0, 1]`` (default ``0.5``);
        cosine-annealed to 0 over training
    :param update_interval: optimizer steps of a network between its topology updates, or a share of the planned gradient
        steps, by default a hundredth. Wherever a share is given, a million of the planned steps count at most; so the defaults
        of this and of all that is counted in steps are the paper's numbers from there on, in shorter runs as much smaller as
        the run is, down to a least (500 here)
    :param drop_dead_links: whether updates drop first all links on no path from an input to an output, and grow none from a
        unit that no input reaches (default ``False``)
    :param prune_begin: share of training after which the number of links falls, of networks that begin with more than they
        are to have; in ``[0, 1)`` and below ``prune_end`` (default ``0.2``)
    :param prune_end: share of training after which it is what it is to be, below 1 (default ``0.8``)
    :param n_steps: length of the n-step return, 1 or more (default ``3``)
    :param n_steps_delay: share of training after ``learning_starts`` with one-step targets, in ``[0, 1]`` (default ``0.1``)
    :param buffer_min_size: transitions that the dynamic buffer keeps at least, or a share of the planned steps; by default a
        tenth of them, 1,000 at least
    :param policy_distance_threshold: policy distance above which the oldest transitions leave, half the mean squared
        difference of actions in ``[-1, 1]``, so from 0 to 2 (default ``0.2``); infinity keeps everything
    :param buffer_check_interval: environment steps between looks at the policy distance, or a share of the planned ones; by
        default a hundredth, 1,000 at least
    :param planned_timesteps: steps that several calls of ``learn`` (with ``reset_num_timesteps=False``) will have done
        together, so that they are one run; by default each is a run of its own
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
        (default ``"auto"``)
    :param arrays: whether gradient steps are done in arrays and kernels: ``"auto"`` (where they can, a warning says why not),
        True (an error says why not) or False (SB3's own ``train``) (default ``"auto"``)
    :param kwargs: the other arguments of SB3's ``TD3``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseTD3Policy,
        "CnnPolicy": SparseTD3CnnPolicy,
        "MultiInputPolicy": SparseTD3MultiInputPolicy,
    }
    sparse_policy_class = SparseTD3Policy

    actor: SparseTD3Actor
    actor_target: SparseTD3Actor
    critic: SparseCritic
    critic_target: SparseCritic

    def __init__(
        self,
        policy: str | type[TD3Policy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int | float = LEARNING_STARTS,
        batch_size: int = 256,
        *,
        action_noise: ActionNoise | float | None = 0.1,
        actor_sparsity: float = 0.9,
        critic_sparsity: float = 0.85,
        actor_start_sparsity: float | None = None,
        critic_start_sparsity: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[TD3Keywords],
    ) -> None:
        own, others = self._split(kwargs)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,  # type: ignore[arg-type]  # `learn` makes a number of a share
            batch_size,
            action_noise=action_noise,  # type: ignore[arg-type]
            _init_setup_model=False,
            **others,
        )
        own |= {"actor_sparsity": actor_sparsity, "critic_sparsity": critic_sparsity}
        own |= {"actor_start_sparsity": actor_start_sparsity, "critic_start_sparsity": critic_start_sparsity}
        self._configure(own, _init_setup_model)

    def _make_steps(self) -> Any:
        from sb3_rlx2.algorithms.td3.steps import TD3Steps  # late, because it imports numba

        return TD3Steps(self)
