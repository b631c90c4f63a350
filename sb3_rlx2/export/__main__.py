"""The command ``rlx2 export``: checks everything, compares, writes, and says what came out."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import StoreDict

from sb3_rlx2.export import onnx
from sb3_rlx2.export.agent import describe
from sb3_rlx2.export.c import tables
from sb3_rlx2.export.compiled import Act
from sb3_rlx2.export.description import VALUE_TYPES, Description, dense_bytes
from sb3_rlx2.export.evaluate import N_OBSERVATIONS, act_of_agent, difference, make_env, returns
from sb3_rlx2.export.find import Agent, find, load
from sb3_rlx2.export.formats import FORMATS, check_path, write
from sb3_rlx2.export.rlx2_reader import Policy
from sb3_rlx2.validation import check_integer
from sb3_rlx2.zoo import agents

LARGEST_DIFFERENCE = 1e-3  # of the action's range, in fp32, which rounds to some 1e-6: above, something else is wrong
LARGEST_LOSS = {"fp16": 0.01, "int8": 0.03}  # of the mean return, as a share of the agent's
EPILOG = """exit status: 0 if the policy was written; 1 or 2 after an error, with nothing written; an fp16 or int8 policy whose
mean return is more than 1 % or 3 % away from the agent's is an error without --force"""


def main() -> None:
    """Run the command."""
    args = make_parser().parse_args()
    print(export(args, f"rlx2 export {shlex.join(sys.argv[1:])}"))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser."""
    parser = argparse.ArgumentParser(
        prog="rlx2 export",
        description="Write a trained policy for use without Python, and prove that it acts the same.",
        epilog=EPILOG,
    )
    _add_agent(parser.add_argument_group("agent, by its file or as in rlx2 enjoy"))
    _add_output(parser.add_argument_group("output"))
    return parser


def _add_agent(group: Any) -> None:
    add = group.add_argument
    add("agent", nargs="?", type=Path, metavar="AGENT.zip", help="the agent, as Stable-Baselines3 saves it")
    add("--vecnormalize", type=Path, metavar="FILE.pkl", help="statistics of VecNormalize, if the agent was trained with it")
    add("--algo", help="algorithm (of a zip: found out)")
    add("--env", type=EnvironmentName, metavar="ID", help="environment ID (of a zip: for --evaluate, and to be noted)")
    add("-f", "--folder", default="logs", help="log folder (%(default)s)")
    add("--exp-id", type=int, default=0, help="number of the run (0: the latest, -1: none)")
    add("--load-best", action="store_true", help="the best agent instead of the last")
    add("--load-checkpoint", type=int, metavar="STEPS", help="the checkpoint of this step instead of the last agent")
    add("--load-last-checkpoint", action="store_true", help="the last checkpoint instead of the last agent")
    agents.add_deployed(group)
    add("--env-kwargs", nargs="+", action=StoreDict, metavar="NAME:VALUE", help="arguments of the environment")
    add("--gym-packages", nargs="+", default=[], metavar="MODULE", help="modules to import, which register environments")


def _add_output(group: Any) -> None:
    add = group.add_argument
    add("--format", choices=list(FORMATS), default="c", help="C source, .rlx2 file, ONNX or safetensors (%(default)s)")
    add("--dtype", choices=list(VALUE_TYPES), default="fp32", help="type of the weights (%(default)s)")
    add("-o", "--output", type=Path, metavar="FILE", help="the file to write (policy, with the format's suffix)")
    add("--evaluate", type=int, default=0, metavar="N", help="play N episodes with the policy, and N with the agent")
    add("--seed", type=int, default=0, help="seed of the first episode (%(default)s)")
    add("--force", action="store_true", help="write fp16 or int8 although it was not played, or loses return")


def export(args: argparse.Namespace, command: str) -> str:
    """
    Export an agent, or leave nothing.

    :param args: of the command
    :param command: the command itself, to be noted in what is written
    :return: what came out, in lines
    :raises ValueError: if the agent cannot be exported, or acts otherwise when it is
    """
    output = args.output or Path(f"policy{FORMATS[args.format].suffix}")
    check_path(output, args.format)
    check_integer("evaluate", args.evaluate, 0)
    if args.evaluate and args.env is None:
        raise ValueError(f"--evaluate {args.evaluate} needs --env, the environment to play in")
    if args.dtype != "fp32" and not (args.evaluate or args.force):
        raise ValueError(f"--dtype {args.dtype} needs --evaluate N, which measures what it costs, or --force")
    agent = find(args)
    model, statistics = load(agent, args.algo, args.deployed)
    description = describe(model, statistics, env="" if args.env is None else args.env.gym_id, command=command)
    policy = description.policy(args.dtype)
    act = act_of_agent(model, statistics)
    largest = difference(description, policy, act)
    if args.dtype == "fp32" and not largest <= LARGEST_DIFFERENCE:
        raise ValueError(f"{agent.path} cannot be exported: exported, it acts otherwise: {_apart(largest, policy)}")
    players = {"agent": act, **FORMATS[args.format].players(policy, output.stem)} if args.evaluate else {}
    played = _play(args, agent, statistics, model.observation_space.shape, players)
    if not args.force:
        _check_returns(played, args.dtype)
    files = write(policy, output, args.format)
    return "\n".join(f"{name:<13} {text}" for name, text in _summary(args, agent, description, policy, largest, played, files))


def _apart(largest: float, policy: Policy) -> str:
    if policy.output == "argmax":
        return f"another action on {round(largest * N_OBSERVATIONS):,} of {N_OBSERVATIONS:,} observations"
    return f"{largest:.2g} of the action's range at most, on {N_OBSERVATIONS:,} observations"


def _play(
    args: argparse.Namespace, agent: Agent, statistics: Any, shape: Any, players: dict[str, Act]
) -> dict[str, np.ndarray]:
    if not players:
        return {}
    env = make_env(args.env.gym_id, agent.env_kwargs, agent.hyperparams, shape, statistics)
    return {name: returns(player, env, args.evaluate, args.seed) for name, player in players.items()}


def _check_returns(played: dict[str, np.ndarray], dtype: str) -> None:
    agent = float(played["agent"].mean()) if played else 0.0
    for name, result in played.items():
        mean = float(result.mean())
        if dtype in LARGEST_LOSS and not abs(mean - agent) <= LARGEST_LOSS[dtype] * abs(agent):
            raise ValueError(
                f"--dtype {dtype}: the mean return is {mean:,.6g} ({name}), the agent's {agent:,.6g}, which differ by more "
                f"than {LARGEST_LOSS[dtype]:.0%}; --force writes the policy all the same"
            )


def _summary(
    args: argparse.Namespace,
    agent: Agent,
    description: Description,
    policy: Policy,
    largest: float,
    played: dict[str, np.ndarray],
    files: list[Path],
) -> Iterator[tuple[str, str]]:
    """Say what came out, as a name and a text for each line."""
    about = policy.about
    yield "agent", f"{agent.path} ({about['algorithm']})"
    yield "normaliser", f"{agent.statistics}" if policy.normaliser is not None else "none"
    yield "format", f"{args.format}, {args.dtype}"
    yield "live weights", f"{about['links_before']:,} of {about['weights_of_dense']:,}, {about['links']:,} of them exported"
    because = f"{about['units_without_path']} units without a path to the output, {about['units_without_input']} without input"
    yield "not exported", f"{about['links_that_did_not_matter']:,} links that do not matter ({because})"
    yield "rounded to 0", f"{about['links_rounded_to_zero']:,} links"
    yield "difference", _apart(largest, policy)
    for name, result in played.items():
        yield "return", f"{result.mean():,.6g} ± {result.std():,.3g} over {len(result)} episodes, {name}"
    for file in files:
        yield "file", f"{file} ({file.stat().st_size:,} bytes)"
    yield "tables", f"{sum(table.array.nbytes for table in tables(policy)):,} bytes"
    yield "dense", f"{dense_bytes(about['widths']):,} bytes of weights and biases in fp32"
    yield "ONNX", f"{len(onnx.pack(description.policy())):,} bytes in fp32" if find_spec("onnx") else "unknown without onnx"


if __name__ == "__main__":
    main()
