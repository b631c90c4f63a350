"""RLx2DDPG: SB3's DDPG, which is TD3 with one critic and no delay, put together with the sparse parts."""

from typing import Any, ClassVar

from stable_baselines3 import DDPG
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.td3.policies import TD3Policy
from typing_extensions import Unpack

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.keywords import TargetKeywords
from sb3_rlx2.algorithms.td3.policies import SparseTD3CnnPolicy, SparseTD3MultiInputPolicy, SparseTD3Policy
from sb3_rlx2.plan import LEARNING_STARTS


class RLx2DDPG(RLx2Algorithm, DDPG):
    """
    DDPG trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``DDPG(...)`` in an existing script: the import and the name. Defaults are :class:`RLx2TD3`'s.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseTD3Policy`
    :param env: environment with a Box action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training, or a share of the planned ones, by default a
        fortieth, 100 at least; SB3's default is 100
    :param batch_size: minibatch size
    :param action_noise: exploration noise; a number is the standard deviation of Gaussian noise in ``[-1, 1]`` action space
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)`` (default ``0.9``)
    :param critic_sparsity: share of zeros in the critic, in ``[0, 1)`` (default ``0.85``)
    :param actor_start_sparsity: share of zeros that the actor begins with; None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of the critic
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3`, and of SB3's ``DDPG``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseTD3Policy,
        "CnnPolicy": SparseTD3CnnPolicy,
        "MultiInputPolicy": SparseTD3MultiInputPolicy,
    }
    sparse_policy_class = SparseTD3Policy

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
        **kwargs: Unpack[TargetKeywords],
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
