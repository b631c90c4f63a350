"""The command ``rlx2``, also ``python -m sb3_rlx2``."""

import argparse

from sb3_rlx2 import zoo


def main() -> None:
    """Run a command of RL Zoo, with RLx2's algorithms added."""
    parser = argparse.ArgumentParser(
        prog="rlx2", description="RL Zoo's commands with the sparse algorithms rlx2td3 and rlx2sac added."
    )
    parser.add_argument("command", choices=list(zoo.COMMANDS), help="command of RL Zoo")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments, see: rlx2 <command> --help")
    args = parser.parse_args()
    zoo.run(args.command, args.arguments)


if __name__ == "__main__":
    main()
