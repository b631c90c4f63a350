"""What an editor and mypy (strict, by pyproject.toml) say about a user's script."""

import re
import subprocess
import sys
import typing
from pathlib import Path

from sb3_rlx2.algorithms.keywords import HIDDEN_WEIGHTS, RLx2Keywords
from sb3_rlx2.backends import BACKENDS
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.sparse_mlp import WEIGHT_SCALES
from sb3_rlx2.topology import TOPOLOGIES

ROOT = Path(__file__).parent.parent
SCRIPT = """
from sb3_rlx2 import RLx2Callback, RLx2CrossQ, RLx2DDPG, RLx2DQN, RLx2QRDQN, RLx2SAC, RLx2TD3, RLx2TQC, SparseMLP

RLx2TD3("MlpPolicy", "Pendulum-v1", sparsty=0.5)  # Unexpected keyword argument "sparsty"
RLx2SAC("MlpPolicy", "Pendulum-v1", topology="rigel")  # Argument "topology"
RLx2TQC("MlpPolicy", "Pendulum-v1", tau="no")  # Argument "tau"
RLx2CrossQ("MlpPolicy", "Pendulum-v1", backend="cuda")  # Argument "backend"
RLx2DDPG("MlpPolicy", "Pendulum-v1", actor_sparsity="0.9")  # Argument "actor_sparsity"
RLx2DQN("MlpPolicy", "CartPole-v1", sparsity="much")  # Argument "sparsity"
RLx2QRDQN("MlpPolicy", "CartPole-v1", distribution="erdos")  # Argument "distribution"
RLx2Callback(topology="rigl2")  # Argument "topology"
model = RLx2TD3("MlpPolicy", "Pendulum-v1", actor_sparsity=0.8, topology="set", tau=0.01, seed=3, n_steps=2)
steps: int = model.learn(300).num_timesteps
again: RLx2TD3 = RLx2TD3.load("agent", env="Pendulum-v1")
names: list[str] = [again.topology, RLx2SAC.load("agent").backend]
networks: list[SparseMLP] = [
    *(model.actor.mu, again.critic.q_networks[0], again.critic_target.q_networks[1]),
    *(RLx2SAC.load("agent").actor.mean_and_log_std, RLx2TQC.load("agent").actor.mean_and_log_std),
    *(RLx2CrossQ.load("agent").actor.mean_and_log_std, RLx2DQN.load("agent").q_net.q_net),
    RLx2QRDQN.load("agent").quantile_net.quantile_net,
]
weights = model.actor.mu.dense_weights()
"""


def test_mypy_finds_mistakes_of_a_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    line = [sys.executable, "-m", "mypy", str(tmp_path / "script.py")]  # with the settings and the cache of `make lint`
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    found = dict(re.findall(r"script\.py:(\d+): error: (.*)", done.stdout))
    expected = {str(number): text.partition("  # ")[2] for number, text in enumerate(SCRIPT.splitlines(), 1) if "  # " in text}
    assert found.keys() == expected.keys(), done.stdout + done.stderr
    assert all(found[number].startswith(text) for number, text in expected.items())


def test_types_name_what_tables_hold():
    tables = {
        "distribution": DISTRIBUTIONS,
        "backend": BACKENDS,
        "weight_scale": WEIGHT_SCALES,
        "hidden_weights": HIDDEN_WEIGHTS,
        "topology": TOPOLOGIES,
    }
    types = typing.get_type_hints(RLx2Keywords)
    types["distribution"] = typing.get_args(types["distribution"])[0]  # beside numbers of links
    assert {name: {*typing.get_args(types[name])} for name in tables} == {name: {*table} for name, table in tables.items()}
