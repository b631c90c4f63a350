"""
What users get wrong, as a table: what is given, and a part of the one line that they are told.

Each is an error of Python's with a message of one line, or an exit status other than 0 with one line at the end and no
traceback. That line names the argument, the option or the file, and what was given.
"""

import io
import os
import re
import shlex
import shutil
import sys
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import gymnasium as gym
import numpy as np
import yaml
from gymnasium import spaces
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

from sb3_rlx2 import RLx2Callback, RLx2DQN, RLx2QRDQN, RLx2ReplayBuffer, RLx2SAC, RLx2TD3, RLx2TQC
from sb3_rlx2.__main__ import main
from sb3_rlx2.checkpoint import Checkpoints
from tests.envs import DriftEnv, TinyEnv

NAN = float("nan")
SAVED = Path(__file__).parent / "golden/saved"


class Bad(NamedTuple):
    """
    Something wrong.

    :param kind: arguments, YAML, command line or file
    :param to: what gets it: a name in :data:`CALLS`, an algorithm, a command line, a file and a command line
    :param given: what is wrong
    :param says: part of what is said
    """

    kind: str
    to: str
    given: Any
    says: str

    def __str__(self) -> str:
        text = f"{self.kind}: {self.to} {self.given}".replace("\n", " ")
        return re.sub(r" at 0x\w+", "", text)[:90]  # an address is another one in each process that runs tests


SMALL = {"buffer_size": 50, "policy_kwargs": {"net_arch": [64, 64]}, "learning_starts": 10, "batch_size": 4, "seed": 0}


def _algorithm(cls: Any, **env: Any) -> Any:
    # Copies, because SB3 writes into them.
    return lambda **given: cls(**{"policy": "MlpPolicy", "env": DriftEnv(**env)} | deepcopy(SMALL) | deepcopy(given))


def _loaded(path: str) -> Any:
    return RLx2TD3.load(path, device="cpu")


CALLS = {
    "RLx2TD3": _algorithm(RLx2TD3),
    "RLx2SAC": _algorithm(RLx2SAC),
    "RLx2TQC": _algorithm(RLx2TQC),
    "RLx2DQN": _algorithm(RLx2DQN, n_actions=3),
    "RLx2QRDQN": _algorithm(RLx2QRDQN, n_actions=3),
    "learn": lambda **given: _algorithm(RLx2TD3)().learn(**{"total_timesteps": 12} | given),
    "Checkpoints": lambda **given: Checkpoints(**{"folder": "checkpoints"} | given),
    "RLx2Callback": RLx2Callback,
    "RLx2ReplayBuffer": lambda **given: RLx2ReplayBuffer(
        **{
            "buffer_size": 50,
            "observation_space": spaces.Box(-1, 1, (3,)),
            "action_space": spaces.Box(-1, 1, (1,)),
            "device": "cpu",
        }
        | given
    ),
    "load": lambda **given: RLx2TD3.load(**given),
    "load_replay_buffer": lambda **given: _algorithm(RLx2TD3)().load_replay_buffer(**given),
    "predict": lambda **given: _algorithm(RLx2TD3)().predict(**given),
}

ARGUMENTS = [
    ("RLx2TD3", {"policy": "MlpPolcy"}, "policy='MlpPolcy' is unknown; choose one of 'MlpPolicy'"),
    ("RLx2TD3", {"policy": 7}, "policy=7"),
    ("RLx2TD3", {"env": "Pendulm-v1"}, "Pendulm"),
    ("RLx2TD3", {"env": 7}, "env=7"),
    ("RLx2TD3", {"gama": 0.9}, "gama; did you mean gamma"),
    ("RLx2TD3", {"learning_rate": -1e-3}, "learning_rate=-0.001 must be"),
    ("RLx2TD3", {"learning_rate": NAN}, "learning_rate=nan must be"),
    ("RLx2TD3", {"learning_rate": "fast"}, "learning_rate='fast' must be"),
    ("RLx2TD3", {"buffer_size": 0}, "buffer_size=0 must be an integer >= 1"),
    ("RLx2TD3", {"buffer_size": "much"}, "buffer_size='much' must be an integer >= 1"),
    ("RLx2TD3", {"learning_starts": -1}, "learning_starts=-1 must be"),
    ("RLx2TD3", {"learning_starts": "soon"}, "learning_starts='soon' must be"),
    ("RLx2TD3", {"batch_size": 0}, "batch_size=0 must be an integer >= 1"),
    ("RLx2TD3", {"batch_size": 2.5}, "batch_size=2.5 must be an integer >= 1"),
    ("RLx2TD3", {"tau": 2.0}, "tau=2.0 must be a number in [0, 1]"),
    ("RLx2TD3", {"tau": "slow"}, "tau='slow' must be a number in [0, 1]"),
    ("RLx2TD3", {"gamma": 1.5}, "gamma=1.5 must be a number in [0, 1]"),
    ("RLx2TD3", {"gamma": None}, "gamma=None must be a number in [0, 1]"),
    ("RLx2TD3", {"train_freq": 0}, "train_freq=0 must be"),
    ("RLx2TD3", {"train_freq": "often"}, "train_freq='often' must be"),
    ("RLx2TD3", {"train_freq": (1, "weeks")}, "train_freq=(1, 'weeks') must be"),
    ("RLx2TD3", {"gradient_steps": -7}, "gradient_steps=-7 must be an integer >= -1"),
    ("RLx2TD3", {"action_noise": "normal"}, "action_noise='normal' must be"),
    ("RLx2TD3", {"action_noise": NAN}, "action_noise=nan must be"),
    ("RLx2TD3", {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), -np.ones(1))}, "has a standard deviation below 0"),
    ("RLx2TD3", {"policy_delay": 0}, "policy_delay=0 must be an integer >= 1"),
    ("RLx2TD3", {"target_policy_noise": -0.1}, "target_policy_noise=-0.1 must be"),
    ("RLx2TD3", {"target_noise_clip": NAN}, "target_noise_clip=nan must be"),
    ("RLx2TD3", {"policy_kwargs": 3}, "policy_kwargs=3 must be a dict"),
    ("RLx2TD3", {"policy_kwargs": {"net_arch": [0]}}, "net_arch=[0] must be"),
    ("RLx2TD3", {"policy_kwargs": {"net_arch": "wide"}}, "net_arch='wide' must be"),
    ("RLx2TD3", {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}}}, "net_arch={'pi': [8], 'vf': [8]} must be"),
    ("RLx2TD3", {"policy_kwargs": {"net_archs": [8]}}, "net_archs"),
    ("RLx2TD3", {"policy_kwargs": {"net_arch": [8], "activation_fn": "relu"}}, "activation_fn='relu' must be"),
    ("RLx2TD3", {"policy_kwargs": {"net_arch": [8], "n_critics": 0}}, "n_critics=0 must be an integer >= 1"),
    ("RLx2TD3", {"replay_buffer_class": dict}, "replay_buffer_class=<class 'dict'> must be"),
    ("RLx2TD3", {"replay_buffer_kwargs": {"size": 1}}, "size"),
    ("RLx2TD3", {"replay_buffer_kwargs": 3}, "replay_buffer_kwargs=3 must be a dict"),
    ("RLx2TD3", {"seed": "x"}, "seed='x' must be"),
    ("RLx2TD3", {"seed": -5}, "seed=-5 must be"),
    ("RLx2TD3", {"device": "gpu0"}, "gpu0"),
    ("RLx2TD3", {"verbose": "loud"}, "verbose='loud' must be"),
    ("RLx2TD3", {"stats_window_size": 0}, "stats_window_size=0 must be an integer >= 1"),
    ("RLx2TD3", {"tensorboard_log": 5}, "tensorboard_log=5 must be"),
    ("RLx2TD3", {"actor_sparsity": 1.0}, "actor_sparsity=1.0 must be a number in [0, 1)"),
    ("RLx2TD3", {"critic_sparsity": "0.9"}, "critic_sparsity='0.9' must be a number in [0, 1)"),
    ("RLx2TD3", {"topology": "rigle"}, "did you mean 'rigl'"),
    ("RLx2TD3", {"backend": "cuda"}, "backend='cuda' is unknown"),
    ("RLx2TD3", {"init": "nowhere/agent.zip"}, "nowhere/agent.zip"),
    ("RLx2TD3", {"update_interval": 0}, "update_interval=0 must be"),
    ("RLx2TD3", {"drop_fraction": 2}, "drop_fraction=2 must be"),
    ("RLx2TD3", {"n_steps": 0}, "n_steps=0 must be an integer >= 1"),
    ("RLx2TD3", {"buffer_min_size": 51}, "buffer_min_size=51 must be <= buffer_size=50"),
    ("RLx2TD3", {"arrays": "no"}, "arrays='no' must be"),
    ("RLx2TD3", {"planned_timesteps": -1}, "planned_timesteps=-1 must be"),
    ("RLx2TD3", {"optimize_memory_usage": "no"}, "optimize_memory_usage='no' must be True or False"),
    ("RLx2SAC", {"ent_coef": -1.0}, "ent_coef=-1.0 must be"),
    ("RLx2SAC", {"ent_coef": "autos"}, "ent_coef='autos' must be"),
    ("RLx2SAC", {"ent_coef": "auto_x"}, "ent_coef='auto_x' must be"),
    ("RLx2SAC", {"target_entropy": "low"}, "target_entropy='low' must be"),
    ("RLx2SAC", {"target_update_interval": 0}, "target_update_interval=0 must be"),
    ("RLx2SAC", {"use_sde": True}, "use_sde=True is not supported"),
    ("RLx2TQC", {"top_quantiles_to_drop_per_net": 99}, "top_quantiles_to_drop_per_net=99 must be"),
    ("RLx2TQC", {"policy_kwargs": {"net_arch": [8], "n_quantiles": 0}}, "n_quantiles=0 must be"),
    ("RLx2DQN", {"exploration_fraction": 2.0}, "exploration_fraction=2.0 must be"),
    ("RLx2DQN", {"exploration_final_eps": "low"}, "exploration_final_eps='low' must be"),
    ("RLx2DQN", {"max_grad_norm": -1.0}, "max_grad_norm=-1.0 must be"),
    ("RLx2DQN", {"env": TinyEnv()}, "must be Discrete"),
    ("RLx2QRDQN", {"policy_kwargs": {"net_arch": [8], "n_quantiles": -3}}, "n_quantiles=-3 must be"),
    ("learn", {"total_timesteps": NAN}, "total_timesteps=nan must be an integer >= 0"),
    ("learn", {"total_timesteps": "many"}, "total_timesteps='many' must be an integer >= 0"),
    ("learn", {"log_interval": 0}, "log_interval=0 must be an integer >= 1"),
    ("learn", {"callback": 7}, "callback=7 must be"),
    ("Checkpoints", {"every": 0}, "every=0 must be an integer >= 1"),
    ("Checkpoints", {"every": "1000"}, "every='1000' must be an integer >= 1"),
    ("Checkpoints", {"keep": 0}, "keep=0 must be an integer >= 1"),
    ("Checkpoints", {"folder": None}, "folder=None must be"),
    ("RLx2Callback", {"buffer_check_interval": -1}, "buffer_check_interval=-1 must be"),
    ("RLx2Callback", {"policy_distance_threshold": NAN}, "policy_distance_threshold=nan must be"),
    ("RLx2ReplayBuffer", {"n_steps": 1.5}, "n_steps=1.5 must be an integer >= 1"),
    ("RLx2ReplayBuffer", {"buffer_size": -3}, "buffer_size=-3 must be an integer >= 1"),
    ("RLx2ReplayBuffer", {"n_envs": 0}, "n_envs=0 must be an integer >= 1"),
    ("load", {"path": "nowhere.zip"}, "nowhere.zip"),
    ("load", {"path": SAVED / "sac.zip"}, "is another algorithm's"),
    ("load", {"path": SAVED / "vecnormalize.pkl"}, "no agent that Stable-Baselines3 saved, or damaged"),
    ("load_replay_buffer", {"path": "nowhere.pkl"}, "nowhere.pkl"),
    ("load_replay_buffer", {"path": SAVED / "vecnormalize.pkl"}, "holds a VecNormalize, and no replay buffer"),
    ("predict", {"observation": np.zeros(5, np.float32)}, "(5,)"),
]

# Of an entry for Pendulum-v1 that is right but for these; a text is the whole file.
SETTINGS = {
    "n_timesteps": 60,
    "policy": "MlpPolicy",
    "learning_starts": 50,
    "buffer_size": 1000,
    "buffer_min_size": 10,
    "policy_kwargs": "dict(net_arch=[4, 4])",
    "actor_sparsity": 0.5,
    "critic_sparsity": 0.5,
}
YAML = [
    ("", "is empty, or a list"),
    ("- 1\n- 2\n", "is empty, or a list"),
    ("Pendulum-v1: [1", "bad.yml is no YAML"),
    ("Pendulum-v1: 3\n", "bad.yml holds Pendulum-v1: 3"),
    ("Pendulum-v1: {a: !!python/object/apply:os.getcwd []}\n", "bad.yml is no YAML"),
    ("Hopper-v5: {n_timesteps: 10, policy: MlpPolicy}\n", "Hyperparameters not found for rlx2td3-Pendulum-v1 in bad.yml"),
    ({"n_timesteps": None}, "n_timesteps=None must be an integer >= 1"),
    ({"n_timesteps": "lots"}, "n_timesteps='lots' must be an integer >= 1"),
    ({"n_timesteps": -5}, "n_timesteps=-5 must be an integer >= 1"),
    ({"n_envs": 0}, "n_envs=0 must be an integer >= 1"),
    ({"n_envs": "two"}, "n_envs='two' must be an integer >= 1"),
    ({"policy": None}, "policy=None"),
    ({"policy": "MlpPolcy"}, "MlpPolcy"),
    ({"policy": "nowhere.Policy"}, "policy='nowhere.Policy'"),
    ({"normalize": "maybe"}, "normalize='maybe' must be"),
    ({"normalize": "dict(norm_obss=True)"}, "norm_obss"),
    ({"learning_rate": "fast"}, "learning_rate='fast' must be"),
    ({"learning_rate": "lin_x"}, "learning_rate='lin_x' must be"),
    ({"learning_rate": [1, 2]}, "learning_rate=[1, 2] must be"),
    ({"policy_kwargs": "dict(net_arch=[4"}, "policy_kwargs='dict(net_arch=[4'"),
    ({"policy_kwargs": "dict(activation_fn=nn.Relu)"}, "policy_kwargs='dict(activation_fn=nn.Relu)'"),
    ({"policy_kwargs": "7"}, "policy_kwargs='7' must be a dict"),
    ({"replay_buffer_class": "Nothing"}, "replay_buffer_class='Nothing'"),
    ({"replay_buffer_kwargs": "dict(n_steps=0)"}, "n_steps=0"),
    ({"monitor_kwargs": "dict("}, "monitor_kwargs='dict('"),
    ({"env_wrapper": "nowhere.Wrapper"}, "env_wrapper='nowhere.Wrapper'"),
    ({"env_wrapper": "gymnasium.wrappers.Nothing"}, "env_wrapper='gymnasium.wrappers.Nothing'"),
    ({"env_wrapper": 7}, "env_wrapper=7"),
    ({"vec_env_wrapper": "nowhere.Wrapper"}, "vec_env_wrapper='nowhere.Wrapper'"),
    ({"callback": "nowhere.Callback"}, "callback='nowhere.Callback'"),
    ({"callback": "sb3_rlx2.Nothing"}, "callback='sb3_rlx2.Nothing'"),
    ({"frame_stack": "two"}, "frame_stack='two' must be an integer >= 1"),
    ({"frame_stack": 0}, "frame_stack=0 must be an integer >= 1"),
    ({"noise_type": "pink", "noise_std": 0.1}, "noise_type='pink' must be"),
    ({"noise_type": "normal"}, "noise_std"),
    ({"noise_type": "normal", "noise_std": "much"}, "noise_std='much' must be"),
    ({"env_kwargs": 3}, "env_kwargs=3 must be a dict"),
    ({"env_kwargs": {"gravity": 9.8}}, "gravity"),
    ({"train_freq": [1, "weeks"]}, "train_freq=(1, 'weeks') must be"),
    ({"gama": 0.9}, "gama=0.9 is no argument of RLx2TD3; did you mean gamma"),
]

TASK = "--algo rlx2td3 --env Pendulum-v1"
TRAIN = f"train {TASK} -n 60 --eval-freq -1"
PLAY = f"{TASK} -f logs --no-render"
COMMANDS = [
    ("trian", "did you mean 'train'"),
    ("train --algo rlx2tdd3", "invalid choice: 'rlx2tdd3'"),
    ("train --env Pendulm-v1", "--env Pendulm-v1 is unknown; did you mean Pendulum-v1"),
    ("train --algo rlx2td3 --env CartPole-v1", "Discrete(2)"),
    ("train --algo rlx2dqn --env Pendulum-v1", "must be Discrete"),
    (f"{TRAIN} -n 0", "--n-timesteps=0 must be an integer >= 1"),
    (f"{TRAIN} -n many", "argument -n/--n-timesteps: invalid int value: 'many'"),
    (f"{TRAIN} --eval-freq -7", "--eval-freq=-7 must be an integer >= -1"),
    (f"{TRAIN} --save-freq -7", "--save-freq=-7 must be an integer >= -1"),
    (f"{TRAIN} --eval-episodes 0", "--eval-episodes=0 must be an integer >= 1"),
    (f"{TRAIN} --n-eval-envs 0", "--n-eval-envs=0 must be an integer >= 1"),
    (f"{TRAIN} --log-interval 0", "--log-interval=0 must be"),
    (f"{TRAIN} --num-threads 0", "--num-threads=0 must be"),
    (f"{TRAIN} --seed 99999999999", "--seed=99999999999 must be"),
    (f"{TRAIN} --checkpoint-every -1", "--checkpoint-every -1 must be >= 0"),
    (f"{TRAIN} --device gpu0", "--device gpu0"),
    (f"{TRAIN} --vec-env parallel", "invalid choice: 'parallel'"),
    (f"{TRAIN} --verbose loud", "invalid int value: 'loud'"),
    (f"{TRAIN} --gym-packages no_such_package", "no_such_package"),
    (f"{TRAIN} --env-kwargs gravity:9.8", "gravity"),
    (f"{TRAIN} --env-kwargs g=9.8", "argument --env-kwargs: g=9.8 must be name:value"),
    (f"{TRAIN} -params learning_rate=1", "argument -params: learning_rate=1 must be name:value"),
    (f"{TRAIN} -params gama:0.9", "gama=0.9 is no argument of RLx2TD3; did you mean gamma"),
    (f"{TRAIN} -params actor_sparsity:1.5", "actor_sparsity=1.5 must be a number in [0, 1)"),
    (f"{TRAIN} -params batch_size:0", "batch_size=0 must be an integer >= 1"),
    (f"{TRAIN} -params topology:sett", "topology='sett' is unknown"),
    (f"{TRAIN} -params n_envs:-1", "n_envs=-1 must be an integer >= 1"),
    (f"{TRAIN} -params seed:1", "seed=1 is no hyper-parameter: rlx2 train has --seed for it"),
    (f"{TRAIN} -params gamma:0.9 train_freq:episode", "argument -params: train_freq:episode must be name:value"),
    (f"{TRAIN} -params topology:snip", "topology='snip' needs actor_start_sparsity=0.0"),
    (f"{TRAIN} -conf nowhere.yml", "--conf-file nowhere.yml does not exist"),
    (f"{TRAIN} -conf no_such_module", "no_such_module"),
    (f"{TRAIN} -i nowhere.zip", "nowhere.zip does not exist"),
    (f"{TRAIN} --resume nowhere", "--resume nowhere is no folder of a run"),
    (f"{TRAIN} --dense-twin -optimize", "--dense-twin is for a training, not for a study"),
    (f"{TRAIN} --trial-id 0", "--trial-id 0 needs the --storage and the --study-name"),
    (f"{TRAIN} --trial-id 0 --storage nowhere.log --study-name s", "storage='nowhere.log' does not exist"),
    (f"{TRAIN} -optimize --storage redis://host", "needs a --study-name"),
    (f"{TRAIN} -optimize --storage redis://host --study-name s", "storage='redis://host' must be"),
    (f"{TRAIN} -optimize --n-trials 0", "--n-trials=0 must be an integer >= 1"),
    (f"{TRAIN} -optimize --n-jobs 0", "--n-jobs=0 must be"),
    (f"{TRAIN} -optimize --max-total-trials 0", "--max-total-trials=0 must be an integer >= 1"),
    (f"{TRAIN} -optimize --n-evaluations 0", "--n-evaluations=0 must be an integer >= 1"),
    (f"{TRAIN} -optimize --n-startup-trials -1", "--n-startup-trials=-1 must be an integer >= 0"),
    (f"{TRAIN} --frequency 5", "unrecognized arguments: --frequency 5"),
    (f"enjoy {TASK} -f nowhere --no-render", "--folder nowhere does not exist"),
    (f"enjoy {PLAY} --exp-id 7", "has no run 7 of Pendulum-v1"),
    ("enjoy --algo rlx2sac --env Pendulum-v1 -f logs --no-render", "logs has no folder rlx2sac; it holds rlx2td3"),
    (f"enjoy {PLAY} --load-best", "No model found"),
    (f"enjoy {PLAY} --load-checkpoint 5", "No model found"),
    (f"enjoy {PLAY} --load-last-checkpoint", "No checkpoint found"),
    (f"enjoy {PLAY} --deployed", "deploy"),
    (f"enjoy {PLAY} --deterministic --stochastic", "--deterministic and --stochastic exclude each other"),
    (f"enjoy {PLAY} -n 0", "--n-timesteps=0 must be an integer >= 1"),
    (f"enjoy {PLAY} --n-envs 0", "--n-envs=0 must be an integer >= 1"),
    (f"enjoy {PLAY} --seed -1", "--seed=-1 must be"),
    (f"enjoy {PLAY} --env-kwargs gravity:1", "gravity"),
    ("report nowhere", "nowhere does not exist"),
    ("report logs", "logs holds no run"),
    ("report logs/rlx2td3/Pendulum-v1_1 -o nowhere/page.html", "--output=nowhere/page.html"),
    ("report", "the following arguments are required: LOGDIR"),
    ("export", "the agent must be given, as the path of a zip, or by --algo and --env"),
    ("export nowhere.zip", "nowhere.zip does not exist"),
    ("export logs", "logs is a folder, and no checkpoint of a run"),
    ("export agent.zip --algo nothing", "algo='nothing' is unknown"),
    ("export agent.zip --format pickle", "invalid choice: 'pickle'"),
    ("export agent.zip --dtype int8", "--dtype int8 needs --evaluate N"),
    ("export agent.zip --evaluate 2", "--evaluate 2 needs --env"),
    ("export agent.zip --evaluate -1", "evaluate=-1 must be an integer >= 0"),
    ("export agent.zip --vecnormalize nowhere.pkl", "--vecnormalize nowhere.pkl does not exist"),
    ("export agent.zip --vecnormalize replay_buffer.pkl", "replay_buffer.pkl holds a"),
    ("export agent.zip -o nowhere/policy.c", "nowhere"),
    ("export agent.zip -o 7up.c", "7up"),
    ("advise --env Pendulm-v1", "--env Pendulm-v1 is unknown"),
    ("advise --env Pendulum-v1 -n 0", "--steps=0 must be an integer >= 1"),
    (f"compress {TASK} --tolerance 1.5", "value=1.5 must be a number in [0, 1)"),
    (f"compress {TASK} --n-seeds 1", "value=1 must be an integer in [2,"),
    (f"compress {TASK} --min-density 0.6", "--min-density 0.6 must be below --max-density 0.5"),
    (f"compress {TASK} --dense-logs nowhere", "--dense-logs nowhere"),
    (f"compress {TASK} -conf nowhere.yml", "--conf-file nowhere.yml does not exist"),
    (f"compress {TASK} --storage redis://host", "storage='redis://host' must be"),
    ("plot_train -a rlx2td3 -e Pendulum-v1 -f nowhere", "nowhere"),
    ("all_plots -a rlx2td3 -e Pendulum-v1 -f nowhere", "nowhere"),
    ("plot_from_file -i nowhere.pkl", "nowhere.pkl"),
    (f"load_from_hub {TASK} -f logs --exp-id 1", "logs/rlx2td3/Pendulum-v1_1 exists: --force replaces it"),
    (f"push_to_hub {TASK} -f logs -orga me", "hf auth login"),
]

# What is done to a file of a run before a command reads it.
FILES = [
    ("Pendulum-v1.zip", b"", f"enjoy {PLAY}", "Pendulum-v1.zip is damaged, or no zip"),
    ("Pendulum-v1.zip", b"PK\3\4 not a zip", f"export {TASK} -f logs", "Pendulum-v1.zip is damaged, or no zip"),
    ("Pendulum-v1.zip", b"\0" * 999, "report logs/rlx2td3/Pendulum-v1_1", "Pendulum-v1.zip cannot be read"),
    ("Pendulum-v1.zip", None, f"enjoy {PLAY}", "No model found"),
    ("Pendulum-v1/config.yml", b"{", f"enjoy {PLAY}", "config.yml is damaged"),
    ("Pendulum-v1/config.yml", b"- 7", f"enjoy {PLAY}", "config.yml is damaged"),
    ("Pendulum-v1/config.yml", b"normalize: import os", f"enjoy {PLAY}", "normalize='import os', which would be run"),
    ("Pendulum-v1/config.yml", b"env_wrapper: os.system", f"enjoy {PLAY}", "env_wrapper=os.system, which would be run"),
    ("Pendulum-v1/config.yml", b"\xff\xfe", "report logs/rlx2td3/Pendulum-v1_1", "config.yml"),
    ("Pendulum-v1/args.yml", b"{", "report logs/rlx2td3/Pendulum-v1_1", "args.yml"),
    ("Pendulum-v1/args.yml", b"[1", f"enjoy {PLAY}", "args.yml"),
    ("Pendulum-v1/args.yml", b"seed: 1", "train --resume logs/rlx2td3/Pendulum-v1_1", "holds no checkpoint to go on from"),
    ("Pendulum-v1/vecnormalize.pkl", b"no pickle", f"enjoy {PLAY}", "vecnormalize.pkl"),
    ("progress.csv", b"a,b\n1,2\n", "report logs/rlx2td3/Pendulum-v1_1", "progress.csv cannot be read"),
    ("evaluations.npz", b"no npz", "report logs/rlx2td3/Pendulum-v1_1", "evaluations.npz cannot be read"),
    (
        "evaluations.npz",
        b"no npz",
        f"compress {TASK} --dense-logs logs",
        "evaluations.npz is damaged, or holds no evaluations",
    ),
    ("evaluations.npz", b"no npz", "all_plots -a rlx2td3 -e Pendulum-v1 -f logs", "evaluations.npz is damaged, or holds no"),
    ("0.monitor.csv", b"no json\n", "report logs/rlx2td3/Pendulum-v1_1", "monitor.csv cannot be read"),
    ("checkpoints/000001_step_9/manifest.json", b"{}", "train --resume logs/rlx2td3/Pendulum-v1_1", "is whole"),
    ("../../../study.log", b'{"op_code":99}\n', f"{TRAIN} --trial-id 0 --storage study.log --study-name s", "study.log"),
    (
        "../../../study.log",
        b"garbage\n",
        f"{TRAIN} --trial-id 0 --storage study.log --study-name s",
        "--study-name s is not in",
    ),
    ("../../../study.db", b"no database", f"{TRAIN} --trial-id 0 --storage sqlite:///study.db --study-name s", "study.db"),
    ("../../../agent.zip", b"none", f"{TRAIN} -i agent.zip", "agent.zip is damaged, or no zip"),
    ("../../../conf.yml", b"\xff", f"{TRAIN} -conf conf.yml", "conf.yml is no YAML"),
    ("../../../results.pkl", b"no pickle", "plot_from_file -i results.pkl", "results.pkl"),
]

ALL = [
    *(Bad("arguments", to, given, says) for to, given, says in ARGUMENTS),
    *(Bad("YAML", "rlx2td3", given, says) for given, says in YAML),
    *(Bad("command line", line, "", says) for line, says in COMMANDS),
    *(Bad("file", line, (name, content), says) for name, content, line, says in FILES),
]


def told(bad: Bad, folder: Path) -> str:
    """
    Give what comes of something wrong.

    :param bad: it
    :param folder: an empty folder
    :return: the line
    :raises AssertionError: if nothing is said, or in words that are nobody's
    """
    with inside(folder):
        line = _call(bad) if bad.kind == "arguments" else _run(bad)
    assert bad.says in line, line
    return line


def _call(bad: Bad) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CALLS[bad.to](**bad.given)
    except (ValueError, TypeError, RuntimeError, OSError, gym.error.Error) as error:
        text = str(error)
    else:
        raise AssertionError("silent")
    assert "\n" not in text.strip(), text
    return text


def _run(bad: Bad) -> str:
    line = bad.to
    if bad.kind == "YAML":
        given = bad.given if isinstance(bad.given, str) else yaml.safe_dump({"Pendulum-v1": SETTINGS | bad.given})
        Path("bad.yml").write_text(given)
        line = f"{TRAIN} -conf bad.yml --eval-freq -1"
    elif line.partition(" ")[0] in ("enjoy", "export", "report", "load_from_hub", "push_to_hub") or bad.kind == "file":
        _make_run(Path("logs/rlx2td3/Pendulum-v1_1"))
    if bad.kind == "file":
        _damage(Path("logs/rlx2td3/Pendulum-v1_1", bad.given[0]), bad.given[1])
    return shell(line)


def _make_run(run: Path) -> None:
    """Make a small run: an agent and its settings."""
    (run / "Pendulum-v1").mkdir(parents=True)
    for path in (run / "Pendulum-v1.zip", "agent.zip"):
        shutil.copy(SAVED / "rlx2td3.zip", path)
    shutil.copy(SAVED / "replay_buffer.pkl", "replay_buffer.pkl")
    (run / "Pendulum-v1/config.yml").write_text(yaml.safe_dump(SETTINGS | {"normalize": False}))
    arguments = {"algo": "rlx2td3", "env": "Pendulum-v1", "env_kwargs": None}
    (run / "Pendulum-v1/args.yml").write_text(yaml.safe_dump(arguments))


def _damage(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "vecnormalize.pkl":
        (path.parent / "config.yml").write_text("normalize: true\n")
    path.write_bytes(content)


def shell(line: str) -> str:
    """
    Run a command of ``rlx2`` in this process, as at a shell.

    :param line: its arguments
    :return: the last line that it writes
    :raises AssertionError: if its exit status is 0, or it shows a traceback
    """
    output, code = io.StringIO(), 0
    own = {"HF_HUB_OFFLINE": "1", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    with (
        mock.patch.object(sys, "argv", ["rlx2", *shlex.split(line)]),
        mock.patch.dict(os.environ, own),
        mock.patch("sb3_rlx2.zoo.hub.get_token", return_value=None),
        mock.patch("sb3_rlx2.studies.timing.POLL_INTERVAL", 0.01),
        redirect_stdout(output),
        redirect_stderr(output),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) or end.code is None else 1
            output.write("" if isinstance(end.code, int) or end.code is None else f"{end.code}\n")
    text = output.getvalue()
    assert code, f"silent: {text[-300:]}"
    assert "Traceback" not in text, text
    return text.strip().splitlines()[-1]


@contextmanager
def inside(folder: Path) -> Any:
    """
    Work in a folder.

    :param folder: made if it does not exist
    """
    before = os.getcwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
