"""The command ``rlx2``, also ``python -m sb3_rlx2``."""

import argparse
import os
import sys

import sb3_rlx2
from sb3_rlx2 import safe_pickle
from sb3_rlx2.commands import COMMANDS, run
from sb3_rlx2.extras import MissingExtra
from sb3_rlx2.patching import patched
from sb3_rlx2.validation import lookup


def main() -> None:
    """Run a command of RL Zoo, with RLx2's algorithms added."""
    parser = argparse.ArgumentParser(
        prog="rlx2", description="RL Zoo's commands with sparse algorithms added, rlx2td3 and others."
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser.add_argument("--trust", action="store_true", help="make whatever files name, which runs code: trust their authors")
    parser.add_argument("--version", action="version", version=f"sb3_rlx2 {sb3_rlx2.__version__}")
    parser.add_argument("command", type=_command, metavar="command", help=f"what to do: {', '.join(COMMANDS)}")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments, see: rlx2 <command> --help")
    args = parser.parse_args()
    here = [os.getcwd()]  # as with `python -m`, for modules that options and hyper-parameters name
    try:
        with patched(sys, path=sys.path if here[0] in sys.path else here + sys.path), patched(safe_pickle, trusts=args.trust):
            run(args.command, args.arguments)
    except KeyboardInterrupt:
        sys.exit(130)  # as shells do
    except MissingExtra as error:
        sys.exit(str(error))
    except Exception as error:
        if args.traceback:
            raise
        sys.exit(f"rlx2 {args.command}: error: {one_line(error)}")


def _command(name: str) -> str:
    try:
        lookup("command", name, COMMANDS)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None
    return name


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
