"""The command ``rlx2``, also ``python -m sb3_rlx2``."""

import argparse
import os
import sys

from sb3_rlx2 import zoo


def main() -> None:
    """Run a command of RL Zoo, with RLx2's algorithms added."""
    parser = argparse.ArgumentParser(
        prog="rlx2", description="RL Zoo's commands with the sparse algorithms rlx2td3 and rlx2sac added."
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser.add_argument("command", choices=list(zoo.COMMANDS), help="command of RL Zoo")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments, see: rlx2 <command> --help")
    args = parser.parse_args()
    if os.getcwd() not in sys.path:  # as with `python -m`, for modules that options and hyper-parameters name
        sys.path.insert(0, os.getcwd())
    try:
        zoo.run(args.command, args.arguments)
    except KeyboardInterrupt:
        sys.exit(130)  # as shells do
    except Exception as error:
        if args.traceback:
            raise
        sys.exit(f"rlx2 {args.command}: error: {one_line(error)}")


def one_line(error: Exception) -> str:
    """
    Say in one line what went wrong.

    :param error: the error
    """
    message = " ".join(str(error).split())
    plain = isinstance(error, (AssertionError, OSError, RuntimeError, ValueError)) and message
    return message if plain else f"{type(error).__name__}: {message}"


if __name__ == "__main__":
    main()
