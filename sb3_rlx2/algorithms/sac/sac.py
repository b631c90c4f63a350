"""RLx2SAC: SB3's SAC put together with the sparse parts."""

from typing import Any, ClassVar

from stable_baselines3 import SAC
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.sac.policies import SACPolicy
from typing_extensions import Unpack

from sb3_rlx2.algorithms.entropy_coefficient import EntropyAlgorithm
from sb3_rlx2.algorithms.keywords import EntropyKeywords, TargetKeywords
from sb3_rlx2.algorithms.networks import SparseCritic
from sb3_rlx2.algorithms.sac.policies import SparseSACActor, SparseSACCnnPolicy, SparseSACMultiInputPolicy, SparseSACPolicy
from sb3_rlx2.plan import LEARNING_STARTS


class SACKeywords(TargetKeywords, EntropyKeywords, total=False):
    """The types of the keyword arguments that ``RLx2SAC`` takes besides those in its signature."""

    target_update_interval: int


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
    :param soft_n_step: add the entropy of every state on the way of the n-step return, as released; else only the
        bootstrap state's, as SB3 does (default ``True``)
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3`, and of SB3's ``SAC``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseSACPolicy,
        "CnnPolicy": SparseSACCnnPolicy,
        "MultiInputPolicy": SparseSACMultiInputPolicy,
    }
    sparse_policy_class = SparseSACPolicy

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
