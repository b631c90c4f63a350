"""Proves that what is exported acts as the agent does: on many observations, on several machines, and from damaged files."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export import fuzz
from benchmarks.export.emulator import MACHINES, Emulator
from sb3_rlx2 import zoo
from sb3_rlx2.export import Description, Policy, c, compiled, describe, read
from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export.description import VALUE_TYPES, observations
from sb3_rlx2.export.evaluate import act_of_agent
from sb3_rlx2.export.find import Agent, load
from sb3_rlx2.export.formats import write_files

PROOFS = Path(__file__).parent / "proofs"
N_OBSERVATIONS = 100_000
N_MUTATIONS = 100_000
BARE = ("-std=c99", "-Os", "-ffp-contract=off", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-nostdlib")
DOUBLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
}
Act = Callable[[np.ndarray], np.ndarray]


def prove(
    path: Path, env: str, buffer: Path, algo: str | None, statistics: Path | None, note: str, folder: Path = PROOFS
) -> dict[str, Any]:
    """Compare an agent with what is exported of it, and store the result."""
    zoo.register()
    model, vecnormalize = load(Agent(path, statistics, {}), algo)
    model.load_replay_buffer(buffer)  # type: ignore[attr-defined]
    description = describe(model, vecnormalize, env=env)
    seen = all_observations(description, own_observations(model), N_OBSERVATIONS)
    everything = np.concatenate(list(seen.values()))
    act = act_of_agent(model, vecnormalize)
    result = {
        "agent": {"algorithm": description.about["algorithm"], "env": env, "note": note, "clip": description.clip},
        "observations": {kind: len(some) for kind, some in seen.items()},
        "difference": {
            dtype: {kind: largest(description, description.policy(dtype)(some), act(some)) for kind, some in seen.items()}
            for dtype in VALUE_TYPES
        },
        "rounding_of_predict": {
            kind: largest(description, act(some), in_doubles(description, some)) for kind, some in seen.items()
        },
        "other_bits": {dtype: other_bits(description.policy(dtype), everything) for dtype in VALUE_TYPES},
        "mutations": mutations(description.policy()),
        "versions": {name: version(name) for name in ("torch", "unicorn", "sb3_rlx2")},
    }
    folder.mkdir(exist_ok=True)
    name = f"{env}_{description.about['algorithm'].lower()}.json"
    write_files(folder, {name: (json.dumps(result, indent=1) + "\n").encode()})
    return result


def own_observations(model: Any) -> np.ndarray:
    """Give what an agent's replay buffer holds, ``[n, observations]``."""
    buffer = model.replay_buffer
    filled = buffer.buffer_size if buffer.full else buffer.pos
    return buffer.observations[:filled].reshape(filled * buffer.n_envs, -1)  # type: ignore[no-any-return]


def all_observations(description: Description, own: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """
    Give observations by their kind: a half of them from the replay buffer, a quarter that puts together the smallest and the
    largest that each input ever was, and a quarter from around a normaliser's means to beyond its clip (without one, of 1 to
    20 standard deviations of what was seen).
    """
    generator = np.random.default_rng(0)
    low, high, quarter = own.min(axis=0), own.max(axis=0), count // 4
    drawn = observations(replace(description, mean=own.mean(axis=0), std=own.std(axis=0)), quarter, generator)
    if description.mean is not None:
        drawn = observations(description, quarter, generator)
    kinds = {
        "replay buffer": own[np.linspace(0, len(own) - 1, count - 2 * quarter).astype(int)],
        "extremes": np.where(generator.random((quarter, own.shape[1])) < 0.5, low, high),
        "far out": drawn,
    }
    return {kind: some.astype(np.float32) for kind, some in kinds.items()}


def in_doubles(description: Description, seen: np.ndarray) -> np.ndarray:
    """Compute what the agent's numbers say, in 64 bits: actions differ from it by what 32 bits round."""
    x = seen.astype(np.float64)
    if description.mean is not None:
        x = np.clip((x - description.mean) / description.std, -description.clip, description.clip)
    for stage in description.stages:
        x = DOUBLES[stage.activation](x @ stage.weight.T + stage.bias)
    if description.output == "argmax":
        return x.argmax(axis=1)[:, None]
    if description.output == "clip":
        return np.clip(x, description.low, description.high)
    return description.low + 0.5 * (x + 1) * (description.high - description.low)


def largest(description: Description, actions: np.ndarray, expected: np.ndarray) -> float:
    """Give the largest difference, as a share of the action's range; of discrete actions, the share that differs."""
    if description.output == "argmax":
        return float((actions != expected).mean())
    return float((np.abs(actions - expected) / (description.high - description.low)).max())


def other_bits(policy: Policy, seen: np.ndarray) -> dict[str, int]:
    """Count the observations, NaN among them, for which somebody's action has other bits than numpy's."""
    seen = np.concatenate([seen, np.full((1, policy.inputs), np.nan, np.float32)])
    expected = bits(policy(seen))
    return {name: int((bits(act(seen)) != expected).any(axis=1).sum()) for name, act in players(policy).items()}


def players(policy: Policy) -> dict[str, Act]:
    """Give all that act as a policy does."""
    command, files, data = compiled.compiler(), c.source(policy), rlx2_file.pack(policy)
    assert command is not None, "a C compiler is needed"
    return {
        "policy.c, this machine": compiled.act_of_source(files, "policy", policy, command),
        "rlx2_reader.c, this machine": compiled.act_of_reader(rlx2_file.readers(), data, policy, command),
        "rlx2_reader.py": read(data),
        **{f"policy.c, {name}, emulated": act_of_machine(name, files, policy) for name in MACHINES},
    }


def act_of_machine(name: str, files: dict[str, bytes], policy: Policy) -> Act:
    """Compile a policy for an emulated processor, and give it as a function."""
    machine = MACHINES[name]
    assert shutil.which(machine.gcc[0]) is not None, f"{machine.gcc[0]} is needed"
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            Path(folder, file).write_bytes(content)
        link = ["-Wl,--gc-sections", "-Wl,-e,policy_act", "policy.c", "-o", "policy.elf"]
        subprocess.run([*machine.gcc, *BARE, *link], cwd=folder, check=True)
        emulator = Emulator(Path(folder, "policy.elf").read_bytes(), machine)
    return lambda seen: np.stack([emulator(observation, policy.actions) for observation in seen])


def bits(actions: np.ndarray) -> np.ndarray:
    """Give the bits of actions; one pattern for all NaN."""
    return np.where(np.isnan(actions), np.float32(np.nan), actions).view(np.uint32)


def mutations(policy: Policy) -> dict[str, int]:
    """Count the mutated files that the reader takes, under sanitizers, and those of them that act as the whole file does."""
    with tempfile.TemporaryDirectory() as folder:
        fuzz.build(Path(folder))
        accepted, equal = fuzz.mutate(Path(folder), policy, N_MUTATIONS)
    return {"files": N_MUTATIONS, "accepted": accepted, "equal": equal}


def stored(folder: Path = PROOFS) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
