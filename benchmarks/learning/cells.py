"""The learning checks as data: which runs there are and what they must show."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """
    One run.

    :param check: name of the learning check that it belongs to
    :param env: environment
    :param method: label of the configuration
    :param seed: seed of the model and of the training environment
    :param steps: environment steps
    :param eval_every: environment steps between evaluations of ten episodes
    :param arguments: arguments of RLx2TD3 that differ from its defaults
    """

    check: str
    env: str
    method: str
    seed: int
    steps: int
    eval_every: int
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.check}_{self.env}_{self.method}_seed{self.seed}"


HALF_CHEETAH = {"actor_sparsity": 0.90, "critic_sparsity": 0.85}
HOPPER = {"actor_sparsity": 0.98, "critic_sparsity": 0.95}
PENDULUM = {
    "actor_sparsity": 0.80,
    "critic_sparsity": 0.80,
    "learning_starts": 1_000,
    "update_interval": 500,
    "buffer_min_size": 2_000,
    "buffer_check_interval": 1_000,
}
# The paper's static baseline ("SS"): a random topology that stays, without n-step targets and without dynamic capacity.
STATIC = {"topology": "static", "init": "random", "n_steps": 1, "policy_distance_threshold": float("inf")}

CELLS = [
    *(Cell("pendulum", "Pendulum-v1", "rlx2", seed, 15_000, 1_000, PENDULUM) for seed in (0, 1)),
    *(Cell("halfcheetah", "HalfCheetah-v4", "rlx2", seed, 300_000, 10_000, HALF_CHEETAH) for seed in (0, 1)),
    *(Cell("hopper", "Hopper-v4", "rlx2", seed, 500_000, 10_000, HOPPER) for seed in (0, 1)),
    *(Cell("hopper", "Hopper-v4", "static", seed, 500_000, 10_000, HOPPER | STATIC) for seed in (0, 1)),
]
