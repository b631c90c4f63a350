"""Which links live at first is a function, and may be your own: here units read neighbours, and a DQN learns CartPole."""

import torch as th
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_rlx2 import RLx2DQN
from sb3_rlx2.inits import INITS, Place


def band(place: Place) -> th.Tensor:
    """Give each unit neighbouring inputs, wherever they begin."""
    units, inputs = place.weight.shape
    links = place.nnz // units
    starts = th.randint(inputs, (units, 1), generator=place.generator)
    columns = (starts + th.arange(links)) % inputs
    return (th.arange(units)[:, None] * inputs + columns).flatten()


INITS["band"] = band
for init in ("magnitude", "fan_in", "band"):
    model = RLx2DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2.3e-3,
        batch_size=64,
        sparsity=0.9,
        init=init,
        distribution="dense_output",
        weight_scale="live",
        topology="static",
        train_freq=256,
        gradient_steps=128,
        target_update_interval=10,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=0,
    )
    links = model.policy.q_net.q_net.layer_index(1)  # of the second hidden layer
    of_each = th.bincount(links // 256, minlength=256)
    together = (links.diff() == 1).float().mean()
    print(f"{init}: a unit has {of_each.min()} to {of_each.max()} links, {together:.0%} of them beside another")

model.learn(20_000)
mean, deviation = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
print(f"return of ten episodes with links in bands: {mean:.0f} +- {deviation:.0f}")
