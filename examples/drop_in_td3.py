"""RLx2TD3 in the place of SB3's TD3: it trains sparse on Pendulum, its links move, and then it plays."""

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_rlx2 import RLx2TD3

model = RLx2TD3("MlpPolicy", "Pendulum-v1", actor_sparsity=0.8, critic_sparsity=0.8, seed=0, verbose=1)
before = model.policy.actor.mu.index.clone()
model.learn(8_000, log_interval=10)

kept = sum(link in before for link in model.policy.actor.mu.index)
print(f"{len(before) - kept} of the actor's {len(before)} links are where there was none at first")

mean, deviation = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
print(f"return of ten episodes: {mean:.0f} +- {deviation:.0f}")
model.save("rlx2_pendulum")
