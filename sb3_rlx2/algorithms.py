"""RLx2TD3 and RLx2SAC: SB3's TD3 and SAC put together with the sparse parts."""

from typing import Any, ClassVar, TypeVar

from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy

from sb3_rlx2 import metrics
from sb3_rlx2.buffers import DEFAULT_MIN_SIZE, RLx2ReplayBuffer
from sb3_rlx2.callbacks import RLx2Callback
from sb3_rlx2.noise import exploration_noise
from sb3_rlx2.policies import (
    OWN_POLICIES,
    SparseSACCnnPolicy,
    SparseSACMultiInputPolicy,
    SparseSACPolicy,
    SparseTD3CnnPolicy,
    SparseTD3MultiInputPolicy,
    SparseTD3Policy,
)
from sb3_rlx2.updater import check_gradients

POLICY_KEYWORDS = ("actor_sparsity", "critic_sparsity", "distribution", "init", "backend")
BUFFER_KEYWORDS = ("n_steps", "gamma", "buffer_min_size")
CALLBACK_KEYWORDS = (
    "topology",
    "drop_fraction",
    "update_interval",
    "n_steps_delay",
    "policy_distance_threshold",
    "buffer_check_interval",
)
RLX2_KEYWORDS = {*POLICY_KEYWORDS, *BUFFER_KEYWORDS, *CALLBACK_KEYWORDS, "soft_n_step"} - {"gamma"}  # gamma is SB3's


SelfRLx2 = TypeVar("SelfRLx2", bound="_RLx2")


class _RLx2:
    """What both algorithms share: flat keywords become attributes, and attributes become parts in ``_setup_model``."""

    # SB3's attributes that this mixin uses
    policy_class: Any
    policy_kwargs: dict[str, Any]
    replay_buffer_class: Any
    replay_buffer_kwargs: dict[str, Any]
    observation_space: spaces.Space[Any]
    action_space: Any
    action_noise: Any
    policy: Any
    logger: Any
    verbose: int
    n_envs: int
    n_steps: int
    gamma: float
    buffer_min_size: int
    replay_buffer: Any
    _n_updates: int
    _update_learning_rate: Any
    _steps: Any = None

    sparse_policy_class: ClassVar[type[BasePolicy]]
    callback_keywords: ClassVar[tuple[str, ...]] = CALLBACK_KEYWORDS

    def _configure(self, keywords: dict[str, Any], setup_model: bool) -> None:
        """
        Finish construction.

        :param keywords: RLx2's own arguments; as attributes they are saved, and SB3's ``load`` can replace them
        :param setup_model: SB3's ``_init_setup_model``, False while loading
        """
        if not issubclass(self.policy_class, self.sparse_policy_class):
            own, name, needed = (each.__name__ for each in (type(self), self.policy_class, self.sparse_policy_class))
            if not setup_model:
                kind = "another algorithm's" if issubclass(self.policy_class, tuple(OWN_POLICIES)) else "dense"
                raise RuntimeError(
                    f"policy={name} of the saved agent is {kind}, {own}.load needs a {needed}: load it with the algorithm "
                    f"that saved it, or train a sparse one from scratch with {own}"
                )
            raise ValueError(f"policy={name} must be 'MlpPolicy', 'CnnPolicy', 'MultiInputPolicy' or a {needed}")
        for name, value in keywords.items():
            setattr(self, name, value)
        self._make_callback()  # checks its arguments now and not at the first `learn`
        if setup_model:
            self._setup_model()
            if self.verbose > 0:
                print(metrics.summary(self))

    def _setup_model(self) -> None:
        self.action_noise = exploration_noise(self.action_noise, self.action_space, self.n_envs)
        if self.replay_buffer_class is None and not isinstance(self.observation_space, spaces.Dict):
            self.replay_buffer_class = RLx2ReplayBuffer
        # The merged arguments are for the constructors only. What is saved is the user's own, which `load` merges again.
        given = self.policy_kwargs, self.replay_buffer_kwargs, self.n_steps
        self.policy_kwargs = self._merge("policy_kwargs", POLICY_KEYWORDS)
        if self.replay_buffer_class is not None and issubclass(self.replay_buffer_class, RLx2ReplayBuffer):
            self.replay_buffer_kwargs = self._merge("replay_buffer_kwargs", BUFFER_KEYWORDS)
        self.n_steps = 1  # SB3's argument of this name would only warn next to a buffer class
        super()._setup_model()  # type: ignore[misc]
        optimizer = getattr(self, "ent_coef_optimizer", None)
        if optimizer is not None:
            optimizer.register_step_pre_hook(lambda *_: check_gradients("entropy coefficient", optimizer))
        self.policy_kwargs, self.replay_buffer_kwargs, self.n_steps = given

    def _merge(self, argument: str, keywords: tuple[str, ...]) -> dict[str, Any]:
        """Add flat keywords to one of SB3's nested dicts."""
        given: dict[str, Any] = getattr(self, argument)
        flat = {name: getattr(self, name) for name in keywords}
        for name in flat.keys() & given.keys():
            if given[name] != flat[name]:
                raise ValueError(
                    f"{argument} holds {name}={given[name]!r}, but {name} is an argument of {type(self).__name__} itself "
                    f"(now {flat[name]!r}); give it there only"
                )
        return given | flat

    def _make_callback(self) -> RLx2Callback:
        return RLx2Callback(verbose=self.verbose, **{name: getattr(self, name) for name in self.callback_keywords})

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if callback is None:
            others: list[BaseCallback] = []
        elif isinstance(callback, BaseCallback):
            others = [callback]
        else:
            others = list(callback) if isinstance(callback, list) else [ConvertCallback(callback)]
        return super()._init_callback([self._make_callback(), *others], progress_bar)  # type: ignore[misc, no-any-return]

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """
        Do gradient steps: SB3's ``train``, in arrays and kernels where the csr backend serves the whole policy.

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        """
        steps = self._array_steps()
        if steps is None:
            super().train(gradient_steps, batch_size)  # type: ignore[misc]
            return
        self.policy.set_training_mode(True)
        optimizers = (self.policy.actor.optimizer, self.policy.critic.optimizer, getattr(self, "ent_coef_optimizer", None))
        self._update_learning_rate([optimizer for optimizer in optimizers if optimizer is not None])
        losses = steps.train(gradient_steps, batch_size)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in losses.items():
            if values:
                self.logger.record(f"train/{name}", sum(values) / len(values))

    def _array_steps(self) -> Any:
        from sb3_rlx2 import gradient_steps, sac_steps, td3_steps  # late, because they import numba

        if self._steps is not None and self._steps.still_fits(self):
            return self._steps
        self._steps = None
        if gradient_steps.serves(self):
            self._steps = (td3_steps.TD3Steps if isinstance(self, TD3) else sac_steps.SACSteps)(self)
        return self._steps

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """
        Load a saved buffer with its capacity; otherwise the algorithm's own arguments hold, not those of the saved buffer.

        :param path: file, see SB3's ``load_replay_buffer``
        :param truncate_last_traj: for HER, see there
        """
        own = self.replay_buffer
        super().load_replay_buffer(path, truncate_last_traj)  # type: ignore[misc]
        loaded = self.replay_buffer
        if isinstance(loaded, RLx2ReplayBuffer):
            try:
                loaded.configure(self.n_steps, self.gamma, self.buffer_min_size)
            except ValueError as error:
                self.replay_buffer = own
                limit = f"{loaded.capacity}, the capacity of the buffer in {path}"
                raise ValueError(f"buffer_min_size={self.buffer_min_size} must be <= {limit}") from error

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_steps"]  # type: ignore[misc]

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if not isinstance(env.action_space, spaces.Box):
            raise ValueError(f"env has action_space={env.action_space}, which must be a Box: RLx2 is for continuous actions")
        return BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def learn(
        self: SelfRLx2,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRLx2:
        """
        Train as SB3 does.

        :param total_timesteps: number of environment steps
        :param callback: called at every step, besides the :class:`RLx2Callback` that the algorithm brings
        :param log_interval: episodes between two logs
        :param tb_log_name: name of the run in TensorBoard, by default the name of the class
        :param reset_num_timesteps: whether to count steps from 0
        :param progress_bar: whether to show a progress bar
        """
        name = tb_log_name or type(self).__name__
        super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)  # type: ignore[misc]
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Its arrays share memory with tensors, which copies would tear apart.
        return self.__dict__ | {"_steps": None}


class RLx2TD3(_RLx2, TD3):
    """
    TD3 trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``TD3(...)`` in an existing script: the import and the name. Defaults are the paper's, the sparsities
    its HalfCheetah's.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseTD3Policy`
    :param env: environment with a Box action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training; SB3's default is 100
    :param batch_size: minibatch size
    :param action_noise: exploration noise; a number is the standard deviation of Gaussian noise in ``[-1, 1]`` action space
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``
    :param topology: how links grow, ``"rigl"`` (by gradient), ``"set"`` (at random) or ``"static"`` (not at all)
    :param distribution: how links are shared out to layers, ``"erdos_renyi"`` (alias ``"erk"``) or ``"uniform"``
    :param init: which links live at first, ``"magnitude"`` (largest of the dense init) or ``"random"``
    :param drop_fraction: share of each layer's links that an update moves at first; cosine-annealed to 0 over training
    :param update_interval: optimizer steps of a network between its topology updates
    :param n_steps: length of the n-step return
    :param n_steps_delay: share of training (after ``learning_starts``) with one-step targets
    :param buffer_min_size: transitions that the dynamic buffer keeps at least; the default follows a smaller buffer
    :param policy_distance_threshold: policy distance above which the oldest transitions leave; infinity keeps everything
    :param buffer_check_interval: environment steps between looks at the policy distance
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
    :param kwargs: the other arguments of SB3's ``TD3``, with its defaults
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
        learning_starts: int = 25_000,
        batch_size: int = 256,
        *,
        action_noise: ActionNoise | float | None = 0.1,
        actor_sparsity: float = 0.9,
        critic_sparsity: float = 0.85,
        topology: str = "rigl",
        distribution: str = "erdos_renyi",
        init: str = "magnitude",
        drop_fraction: float = 0.5,
        update_interval: int = 10_000,
        n_steps: int = 3,
        n_steps_delay: float = 0.1,
        buffer_min_size: int = DEFAULT_MIN_SIZE,
        policy_distance_threshold: float = 0.2,
        buffer_check_interval: int = 10_000,
        backend: str = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        own = {name: value for name, value in locals().items() if name in RLX2_KEYWORDS}
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            action_noise=action_noise,  # type: ignore[arg-type]
            _init_setup_model=False,
            **kwargs,
        )
        self._configure(own, _init_setup_model)


class RLx2SAC(_RLx2, SAC):
    """
    SAC trained sparse from scratch with RLx2 (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043).

    Two lines replace ``SAC(...)`` in an existing script: the import and the name. Defaults are :class:`RLx2TD3`'s; what the
    paper has for SAC alone (sparsities, a buffer of 3M that keeps 200,000) is in ``hyperparams/rlx2sac.yml``.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseSACPolicy`
    :param env: environment with a Box action space
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param learning_starts: steps of random actions before training; SB3's default is 100
    :param batch_size: minibatch size
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)``
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)``
    :param topology: how links grow, ``"rigl"`` (by gradient), ``"set"`` (at random) or ``"static"`` (not at all)
    :param distribution: how links are shared out to layers, ``"erdos_renyi"`` (alias ``"erk"``) or ``"uniform"``
    :param init: which links live at first, ``"magnitude"`` (largest of the dense init) or ``"random"``
    :param drop_fraction: share of each layer's links that an update moves at first; cosine-annealed to 0 over training
    :param update_interval: optimizer steps of a network between its topology updates
    :param n_steps: length of the n-step return
    :param n_steps_delay: share of training (after ``learning_starts``) with one-step targets
    :param soft_n_step: add the entropy of every state on the way of the n-step return, as released; else only the
        bootstrap state's, as SB3 does
    :param buffer_min_size: transitions that the dynamic buffer keeps at least; the default follows a smaller buffer
    :param policy_distance_threshold: policy distance above which the oldest transitions leave; infinity keeps everything
    :param buffer_check_interval: environment steps between looks at the policy distance
    :param backend: ``"csr"`` (CPU kernels for live weights), ``"masked"`` (dense arithmetic) or ``"auto"``
    :param kwargs: the other arguments of SB3's ``SAC``, with its defaults
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseSACPolicy,
        "CnnPolicy": SparseSACCnnPolicy,
        "MultiInputPolicy": SparseSACMultiInputPolicy,
    }
    sparse_policy_class = SparseSACPolicy
    callback_keywords = (*CALLBACK_KEYWORDS, "soft_n_step")

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 25_000,
        batch_size: int = 256,
        *,
        actor_sparsity: float = 0.9,
        critic_sparsity: float = 0.85,
        topology: str = "rigl",
        distribution: str = "erdos_renyi",
        init: str = "magnitude",
        drop_fraction: float = 0.5,
        update_interval: int = 10_000,
        n_steps: int = 3,
        n_steps_delay: float = 0.1,
        soft_n_step: bool = True,
        buffer_min_size: int = DEFAULT_MIN_SIZE,
        policy_distance_threshold: float = 0.2,
        buffer_check_interval: int = 10_000,
        backend: str = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        own = {name: value for name, value in locals().items() if name in RLX2_KEYWORDS}
        super().__init__(
            policy, env, learning_rate, buffer_size, learning_starts, batch_size, _init_setup_model=False, **kwargs
        )
        self._configure(own, _init_setup_model)
