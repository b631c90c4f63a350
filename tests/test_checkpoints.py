"""A run that was killed ends as if it had not been: weights, buffer, generators and logs, to the last bit."""

import random
import shutil
import zlib
from copy import deepcopy
from functools import cache

import pytest

from sb3_rlx2.checkpoint import run_state
from sb3_rlx2.checkpoint.transitions import Transitions
from tests import runs
from tests.runs import MAKERS, TOTAL, find, fingerprint, reference, scramble, train

pytestmark = pytest.mark.filterwarnings("ignore")


def go_on(make, folder, cuts, **kwargs):
    """Cut a run at some steps, then let it come to its end."""
    for number, cut in enumerate(cuts, start=1):
        scramble(number)
        assert train(make, folder, cut=cut, **kwargs) is None
    scramble(99)
    return fingerprint(train(make, folder, **kwargs), folder)


@pytest.mark.parametrize("make", MAKERS)
def test_a_run_that_was_cut_ends_the_same(make, tmp_path):
    evaluate = make is not runs.sac_of_processes  # processes are slow to start
    cuts = random.Random(zlib.crc32(make.__name__.encode()))
    whole = reference(make, tmp_path / "whole", evaluate=evaluate)
    steps = sorted(cuts.sample(range(5, TOTAL), 2))
    assert go_on(make, tmp_path / "cut", steps, evaluate=evaluate) == whole


# What a state holds, by the algorithm and environment for which it matters: if it were not saved, the test above would fail.
POLICY = ("parameters", "modules", "policy")
ENV = ("environments", "envs", 0, "layers")
PIECES = {
    runs.td3_of_all: [
        *(("parameters", "modules", name) for name in ("policy", "actor.optimizer", "critic.optimizer")),
        *(("counters", name) for name in ("num_timesteps", "_episode_num", "_n_updates")),
        *(("counters", name) for name in ("_last_obs", "_last_original_obs", "ep_info_buffer", "ep_success_buffer")),
        ("rows",),
        *(("buffer", name) for name in ("pos", "live", "n_steps")),
        ("noise",),
        *(("environments", "wrappers", "VecNormalize", name) for name in ("obs_rms", "ret_rms", "returns")),
        *((*ENV, "Monitor", "held", name) for name in ("rewards", "results_writer")),
        (*ENV, "HopperEnv", "held", "_np_random"),
        (*ENV, "HopperEnv", "physics"),
        ("evaluations", "EvalCallback.0", "envs", 0, "layers", "HopperEnv", "held", "_np_random"),
        ("evaluations", "EvalCallback.0", "pending"),
        ("callbacks", "RLx2Callback.0", 1, "_next_check"),
        *(
            ("callbacks", "EvalCallback.0", 1, name)
            for name in ("n_calls", "evaluations_results", "evaluations_timesteps", "evaluations_length")
        ),
        *(("logger", name) for name in ("values", "outputs")),
        *(("generators", name) for name in ("torch", "numpy", "python", "spaces")),
    ],
    runs.td3: [
        ("parameters", "arrays"),
        *((*POLICY, name) for name in ("critic.qf1.values", "critic_target.qf0.values")),
        (*POLICY, "topology_updater._extra_state", "counters"),
        ("logger", "counts"),
        ("callbacks", "RLx2Callback.0", 1, "policy_distance"),
    ],
    runs.td3_of_two_environments: [(*POLICY, "topology_updater._extra_state", "generator"), ("noise",)],
    runs.sac: [
        *(("parameters", *names) for names in (("modules", "ent_coef_optimizer"), ("variables", "log_ent_coef"))),
        (*POLICY, "actor.mean_and_log_std.index"),  # an index that a target network has too is there twice
        ("counters", "deployed_actor"),
    ],
    runs.dqn: [
        *(("counters", name) for name in ("_n_calls", "exploration_rate", "_current_progress_remaining")),
        (*ENV, "CartPoleEnv", "held", "state"),
        ("callbacks", "EvalCallback.0", 1, "best_mean_reward"),
        ("callback_generators", "Draws.0", "dice"),
    ],
    runs.stock_her: [("buffer", "_current_ep_start"), ("buffer", "ep_length"), (*ENV, "BitFlippingEnv", "held", "state")],
    runs.stock_sac: [
        ("sde",),
        ("buffer", "full"),
        (*ENV, "TimeLimit", "held", "_elapsed_steps"),
        (*ENV, "PendulumEnv", "held", "state"),
    ],
}


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory):
    """Give a function that gives a whole run's fingerprint, and the folder of one that was cut."""

    @cache
    def cut(make):
        folder = tmp_path_factory.mktemp(make.__name__)
        whole = reference(make, folder / "whole", evaluate=True)
        scramble(1)
        # An evaluation, or the end of an episode, follows the checkpoint at once, and shows what was logged before.
        assert train(make, folder / "cut", cut=121, every=19 if make is runs.td3 else 17, evaluate=True) is None
        return whole, folder / "cut"

    return cut


@pytest.mark.parametrize(
    ("make", "path"),
    [
        pytest.param(make, path, id=" ".join([make.__name__, *map(str, path or ["nothing"])]))
        for make, paths in PIECES.items()
        for path in [None, *paths]
    ],
)
def test_every_piece_of_state_is_noticed(make, path, tmp_path, cut_run, monkeypatch):
    whole, cut = cut_run(make)
    folder = tmp_path / "cut"
    shutil.copytree(cut, folder)
    if path == ("rows",):
        monkeypatch.setattr(Transitions, "read", forget_rows)
    elif path is not None:
        leave_as_it_is(path, monkeypatch)
    scramble(2)
    try:
        ended = fingerprint(train(make, folder, evaluate=True), folder)
    except (RuntimeError, ValueError, AttributeError, IndexError) as error:
        ended = error
    assert (ended == whole) == (path is None)


def forget_rows(self, buffer, segments, total):
    self.segments, self.total, self.written = list(segments), total, total


def leave_as_it_is(path, monkeypatch):
    """Have a run that goes on keep a part of its own state."""
    restore = run_state.restore

    def restore_others(run, state):
        try:
            own, key = find(deepcopy(run_state.capture(run)), path)
            saved, _ = find(state, path)
        except KeyError:
            pytest.fail(f"{path} is no part of a state, so leaving it out shows nothing")
        assert key in saved or key in own
        saved[key] = own[key]
        restore(run, state)

    monkeypatch.setattr(run_state, "restore", restore_others)
