"""All that ``rlx2`` replaces in the zoo and in SB3: what, around which commands, and why."""

import argparse
import contextlib
import pkgutil
from collections.abc import Iterator
from typing import NamedTuple

from sb3_rlx2.patching import patched


class Patch(NamedTuple):
    """
    Something of the host that is replaced while a command runs.

    :param target: its full name
    :param commands: the commands
    :param replacement: ``"module:function"``, called with what is replaced and the namespace that will hold the command's
        arguments once they have been parsed; gives what takes its place
    """

    target: str
    commands: tuple[str, ...]
    replacement: str


PLOTS = ("plot_train", "all_plots", "plot_from_file")
READERS = ("train", "enjoy", "record_video", "push_to_hub", "report", "export", "compress")
ZOO = ("train", "enjoy", "record_video", "record_training", *PLOTS)

PATCHES = (
    # The zoo's programs parse the command line and go on at once. Between the two we check what was asked for.
    Patch("argparse.ArgumentParser.parse_args", ZOO, "sb3_rlx2.commands:step_in"),
    # What is no Python expression (`-params policy:MlpPolicy`) ends in a traceback of `eval`.
    Patch(
        "rl_zoo3.utils.StoreDict.__call__",
        ("train", "enjoy", "record_video", "push_to_hub", "compress", "export"),
        "sb3_rlx2.zoo.prepare:store_or_explain",
    ),
    # The zoo finds no runs in a folder with brackets in its name, and counts them from 1 again.
    Patch(
        "rl_zoo3.utils.glob",
        ("train", "enjoy", "record_video", "record_training", "push_to_hub", "load_from_hub", "export"),
        "sb3_rlx2.zoo.agents:in_any_folder",
    ),
    # Reading an agent, a buffer, statistics or settings runs whatever code they name.
    Patch("stable_baselines3.common.save_util.cloudpickle", READERS, "sb3_rlx2.commands.trust:reads_values"),
    Patch("stable_baselines3.common.save_util.pickle", READERS, "sb3_rlx2.commands.trust:reads_values"),
    Patch("stable_baselines3.common.vec_env.vec_normalize.pickle", READERS, "sb3_rlx2.commands.trust:reads_values"),
    Patch("rl_zoo3.plots.plot_from_file.pickle", ("plot_from_file",), "sb3_rlx2.commands.trust:reads_values"),
    Patch("yaml.UnsafeLoader", READERS, "sb3_rlx2.commands.trust:reads_plain"),
    # The zoo evaluates, and imports, what the settings of an agent say.
    Patch("rl_zoo3.enjoy.get_saved_hyperparams", ("enjoy",), "sb3_rlx2.commands.trust:with_checked_settings"),
    Patch(
        "rl_zoo3.utils.get_saved_hyperparams",
        ("record_video", "push_to_hub", "export"),
        "sb3_rlx2.commands.trust:with_checked_settings",
    ),
    # SB3 opens the old file and writes over it: a full disk, or a kill, destroys it. Pickles have no checksum.
    Patch("stable_baselines3.common.base_class.BaseAlgorithm.save", ("train",), "sb3_rlx2.zoo.saving:whole"),
    Patch(
        "stable_baselines3.common.off_policy_algorithm.OffPolicyAlgorithm.save_replay_buffer",
        ("train",),
        "sb3_rlx2.zoo.saving:sealed",
    ),
    Patch("stable_baselines3.common.vec_env.VecNormalize.save", ("train",), "sb3_rlx2.zoo.saving:sealed"),
    Patch("rl_zoo3.exp_manager.EvalCallback", ("train",), "sb3_rlx2.zoo.saving:evaluation"),
    # A full disk ends hours of training at a row of a log.
    *(
        Patch(f"stable_baselines3.common.logger.{kind}.write", ("train",), "sb3_rlx2.progress_log:logs_if_there_is_room")
        for kind in ("CSVOutputFormat", "TensorBoardOutputFormat")
    ),
    # `train` makes its experiment by this name and takes no other.
    Patch("rl_zoo3.train.ExperimentManager", ("train",), "sb3_rlx2.zoo.prepare:choose_manager"),
    # The zoo loads an agent to play it without memory for a replay buffer if the algorithm is in a list inside a function.
    Patch("rl_zoo3.enjoy.ALGOS", ("enjoy",), "sb3_rlx2.zoo.agents:without_replay_memory"),
    Patch("rl_zoo3.utils.ALGOS", ("record_video",), "sb3_rlx2.zoo.agents:without_replay_memory"),
    # Of a run that was cut off the zoo knows an agent of before, or none.
    Patch("rl_zoo3.enjoy.get_model_path", ("enjoy",), "sb3_rlx2.zoo.agents:with_checkpoints"),
    Patch("rl_zoo3.utils.get_model_path", ("record_video",), "sb3_rlx2.zoo.agents:with_checkpoints"),
    # The zoo normalises by the statistics of the last best agent, whichever agent it plays.
    Patch("rl_zoo3.enjoy.create_test_env", ("enjoy",), "sb3_rlx2.zoo.agents:with_own_statistics"),
    Patch("rl_zoo3.utils.create_test_env", ("record_video",), "sb3_rlx2.zoo.agents:with_own_statistics"),
    # Recording takes minutes and shows nothing.
    Patch("stable_baselines3.common.vec_env.VecVideoRecorder.step_wait", ("record_video",), "sb3_rlx2.zoo.videos:count_steps"),
    # The zoo calls `python -m rl_zoo3.record_video`, where our algorithms are not registered, and that for every file of a
    # checkpoint, its replay buffer included.
    Patch("subprocess.call", ("record_training",), "sb3_rlx2.zoo.videos:record_once_with_ours"),
    # The zoo shows its figures, which needs a screen, and shows empty ones.
    Patch("matplotlib.pyplot.show", PLOTS, "sb3_rlx2.zoo.plots:show_or_save"),
    # The zoo knows references for PyBullet only, in a table inside a function; all numbers of its `--rliable` come from here.
    Patch("rliable.library.get_interval_estimates", ("plot_from_file",), "sb3_rlx2.zoo.plots:normalise_scores"),
)


@contextlib.contextmanager
def applied(command: str, args: argparse.Namespace) -> Iterator[None]:
    """
    Apply the patches of a command for as long as the context lasts.

    :param command: its name
    :param args: will hold its arguments
    """
    with contextlib.ExitStack() as stack:
        for patch in PATCHES:
            if command in patch.commands:
                place, _, name = patch.target.rpartition(".")
                owner, replace = pkgutil.resolve_name(place), pkgutil.resolve_name(patch.replacement)
                stack.enter_context(patched(owner, **{name: replace(vars(owner)[name], args)}))
        yield
