"""
What made the files of `tests/test_golden.py`: agents, a replay buffer, statistics and a checkpoint as an earlier version
saved them (`saved/`), and what 300 gradient steps came to with it (`training_*.json`, one a kind of machine).

All are of commit 64cf07d and never made again: a file that a later version wrote would only show that the version can read
itself. Hashes hold on one kind of machine only. For another, put this folder into a checkout of that commit, let
`python -m tests.golden.make FOLDER` make its own there, and keep its `training_*.json` here.
"""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import llvmlite.binding as llvm
import numba
import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, RLx2SAC, RLx2TD3, SparseSACPolicy, SparseTD3Policy
from tests.command import TINY
from tests.envs import DriftEnv

# The agents, each saved in the middle of its training: topology and n have changed, the buffer has shrunk.
COMMON = {"learning_starts": 50, "batch_size": 16, "buffer_size": 150, "seed": 0}
NETS = {"net_arch": [16, 16]}  # given as a copy, because SB3's SAC writes into it
SPARSITY = {"actor_sparsity": 0.6, "critic_sparsity": 0.5}
BUFFER = {"n_steps": 3, "buffer_min_size": 30}
CALLBACK = {
    "update_interval": 25,
    "n_steps_delay": 0.2,
    "policy_distance_threshold": 0.0,
    "buffer_check_interval": 40,
}
OWN = {"rlx2td3": RLx2TD3, "rlx2sac": RLx2SAC}
STOCK = {"td3": (TD3, SparseTD3Policy), "sac": (SAC, SparseSACPolicy)}
CHECKPOINT = "rl_model_60_steps"

# The runs whose weights are hashed.
STEPS = 300
WARM_UP = 100
RUNS = [(algorithm, variant) for algorithm in OWN for variant in ("csr", "csr by SB3's train", "masked")]


def make_agents(folder: Path) -> dict[str, np.ndarray]:
    """Save the agents and a buffer, and give what they do."""
    observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    known = {"observations": observations}
    models = {
        name: algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=NETS.copy(), **COMMON, **SPARSITY, **BUFFER, **CALLBACK)
        for name, algorithm in OWN.items()
    } | {
        name: algorithm(
            policy,
            "Pendulum-v1",
            policy_kwargs=NETS | SPARSITY,
            replay_buffer_class=RLx2ReplayBuffer,
            replay_buffer_kwargs=BUFFER,
            **COMMON,
        )
        for name, (algorithm, policy) in STOCK.items()
    }
    for name, model in models.items():
        driver = [RLx2Callback(**CALLBACK)] if name in STOCK else []
        model.learn(400, [*driver, StopTrainingOnMaxEpisodes(1)])
        model.save(folder / f"{name}.zip")
        known[f"{name}_actions"] = model.predict(observations, deterministic=True)[0]
    buffer = models["rlx2td3"].replay_buffer
    models["rlx2td3"].save_replay_buffer(folder / "replay_buffer.pkl")
    known["oldest_observations"], known["oldest_actions"] = buffer.oldest(buffer.size())
    return known


def make_statistics(folder: Path, observations: np.ndarray) -> dict[str, np.ndarray]:
    """Save statistics, and give what they make of observations and rewards."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.seed(0)
    env.reset()
    for action in np.random.default_rng(0).uniform(-2, 2, (100, 1, 1)):
        env.step(action.astype(np.float32))
    env.save(str(folder / "vecnormalize.pkl"))
    return {"normalized": env.normalize_obs(observations), "normalized_rewards": env.normalize_reward(np.linspace(-9, 0, 20))}


def make_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """Save what is there of a run that died behind its checkpoint."""
    parameters = ["normalize:True", "policy_kwargs:dict(net_arch=[16])", "buffer_size:100", "buffer_min_size:10"]
    parameters += ["learning_starts:20", "update_interval:10", "buffer_check_interval:25"]
    arguments = ["--algo", "rlx2td3", "--env", "Pendulum-v1", *TINY, "-n", "80", "--save-freq", "60", "-params", *parameters]
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "sb3_rlx2", "train", *arguments], cwd=place, check=True)
        shutil.copytree(Path(place, "logs/rlx2td3/Pendulum-v1_1"), folder / "checkpoint")
    for late in ("Pendulum-v1.zip", "Pendulum-v1/vecnormalize.pkl", "Pendulum-v1/command.txt"):  # the last names a local path
        (folder / "checkpoint" / late).unlink()
    observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = RLx2TD3.load(folder / "checkpoint" / f"{CHECKPOINT}.zip", buffer_size=1)
    return {"checkpoint_actions": model.predict(observations, deterministic=True)[0]}


def train_without_arrays(model):
    """Have SB3's own `train` do the gradient steps; the commit of the files has no argument for that."""
    if hasattr(model, "arrays"):
        model.arrays = False
    else:
        model._array_steps = lambda: None


def train(name: str, variant: str):
    """Train across topology updates, the n-step switch and shrinks. What the agent does hardly matters to what it sees."""
    model = OWN[name](
        "MlpPolicy",
        DriftEnv(),
        learning_starts=WARM_UP,
        batch_size=100,  # more than one tile of the kernels, and not a multiple
        buffer_size=150,
        seed=0,
        backend=variant.split()[0],
        policy_kwargs=NETS.copy(),
        **SPARSITY,
        **BUFFER,
        **CALLBACK,
    )
    if variant == "csr by SB3's train":
        train_without_arrays(model)
    return model.learn(WARM_UP + STEPS)


def tensors_of(model) -> dict[str, np.ndarray]:
    """Give weights, targets, index, the optimizers' moments and the growth's generator, by name."""
    parameters = model.get_parameters()
    weights = parameters.pop("policy")
    del weights["topology_updater._extra_state"]
    found = {**weights, "generator": model.policy.topology_updater.generator.get_state()}
    for optimizer, state in parameters.items():
        for number, moments in state["state"].items():
            found |= {f"{optimizer}.{number}.{name}": th.as_tensor(value) for name, value in moments.items()}
    if hasattr(model, "log_ent_coef"):
        found["log_ent_coef"] = model.log_ent_coef.detach()
    return {name: tensor.numpy() for name, tensor in found.items()}


def outcome(model) -> dict:
    """
    Give what a run has come to, for JSON:

    - `counts`, equal on any machine: optimizer steps and topology updates of each network, n, the buffer's transitions
    - `hashes` of all tensors' bytes, equal on one kind of machine
    - `sums` and norms of the float tensors, close on any
    - `links`, the index itself: rounding decides between links whose scores nearly tie, so elsewhere a few may differ
    """
    tensors, buffer = tensors_of(model), model.replay_buffer
    networks = model.policy.topology_updater.networks
    counts = {name: [network.steps, network.updates] for name, network in networks.items()}
    return {
        "counts": counts | {"n_steps": buffer.n_steps, "transitions": buffer.size()},
        "hashes": {name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in tensors.items()},
        "sums": {
            name: [float(tensor.sum(dtype=np.float64)), float(np.linalg.norm(tensor.astype(np.float64)))]
            for name, tensor in tensors.items()
            if tensor.dtype == np.float32
        },
        "links": {name: tensor.tolist() for name, tensor in tensors.items() if name.endswith("index")},
    }


def machine() -> dict[str, str]:
    """Give what the last bits of a training depend on."""
    features = hashlib.sha256(llvm.get_host_cpu_features().flatten().encode()).hexdigest()[:16]
    return {
        "cpu": f"{platform.machine()} {llvm.get_host_cpu_name()} {features}",
        "torch's vectors": th.backends.cpu.get_cpu_capability(),
        **{module.__name__: module.__version__ for module in (np, numba, th, gym, stable_baselines3)},
    }


def main(folder: Path) -> None:
    """Make everything in an empty folder."""
    th.set_num_threads(1)
    saved = folder / "saved"
    saved.mkdir(parents=True)
    known = make_agents(saved)
    np.savez(saved / "known.npz", **known, **make_statistics(saved, known["observations"]), **make_checkpoint(saved))
    runs = {f"{name} {variant}": outcome(train(name, variant)) for name, variant in RUNS}
    (folder / f"training_{llvm.get_host_cpu_name()}.json").write_text(json.dumps({"machine": machine(), "runs": runs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
