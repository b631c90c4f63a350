"""RLx2DQN: SB3's DQN put together with the sparse parts."""

import math
from typing import Any, ClassVar

from stable_baselines3 import DQN
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from typing_extensions import Unpack

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.dqn.policies import SparseDQNCnnPolicy, SparseDQNMultiInputPolicy, SparseDQNPolicy, SparseQNetwork
from sb3_rlx2.algorithms.keywords import TargetKeywords
from sb3_rlx2.algorithms.value_based import MADE_ONCE
from sb3_rlx2.plan import LEARNING_STARTS
from sb3_rlx2.validation import check_number


class DQNKeywords(TargetKeywords, total=False):
    """The types of the keyword arguments that ``RLx2DQN`` takes besides those in its signature."""

    target_update_interval: int
    exploration_fraction: float
    exploration_initial_eps: float
    exploration_final_eps: float
    max_grad_norm: float


class RLx2DQN(RLx2Algorithm, DQN):
    """
    DQN trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``DQN(...)`` in an existing script: the import and the name. RLx2 was made for continuous actions; what
    it means here for discrete ones is this package's own (see ``policy_distance_threshold``). RLx2's other arguments, with
    their defaults, are :class:`RLx2TD3`'s.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseDQNPolicy`
    :param env: environment with a Discrete action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training, or a share of the planned ones, by default a
        fortieth, 100 at least; SB3's default is 100
    :param batch_size: minibatch size
    :param sparsity: share of zeros in the Q-network, in ``[0, 1)`` (default ``0.9``)
    :param start_sparsity: share of zeros that it begins with; None for ``sparsity`` throughout
    :param policy_distance_threshold: policy distance above which the oldest transitions leave: the share of greedy actions
        that have changed over the share that would by chance, from 0 to A / (A - 1) with A actions, 1 where they are as unlike
        as random ones (default ``0.9``); infinity keeps everything
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3`, and of SB3's ``DQN``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseDQNPolicy,
        "CnnPolicy": SparseDQNCnnPolicy,
        "MultiInputPolicy": SparseDQNMultiInputPolicy,
    }
    sparse_policy_class = SparseDQNPolicy
    made_once = MADE_ONCE

    q_net: SparseQNetwork
    q_net_target: SparseQNetwork

    def __init__(
        self,
        policy: str | type[DQNPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int | float = LEARNING_STARTS,
        batch_size: int = 32,
        *,
        sparsity: float = 0.9,
        start_sparsity: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[DQNKeywords],
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
        self._configure({"sparsity": sparsity, "start_sparsity": start_sparsity, **own}, _init_setup_model)

    def _setup_model(self) -> None:
        super()._setup_model()
        check_number("max_grad_norm", self.max_grad_norm, 0.0, math.inf)  # not None, as it may be for QR-DQN

    def _make_steps(self) -> Any:
        from sb3_rlx2.algorithms.dqn.steps import DQNSteps  # late, because it imports numba

        return DQNSteps(self)
