"""What the algorithms' policies share: sparse heads, the updater behind their optimizers, and acting in arrays."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from torch import nn

from sb3_rlx2 import backends, metrics
from sb3_rlx2.algorithms.keywords import Evolution, NetworkOptions, names, show
from sb3_rlx2.algorithms.networks import Sparsity
from sb3_rlx2.algorithms.values import check_values
from sb3_rlx2.environment_guard import find_non_finite
from sb3_rlx2.fast.adam import KernelAdam
from sb3_rlx2.fast.eligible import Watch, is_own, why_not_act
from sb3_rlx2.patching import patched
from sb3_rlx2.paths import find_paths
from sb3_rlx2.sparse_mlp import SparseMLP, is_normalisation, sparse_mlps, spawn_generator
from sb3_rlx2.updater import TopologyUpdater
from sb3_rlx2.validation import check_arguments, check_number

# Modules of others that compute the same in training and evaluation mode; ours do, but for normalisations.
MODE_FREE = {FlattenExtractor, nn.Flatten, nn.ReLU, nn.Tanh, nn.Identity}


def _is_mode_free(module: nn.Module) -> bool:
    return type(module) in MODE_FREE or (is_own(type(module)) and not is_normalisation(module))


KINDS = {
    spaces.Box: "a Box: {} is for continuous actions; for discrete ones there are RLx2DQN and RLx2QRDQN",
    spaces.Discrete: (
        "Discrete: {} is for discrete actions; for continuous ones there are RLx2TD3, RLx2DDPG, RLx2SAC, RLx2TQC and "
        "RLx2CrossQ"
    ),
}


def start_keyword(keyword: str) -> str:
    """
    Name the argument that says how sparse networks begin.

    :param keyword: the one that says how sparse they are at last, as ``"actor_sparsity"``
    """
    return keyword.replace("sparsity", "start_sparsity")


if TYPE_CHECKING:
    PolicyHost = BasePolicy
else:
    PolicyHost = object


class SparsePolicy(PolicyHost):
    """Goes before a policy of SB3. A subclass says which of its networks are sparse."""

    # Attribute of the policy -> the keyword that says how sparse it is. The first one acts.
    networks: ClassVar[Mapping[str, str]]
    action_spaces: ClassVar[type[spaces.Space[Any]]] = spaces.Box
    default_net_arch: ClassVar[list[int] | None] = None  # where it is not the host's
    distance_threshold: ClassVar[float] = Evolution().policy_distance_threshold  # where nobody says another

    topology_updater: TopologyUpdater
    options: NetworkOptions

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not is_own(cls):
            return
        if issubclass(cls, BasePolicy):
            cls.__module__ = "sb3_rlx2.policies"  # what pickles refer to; the class may move on
        if "__init__" in vars(cls):
            show(cls.__init__, vars(NetworkOptions()))

    def _set_sparsity(
        self,
        action_space: spaces.Space[Any],
        shares: Mapping[str, float | None],
        starts: Mapping[str, float | None],
        kwargs: Mapping[str, Any],
        **host: Any,
    ) -> dict[str, Any]:
        """
        Keep the arguments; to be called before SB3's constructor, which builds the networks.

        :param action_space: action space
        :param shares: share of zeros of each of ``networks``
        :param starts: share of zeros of each to begin with, None if it is that of ``shares``
        :param kwargs: what they have in common, see :class:`NetworkOptions`, and other arguments
        :param host: arguments of the host's that are not among them
        :return: the other arguments
        :raises ValueError: if one of them is none
        """
        check_arguments(type(self), kwargs, " (in policy_kwargs)")
        check_values({**kwargs, **host})
        self.check_action_space(action_space, f"action_space={action_space}", type(self))
        self.options = NetworkOptions(**{name: kwargs[name] for name in names(NetworkOptions) if name in kwargs})
        self.options.check()
        self.generator = spawn_generator()
        self.sparsities = {name: self._make_sparsity(name, shares[name], starts[name]) for name in self.networks}
        for keyword, share in zip(self.networks.values(), self.sparsities.values(), strict=True):
            setattr(self, keyword, share.share)
        self._watch: Watch | None = None
        self._acting_watch: Watch | None = None
        self._latest: list[Any] = [None, None]  # the latest observation that `predict` was asked about, and the actor's output
        return {name: value for name, value in kwargs.items() if name not in vars(self.options)}

    @classmethod
    def check_action_space(cls, action_space: spaces.Space[Any], subject: str, asked: type) -> None:
        """
        Check that a policy can act in a space.

        :param action_space: action space
        :param subject: how the error begins
        :param asked: the class that was asked for
        :raises ValueError: if it cannot
        """
        if not isinstance(action_space, cls.action_spaces):
            raise ValueError(f"{subject} must be {KINDS[cls.action_spaces].format(asked.__name__)}")

    def check_connected(self) -> None:
        """
        Check that what the policy sees can make a difference to what it does.

        :raises ValueError: if no path leads from an input to an output
        """
        for mlp in sparse_mlps(self.acting_network):
            if find_paths(mlp).units[0] == 0:
                keyword = next(iter(self.networks.values()))
                shape = "-".join(map(str, (mlp.layers[0].in_features, *(layer.out_features for layer in mlp.layers))))
                raise ValueError(
                    f"{keyword}={getattr(self, keyword)} must be lower: with {mlp.nnz} links no path leads from an input to "
                    f"an output of the {shape} network, which acts the same whatever it sees (or choose a narrower net_arch)"
                )

    def _check_links(self) -> None:
        """Check that given numbers of links are of networks that there are, and as many as the sparsities say."""
        parts = (each for name in self.networks for each in getattr(self, name).named_modules(prefix=name))
        known = [name for name, part in parts if isinstance(part, SparseMLP)]
        for name in self.options.distribution:
            if name not in known:
                raise ValueError(f"distribution names {name!r}, which must be one of {', '.join(known)}")
        for name, (live, size) in metrics.live_weights(self).items():
            share, keyword = self.sparsities[name].share, self.networks[name]
            if abs(live - (1 - share) * size) >= 1:
                raise ValueError(
                    f"distribution gives the {name} {live} links of {size}, so {keyword}={share} must be {1 - live / size}"
                )

    def take_shape(self, widths: Mapping[str, list[int]], links: Mapping[str, list[int]]) -> dict[str, Any]:
        """
        Take note of what the sparse networks are by now, if that is not what they were built as.

        :param widths: of the hidden layers, for each of ``networks``
        :param links: of each layer, for each sparse network by its name
        :return: arguments of the constructor that have changed
        """
        self.options = replace(self.options, distribution=links)
        self.net_arch = self._take_widths(widths)
        shares = {name: 1 - live / size for name, (live, size) in metrics.live_weights(self).items()}
        for name, keyword in self.networks.items():
            self.sparsities[name] = replace(self.sparsities[name], share=shares[name], options=self.options, start=None)
            setattr(self, keyword, shares[name])
            for network in (self._modules[name], self.target_of(name)):
                if network is not None:
                    network.net_arch, network.sparsity = widths[name], self.sparsities[name]
        own = {keyword: shares[name] for name, keyword in self.networks.items()}
        return {"net_arch": self.net_arch, "distribution": links, **own, **dict.fromkeys(map(start_keyword, own))}

    def _take_widths(self, widths: Mapping[str, list[int]]) -> Any:
        """Take note of the hidden layers; gives ``net_arch``."""
        raise NotImplementedError

    @classmethod
    def sparsity_keywords(cls) -> tuple[str, ...]:
        """Give the names of the arguments that say how sparse each network is, at last and at first."""
        return (*cls.networks.values(), *map(start_keyword, cls.networks.values()))

    @classmethod
    def keywords(cls) -> tuple[str, ...]:
        """Give the names of the arguments that SB3's own policy does not have."""
        return (*cls.sparsity_keywords(), *names(NetworkOptions))

    def _make_sparsity(self, name: str, share: float | None, start: float | None) -> Sparsity:
        keyword = self.networks[name]
        if share is None:
            raise ValueError(
                f"{keyword}=None: {type(self).__name__} has no default sparsity. An agent that an RLx2 class has saved is "
                "loaded by that class, as RLx2TD3.load(path); a new one gets it in policy_kwargs (from where rl-zoo3's stock "
                "samplers drop it: RLx2 classes have it as an argument)"
            )
        share = check_number(keyword, share, 0.0, 1.0, high_included=False)
        if start is not None and check_number(start_keyword(keyword), start, 0.0, 1.0) > share:
            raise ValueError(f"{start_keyword(keyword)}={start} must be <= {keyword}={share}: pruning only removes links")
        if start is not None and self.options.fixed:
            begin = f"{start_keyword(keyword)}={start}"
            raise ValueError(f"{begin} must be None: it removes links that hidden_weights='fixed' keeps")
        return Sparsity(share, self.options, start, self.generator, name)

    @property
    def acting_network(self) -> Any:
        """The network that chooses actions."""
        return self._modules[next(iter(self.networks))]

    def target_of(self, name: str) -> Any:
        """
        Give a network's target network, None if it has none (as SAC's actor).

        :param name: one of ``networks``
        """
        return getattr(self, f"{name}_target", None)

    def network_names(self) -> list[str]:
        """Name the attributes that hold the sparse networks and their targets."""
        pairs = [(name, f"{name}_target") for name in self.networks]
        return [name for pair in pairs for name in pair if name in self._modules]

    def all_networks(self) -> list[Any]:
        """Give the sparse networks and their targets."""
        return [self._modules[name] for name in self.network_names()]

    def optimizer_of(self, name: str) -> th.optim.Optimizer:
        """
        Give the optimizer of a network: its own, or the policy's.

        :param name: one of ``networks``
        """
        network: Any = self._modules[name]
        return getattr(network, "optimizer", None) or self.optimizer

    def _build(self, lr_schedule: Schedule) -> None:
        chosen = self.optimizer_kwargs.keys() & {"fused", "foreach", "capturable", "differentiable"}
        if self.optimizer_class is th.optim.Adam and self.options.backend != "masked" and not chosen:
            # One pass over memory for all parameters; `masked` stays bit-identical to SB3.
            faster = {"optimizer_class": KernelAdam, "optimizer_kwargs": self.optimizer_kwargs | {"fused": True}}
        else:
            faster = {}
        if self.options.fixed:
            self._check_rest()
        with patched(self, **faster):
            super()._build(lr_schedule)  # type: ignore[misc]
        self.topology_updater = TopologyUpdater(self.generator, self.options.l1)
        for name in self.networks:
            network, target = getattr(self, name), self.target_of(name)
            self.topology_updater.register(name, sparse_mlps(network), sparse_mlps(target), self.optimizer_of(name))
        if isinstance(self.options.distribution, Mapping):
            self._check_links()

    def _check_rest(self) -> None:
        """Check that the optimizer leaves weights alone whose gradient is 0."""
        weight = nn.Parameter(th.ones(1))
        weight.grad = th.zeros(1)
        optimizer = self.optimizer_class([weight], lr=1.0, **self.optimizer_kwargs)  # type: ignore[call-arg]
        optimizer.step()
        if weight.item() != 1.0:
            decay = optimizer.param_groups[0].get("weight_decay")
            what = f"weight_decay={decay}" if decay else f"optimizer_class={self.optimizer_class.__name__}"
            raise ValueError(f"{what} moves weights that hidden_weights='fixed' keeps; use an optimizer without it")

    def _depends_on_mode(self) -> bool:
        """Tell whether a module may compute something else in training than in evaluation."""
        if self._watch is None or not self._watch.sees_the_same_parts():
            networks = [getattr(self, name) for name in self.networks]
            modules = [module for network in networks for module in network.modules()]
            self._mode_matters = not all(map(_is_mode_free, modules))
            self._watch = Watch(self, [*self.networks])
        return self._mode_matters

    def set_training_mode(self, mode: bool) -> None:
        """
        Put the policy in training or evaluation mode. Where no module depends on it, the tree is not walked: SB3 does that
        at every step, and it costs as much as choosing the action.

        :param mode: True for training
        """
        if self._depends_on_mode():
            super().set_training_mode(mode)
        elif self.training != mode:
            for module in (self, *map(self._modules.get, self.networks)):
                module.__dict__["training"] = mode  # torch's own assignment is slow

    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:
        """
        Choose actions as the networks and the replay buffer have them (of a Box, in ``[-1, 1]``), in arrays where they can.

        :param observation: observations, ``[n, ...]``
        :param deterministic: whether to leave out the policy's own noise, if it has any
        :return: actions, ``[n, A]``; discrete ones ``[n]``
        """
        if self._acts_in_arrays(observation):
            return self._actions(self._infer(observation), deterministic)
        with th.no_grad():
            tensor, _ = self.obs_to_tensor(observation)
            return np.asarray(self._predict(tensor, deterministic=deterministic).cpu())

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
        :param deterministic: whether to leave out the policy's own noise, if it has any
        :return: actions in the environment's range, and the state
        :raises ValueError: if an observation holds NaN or infinity, of which networks make an action that says nothing
        """
        shape = self.observation_space.shape
        single = isinstance(observation, np.ndarray) and observation.shape == shape
        several = observation[None] if single else observation
        if isinstance(observation, np.ndarray | dict) and find_non_finite(observation) is not None:
            given = " ".join(repr(observation).split())
            raise ValueError(f"observation={given[:200]} must be finite: it holds NaN or infinity")
        if not self._acts_in_arrays(several):
            return super().predict(observation, state, episode_start, deterministic)
        if self.training:  # nothing that acts in arrays depends on it, so no further look is needed
            self.set_training_mode(False)
        output = self._infer(several)
        self._latest[:] = observation, output
        actions = self._in_env_range(self._actions(output, deterministic), len(several))
        return (actions.squeeze(axis=0) if single else actions), state

    def noise_free_action(self, observation: Any) -> np.ndarray:
        """
        Give the deterministic action, without computing it again where :meth:`predict` was just asked about the same array.

        :param observation: observations, ``[n, ...]``
        :return: actions as :meth:`act` gives them
        """
        latest, output = self._latest
        self._latest[:] = None, None  # an environment may write the next observation into the same array
        return self._actions(output, True) if latest is observation else self.act(observation)

    def distance(self, now: np.ndarray, stored: np.ndarray) -> float:
        """
        Say how far the policy is from what it did (Eq. 6, in the released form: half the mean square).

        :param now: noise-free actions of today's policy, ``[n, A]``
        :param stored: those of the policy at the time, for the same observations, ``[n, A]``
        """
        return float(0.5 * np.mean((now - stored) ** 2))

    def _infer(self, observation: np.ndarray) -> np.ndarray:
        network = self.acting_network
        flat = np.ascontiguousarray(observation.reshape(len(observation), network.features_dim), np.float32)
        return backends.infer(network.sparse_heads()[0], flat)

    def _acts_in_arrays(self, observation: Any) -> bool:
        if not isinstance(observation, np.ndarray):
            return False
        return (
            observation.dtype.kind in "fbiu"
            and observation.shape[1:] == self.observation_space.shape
            and self._network_acts_in_arrays()
        )

    def _network_acts_in_arrays(self) -> bool:
        if self._acting_watch is None or not self._acting_watch.sees_the_same():
            self._acting_watch = Watch(self, [next(iter(self.networks))]) if why_not_act(self) is None else None
        return self._acting_watch is not None

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        """Give the actions that the acting network's output stands for."""
        raise NotImplementedError

    def _in_env_range(self, actions: np.ndarray, count: int) -> np.ndarray:
        return self.unscale_action(actions.reshape(count, *self.action_space.shape))  # type: ignore[misc]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own: dict[str, Any] = {keyword: self.sparsities[name].share for name, keyword in self.networks.items()}
        own |= {start_keyword(keyword): self.sparsities[name].start for name, keyword in self.networks.items()}
        return super()._get_constructor_parameters() | own | vars(self.options.without_path())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_watch": None, "_acting_watch": None}  # copies have other modules


class SparseActorCriticPolicy(SparsePolicy):
    """Goes before a policy of SB3 that has an actor and critics."""

    networks: ClassVar[Mapping[str, str]] = {"actor": "actor_sparsity", "critic": "critic_sparsity"}

    actor_class: ClassVar[type[nn.Module]]
    critic_class: ClassVar[type[nn.Module]]
    actor_kwargs: dict[str, Any]
    critic_kwargs: dict[str, Any]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        *,
        actor_sparsity: float | None = None,
        critic_sparsity: float | None = None,
        actor_start_sparsity: float | None = None,
        critic_start_sparsity: float | None = None,
        **kwargs: Any,
    ) -> None:
        shares = {"actor": actor_sparsity, "critic": critic_sparsity}
        starts = {"actor": actor_start_sparsity, "critic": critic_start_sparsity}
        kwargs = self._set_sparsity(action_space, shares, starts, kwargs, net_arch=net_arch)
        net_arch = self.default_net_arch if net_arch is None else net_arch
        super().__init__(observation_space, action_space, lr_schedule, net_arch, **kwargs)

    def make_actor(self, features_extractor: Any = None) -> Any:
        """
        Make an actor.

        :param features_extractor: one to share, None for one of its own
        """
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return self.actor_class(**kwargs, sparsity=self.sparsities["actor"]).to(self.device)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """
        Make critics.

        :param features_extractor: one to share, None for one of their own
        """
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return self.critic_class(**kwargs, sparsity=self.sparsities["critic"]).to(self.device)

    def _take_widths(self, widths: Mapping[str, list[int]]) -> Any:
        self.actor_kwargs["net_arch"], self.critic_kwargs["net_arch"] = widths["actor"], widths["critic"]
        return {"pi": widths["actor"], "qf": widths["critic"]}

    def _get_constructor_parameters(self) -> dict[str, Any]:
        shared = {"share_features_extractor": self.critic_kwargs["share_features_extractor"]}  # SB3's SACPolicy forgets it
        return super()._get_constructor_parameters() | shared


class SparseGaussianPolicy(SparseActorCriticPolicy):
    """Goes before a policy of SB3 whose actor draws from a squashed Gaussian, as in maximum-entropy algorithms."""

    def _set_sparsity(self, *args: Any, **host: Any) -> dict[str, Any]:
        others = super()._set_sparsity(*args, **host)
        if others.get("use_sde", False):
            name = type(self).__name__
            raise ValueError(f"use_sde=True is not supported by {name}, use_sde must be False: gSDE perturbs a dense layer")
        return others

    def _actions(self, output: np.ndarray, deterministic: bool) -> np.ndarray:
        n_actions = output.shape[1] // 2
        mean, log_std = output[:, :n_actions], output[:, n_actions:]
        if not deterministic:
            noise = th.randn(mean.shape).numpy()  # as `Normal.rsample` draws
            mean = mean + np.exp(log_std.clip(LOG_STD_MIN, LOG_STD_MAX)) * noise
        actions: np.ndarray = np.tanh(mean)
        return actions

    def entropy_bonus(self, model: Any, obs: th.Tensor) -> th.Tensor:
        """
        Give ``-alpha * log pi(a | s)`` of fresh actions, which the soft n-step return adds on its way.

        :param model: the algorithm, whose entropy coefficient is alpha
        :param obs: observations, ``[n, ...]``
        :return: the entropy bonus, ``[n]``
        """
        alpha = model.ent_coef_tensor if model.log_ent_coef is None else model.log_ent_coef.exp()
        with th.no_grad():
            _, log_prob = self.acting_network.action_log_prob(obs)
            bonus: th.Tensor = -alpha * log_prob
            return bonus


class WithExtractor(PolicyHost):
    """Gives a policy another default features extractor, for images or dicts; goes before the policy."""

    default_extractor: ClassVar[type[nn.Module]]

    def __init__(self, *args: Any, features_extractor_class: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class or self.default_extractor, **kwargs)
