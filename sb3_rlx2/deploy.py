"""
The policy to deploy, where that is not the one that the last gradient step happened to leave.

Late policies of TD3 and SAC earn very different returns from one evaluation to the next: a single update can fall off a cliff
(Rahn et al., 2023, https://arxiv.org/abs/2309.14597). Two ways to choose a better one, both without an environment step more:
an average over updates, and a checkpoint that training episodes have tested (Fujimoto et al., 2023, "TD7",
https://arxiv.org/abs/2306.02451). Both are callbacks for any TD3 or SAC, sparse or dense, of SB3 or of this package::

    model.learn(1_000_000, callback=DeployAverageCallback(decay=0.999))
    model.save("agent")  # the zip holds both policies
    policy = deployed_policy(TD3.load("agent"))
    policy.predict(obs, deterministic=True)

What they choose is the attribute ``deployed_actor`` of the model: plain tensors and numbers, which SB3 saves and loads as it
does any attribute, whether or not this package is installed.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_rlx2.sparse_mlp import remap
from sb3_rlx2.validation import check_integer, check_number

ATTRIBUTE = "deployed_actor"
Weights = Mapping[str, th.Tensor]  # an actor's state_dict


def deployed_policy(model: BaseAlgorithm) -> BasePolicy:
    """
    Give the policy that a callback of this module has chosen.

    :param model: a trained or loaded agent
    :return: a copy of its policy with the chosen actor, to ``predict`` with
    :raises ValueError: if none was chosen
    """
    chosen = getattr(model, ATTRIBUTE, {}).get("weights")
    if chosen is None:
        raise ValueError(
            f"model={type(model).__name__} has no deployed actor: train it with DeployAverageCallback or "
            "DeployCheckpointCallback (which has chosen none before its first checkpoint)"
        )
    return policy_with(model, chosen)


def policy_with(model: BaseAlgorithm, weights: Weights) -> BasePolicy:
    """
    Copy a model's policy and give the copy another actor.

    :param model: the agent, which stays as it is
    :param weights: ``state_dict`` of an actor of the same architecture, on any device
    """
    policy: Any = copy.deepcopy(model.policy)
    policy.actor.load_state_dict(weights)
    policy.set_training_mode(False)
    return policy  # type: ignore[no-any-return]


def _copy(weights: Weights) -> dict[str, th.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _links(weights: Weights) -> int:
    """Count the weights of an actor, of a sparse one the live ones."""
    return sum(tensor.numel() for tensor in weights.values() if tensor.is_floating_point())


class ActorAverage:
    """
    An exponential average of an actor over its updates.

    It lives on the actor's present links, as a target network does: a link that is dropped leaves the average too, a grown one
    begins at 0. So it never has more links than the actor. TD3's target actor is the one of decay ``1 - tau``.

    :param decay: what an update of the actor leaves of the average, in ``[0, 1)``
    :param state: of an average that is to go on, by default it begins with the first actor that it sees
    """

    def __init__(self, decay: float, state: dict[str, Any] | None = None) -> None:
        self.decay = check_number("decay", decay, 0.0, 1.0, high_included=False)
        self.state: dict[str, Any] = state or {"weights": None, "updates": 0}

    def is_behind(self, updates: int) -> bool:
        """
        Tell whether the actor has changed since the average saw it.

        :param updates: number of the actor's updates so far
        """
        return self.state["weights"] is None or bool(updates != self.state["updates"])

    def follow(self, actor: Weights, updates: int) -> None:
        """
        Take up what the actor has become. Several updates since the last call count as that many with the last one's result.

        :param actor: its ``state_dict``
        :param updates: number of its updates so far
        """
        new = updates - self.state["updates"]
        self.state["updates"] = updates
        if self.state["weights"] is None:
            self.state["weights"] = _copy(actor)
        elif new > 0:
            self._move_links(actor)
            self._move_values(actor, 1 - self.decay**new)

    def _move_links(self, actor: Weights) -> None:
        average = self.state["weights"]
        for name in [name for name in actor if name.endswith("index")]:  # of a SparseMLP
            values, index = name.removesuffix("index") + "values", actor[name].cpu()
            if values in actor and not th.equal(index, average[name]):
                average[values] = remap(average[name], index, average[values])
                average[name] = index.clone()

    def _move_values(self, actor: Weights, share: float) -> None:
        for name, average in self.state["weights"].items():
            if average.is_floating_point():
                average.lerp_(actor[name].detach().to(average.device), share)
            else:
                average.copy_(actor[name])


class ActorCheckpoint:
    """
    An actor that training episodes have tested: a policy becomes the checkpoint when the worst of some episodes in a row is at
    least as good as the checkpoint's worst. The row ends early at an episode that is worse.

    A checkpoint with more links than the actor has by now (of a network that is pruned while it trains) gives way to the next
    row that ends.

    :param episodes: length of a row
    :param early_episodes: length of a row at first
    :param switch: share of training from which on a row has ``episodes``
    :param relax: share of its size by which the checkpoint's worst return falls at the switch: of few episodes it was too good
    :param state: of a checkpoint that is to go on
    """

    def __init__(
        self,
        episodes: int = 20,
        early_episodes: int = 1,
        switch: float = 0.75,
        relax: float = 0.1,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.episodes = check_integer("episodes", episodes, minimum=1)
        self.early_episodes = check_integer("early_episodes", early_episodes, minimum=1)
        self.switch = check_number("switch", switch, 0.0, 1.0)
        self.relax = check_number("relax", relax, 0.0, 1.0)
        self.state: dict[str, Any] = state or {
            "weights": None,
            "worst": -math.inf,
            "row": 0,
            "row_worst": math.inf,
            "switched": False,
        }

    def episode(self, total: float, progress: float, actor: Weights) -> None:
        """
        Count a training episode.

        :param total: its return
        :param progress: share of training done, in ``[0, 1]``
        :param actor: the actor's ``state_dict``
        """
        state = self.state
        if progress >= self.switch and not state["switched"]:
            state["switched"] = True
            if math.isfinite(state["worst"]):  # else there is no bar to lower
                state["worst"] -= self.relax * abs(state["worst"])
        if state["weights"] is not None and _links(state["weights"]) > _links(actor):
            state["worst"] = -math.inf
        state["row"] += 1
        state["row_worst"] = min(state["row_worst"], total)
        passed = state["row_worst"] >= state["worst"]
        if passed and state["row"] < (self.episodes if state["switched"] else self.early_episodes):
            return
        if passed:
            state |= {"weights": _copy(actor), "worst": state["row_worst"]}
        state |= {"row": 0, "row_worst": math.inf}


def actor_updates(model: OffPolicyAlgorithm) -> int:
    """Count a model's actor updates so far."""
    return int(model._n_updates) // int(getattr(model, "policy_delay", 1))


def own_episodes(locals_: Mapping[str, Any], model: OffPolicyAlgorithm) -> list[float]:
    """
    Give the returns of the episodes that ended at this step and were the policy's from their first step on.

    :param locals_: a callback's ``locals`` in ``_on_step``
    :param model: what is trained
    :raises ValueError: if an episode ended in an environment without a Monitor
    """
    returns = []
    for done, info in zip(locals_["dones"], locals_["infos"], strict=True):
        if not done:
            continue
        if "episode" not in info:
            raise ValueError(
                "env has no Monitor, which tells what an episode has earned; wrap it in SB3's Monitor or VecMonitor"
            )
        if model.num_timesteps - info["episode"]["l"] * model.n_envs >= model.learning_starts:
            returns.append(float(info["episode"]["r"]))
    return returns


class _Deploys(BaseCallback):
    """Shows its choice to the model, which saves it, and takes up an earlier one of the same kind."""

    model: OffPolicyAlgorithm
    chooser: Any

    def _on_training_start(self) -> None:
        if not hasattr(self.model.policy, "actor"):
            raise ValueError(f"model={type(self.model).__name__} has no actor; it must be an actor-critic like TD3 or SAC")
        earlier = getattr(self.model, ATTRIBUTE, {})
        if earlier.keys() == self.chooser.state.keys():
            self.chooser.state = earlier
        setattr(self.model, ATTRIBUTE, self.chooser.state)

    def _choice(self) -> Any:
        """Give what chooses, with what it has chosen so far, which the model of a run that goes on brings along."""
        self.chooser.state = getattr(self.model, ATTRIBUTE)
        return self.chooser

    def _actor(self) -> Weights:
        return self.model.policy.actor.state_dict()  # type: ignore[union-attr]

    def _on_step(self) -> bool:
        return True


class DeployAverageCallback(_Deploys):
    """
    Deploys the actor's average over its updates.

    Made for ``gradient_steps`` as small as usual: it sees the actor once for each call of ``train``, and counts all updates of
    a call with the last one's result.

    :param decay: what an update of the actor leaves of the average, in ``[0, 1)``; 0.999 averages over some 1,000 updates
    :param verbose: see SB3
    """

    def __init__(self, decay: float = 0.999, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.chooser = ActorAverage(decay)

    def _on_rollout_start(self) -> None:  # right after the gradient steps
        updates, average = actor_updates(self.model), self._choice()
        if average.is_behind(updates):
            average.follow(self._actor(), updates)

    def _on_training_end(self) -> None:
        self._on_rollout_start()


class DeployCheckpointCallback(_Deploys):
    """
    Deploys a checkpoint that training episodes have tested, see :class:`ActorCheckpoint`. They have exploration noise, and the
    environment needs SB3's ``Monitor`` (which SB3 adds where it makes the environment).

    By default the episodes are taken as they come, while the policy goes on learning, and training is not touched; what
    becomes the checkpoint is the policy at the end of the row. With ``hold`` the policy stays as it is during a row, and the
    gradient steps are made up for when it ends, as in TD7. The model then needs ``train_freq=(1, "episode")`` and
    ``gradient_steps=-1``; what is owed when training ends is left out.

    :param episodes: episodes of a row, see :class:`ActorCheckpoint`
    :param early_episodes: see there
    :param switch: see there
    :param relax: see there
    :param hold: whether the policy is held during a row
    :param verbose: 1 prints when there is a new checkpoint
    """

    def __init__(
        self,
        episodes: int = 20,
        early_episodes: int = 1,
        switch: float = 0.75,
        relax: float = 0.1,
        hold: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.chooser = ActorCheckpoint(episodes, early_episodes, switch, relax)
        self.hold = hold
        self._trained_at = 0

    def _on_training_start(self) -> None:
        super()._on_training_start()
        frequency: Any = self.model.train_freq
        if self.hold and (frequency != TrainFreq(1, TrainFrequencyUnit.EPISODE) or self.model.gradient_steps != -1):
            raise ValueError(
                f"train_freq={tuple(frequency)} and gradient_steps={self.model.gradient_steps} must be (1, 'episode') and -1 "
                "with hold=True: the policy is held for whole episodes and then makes up for their gradient steps"
            )
        self._trained_at = self.model.num_timesteps

    def _on_step(self) -> bool:
        checkpoint = self._choice()
        for total in own_episodes(self.locals, self.model):
            before = checkpoint.state["weights"]
            checkpoint.episode(total, self.model.num_timesteps / self.model._total_timesteps, self._actor())
            if self.verbose > 0 and checkpoint.state["weights"] is not before:
                self.logger.info(f"checkpoint at step {self.num_timesteps}: worst return {checkpoint.state['worst']:.1f}")
        return True

    def _on_rollout_end(self) -> None:
        if not self.hold:
            return
        if self.model.num_timesteps <= self.model.learning_starts:  # SB3 does not train yet
            self._trained_at = self.model.num_timesteps
        elif self.chooser.state["row"] > 0:
            self.model.gradient_steps = 0
        else:
            self.model.gradient_steps = self.model.num_timesteps - self._trained_at
            self._trained_at = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.hold:
            self.model.gradient_steps = -1  # what is saved is the user's own

    def _on_training_end(self) -> None:
        self._on_rollout_start()
