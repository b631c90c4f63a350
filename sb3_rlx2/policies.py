"""SB3's TD3 and SAC policies with sparse actor and critic heads. Features extractors stay dense."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_rlx2 import backends
from sb3_rlx2.adam import KernelAdam
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.metrics import sparse_mlps
from sb3_rlx2.networks import SparseCritic, SparseSACActor, SparseTD3Actor
from sb3_rlx2.sparse_mlp import INITS, SparseMLP, spawn_generator
from sb3_rlx2.updater import TopologyUpdater
from sb3_rlx2.validation import check_number, lookup

OWN_NETWORKS = {SparseTD3Actor, SparseSACActor, SparseCritic}
# Modules that compute the same in training and evaluation mode.
MODE_FREE = {
    *OWN_NETWORKS,
    SparseMLP,
    FlattenExtractor,
    nn.Flatten,
    nn.ReLU,
    nn.Tanh,
    nn.Identity,
}


class _SparseHeads:
    """What both policies share: the arguments, the networks, and the updater behind their optimizers."""

    # SB3's attributes that this mixin uses
    actor: Any
    critic: Any
    critic_target: Any
    actor_kwargs: dict[str, Any]
    critic_kwargs: dict[str, Any]
    device: th.device
    optimizer_class: type[th.optim.Optimizer]
    optimizer_kwargs: dict[str, Any]
    training: bool
    observation_space: Any
    action_space: Any
    unscale_action: Any
    topology_updater: TopologyUpdater
    actor_class: type[nn.Module]

    def _set_sparsity(
        self,
        action_space: spaces.Space[Any],
        actor_sparsity: float | None,
        critic_sparsity: float | None,
        distribution: str,
        init: str,
        backend: str,
    ) -> None:
        """Keep the arguments; to be called before SB3's constructor, which builds the networks."""
        if not isinstance(action_space, spaces.Box):
            raise ValueError(f"action_space={action_space} must be a Box: {type(self).__name__} is for continuous actions")
        for name, value in (("actor_sparsity", actor_sparsity), ("critic_sparsity", critic_sparsity)):
            if value is None:
                raise ValueError(
                    f"{name}=None: {type(self).__name__} has no default sparsity. Give it in policy_kwargs; "
                    "rl-zoo3's stock samplers drop it from there, RLx2TD3 and RLx2SAC keep it "
                    "(an agent of RLx2TD3 or RLx2SAC is loaded with these)"
                )
            check_number(name, value, 0.0, 1.0, high_included=False)
        lookup("distribution", distribution, DISTRIBUTIONS)
        lookup("init", init, INITS)
        lookup("backend", backend, backends.BACKENDS)
        self.actor_sparsity, self.critic_sparsity = actor_sparsity, critic_sparsity
        self.thinning = {"distribution": distribution, "init": init, "backend": backend}
        self.generator = spawn_generator()
        self._latest: list[Any] = [None, None]  # the latest observation that `predict` was asked about, and the actor's output

    def _build(self, lr_schedule: Schedule) -> None:
        given = self.optimizer_class, self.optimizer_kwargs
        chosen = self.optimizer_kwargs.keys() & {"fused", "foreach", "capturable", "differentiable"}
        if self.optimizer_class is th.optim.Adam and self.thinning["backend"] != "masked" and not chosen:
            # One pass over memory for all parameters; `masked` stays bit-identical to SB3.
            self.optimizer_class, self.optimizer_kwargs = KernelAdam, self.optimizer_kwargs | {"fused": True}
        super()._build(lr_schedule)  # type: ignore[misc]
        self.optimizer_class, self.optimizer_kwargs = given
        self.topology_updater = TopologyUpdater(self.generator)
        for name in ("actor", "critic"):
            network = getattr(self, name)
            target = getattr(self, f"{name}_target", None)  # SAC has no target actor
            self.topology_updater.register(name, sparse_mlps(network), sparse_mlps(target), network.optimizer)

        # SB3 encodes what is of any other space (one-hot, images divided by 255), even where it comes as floats.
        space = self.observation_space
        self._observes_floats = isinstance(space, spaces.Box) and space.dtype.kind == "f"
        self._walks_modules = any(
            type(module) not in MODE_FREE for net in (self.actor, self.critic) for module in net.modules()
        )

    def set_training_mode(self, mode: bool) -> None:
        """
        Put the policy in training or evaluation mode. Where no module depends on it, the tree is not walked: SB3 does that
        at every step, and it costs as much as choosing the action.

        :param mode: True for training
        """
        if self._walks_modules:
            super().set_training_mode(mode)  # type: ignore[misc]
        elif self.training != mode:
            for module in (self, self._modules["actor"], self._modules["critic"]):  # type: ignore[attr-defined]
                module.__dict__["training"] = mode  # torch's own assignment is slow

    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:
        """
        Choose actions in ``[-1, 1]``, in arrays where the csr backend can.

        :param observation: observations, ``[n, ...]``
        :param deterministic: whether to leave out the noise of SAC's policy (TD3 has none)
        :return: actions, ``[n, A]``
        """
        if self._acts_in_arrays(observation):
            return self._actions(self._infer(observation), deterministic)
        with th.no_grad():
            tensor, _ = self.obs_to_tensor(observation)  # type: ignore[attr-defined]
            return np.asarray(self._predict(tensor, deterministic=deterministic).cpu())  # type: ignore[attr-defined]

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions as SB3 does.

        :param observation: one observation or several
        :param state: passed through
        :param episode_start: not used
        :param deterministic: whether to leave out the noise of SAC's policy
        :return: actions in the environment's range, and the state
        """
        shape = self.observation_space.shape
        single = isinstance(observation, np.ndarray) and observation.shape == shape
        several = observation[None] if single else observation
        if not self._acts_in_arrays(several):
            return super().predict(observation, state, episode_start, deterministic)  # type: ignore[misc, no-any-return]
        self.set_training_mode(False)
        output = self._infer(several)
        self._latest[:] = observation, output
        actions = self.unscale_action(self._actions(output, deterministic).reshape(len(several), *self.action_space.shape))
        return (actions[0] if single else actions), state

    def noise_free_action(self, observation: Any) -> np.ndarray:
        """
        Give the deterministic action, without computing it again where :meth:`predict` was just asked about the same array.

        :param observation: observations, ``[n, ...]``
        :return: actions in ``[-1, 1]``, ``[n, A]``
        """
        latest, output = self._latest
        return self._actions(output, True) if latest is observation else self.act(observation)

    def _infer(self, observation: np.ndarray) -> np.ndarray:
        from sb3_rlx2.backends import csr  # late, because it imports numba

        flat = np.ascontiguousarray(observation.reshape(len(observation), self.actor.features_dim), np.float32)
        return csr.infer(self.actor.sparse_heads()[0], flat)

    def _acts_in_arrays(self, observation: Any) -> bool:
        return (
            isinstance(observation, np.ndarray)
            and observation.dtype.kind == "f"
            and self._observes_floats
            and observation.shape[1:] == self.observation_space.shape
            and self.computes_in_arrays((self.actor,))
        )

    def computes_in_arrays(self, networks: Sequence[Any]) -> bool:
        """
        Tell whether arrays and kernels compute just what calling the networks would: they are this package's own, with no
        overrides and no hooks, on flat observations, and the csr backend serves their heads.

        :param networks: actors and critics of this policy
        """
        return type(self) in OWN_POLICIES and all(
            type(network) in OWN_NETWORKS
            and type(network._modules["features_extractor"]) is FlattenExtractor
            and not (network._forward_hooks or network._forward_pre_hooks)
            and all(backends.uses_csr(mlp) and not mlp._forward_hooks for mlp in network.sparse_heads())
            for network in networks
        )

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        raise NotImplementedError

    def _sparsity(self, share: float | None) -> dict[str, Any]:
        return {"share": share, "generator": self.generator, **self.thinning}

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)  # type: ignore[attr-defined]
        return self.actor_class(**kwargs, sparsity=self._sparsity(self.actor_sparsity)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)  # type: ignore[attr-defined]
        return SparseCritic(**kwargs, sparsity=self._sparsity(self.critic_sparsity)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"actor_sparsity": self.actor_sparsity, "critic_sparsity": self.critic_sparsity, **self.thinning}
        shared = {"share_features_extractor": self.critic_kwargs["share_features_extractor"]}  # SB3's SACPolicy forgets it
        return super()._get_constructor_parameters() | own | shared  # type: ignore[misc, no-any-return]


class SparseTD3Policy(_SparseHeads, TD3Policy):
    """
    TD3's policy with sparse actor and critics, for SB3's own ``TD3`` (with :class:`RLx2Callback`) and for ``RLx2TD3``.

    :param observation_space: observation space
    :param action_space: action space, a Box
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers, a list or a dict with ``pi`` and ``qf``; ``[256, 256]`` by default, as in the paper
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``; has no default
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``; has no default
    :param distribution: how links are shared out to layers, ``"erdos_renyi"`` (``"erk"``) or ``"uniform"``
    :param init: which links live at first, the largest of the dense init (``"magnitude"``) or ``"random"`` ones
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
    :param kwargs: the other arguments of SB3's ``TD3Policy``
    """

    actor_class = SparseTD3Actor

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        return output

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        *,
        actor_sparsity: float | None = None,
        critic_sparsity: float | None = None,
        distribution: str = "erdos_renyi",
        init: str = "magnitude",
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        self._set_sparsity(action_space, actor_sparsity, critic_sparsity, distribution, init, backend)
        net_arch = [256, 256] if net_arch is None else net_arch
        super().__init__(observation_space, action_space, lr_schedule, net_arch, **kwargs)


class SparseSACPolicy(_SparseHeads, SACPolicy):
    """
    SAC's policy with sparse actor and critics, for SB3's own ``SAC`` (with :class:`RLx2Callback`) and for ``RLx2SAC``.

    :param observation_space: observation space
    :param action_space: action space, a Box
    :param lr_schedule: learning rate schedule
    :param net_arch: hidden layers, a list or a dict with ``pi`` and ``qf``; ``[256, 256]`` by default, as in the paper
    :param use_sde: must be False: gSDE needs the dense last layer that it perturbs
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``; has no default
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``; has no default
    :param distribution: how links are shared out to layers, ``"erdos_renyi"`` (``"erk"``) or ``"uniform"``
    :param init: which links live at first, the largest of the dense init (``"magnitude"``) or ``"random"`` ones
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
    :param kwargs: the other arguments of SB3's ``SACPolicy``
    """

    actor_class = SparseSACActor

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        n_actions = output.shape[1] // 2
        mean, log_std = output[:, :n_actions], output[:, n_actions:]
        if not deterministic:
            noise = th.randn(mean.shape).numpy()  # as `Normal.rsample` draws
            mean = mean + np.exp(log_std.clip(LOG_STD_MIN, LOG_STD_MAX)) * noise
        actions: np.ndarray = np.tanh(mean)
        return actions

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        use_sde: bool = False,
        *,
        actor_sparsity: float | None = None,
        critic_sparsity: float | None = None,
        distribution: str = "erdos_renyi",
        init: str = "magnitude",
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        if use_sde:
            raise ValueError(
                "use_sde=True is not supported by SparseSACPolicy, use_sde must be False: gSDE perturbs a dense layer"
            )
        self._set_sparsity(action_space, actor_sparsity, critic_sparsity, distribution, init, backend)
        super().__init__(observation_space, action_space, lr_schedule, net_arch, **kwargs)


class SparseTD3CnnPolicy(SparseTD3Policy):
    """:class:`SparseTD3Policy` for image observations."""

    def __init__(self, *args: Any, features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN, **kwargs: Any) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


class SparseTD3MultiInputPolicy(SparseTD3Policy):
    """:class:`SparseTD3Policy` for dict observations."""

    def __init__(
        self, *args: Any, features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor, **kwargs: Any
    ) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


class SparseSACCnnPolicy(SparseSACPolicy):
    """:class:`SparseSACPolicy` for image observations."""

    def __init__(self, *args: Any, features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN, **kwargs: Any) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


class SparseSACMultiInputPolicy(SparseSACPolicy):
    """:class:`SparseSACPolicy` for dict observations."""

    def __init__(
        self, *args: Any, features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor, **kwargs: Any
    ) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


OWN_POLICIES = {
    SparseTD3Policy,
    SparseTD3CnnPolicy,
    SparseTD3MultiInputPolicy,
    SparseSACPolicy,
    SparseSACCnnPolicy,
    SparseSACMultiInputPolicy,
}
