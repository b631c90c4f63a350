"""
Measures what exported policies take of a micro-controller, and proves that they act as their agents do: ``python -m
benchmarks.export run [AGENT.rlx2 ...]``, ``prove AGENT.zip ...``, ``report``.

``run`` takes the stored agents by default, in fp32, and measures them in each type on an emulated Cortex-M4F; it needs
arm-none-eabi-gcc (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi) and unicorn (pip), and measures beside them what emlearn
(with scikit-learn) and emx-onnx-cgen make of dense networks, where they are installed. ``prove`` needs gcc, both cross
compilers (Debian: gcc-riscv64-unknown-elf) and unicorn. ``add`` stores an agent that the zoo's commands saved. ``report``
writes a page's sections and needs nothing.
"""

import argparse
from pathlib import Path

from benchmarks.export import report
from benchmarks.export.agents import AGENTS, add
from benchmarks.export.proof import prove
from benchmarks.export.results import RESULTS, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("run", help="measure agents")
    measuring.add_argument("agents", nargs="*", type=Path, help=f"fp32 .rlx2 files; those of {AGENTS.name}/ by default")
    measuring.add_argument("--results", type=Path, default=RESULTS, help="folder to store results in")
    adding = commands.add_parser("add", help="store an agent")
    proving = commands.add_parser("prove", help="compare an agent with what is exported of it")
    for parsed in (adding, proving):
        parsed.add_argument("agent", type=Path, metavar="AGENT.zip")
        parsed.add_argument("--env", required=True, help="environment ID")
        parsed.add_argument("--algo", help="algorithm (found out)")
        parsed.add_argument("--vecnormalize", type=Path, metavar="FILE.pkl", help="statistics of VecNormalize")
        parsed.add_argument("--note", required=True, help="what was trained, as: 'RLx2TD3, 98 %% sparse, 1M steps, seed 0'")
    proving.add_argument(
        "--replay-buffer", type=Path, required=True, metavar="FILE.pkl", help="as save_replay_buffer saves it"
    )
    commands.add_parser("report", help="write docs/results/export.md")
    args = parser.parse_args()
    if args.command == "run":
        for agent in args.agents or sorted(AGENTS.glob("*.rlx2")):
            print(f"{agent.stem} ...", flush=True)
            run(agent, args.results)
    elif args.command == "add":
        print(add(args.agent, args.env, args.algo, args.vecnormalize, args.note))
    elif args.command == "prove":
        print(prove(args.agent, args.env, args.replay_buffer, args.algo, args.vecnormalize, args.note))
    else:
        report.write()


if __name__ == "__main__":
    main()
