"""Times the stages of a training step from inside, and counts what they have to do at least."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, metrics
from sb3_rlx2.algorithms.sac.steps import SACSteps
from sb3_rlx2.algorithms.td3.steps import TD3Steps
from sb3_rlx2.fast.steps import GradientSteps

BATCH = 256


class Stopwatch:
    """Gives each stage the time spent in its functions, without that of other stages called from there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def restart(self) -> None:
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def wrap(self, owner: Any, attribute: str, stage: str) -> None:
        """Put a timed function in the place of an attribute."""
        self.seconds[stage] = 0.0
        setattr(owner, attribute, self._timed(getattr(owner, attribute), stage))

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def watch(model: Any) -> Stopwatch:
    """Time the stages of an RLx2TD3 or RLx2SAC, in the order in which the table shows them."""
    stopwatch = Stopwatch()
    for owner, attribute, stage in (
        (model.env, "step", "environment"),
        (model, "_sample_action", "action"),
        (model, "_store_transition", "storing"),
        (RLx2Callback, "on_step", "callback"),
        (model, "collect_rollouts", "rest of the rollout"),
        (RLx2ReplayBuffer, "sample_into", "sampling"),
        (RLx2ReplayBuffer, "gather_on_the_way", "sampling"),
        (SACSteps, "_add_entropy_bonus", "entropy on the way"),
        (TD3Steps, "_update_critics", "critics: targets, forward, backward"),
        (SACSteps, "_fit_critics", "critics: targets, forward, backward"),
        (TD3Steps, "_update_actor", "actor: forward, backward"),
        (SACSteps, "_update_actor", "actor: forward, backward"),
        (GradientSteps, "_step", "optimizer"),
        (SACSteps, "_update_entropy_coefficient", "optimizer"),
        (GradientSteps, "_move_targets", "Polyak"),
        (model, "train", "rest of train()"),
        (model, "learn", "rest of learn()"),
    ):
        stopwatch.wrap(owner, attribute, stage)
    return stopwatch


def work(model: Any) -> dict[str, float]:
    """FLOPs of the kernels and bytes of the element-wise stages, per step."""
    pi, qs = (list(map(metrics.pass_flops, metrics.sparse_mlps(net))) for net in (model.actor, model.critic))
    flops = _td3_flops(pi[0], qs, model) if hasattr(model, "policy_delay") else _sac_flops(pi[0], qs, model)
    actor, critic = (sum(parameter.nbytes for parameter in net.parameters()) for net in (model.actor, model.critic))
    delay = getattr(model, "policy_delay", 1)
    actor_target = actor / delay if hasattr(model, "actor_target") else 0
    return {
        **{stage: BATCH * count for stage, count in flops.items()},
        "optimizer": 7 * (critic + actor / delay),  # reads weight, gradient, two moments; writes all but the gradient
        "Polyak": 3 * (critic / delay + actor_target),
    }


def _td3_flops(pi: metrics.PassFlops, qs: list[metrics.PassFlops], model: Any) -> dict[str, float]:
    targets = pi.forward + sum(q.forward for q in qs)
    actor = pi.forward + pi.grad_weights + pi.grad_hidden + _action_gradient(qs[0], model)
    return {
        "critics: targets, forward, backward": targets + _fit_flops(qs),
        "actor: forward, backward": actor / model.policy_delay,
    }


def _sac_flops(pi: metrics.PassFlops, qs: list[metrics.PassFlops], model: Any) -> dict[str, float]:
    targets = 2 * pi.forward + sum(q.forward for q in qs)
    actor = pi.grad_weights + pi.grad_hidden + sum(_action_gradient(q, model) for q in qs)
    return {
        "entropy on the way": (model.replay_buffer.n_steps - 1) * pi.forward,
        "critics: targets, forward, backward": targets + _fit_flops(qs),
        "actor: forward, backward": actor,
    }


def _fit_flops(qs: list[metrics.PassFlops]) -> float:
    return sum(q.forward + q.grad_weights + q.grad_hidden for q in qs)


def _action_gradient(q: metrics.PassFlops, model: Any) -> float:
    """Forward, and back to the actions alone, which are some of the inputs."""
    n_actions, inputs = model.replay_buffer.action_dim, metrics.sparse_mlps(model.critic)[0].layers[0].in_features
    return q.forward + q.grad_hidden + q.grad_input * n_actions / inputs
