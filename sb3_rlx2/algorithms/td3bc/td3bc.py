"""RLx2TD3BC: TD3+BC, which learns from given transitions, with sparse networks."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.td3.policies import TD3Policy
from torch.nn import functional
from typing_extensions import Self, Unpack

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.algorithms.td3.td3 import RLx2TD3, TD3Keywords
from sb3_rlx2.callbacks import RLx2Callback, all_callbacks, write_updates
from sb3_rlx2.deploy import DeployCheckpointCallback
from sb3_rlx2.evolving import evolving, take_step
from sb3_rlx2.validation import check_integer

# What only an environment that is stepped could make something of, and what it must be.
FIXED = {"action_noise": None, "learning_starts": 0, "policy_distance_threshold": math.inf}
COUNT_STEPS = ("train_freq", "gradient_steps", "planned_timesteps")  # of an environment


class RLx2TD3BC(RLx2TD3):
    """
    TD3+BC (Fujimoto & Gu, 2021, "A Minimalist Approach to Offline Reinforcement Learning",
    https://arxiv.org/abs/2106.06860) with networks that are sparse from the first gradient step: TD3 on given transitions,
    whose actor is also to do as the data do.

    It has RLx2's topology updates and, for ``n_steps`` above 1, delayed n-step targets. The data are fixed, so there is no
    dynamic buffer. Fill the replay buffer (``load_replay_buffer``, :func:`sb3_rlx2.offline.add_episodes`), then
    :meth:`learn_offline`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`SparseTD3Policy`
    :param env: environment with the spaces of the data; :func:`sb3_rlx2.offline.normalised` makes one with their statistics
    :param learning_rate: learning rate, or a function of the remaining progress
    :param buffer_size: capacity of the replay buffer, in transitions
    :param batch_size: minibatch size
    :param behaviour_cloning: weight of the values against the distance from the data's actions, alpha of the paper; 0 leaves
        pure behaviour cloning
    :param actor_sparsity: share of zeros in the actor, in ``[0, 1)`` (default ``0.9``)
    :param critic_sparsity: share of zeros in each critic, in ``[0, 1)`` (default ``0.85``)
    :param actor_start_sparsity: share of zeros that the actor begins with; None for ``actor_sparsity`` throughout
    :param critic_start_sparsity: likewise, of each critic
    :param kwargs: the other arguments of RLx2, see :class:`RLx2TD3`, and of SB3's ``TD3``, with its defaults; shares are of
        the gradient steps
    :raises ValueError: if an argument is about steps of an environment (a finite ``policy_distance_threshold``,
        ``action_noise``, ``learning_starts``, ``train_freq``, ``gradient_steps``, ``planned_timesteps``), or is none
    """

    n_steps_delay: float

    # TD3+BC's own one-step targets; and data that stay as they are
    own_defaults: ClassVar[Mapping[str, Any]] = {"n_steps": 1, "policy_distance_threshold": math.inf}

    _make_steps = RLx2Algorithm._make_steps  # those of TD3 have another loss

    def __init__(
        self,
        policy: str | type[TD3Policy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        batch_size: int = 256,
        *,
        behaviour_cloning: float = 2.5,
        actor_sparsity: float = 0.9,
        critic_sparsity: float = 0.85,
        actor_start_sparsity: float | None = None,
        critic_start_sparsity: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[TD3Keywords],
    ) -> None:
        self.behaviour_cloning = behaviour_cloning
        _check_fixed(kwargs)
        for name in COUNT_STEPS:
            if name in kwargs:
                raise ValueError(f"{name} must not be given: it counts steps of an environment, and learn_offline() does none")
        others: Any = kwargs | FIXED
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            batch_size=batch_size,
            actor_sparsity=actor_sparsity,
            critic_sparsity=critic_sparsity,
            actor_start_sparsity=actor_start_sparsity,
            critic_start_sparsity=critic_start_sparsity,
            _init_setup_model=_init_setup_model,
            **others,
        )

    def learn(self, *args: Any, **kwargs: Any) -> NoReturn:
        """
        Refuse: there is no environment to explore.

        :param args: of other algorithms' ``learn``
        :param kwargs: the same
        :raises ValueError: always
        """
        raise ValueError("learn() needs an environment to explore; RLx2TD3BC trains with learn_offline()")

    def learn_offline(
        self,
        gradient_steps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1_000,
        tb_log_name: str = "RLx2TD3BC",
        progress_bar: bool = False,
    ) -> Self:
        """
        Train on what the replay buffer holds. A gradient step takes the place of an environment step wherever steps are
        counted: in ``num_timesteps``, for callbacks (such as SB3's ``EvalCallback``) and in the log.

        :param gradient_steps: number of gradient steps, of which topology updates take some
        :param callback: called after every gradient step
        :param log_interval: gradient steps between two logs, None for none
        :param tb_log_name: name of the run in TensorBoard
        :param progress_bar: whether to show a progress bar
        :raises ValueError: if there are no transitions
        """
        check_integer("gradient_steps", gradient_steps, 1)
        self._check_data()
        self._check_training(log_interval, progress_bar)
        with evolving(self, gradient_steps) as step:
            try:
                total_timesteps, callback = self._setup_learn(gradient_steps, callback, True, tb_log_name, progress_bar)
                callback.on_training_start(locals(), globals())
                goes_on = True
                while goes_on and self.num_timesteps < total_timesteps:
                    callback.on_rollout_start()
                    late = self.num_timesteps >= self.n_steps_delay * total_timesteps
                    self.replay_buffer.n_steps = self.n_steps if late else 1
                    self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                    with step(self.num_timesteps):
                        self.train(1, self.batch_size)
                    self.num_timesteps += 1
                    write_updates(self)
                    goes_on = callback.on_step()
                    callback.on_rollout_end()
                    if log_interval is not None and self.num_timesteps % log_interval == 0:
                        self.dump_logs()
                callback.on_training_end()
            finally:
                self._leave_environments()
        return self

    def _check_data(self) -> None:
        _check_fixed(vars(self))
        buffer = self.replay_buffer
        if buffer.size() == 0:
            raise ValueError(
                "replay_buffer holds 0 transitions: load_replay_buffer() or sb3_rlx2.offline.add_episodes() fill it"
            )
        if self.n_steps > 1 and not isinstance(buffer, NStepReplayBuffer):
            kind = type(buffer).__name__
            raise ValueError(f"n_steps={self.n_steps} must be 1: the loaded {kind} has no n-step returns")
        buffer.gamma = self.gamma  # of n-step returns, and a loaded one may have been collected with another

    def _own_callbacks(self) -> list[BaseCallback]:
        return []  # that of RLx2 counts an environment's steps

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        made = super()._init_callback(callback, progress_bar)
        for each in all_callbacks(made):
            if isinstance(each, RLx2Callback | DeployCheckpointCallback):
                name = type(each).__name__
                raise ValueError(f"callback holds {name}, which needs an environment's steps, and learn_offline() does none")
        return made

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """
        Do gradient steps: TD3's, but for the actor's loss.

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        :raises ValueError: if there is no logger yet
        """
        self._check_logger()
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        losses: dict[str, list[float]] = {"critic_loss": [], "actor_loss": []}
        for _ in range(gradient_steps):
            self._n_updates += 1
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            losses["critic_loss"].append(self._update_critics(data))
            if self._n_updates % self.policy_delay == 0:
                losses["actor_loss"].append(self._update_actor(data))
                for network, target in ((self.critic, self.critic_target), (self.actor, self.actor_target)):
                    polyak_update(network.parameters(), target.parameters(), self.tau)
                polyak_update(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)  # as TD3
                polyak_update(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)
        self._log_losses(losses)

    def _update_critics(self, data: Any) -> float:
        """Do a step of the critics, towards the smaller value of the target policy's action with clipped noise."""
        discounts = self.gamma if data.discounts is None else data.discounts
        with th.no_grad():
            noise = th.randn_like(data.actions) * self.target_policy_noise
            noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
            actions = (self.actor_target(data.next_observations) + noise).clamp(-1, 1)
            values = th.cat(self.critic_target(data.next_observations, actions), dim=1).min(dim=1, keepdim=True).values
            target = data.rewards + (1 - data.dones) * discounts * values
        errors = [functional.mse_loss(value, target) for value in self.critic(data.observations, data.actions)]
        return take_step(self.critic.optimizer, th.stack(errors).sum())

    def _update_actor(self, data: Any) -> float:
        """Do a step of the actor, to higher values, in units of their size, and to the data's actions."""
        actions = self.actor(data.observations)
        values = self.critic.q1_forward(data.observations, actions)
        weight = self.behaviour_cloning / values.abs().mean().detach()
        return take_step(self.actor.optimizer, functional.mse_loss(actions, data.actions) - weight * values.mean())


def _check_fixed(given: Mapping[str, Any]) -> None:
    for name, value in FIXED.items():
        if given.get(name, value) != value:
            raise ValueError(f"{name}={given[name]!r} must be {value}: the data are fixed")
