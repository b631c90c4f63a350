"""RLx2CrossQ: sb3-contrib's CrossQ put together with the sparse parts."""

from typing import ClassVar

from sb3_contrib import CrossQ
from sb3_contrib.crossq.policies import CrossQPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_rlx2.algorithms.crossq.policies import SparseCrossQActor, SparseCrossQCritic, SparseCrossQPolicy
from sb3_rlx2.algorithms.entropy_coefficient import EntropyAlgorithm
from sb3_rlx2.algorithms.keywords import EntropyKeywords
from sb3_rlx2.plan import LEARNING_STARTS


class CrossQKeywords(EntropyKeywords, total=False):
    """The types of the keyword arguments that ``RLx2CrossQ`` takes besides those in its signature."""

    policy_delay: int


class RLx2CrossQ(EntropyAlgorithm, CrossQ):
    """
    CrossQ trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``CrossQ(...)`` in an existing script: the import and the name. RLx2's defaults are :class:`RLx2SAC`'s;
    learning rate, ``policy_delay`` and the critics' width stay the host's. There are no target networks, and no ``tau``.

    :param policy: ``"MlpPolicy"`` or a subclass of :class:`SparseCrossQPolicy`
    :param env: environment with a Box action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training, or a share of the planned ones, by default a
        fortieth, 100 at least; sb3-contrib has 100
    :param batch_size: minibatch size
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)`` (default ``0.9``)
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)`` (default ``0.85``)
    :param actor_start_sparsity: share of zeros that the actor begins with; None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3` and :class:`RLx2SAC`, and of sb3-contrib's ``CrossQ``,
        with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": SparseCrossQPolicy}
    sparse_policy_class = SparseCrossQPolicy

    actor: SparseCrossQActor
    critic: SparseCrossQCritic

    def __init__(
        self,
        policy: str | type[CrossQPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int | float = LEARNING_STARTS,
        batch_size: int = 256,
        *,
        actor_sparsity: float = 0.9,
        critic_sparsity: float = 0.85,
        actor_start_sparsity: float | None = None,
        critic_start_sparsity: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[CrossQKeywords],
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
