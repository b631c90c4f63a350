"""`rlx2 train` writes checkpoints of the whole run, ends well at Ctrl-C and SIGTERM, and `--resume` goes on exactly."""

import os
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch as th

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.checkpoint import checkpoints, generations
from sb3_rlx2.files import UNFINISHED
from sb3_rlx2.patching import patched
from sb3_rlx2.progress_log import ProgressFile
from sb3_rlx2.report.run_folder import read_run
from tests.command import TINY, TINY_PARAMETERS
from tests.runs import digest, log_rows

pytestmark = pytest.mark.filterwarnings("ignore")
RUN = Path("logs/rlx2td3/Pendulum-v1_1")
STEPS = ("-n", "300", "--checkpoint-every", "100")
BEGIN = ["--algo", "rlx2td3", "--env", "Pendulum-v1", *TINY[2:], "--eval-freq", "120", "--eval-episodes", "1"]


@contextmanager
def at_step(step, act):
    """Have something happen at a step of training."""
    on_step = checkpoints.Checkpoints._on_step

    def act_then(callback):
        if callback.model.num_timesteps == step:
            act()
        return on_step(callback)

    with patched(checkpoints.Checkpoints, _on_step=act_then):
        yield


def die():
    raise SystemExit(137)  # nothing is saved behind this, as behind a kill


def train(rlx2, *arguments, folder="logs", parameters=()):
    given = [folder if each == "logs" else each for each in BEGIN]
    return rlx2("train", *given, *arguments, "-params", *TINY_PARAMETERS, *parameters)


def ended(run):
    """Give checksums of a run's agent and logs."""
    agent = RLx2TD3.load(run / "Pendulum-v1.zip")
    return digest(agent.get_parameters()), {path.name: log_rows(path) for path in [*run.glob("*.csv"), *run.glob("*.npz")]}


@pytest.mark.parametrize(
    ("number", "parameters"),
    [(signal.SIGINT, ["normalize:True"]), (signal.SIGTERM, ["n_envs:2", "noise_type:'ornstein-uhlenbeck'", "noise_std:0.2"])],
)
def test_an_interrupted_run_goes_on(number, parameters, rlx2):
    train(rlx2, *STEPS, folder="whole", parameters=parameters)
    with at_step(150, lambda: os.kill(os.getpid(), number)):
        output = train(rlx2, *STEPS, parameters=parameters)
    assert "Interrupted at step 150. Go on with: rlx2 train --resume logs/rlx2td3/Pendulum-v1_1" in output
    assert RLx2TD3.load(RUN / "Pendulum-v1.zip").num_timesteps == 150
    arguments = (RUN / "Pendulum-v1/args.yml").read_text()
    assert "Training goes on from step 150" in rlx2("train", "--resume", RUN)
    assert ended(RUN) == ended(Path("whole", *RUN.parts[1:]))
    assert (RUN / "Pendulum-v1/args.yml").read_text() == arguments
    assert not (RUN.parent / "Pendulum-v1_2").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_agent_is_whole_without_checkpoints_too(number, rlx2):
    on_step = ProgressFile._on_step

    def interrupt(callback):
        if callback.num_timesteps == 60:
            os.kill(os.getpid(), number)
        return on_step(callback)

    with patched(ProgressFile, _on_step=interrupt):
        train(rlx2, "-n", "300", "--checkpoint-every", "0")
    agent = RLx2TD3.load(RUN / "Pendulum-v1.zip")
    assert (agent.num_timesteps, agent._n_updates) == (60, 10)  # behind a warm-up of 50
    assert not (RUN / "checkpoints").exists()


def test_a_killed_run_goes_on_in_its_folder(rlx2):
    train(rlx2, *STEPS, folder="whole")
    with at_step(270, die):
        rlx2("train", *BEGIN, *STEPS, "-params", *TINY_PARAMETERS, status=137)
    assert not (RUN / "Pendulum-v1.zip").exists()
    assert read_run(RUN).agent.steps == 200
    (RUN / f"{UNFINISHED}of-an-agent").mkdir()
    rlx2("train", "--resume", RUN)
    assert not list(RUN.rglob(f"{UNFINISHED}*"))
    assert ended(RUN) == ended(Path("whole", *RUN.parts[1:]))


def test_a_finished_run_stays_as_it_is_or_goes_further(rlx2):
    train(rlx2, *STEPS)
    before = ended(RUN)
    rlx2("train", "--resume", RUN)
    assert ended(RUN) == before
    assert "goes on from step 300" in rlx2("train", "--resume", RUN, "-n", "340")
    assert RLx2TD3.load(RUN / "Pendulum-v1.zip").num_timesteps == 340


def test_checkpoints_that_nobody_asked_for_go_at_the_end(rlx2):
    rlx2.train("rlx2td3", "-n", "60")
    assert not (RUN / "checkpoints").exists()
    rlx2.train("rlx2td3", "-n", "60", "--checkpoint-every", "0")
    rlx2.train("rlx2td3", "-n", "60", "--checkpoint-every", "50")
    assert generations.newest(RUN.parent / "Pendulum-v1_3/checkpoints").step == 60
    assert not (RUN.parent / "Pendulum-v1_2/checkpoints").exists()


def test_algorithms_without_a_buffer_have_no_checkpoints(rlx2):
    arguments = ("--algo", "ppo", "--env", "CartPole-v1", *TINY, "-n", "10")
    parameters = ("-params", "n_envs:1", "n_steps:8", "batch_size:8")
    rlx2("train", *arguments, *parameters)
    output = rlx2("train", *arguments, "--checkpoint-every", "10", *parameters, status=1)
    assert "--checkpoint-every 10 cannot serve: PPO is no off-policy algorithm" in output


def test_large_buffers_are_not_written_unasked(rlx2, monkeypatch):
    monkeypatch.setattr("sb3_rlx2.zoo.experiment.UNASKED_BYTES", 30_000)
    assert "No checkpoints of a replay buffer of 0 GB unless --checkpoint-every asks" in rlx2.train("rlx2td3", "-n", "60")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume", "nowhere"), "--resume nowhere is no folder of a run"),
        (("--checkpoint-every", "-1"), "--checkpoint-every -1 must be >= 0"),
    ],
)
def test_errors(arguments, message, rlx2):
    assert message in rlx2.error("train", *arguments)


def test_a_run_without_checkpoints_cannot_go_on(rlx2):
    rlx2.train("rlx2td3", "-n", "60")
    assert f"--resume {RUN} holds no checkpoint to go on from" in rlx2.error("train", "--resume", RUN)


def test_python_objects_are_not_made(rlx2, tmp_path):
    train(rlx2, *STEPS)
    for name in ("args.yml", "config.yml"):
        with (RUN / "Pendulum-v1" / name).open("a") as file:
            file.write(f"  - - harmful\n    - !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    message = rlx2.error("train", "--resume", RUN)
    assert f"{RUN}/Pendulum-v1/config.yml holds Python objects, which are made with rlx2 --trust only" in message
    assert not (tmp_path / "made").exists()


def test_a_run_that_was_lengthened_before_it_was_cut_off_is_as_long_as_then(rlx2):
    train(rlx2, *STEPS)
    with at_step(320, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert "Go on with: rlx2 train --resume logs/" in rlx2("train", "--resume", RUN, "-n", "350")
    rlx2("train", "--resume", RUN)
    assert RLx2TD3.load(RUN / "Pendulum-v1.zip").num_timesteps == 350


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-n", "120"), f"--n-timesteps 120 is behind step 300, where {RUN} goes on"),
        (("-n", "0"), "--n-timesteps=0 must be an integer >= 1"),
        (("--checkpoint-every", "0"), "--checkpoint-every=0 must be an integer >= 1"),
        (("--seed", "77"), f"--seed 77 beside --resume {RUN}, which goes on with its own 1: leave it out"),
        (("--algo", "rlx2sac"), f"--algo rlx2sac beside --resume {RUN}, which goes on with its own rlx2td3"),
        (("-params", "gamma:0.1"), f"--hyperparams {{'gamma': 0.1}} beside --resume {RUN}"),
        (("--eval-f=10",), "--eval-freq 10 beside --resume"),
    ],
)
def test_what_a_run_that_goes_on_would_not_take_is_refused(arguments, message, rlx2):
    train(rlx2, *STEPS)
    before = ended(RUN)
    assert message in rlx2.error("train", "--resume", RUN, *arguments)
    assert ended(RUN) == before
    assert (RUN / "checkpoints").exists()


def test_what_a_run_that_goes_on_takes_anew(rlx2):
    train(rlx2, *STEPS)
    output = rlx2("train", "--resume", RUN, "-n", "320", "--verbose", "0", "--num-threads", "1", "--device", "cpu", "-P")
    assert RLx2TD3.load(RUN / "Pendulum-v1.zip").num_timesteps == 320
    assert "Overwriting n_timesteps" not in output


def test_a_run_ends_where_it_was_to_end(rlx2):
    """With planned steps behind its own, and where a rollout goes further."""
    train(rlx2, *STEPS, parameters=["planned_timesteps:600", "train_freq:64"])
    for again in ((), ("-n", "300")):
        rlx2("train", "--resume", RUN, *again)
        assert RLx2TD3.load(RUN / "Pendulum-v1.zip").num_timesteps == 320


def test_the_same_line_with_resume_goes_on(rlx2):
    with at_step(150, lambda: os.kill(os.getpid(), signal.SIGINT)):
        train(rlx2, *STEPS)
    assert "goes on from step 150" in train(rlx2, *STEPS, "--resume", RUN)
    assert RLx2TD3.load(RUN / "Pendulum-v1.zip").num_timesteps == 300


OTHER_CLASS = "policy_kwargs:dict(net_arch=[16], activation_fn={})"


def test_a_run_whose_settings_name_a_class_goes_on(rlx2):
    with at_step(150, lambda: os.kill(os.getpid(), signal.SIGINT)):
        output = train(rlx2, *STEPS, parameters=[OTHER_CLASS.format("nn.Tanh")])
    assert "Go on with: rlx2 train --resume" in output
    assert "goes on from step 150" in rlx2("train", "--resume", RUN)
    assert "'activation_fn': <class 'torch.nn.modules.activation.Tanh'>" in output


def test_a_run_whose_settings_hold_what_is_not_made_goes_on_if_that_is_trusted(rlx2):
    train_it = partial(train, rlx2, *STEPS, parameters=["policy_kwargs:dict(net_arch=[16], optimizer_kwargs=dict(foo=print))"])
    with at_step(150, lambda: os.kill(os.getpid(), signal.SIGINT)), patched(th.optim.Adam, __init__=_without_foo):
        output = train_it()
    assert f"{RUN}/Pendulum-v1/config.yml holds Python objects: only rlx2 --trust train --resume will go on" in output
    assert "Go on with: rlx2 --trust train --resume" in output
    assert "which are made with rlx2 --trust only" in rlx2.error("train", "--resume", RUN)
    with patched(th.optim.Adam, __init__=_without_foo):
        assert "goes on from step 150" in rlx2("--trust", "train", "--resume", RUN)


INIT = th.optim.Adam.__init__


def _without_foo(optimizer, *given, foo=None, **kwargs):
    INIT(optimizer, *given, **kwargs)


def test_a_run_that_went_on_from_an_agent_goes_on_without_its_file(rlx2):
    rlx2.train("rlx2td3", "-n", "70", "--save-replay-buffer", parameters=["normalize:True"])
    first = RUN.parents[1]
    given = ("-i", RUN / "Pendulum-v1.zip")
    train(rlx2, *STEPS, *given, folder="whole", parameters=["normalize:True"])
    with at_step(30, lambda: os.kill(os.getpid(), signal.SIGINT)):
        train(rlx2, *STEPS, *given, folder="cut", parameters=["normalize:True"])
    first.rename("elsewhere")
    rlx2("train", "--resume", Path("cut", *RUN.parts[1:]))
    assert ended(Path("cut", *RUN.parts[1:])) == ended(Path("whole", *RUN.parts[1:]))
