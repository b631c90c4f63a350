"""Training runs that are cut and go on, and all that they leave behind."""

import csv
import hashlib
import json
import random
import zipfile
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize
from stable_baselines3.her import HerReplayBuffer
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from sb3_rlx2 import RLx2Callback, RLx2DQN, RLx2SAC, RLx2TD3, RLx2TQC, SparseTD3Policy
from sb3_rlx2.checkpoint import Checkpoints, Resumable
from sb3_rlx2.checkpoint.transitions import live_rows, ring
from sb3_rlx2.deploy import DeployAverageCallback, DeployCheckpointCallback

TOTAL, WARM_UP = 160, 50
SMALL = {"learning_starts": WARM_UP, "batch_size": 8, "buffer_size": 90, "train_freq": 1, "gradient_steps": 1, "seed": 3}
OWN = {"buffer_min_size": 20, "update_interval": 15, "buffer_check_interval": 35, "n_steps_delay": 0.3}
LOGS = {".csv", ".json", ".npz"}
WALL_CLOCK = {"time/fps", "time/time_elapsed", "t"}


class Cut(Exception):
    """What ends a run, in place of a kill."""


class CutAt(BaseCallback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps >= self.step:
            raise Cut
        return True


class Draws(BaseCallback):
    """Logs what it draws by itself, and what it sees where a rollout begins."""

    def __init__(self):
        super().__init__()
        self.dice = np.random.default_rng(5)

    def _on_rollout_start(self):
        self.logger.record("own/progress", self.model._current_progress_remaining)

    def _on_step(self):
        self.logger.record_mean("own/mean", self.dice.random())
        return True


class Lively(gym.Wrapper):
    """Draws from everything that a run's state holds, and says whether episodes were a success."""

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        reward += 0.1 * random.random() + 0.1 * np.random.random() + 0.1 * float(self.action_space.sample().flat[0])  # noqa: NPY002
        return obs, float(reward), terminated, truncated, info | {"is_success": float(reward) > 0}


def nets(**more):
    return {"net_arch": [16, 16], **more}


def environments(name, folder, n_envs=1, normalize=False, **kwargs):
    short = {"max_episode_steps": 23}  # an episode is cut by every checkpoint, evaluation and change of n
    env = make_vec_env(name, n_envs=n_envs, seed=7, monitor_dir=str(folder), env_kwargs=short, **kwargs)
    return VecNormalize(env) if normalize else env


def ou(size):
    return OrnsteinUhlenbeckActionNoise(np.zeros(size), 0.3 * np.ones(size))


def td3(folder):
    return RLx2TD3("MlpPolicy", environments("Pendulum-v1", folder), policy_kwargs=nets(), **SMALL, **OWN)


def td3_of_all(folder):
    env = environments("Hopper-v5", folder, normalize=True, wrapper_class=Lively)
    rate = {"learning_rate": lambda progress: 1e-3 * progress}
    return RLx2TD3("MlpPolicy", env, action_noise=ou(3), policy_kwargs=nets(), **SMALL, **OWN, **rate)


def td3_of_two_environments(folder):
    env = environments("Ant-v5", folder, 2, normalize=True)
    return RLx2TD3(
        "MlpPolicy", env, action_noise=ou(8), policy_kwargs=nets(), **SMALL, **OWN, backend="masked", topology="set"
    )


def sac(folder):
    return RLx2SAC("MlpPolicy", environments("Hopper-v5", folder), policy_kwargs=nets(), **SMALL, **OWN)


def sac_of_processes(folder):
    kwargs = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": "fork"}, "wrapper_class": Resumable}
    return RLx2SAC("MlpPolicy", environments("Pendulum-v1", folder, 2, **kwargs), policy_kwargs=nets(), **SMALL, **OWN)


def dqn(folder):
    settings = SMALL | {"exploration_initial_eps": 1.0, "exploration_final_eps": 0.99, "target_update_interval": 30}
    return RLx2DQN("MlpPolicy", environments("CartPole-v1", folder), policy_kwargs=nets(), **settings, **OWN)


def tqc(folder):
    env = environments("HalfCheetah-v5", folder)
    return RLx2TQC("MlpPolicy", env, policy_kwargs=nets(n_quantiles=5), **SMALL, **OWN)


def pruned(folder):
    starts = {"actor_start_sparsity": 0.2, "critic_start_sparsity": 0.2}
    return RLx2TD3("MlpPolicy", environments("Pendulum-v1", folder), policy_kwargs=nets(), **SMALL, **OWN, **starts)


def stock_td3(folder):
    settings = SMALL | {"train_freq": 4, "gradient_steps": 2, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    env = environments("Hopper-v5", folder)
    return TD3("MlpPolicy", env, optimize_memory_usage=True, policy_kwargs=nets(), **settings)


def stock_sac(folder):
    return SAC("MlpPolicy", environments("Pendulum-v1", folder), use_sde=True, n_steps=3, policy_kwargs=nets(), **SMALL)


def stock_dqn(folder):
    settings = SMALL | {"exploration_fraction": 0.9, "target_update_interval": 30}
    return DQN("MlpPolicy", environments("MountainCar-v0", folder), policy_kwargs=nets(), **settings)


def stock_td3_sparse(folder):
    policy_kwargs = nets(actor_sparsity=0.5, critic_sparsity=0.5)
    return TD3(SparseTD3Policy, environments("Pendulum-v1", folder), policy_kwargs=policy_kwargs, **SMALL)


def stock_her(folder):
    settings = SMALL | {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}}
    env = make_vec_env(BitFlippingEnv, n_envs=2, seed=7, monitor_dir=str(folder), env_kwargs={"n_bits": 6, "continuous": True})
    return SAC("MultiInputPolicy", env, policy_kwargs=nets(), **settings)


MAKERS = (
    *(td3, td3_of_all, td3_of_two_environments, sac, sac_of_processes, dqn, tqc, pruned),
    *(stock_td3, stock_sac, stock_dqn, stock_td3_sparse, stock_her),
)


DEPLOYS = {sac: DeployAverageCallback, pruned: partial(DeployCheckpointCallback, 2, 1)}


def train(make, folder, total=TOTAL, cut=None, every=20, evaluate=False):
    """Begin a run, or go on with it; None if it was cut."""
    logs = folder / "logs"
    model = make(logs)
    model.set_logger(configure(str(logs), ["csv", "json", *(["tensorboard"] if make is td3_of_all else [])]))
    callbacks = [RLx2Callback(update_interval=15)] if make is stock_td3_sparse else []
    callbacks += [DEPLOYS[make]()] if make in DEPLOYS else []
    used = [model.get_env()]
    if evaluate:
        used.append(make(folder / "evaluations").get_env())
        paths = {"log_path": str(logs), "best_model_save_path": str(logs)}
        callbacks.append(EvalCallback(used[-1], eval_freq=30, n_eval_episodes=1, verbose=0, **paths))
    callbacks.append(Checkpoints(folder / "checkpoints", every))
    callbacks += [Draws()] if make in (td3, dqn) else []
    if cut is not None:
        callbacks.append(CutAt(cut))
    try:
        model.learn(total, callback=callbacks, log_interval=2)
    except Cut:
        return None
    finally:
        for env in used:
            env.close()
        model.logger.close()
    return model


def scramble(seed):
    """Leave no global generator where it was."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    th.manual_seed(seed)


def fingerprint(model, folder):
    """Give checksums of all that a run has come to."""
    buffer = model.replay_buffer
    rows = (buffer.pos - 1 - np.arange(live_rows(buffer))) % buffer.buffer_size
    return {
        "deployed": digest(getattr(model, "deployed_actor", None)),
        **{f"parameters of {name}": digest(state) for name, state in model.get_parameters().items()},
        "updates": model._n_updates,
        "buffer": digest({name: array[rows] for name, array in ring(buffer).items()}),
        "generators": digest([th.get_rng_state(), np.random.get_state(), random.getstate()]),  # noqa: NPY002
        "actions": digest(model.action_space.np_random.bit_generator.state),
        "files": digest({path.name: log_rows(path) for path in sorted((folder / "logs").iterdir()) if path.suffix in LOGS}),
        "events": digest(events(folder / "logs")),
        "best": best_step(folder / "logs"),
    }


def best_step(folder):
    """Give the step at which the best model was saved, None if none was."""
    path = folder / "best_model.zip"
    if not path.exists():
        return None
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("data"))["num_timesteps"]


def events(folder):
    """Give what TensorBoard finds in a folder, without what tells the time."""
    found = [event for path in sorted(folder.glob("events.*")) for event in EventFileLoader(str(path)).Load()]
    values = [(event.step, value.tag, value.tensor.float_val[:]) for event in found for value in event.summary.value]
    return sorted((step, tag, str(value)) for step, tag, value in values if tag not in WALL_CLOCK)


def log_rows(path):
    """Give the rows of a log, without the columns that tell the time."""
    if path.suffix == ".npz":
        return {name: array.tolist() for name, array in np.load(path).items()}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = map(json.loads, lines) if path.suffix == ".json" else csv.DictReader(lines)
    return [sorted((name, str(value)) for name, value in row.items() if name not in WALL_CLOCK) for row in rows]


def digest(value):
    found = hashlib.sha256()
    _add(value, found)
    return found.hexdigest()[:16]


def _add(value, found):
    if isinstance(value, dict):
        for key, each in value.items():
            _add((key, each), found)
    elif isinstance(value, list | tuple):
        for each in value:
            _add(each, found)
    else:
        found.update(value.detach().cpu().numpy().tobytes() if isinstance(value, th.Tensor) else _bytes(value))


def _bytes(value):
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()


def find(state, path):
    """Give what holds a part of a state, and its key there; names in lists of pairs count as keys."""
    for key in path[:-1]:
        is_pairs = isinstance(state, list) and isinstance(key, str)
        state = next(content for name, content in state if name == key) if is_pairs else state[key]
    return state, path[-1]


def reference(make, folder: Path, **kwargs):
    """Train without a cut."""
    scramble(0)
    return fingerprint(train(make, folder, **kwargs), folder)
