"""A run is killed in the middle, started again, and ends as one that was never killed, to the last bit."""

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.checkpoint import Checkpoints


class PowerCut(BaseCallback):
    """Ends training at a step, without warning."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            raise RuntimeError("no power")
        return True


def train(folder: str, *callbacks: BaseCallback) -> RLx2TD3:
    """Train, or go on from the newest checkpoint in the folder."""
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", actor_sparsity=0.8, critic_sparsity=0.8, seed=0)
    return model.learn(1_500, callback=[*callbacks, Checkpoints(folder, every=500)])


try:
    train("killed", PowerCut(step=700))
except RuntimeError as error:
    print(f"ended by: {error}")
resumed, whole = train("killed"), train("whole")
same = th.equal(resumed.policy.actor.mu.values, whole.policy.actor.mu.values)
print(f"resumed and whole have the same weights: {same}")
