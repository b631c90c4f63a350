"""SB3's own SAC with the three parts of RLx2: a sparse policy, the dynamic buffer, and the callback that moves links."""

from stable_baselines3 import SAC

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, SparseSACPolicy

model = SAC(
    SparseSACPolicy,
    "Pendulum-v1",
    policy_kwargs={"actor_sparsity": 0.8, "critic_sparsity": 0.8},
    replay_buffer_class=RLx2ReplayBuffer,
    replay_buffer_kwargs={"n_steps": 3},
    seed=0,
)
model.learn(3_000, callback=RLx2Callback(verbose=1))
for name, network in model.policy.topology_updater.networks.items():
    print(f"{name}: {network.updates} topology updates, the last one moved {network.churn:.1%} of the links")
