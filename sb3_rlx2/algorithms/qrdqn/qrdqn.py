"""RLx2QRDQN: sb3-contrib's QR-DQN put together with the sparse parts."""

from typing import Any, ClassVar

from sb3_contrib import QRDQN
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.keywords import TargetKeywords
from sb3_rlx2.algorithms.qrdqn.policies import (
    SparseQRDQNCnnPolicy,
    SparseQRDQNMultiInputPolicy,
    SparseQRDQNPolicy,
    SparseQuantileNetwork,
)
from sb3_rlx2.algorithms.value_based import MADE_ONCE
from sb3_rlx2.algorithms.values import check_values
from sb3_rlx2.plan import LEARNING_STARTS


class QRDQNKeywords(TargetKeywords, total=False):
    """The types of the keyword arguments that ``RLx2QRDQN`` takes besides those in its signature."""

    target_update_interval: int
    exploration_fraction: float
    exploration_initial_eps: float
    exploration_final_eps: float
    max_grad_norm: float | None


class RLx2QRDQN(RLx2Algorithm, QRDQN):
    """
    QR-DQN trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``QRDQN(...)`` in an existing script: the import and the name. RLx2 was made for continuous actions; what
    it means here for discrete ones is this package's own (see ``policy_distance_threshold``). RLx2's other arguments, with
    their defaults, are :class:`RLx2TD3`'s.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseQRDQNPolicy`
    :param env: environment with a Discrete action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training, or a share of the planned ones, by default a
        fortieth, 100 at least; sb3-contrib has 100
    :param batch_size: minibatch size
    :param sparsity: share of zeros in the quantile network, in ``[0, 1)`` (default ``0.9``)
    :param start_sparsity: share of zeros that it begins with; None for ``sparsity`` throughout
    :param policy_distance_threshold: policy distance above which the oldest transitions leave: the share of greedy actions
        that have changed over the share that would by chance, from 0 to A / (A - 1) with A actions, 1 where they are as unlike
        as random ones (default ``0.9``); infinity keeps everything
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3`, and of sb3-contrib's ``QRDQN``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseQRDQNPolicy,
        "CnnPolicy": SparseQRDQNCnnPolicy,
        "MultiInputPolicy": SparseQRDQNMultiInputPolicy,
    }
    sparse_policy_class = SparseQRDQNPolicy
    made_once = MADE_ONCE

    quantile_net: SparseQuantileNetwork
    quantile_net_target: SparseQuantileNetwork

    def __init__(
        self,
        policy: str | type[QRDQNPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 5e-5,
        buffer_size: int = 1_000_000,
        learning_starts: int | float = LEARNING_STARTS,
        batch_size: int = 32,
        *,
        sparsity: float = 0.9,
        start_sparsity: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[QRDQNKeywords],
    ) -> None:
        own, others = self._split(kwargs)
        check_values({"batch_size": batch_size})  # by which the host divides
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
        self._configure({"sparsity": sparsity, "start_sparsity": start_sparsity, **own}, _init_setup_model)

    def _make_steps(self) -> Any:
        from sb3_rlx2.algorithms.qrdqn.steps import QRDQNSteps  # late, because it imports numba

        return QRDQNSteps(self)
