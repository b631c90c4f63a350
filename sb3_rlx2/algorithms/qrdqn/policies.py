"""QR-DQN's policy with a sparse quantile network."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.type_aliases import Schedule

from sb3_rlx2.algorithms.extractors import ConvExtractor
from sb3_rlx2.algorithms.policies import WithExtractor
from sb3_rlx2.algorithms.value_based import ValueBasedPolicy, ValueNetwork
from sb3_rlx2.sparse_mlp import SparseMLP


class SparseQuantileNetwork(ValueNetwork, QuantileNetwork):
    """QR-DQN's network with a sparse head; see :class:`ValueNetwork` for the arguments."""

    head = "quantile_net"

    quantile_net: SparseMLP  # type: ignore[assignment]


class SparseQRDQNPolicy(ValueBasedPolicy, QRDQNPolicy):
    """
    QR-DQN's policy with a sparse quantile network, for sb3-contrib's own ``QRDQN`` (with :class:`RLx2Callback`) and for
    ``RLx2QRDQN``.

    :param observation_space: observation space
    :param action_space: action space, Discrete
    :param lr_schedule: learning rate schedule
    :param n_quantiles: number of quantiles
    :param net_arch: hidden layers; SB3's ``[64, 64]`` by default, ``[512]`` behind a :class:`ConvExtractor`
    :param sparsity: share of zeros in the network, in ``[0, 1)``; has no default
    :param start_sparsity: share of zeros that the network begins with; it then loses links as the callback's ``prune_begin``
        and ``prune_end`` say. None for ``sparsity`` throughout
    :param kwargs: the options of all sparse policies, :class:`NetworkOptions`, and the other arguments of
        sb3-contrib's ``QRDQNPolicy``
    """

    networks: ClassVar[Mapping[str, str]] = {"quantile_net": "sparsity"}
    network_class = SparseQuantileNetwork

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        n_quantiles: int = 200,
        net_arch: list[int] | None = None,
        *,
        sparsity: float | None = None,
        start_sparsity: float | None = None,
        **kwargs: Any,
    ) -> None:
        shares, starts = {"quantile_net": sparsity}, {"quantile_net": start_sparsity}
        kwargs = self._set_sparsity(action_space, shares, starts, kwargs, net_arch=net_arch, n_quantiles=n_quantiles)
        net_arch = self._default_net_arch(net_arch, kwargs)
        super().__init__(observation_space, action_space, lr_schedule, n_quantiles, net_arch, **kwargs)

    def make_quantile_net(self) -> Any:
        """Make a quantile network."""
        return self._make_network()

    def _values(self, output: np.ndarray) -> np.ndarray:
        values: np.ndarray = output.reshape(len(output), self.n_quantiles, self.n_actions).mean(axis=1)
        return values


class SparseQRDQNCnnPolicy(WithExtractor, SparseQRDQNPolicy):
    """:class:`SparseQRDQNPolicy` for image observations: behind the convolutions all is sparse, also the wide layer."""

    default_extractor = ConvExtractor


class SparseQRDQNMultiInputPolicy(WithExtractor, SparseQRDQNPolicy):
    """:class:`SparseQRDQNPolicy` for dict observations."""

    default_extractor = CombinedExtractor
