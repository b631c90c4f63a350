"""DQN with a tenth of the weights balances CartPole."""

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_rlx2 import RLx2DQN

model = RLx2DQN(
    "MlpPolicy",
    "CartPole-v1",
    learning_rate=2.3e-3,
    buffer_size=100_000,
    batch_size=64,
    sparsity=0.9,
    train_freq=256,
    gradient_steps=128,
    target_update_interval=10,
    exploration_fraction=0.16,
    exploration_final_eps=0.04,
    policy_kwargs={"net_arch": [256, 256]},
    seed=0,
)
model.learn(50_000)
mean, deviation = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
print(f"return of ten episodes, 500 at most: {mean:.0f} +- {deviation:.0f}")
