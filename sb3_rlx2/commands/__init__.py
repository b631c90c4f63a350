"""
The commands of ``rlx2``, RL Zoo's and ours.

They are named here, not imported: each needs packages that others do without. This is also why they are not listed in
``sb3_rlx2.zoo``, which imports RL Zoo and all that it needs.
"""

import argparse
import pkgutil
import runpy
import sys
import warnings
from typing import Any, NamedTuple

from sb3_rlx2.commands.patches import applied
from sb3_rlx2.extras import require
from sb3_rlx2.patching import patched


class Command(NamedTuple):
    """
    A command. Functions are named as in ``"module:function"``.

    :param program: what parses the command line and does the work: a function, or a module to run
    :param extra: the extra (:mod:`sb3_rlx2.extras`) that it needs
    :param prepare: for a program of the zoo, called with the parsed arguments, before it goes on with them
    :param add_options: for a program of the zoo, called with a group of its parser, to add options that ``prepare`` sees
    """

    program: str
    extra: str | None = None
    prepare: str | None = None
    add_options: str | None = None


COMMANDS = {
    "train": Command(
        "rl_zoo3.train:train",
        prepare="sb3_rlx2.zoo.prepare:prepare_training",
        add_options="sb3_rlx2.zoo.prepare:add_training_options",
    ),
    "enjoy": Command(
        "rl_zoo3.enjoy:enjoy", prepare="sb3_rlx2.zoo.prepare:prepare_enjoying", add_options="sb3_rlx2.zoo.agents:add_deployed"
    ),
    "record_video": Command(
        "rl_zoo3.record_video", "video", "sb3_rlx2.zoo.videos:prepare_video", "sb3_rlx2.zoo.agents:add_video_options"
    ),
    "record_training": Command(
        "rl_zoo3.record_training", "video", "sb3_rlx2.zoo.videos:prepare_training_video", "sb3_rlx2.zoo.agents:add_packages"
    ),
    "plot_train": Command(
        "rl_zoo3.plots.plot_train:plot_train",
        "plots",
        "sb3_rlx2.zoo.plots:prepare_plot_train",
        "sb3_rlx2.zoo.plots:add_options",
    ),
    "all_plots": Command(
        "rl_zoo3.plots.all_plots:all_plots", "plots", "sb3_rlx2.zoo.plots:prepare_all_plots", "sb3_rlx2.zoo.plots:add_options"
    ),
    "plot_from_file": Command(
        "rl_zoo3.plots.plot_from_file:plot_from_file",
        "plots",
        "sb3_rlx2.zoo.plots:prepare_plot_from_file",
        "sb3_rlx2.zoo.plots:add_options",
    ),
    "load_from_hub": Command("sb3_rlx2.zoo.hub:load_from_hub", "hub"),
    "push_to_hub": Command("sb3_rlx2.zoo.hub:push_to_hub", "hub"),
    "report": Command("sb3_rlx2.report.__main__:main", "report"),
    "export": Command("sb3_rlx2.export.__main__:main"),
    "advise": Command("sb3_rlx2.advise.__main__:main"),
    "compress": Command("sb3_rlx2.compress.__main__:main", "tuning"),
}


def run(name: str, arguments: list[str]) -> None:
    """
    Run a command as if it were ours. What it changes in its host (``patches.py``) is undone at the end.

    :param name: a key of ``COMMANDS``
    :param arguments: the command's arguments
    :raises MissingExtra: if it needs packages that are not installed
    """
    command, args = COMMANDS[name], argparse.Namespace()
    if command.extra is not None:
        require(command.extra, f"rlx2 {name}")
    with patched(sys, argv=[f"rlx2 {name}", *arguments]), warnings.catch_warnings(), applied(name, args):
        if ":" in command.program:
            pkgutil.resolve_name(command.program)()
        else:
            runpy.run_module(command.program, run_name="__main__")


def step_in(parse: Any, args: argparse.Namespace) -> Any:
    """
    Step in between a module's parsing of the command line and its work.

    :param parse: ``ArgumentParser.parse_args``
    :param args: gets the arguments
    :return: what takes the place of ``parse``
    """
    command = COMMANDS[sys.argv[0].removeprefix("rlx2 ")]
    prepare, add_options = map(_function, (command.prepare, command.add_options))

    def parse_args(parser: argparse.ArgumentParser, *given: Any, **kwargs: Any) -> Any:
        if vars(args):  # parsed already: this is the parser of something that the command runs
            return parse(parser, *given, **kwargs)
        parser.prog = sys.argv[0]
        add_options(parser.add_argument_group("options of rlx2"))
        parse(parser, namespace=args)
        prepare(args)
        return args

    return parse_args


def _function(name: str | None) -> Any:
    return (lambda given: None) if name is None else pkgutil.resolve_name(name)
