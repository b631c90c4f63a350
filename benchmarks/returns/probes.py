"""Policies that are scored beside the current one, see A3 in PROTOCOL.md. Training does not notice."""

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy

from benchmarks.returns.cells import Cell
from sb3_rlx2.deploy import ActorAverage, ActorCheckpoint, actor_updates, own_episodes, policy_with

SHARE = 0.1  # of the steps, the last ones: where they are scored
AVERAGES = {"average 0.995": 0.995, "average 0.999": 0.999, "average 0.9999": 0.9999}
CHECKPOINTS = {"checkpoint 1, 20": (20, 1, 0.75, 0.1), "checkpoint 5": (5, 5, 1.0, 0.0)}
VALUE_BASED = ("dqn", "qrdqn")  # no actor
PROBES = (*AVERAGES, *CHECKPOINTS)


class Probes(BaseCallback):
    """
    Follows the actor, if there is one, and the training episodes.

    :param cell: what is trained
    """

    model: OffPolicyAlgorithm

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        averages, checkpoints = ({}, {}) if cell.algorithm in VALUE_BASED else (AVERAGES, CHECKPOINTS)
        self.averages = {name: ActorAverage(decay) for name, decay in averages.items()}
        self.checkpoints = {name: ActorCheckpoint(*rule) for name, rule in checkpoints.items()}
        # Plain, so a run that goes on has it.
        self.states: dict[str, Any] = {name: probe.state for name, probe in (self.averages | self.checkpoints).items()}

    def policies(self) -> Iterator[tuple[str, BasePolicy]]:
        """Give copies of the policy with each probe's actor; a checkpoint that is not there yet is left out."""
        for name, state in self.states.items():
            if state["weights"] is not None:
                yield name, policy_with(self.model, state["weights"])

    def _on_rollout_start(self) -> None:  # right after the gradient steps
        self._recall()
        updates = actor_updates(self.model)
        if any(average.is_behind(updates) for average in self.averages.values()):
            actor = self.model.policy.actor.state_dict()
            for average in self.averages.values():
                average.follow(actor, updates)

    def _on_step(self) -> bool:
        self._recall()
        for total in own_episodes(self.locals, self.model):
            progress = self.num_timesteps / self.model._total_timesteps
            for checkpoint in self.checkpoints.values():
                checkpoint.episode(total, progress, self.model.policy.actor.state_dict())
        return True

    def _recall(self) -> None:
        for name, probe in (self.averages | self.checkpoints).items():
            probe.state = self.states[name]
