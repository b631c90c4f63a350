"""RLx2TQC: sb3-contrib's TQC put together with the sparse parts."""

from typing import Any, ClassVar

from sb3_contrib import TQC
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_rlx2.algorithms.entropy_coefficient import EntropyAlgorithm
from sb3_rlx2.algorithms.keywords import EntropyKeywords, TargetKeywords
from sb3_rlx2.algorithms.tqc.policies import (
    SparseTQCActor,
    SparseTQCCnnPolicy,
    SparseTQCCritic,
    SparseTQCMultiInputPolicy,
    SparseTQCPolicy,
)
from sb3_rlx2.plan import LEARNING_STARTS


class TQCKeywords(TargetKeywords, EntropyKeywords, total=False):
    """The types of the keyword arguments that ``RLx2TQC`` takes besides those in its signature."""

    target_update_interval: int
    top_quantiles_to_drop_per_net: int


class RLx2TQC(EntropyAlgorithm, TQC):
    """
    TQC trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``TQC(...)`` in an existing script: the import and the name. Defaults are :class:`RLx2SAC`'s.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseTQCPolicy`
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
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3` and :class:`RLx2SAC`, and of sb3-contrib's ``TQC``,
        with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseTQCPolicy,
        "CnnPolicy": SparseTQCCnnPolicy,
        "MultiInputPolicy": SparseTQCMultiInputPolicy,
    }
    sparse_policy_class = SparseTQCPolicy

    actor: SparseTQCActor
    critic: SparseTQCCritic
    critic_target: SparseTQCCritic

    def __init__(
        self,
        policy: str | type[TQCPolicy],
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
        **kwargs: Unpack[TQCKeywords],
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

    def _setup_model(self) -> None:
        super()._setup_model()
        self._check_quantiles()

    def _check_training(self, log_interval: int | None, progress_bar: bool) -> None:
        super()._check_training(log_interval, progress_bar)
        self._check_quantiles()

    def _check_quantiles(self) -> None:
        if self.top_quantiles_to_drop_per_net >= self.critic.n_quantiles:
            raise ValueError(
                f"top_quantiles_to_drop_per_net={self.top_quantiles_to_drop_per_net} must be below "
                f"n_quantiles={self.critic.n_quantiles}"
            )

    def _make_steps(self) -> Any:
        from sb3_rlx2.algorithms.tqc.steps import TQCSteps  # late, because it imports numba

        return TQCSteps(self)
