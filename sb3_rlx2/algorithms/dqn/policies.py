"""DQN's policy with a sparse Q-network."""

from collections.abc import Mapping
from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from sb3_rlx2.algorithms.extractors import ConvExtractor
from sb3_rlx2.algorithms.policies import WithExtractor
from sb3_rlx2.algorithms.value_based import ValueBasedPolicy, ValueNetwork
from sb3_rlx2.sparse_mlp import SparseMLP


class SparseQNetwork(ValueNetwork, QNetwork):
    """DQN's network with a sparse head; see :class:`ValueNetwork` for the arguments."""

    head = "q_net"

    q_net: SparseMLP  # type: ignore[assignment]


class SparseDQNPolicy(ValueBasedPolicy, DQNPolicy):
    """
    DQN's policy with a sparse Q-network, for SB3's own ``DQN`` (with :class:`RLx2Callback`) and for ``RLx2DQN``.

    :param observation_space: observation space
    :param action_space: action space, Discrete
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers; SB3's ``[64, 64]`` by default, ``[512]`` behind a :class:`ConvExtractor`
    :param sparsity: share of zeros in the network, in ``[0, 1)``; has no default
    :param start_sparsity: share of zeros that the network begins with; it then loses links as the callback's ``prune_begin``
        and ``prune_end`` say. None for ``sparsity`` throughout
    :param kwargs: the options of all sparse policies, :class:`NetworkOptions`, and the other arguments of
        SB3's ``DQNPolicy``
    """

    networks: ClassVar[Mapping[str, str]] = {"q_net": "sparsity"}
    network_class = SparseQNetwork

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        *,
        sparsity: float | None = None,
        start_sparsity: float | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = self._set_sparsity(action_space, {"q_net": sparsity}, {"q_net": start_sparsity}, kwargs, net_arch=net_arch)
        net_arch = self._default_net_arch(net_arch, kwargs)
        super().__init__(observation_space, action_space, lr_schedule, net_arch, **kwargs)

    def make_q_net(self) -> Any:
        """Make a Q-network."""
        return self._make_network()


class SparseDQNCnnPolicy(WithExtractor, SparseDQNPolicy):
    """:class:`SparseDQNPolicy` for image observations: behind the convolutions all is sparse, also the wide layer."""

    default_extractor = ConvExtractor


class SparseDQNMultiInputPolicy(WithExtractor, SparseDQNPolicy):
    """:class:`SparseDQNPolicy` for dict observations."""

    default_extractor = CombinedExtractor
