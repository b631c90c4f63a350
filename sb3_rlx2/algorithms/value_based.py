"""What algorithms share that learn the values of discrete actions with one network: DQN, and QR-DQN, which is like it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.dqn.policies import QNetwork
from torch import nn

from sb3_rlx2.algorithms.extractors import ConvExtractor
from sb3_rlx2.algorithms.networks import Sparsity, sparsify
from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.sparse_mlp import SparseMLP

EXPLORATION = ("exploration_initial_eps", "exploration_final_eps", "exploration_fraction")
MADE_ONCE = {"buffer_size": "the buffer", **dict.fromkeys(EXPLORATION, "exploration_schedule")}  # by the host's algorithms

if TYPE_CHECKING:
    ValueNetworkHost = QNetwork
else:
    ValueNetworkHost = object


class ValueNetwork(ValueNetworkHost):
    """
    A network that values all actions. Goes before the one of SB3's DQN, or one like it.

    :param args: arguments of the host's network
    :param sparsity: how sparse it is
    :param kwargs: keyword arguments of the host's network
    """

    head: ClassVar[str]  # the host's attribute for what lies behind the features extractor

    def __init__(self, *args: Any, sparsity: Sparsity | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = Sparsity.of(sparsity)
        setattr(self, self.head, sparsify(self, self.head, getattr(self, self.head)))

    def sparse_heads(self) -> Sequence[SparseMLP]:
        """Give the one sparse network."""
        return (getattr(self, self.head),)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"sparsity": self.sparsity.as_dict()}


class ValueBasedPolicy(SparsePolicy):
    """Goes before a policy of SB3 that takes the action of the greatest value."""

    action_spaces: ClassVar[type[spaces.Space[Any]]] = spaces.Discrete
    # At 1 the policy is as unlike what it did as random actions are. Q-learning soon changes 20 to 50 % of its greedy actions,
    # so that RLx2's 0.2 would always shrink the buffer.
    distance_threshold: ClassVar[float] = 0.9

    network_class: ClassVar[type[nn.Module]]
    net_args: dict[str, Any]

    @classmethod
    def check_action_space(cls, action_space: spaces.Space[Any], subject: str, asked: type) -> None:
        """
        Check as all policies do, and that actions are what the network's outputs are numbered by.

        :param action_space: action space
        :param subject: how the error begins
        :param asked: the class that was asked for
        :raises ValueError: if they are not
        """
        super().check_action_space(action_space, subject, asked)
        if action_space.start != 0:  # type: ignore[attr-defined]
            raise ValueError(f"{subject} must start at 0: {asked.__name__} numbers actions as the network its outputs")

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return int(self.action_space.n)  # type: ignore[attr-defined]

    @staticmethod
    def _default_net_arch(net_arch: list[int] | None, kwargs: Mapping[str, Any]) -> list[int] | None:
        """Give convolutions the wide layer that ``NatureCNN`` has behind them; else the host has a default."""
        if isinstance(net_arch, Mapping):
            raise ValueError(f"net_arch={net_arch!r} must be a list of widths: there is one network")
        return [512] if net_arch is None and kwargs.get("features_extractor_class") is ConvExtractor else net_arch

    def _take_widths(self, widths: Mapping[str, list[int]]) -> Any:
        (net_arch,) = widths.values()
        self.net_args["net_arch"] = net_arch
        return net_arch

    def _make_network(self) -> Any:
        (sparsity,) = self.sparsities.values()
        return self.network_class(**self._update_features_extractor(self.net_args), sparsity=sparsity).to(self.device)

    def distance(self, now: np.ndarray, stored: np.ndarray) -> float:
        """
        Say how far the policy is from what it did: the share of actions that it would not take any more, over the share among
        actions drawn at random. RLx2 has no distance of discrete actions; this one is ours.

        :param now: actions of today's policy, ``[n]``
        :param stored: those of the policy at the time, for the same observations, ``[n, 1]``
        """
        if self.n_actions == 1:
            return 0.0
        return float(np.mean(now.reshape(-1) != stored.reshape(-1)) / (1 - 1 / self.n_actions))

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        actions: np.ndarray = self._values(output).argmax(axis=1)
        return actions

    def _values(self, output: np.ndarray) -> np.ndarray:
        """Give the values of all actions, ``[n, A]``, that the network's output stands for."""
        return output

    def _in_env_range(self, actions: np.ndarray, count: int) -> np.ndarray:
        return actions
