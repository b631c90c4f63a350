"""
The classes of faults. A case of one is a number, from which all that is left to chance follows; it raises where the promise
does not hold. Cases are small: networks of 16-16, runs of 160 steps.
"""

import io
import os
import pickle
import random
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_rlx2.minatar  # noqa: F401 registers its games
from sb3_rlx2 import RLx2DQN, RLx2SAC, RLx2TD3, safe_pickle
from sb3_rlx2.checkpoint import Checkpoints
from sb3_rlx2.checkpoint.run_state import non_finite
from sb3_rlx2.patching import patched
from sb3_rlx2.studies import timing
from sb3_rlx2.studies.workers import run_trials
from tests import bad_inputs, runs, studies
from tests.faults import ERRORS
from tests.faulty_envs import FAULTS as FAULTY
from tests.faulty_envs import Faulty
from tests.golden import make as golden
from tests.hostile import mutations, watched, with_pickle
from tests.saved import Two, files_of

SAVED = Path(golden.__file__).parent / "saved"
KILLS = 8  # of a run
INTERRUPTED = 3  # exit status
SOAK_STEPS = 50_000  # of a process


class Fault(NamedTuple):
    """
    A class of faults.

    :param what: happens
    :param promise: holds nevertheless
    :param asked: how many make a whole torture
    :param case: gets a number and an empty folder, gives how many faults there were under ``faults`` and what else to count
    """

    what: str
    promise: str
    asked: int
    case: Callable[[int, Path], Counter[str]]


class Killed(NamedTuple):
    """
    A run that is killed.

    :param algorithm: its class
    :param env: ID of its environment
    """

    algorithm: Any
    env: str

    def __call__(self, folder: Path) -> Any:
        env = runs.environments(self.env, folder)
        return self.algorithm("MlpPolicy", env, policy_kwargs=runs.nets(), **runs.SMALL, **runs.OWN)


KILLED = (
    *(Killed(algorithm, env) for env in ("Pendulum-v1", "Hopper-v5", "Ant-v5") for algorithm in (RLx2TD3, RLx2SAC)),
    *(Killed(RLx2DQN, f"MinAtar/{game}-v1") for game in ("Breakout", "SpaceInvaders")),
)
WHOLE: dict[Killed, Any] = {}  # what runs come to that nobody kills


def kill(number: int, folder: Path) -> Counter[str]:
    """Kill a run at random moments, and let it come to its end."""
    return _interrupt(number, folder, [signal.SIGKILL])


def stop(number: int, folder: Path) -> Counter[str]:
    """The same with signals that a run may answer."""
    return _interrupt(number, folder, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


def _interrupt(number: int, folder: Path, signals: Sequence[signal.Signals]) -> Counter[str]:
    make, draw = KILLED[number % len(KILLED)], random.Random(number)
    if make not in WHOLE:
        WHOLE[make] = runs.reference(make, folder / "whole")
    hit, longest = 0, 0.8
    for life in range(KILLS):
        child = _begin(make, folder / "run", life)
        time.sleep(draw.uniform(0.02, longest))
        sent = signals[life % len(signals)]
        os.kill(child, sent)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (-sent, INTERRUPTED, 0), f"life {life} of {make} ended with {status} at {sent.name}"
        hit += status != 0
        if status == 0:  # it came to its end, as it should, before it was killed: another one, sooner
            longest /= 2
            shutil.rmtree(folder / "run")
    assert os.waitstatus_to_exitcode(os.waitpid(_begin(make, folder / "run", KILLS), 0)[1]) == 0, f"{make} ended otherwise"
    return Counter({"faults": hit, "runs": 1, f"{make.algorithm.__name__} {make.env}": hit})


def _begin(make: Killed, folder: Path, seed: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            warnings.simplefilter("ignore")
            runs.scramble(seed)
            os._exit(0 if runs.fingerprint(runs.train(make, folder, every=7), folder) == WHOLE[make] else 1)
        except KeyboardInterrupt:
            os._exit(INTERRUPTED)
        finally:
            os._exit(2)
    return child


def write(number: int, folder: Path) -> Counter[str]:
    """Have each thing fail that a checkpoint asks of the file system, once or from there on, or be the process's last."""
    two, kinds = Two(folder), [(error, once) for error in ERRORS for once in (True, False)]
    kind = number % (len(kinds) + 1)
    if kind == len(kinds):
        count, reached = two.kill_at_each()
        assert reached == {20, 30}
        return Counter({"faults": count, "kills": count})
    error, once = kinds[kind]
    count, _ = two.fail_each(error, once)
    return Counter({"faults": count, f"{error} {'once' if once else 'for ever'}": count})


def power(number: int, folder: Path) -> Counter[str]:
    """Have the power fail at each moment at which a checkpoint is written, in the regular ways and some of chance."""
    return Counter({"faults": Two(folder).power_fails(random.Random(number)), "checkpoints": 1})


def damage(number: int, folder: Path) -> Counter[str]:
    """Flip a bit of a file, cut it, or blank a page of it, and read it."""
    draw = random.Random(number)
    name = ("a checkpoint", "an agent", "a replay buffer", "statistics")[number % 4]
    outcome = _damage_checkpoint(draw, folder) if number % 4 == 0 else _damage_file(number % 4, draw, folder)
    return Counter({"faults": 1, f"{name}: {outcome}": 1})


def _damaged(content: bytes, draw: random.Random) -> bytes:
    at, changed = draw.randrange(len(content)), bytearray(content)
    kind = draw.randrange(4)
    if kind == 0:
        return bytes(changed[:at])
    if kind == 1:
        at -= at % 512
        changed[at : at + 512] = bytes(len(changed[at : at + 512]))
    else:
        changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _damage_checkpoint(draw: random.Random, folder: Path) -> str:
    two = Two(folder)
    path = draw.choice([each for each in files_of(two.folder) if "_step_10" not in str(each)])
    whole = path.read_bytes()
    path.write_bytes(_damaged(whole, draw))
    if path.read_bytes() == whole:
        return "harmless"
    assert two.damage_is_found(), path
    return "found"


def _make_agent(env: Any = None) -> RLx2TD3:
    return RLx2TD3("MlpPolicy", env or "Pendulum-v1", buffer_size=40, policy_kwargs=runs.nets(), seed=0, learning_starts=10)


AGENT: dict[str, Any] = {}


def _damage_file(kind: int, draw: random.Random, folder: Path) -> str:
    if not AGENT:
        AGENT["model"] = _make_agent().learn(30)
    model: RLx2TD3 = AGENT["model"]
    path = folder / ("agent.zip" if kind == 1 else "file.pkl")
    if kind == 1:
        model.save(path)
    elif kind == 2:
        model.save_replay_buffer(path)
    else:
        path.write_bytes((SAVED / "vecnormalize.pkl").read_bytes())
        safe_pickle.seal(path)
    before = _content(kind, path)
    path.write_bytes(_damaged(path.read_bytes(), draw))
    try:
        after = _content(kind, path)
    except (ValueError, EOFError, MemoryError, pickle.UnpicklingError):
        return "found"
    except Exception as error:  # in words of the host
        return f"found ({type(error).__name__})"
    assert runs.digest(after) == runs.digest(before), f"{path} is read, and holds something else"
    return "harmless"


def _content(kind: int, path: Path) -> Any:
    """Read a file, and give what it holds."""
    if kind == 1:
        return RLx2TD3.load(path, device="cpu").get_parameters()
    with path.open("rb") as file:
        read = safe_pickle.load(file)
    if kind == 2:
        return {name: value for name, value in vars(read).items() if isinstance(value, np.ndarray | int)}
    return [read.obs_rms.mean, read.obs_rms.var, read.ret_rms.var, read.clip_obs, read.gamma]


def hostile(number: int, folder: Path) -> Counter[str]:
    """Read a file of chance that was made from one of ours, with what harms put in."""
    kind = ("statistics", "replay buffer", "agent", "agent's pickles")[number % 4]
    content = (
        SAVED / {"statistics": "vecnormalize.pkl", "replay buffer": "replay_buffer.pkl"}.get(kind, "rlx2td3.zip")
    ).read_bytes()
    (changed,) = mutations(content[:6_000] if kind in ("statistics", "replay buffer") else content, 1, seed=number)
    if kind == "agent's pickles":
        (inner,) = mutations((SAVED / "vecnormalize.pkl").read_bytes()[:2_000], 1, seed=number)
        changed = with_pickle(SAVED / "rlx2td3.zip", "policy_class", inner)
    start = time.monotonic()
    outcome = "read"
    with warnings.catch_warnings(), watched() as seen:
        warnings.simplefilter("ignore")
        try:
            RLx2TD3.load(io.BytesIO(changed), device="cpu") if "agent" in kind else safe_pickle.loads(changed)
        except Exception:  # whatever it is, nothing has run
            outcome = "refused"
    harm = [event for event, _ in seen if event not in ("exec", "compile")] if "agent" in kind else seen
    assert not harm, f"{harm} of {kind}"
    assert time.monotonic() - start < 10
    return Counter({"faults": 1, f"{kind}: {outcome}": 1})


def environment(number: int, folder: Path) -> Counter[str]:
    """Train with an environment that breaks at a random step; then go on with one that is whole."""
    draw, names = random.Random(number), list(FAULTY)
    name, at = names[number % len(names)], draw.randrange(2, 60)
    algorithm = (RLx2TD3, RLx2SAC)[number % 2]

    def make(fault: Any) -> Any:
        env = DummyVecEnv([Faulty, lambda: Faulty(fault, at)])
        return algorithm("MlpPolicy", env, learning_starts=10, batch_size=8, buffer_size=60, seed=0, policy_kwargs=runs.nets())

    broken = make(FAULTY[name][0])
    try:
        broken.learn(120, callback=Checkpoints(folder, 10))
    except (ValueError, RuntimeError) as error:
        told = str(error)
    assert f"at step {2 * at}" in told, told
    assert "1 of 2" in told, told
    assert broken.num_timesteps == 2 * at - 2, name
    whole = make(None).learn(120, callback=Checkpoints(folder, 10))
    assert whole.num_timesteps == 120
    assert non_finite(whole) is None
    return Counter({"faults": 1, algorithm.__name__: 1})


class _Samples(BaseCallback):
    """Notes memory and open files on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, int]] = []

    def _on_step(self) -> bool:
        if self.n_calls % 1_000 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.rows.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))
        return True


def soak(number: int, folder: Path) -> Counter[str]:
    """Train with a checkpoint every thousand steps, and look at memory, open files and the disk."""
    samples = _Samples()
    settings = runs.SMALL | {"buffer_size": 5_000, "seed": number}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RLx2TD3("MlpPolicy", "Pendulum-v1", policy_kwargs=runs.nets(), **settings)
        model.learn(SOAK_STEPS, callback=[Checkpoints(folder, 1_000), samples])
    late = samples.rows[len(samples.rows) // 5 :]
    growth = late[-1][0] / late[0][0] - 1
    assert growth < 0.01, f"memory grew by {growth:.1%}"
    assert len({files for _, files in late}) == 1, late
    assert len(list(folder.glob("*_step_*"))) == 2
    assert len(files_of(folder)) < 50
    return Counter({"faults": SOAK_STEPS, "checkpoints": SOAK_STEPS // 1_000})


def study(number: int, folder: Path) -> Counter[str]:
    """Kill and suspend the workers of a study, and leave half a line in its journal."""
    path, name = str(folder / "study.log"), "study"
    with warnings.catch_warnings(), patched(timing, **studies.QUICK):
        warnings.simplefilter("ignore")
        studies.survive(path, name, random.Random(number), faults=10)
        studies.check_all_counted(studies.open_study(path, name).trials)
    return Counter({"faults": 1, "trials": studies.TOTAL, "workers killed or suspended": 9})


JOURNAL: dict[str, Any] = {}


def journal(number: int, folder: Path) -> Counter[str]:
    """Damage the journal of a study, and go on with it."""
    draw, kind = random.Random(number), list(studies.DAMAGES)[number % len(studies.DAMAGES)]
    path = folder / "study.log"
    with warnings.catch_warnings(), patched(timing, **studies.QUICK), redirect_stdout(None):
        warnings.simplefilter("ignore")
        if not JOURNAL:
            whole = studies.open_study(str(folder / "whole.log"))
            run_trials(whole, lambda trial: trial.suggest_float("x", 0, 1), 4, progress=False)
            JOURNAL["content"] = (folder / "whole.log").read_bytes()
            JOURNAL["results"] = {trial.params["x"]: trial.value for trial in whole.trials}
        path.write_bytes(studies.DAMAGES[kind](JOURNAL["content"], draw))
        outcome = studies.go_on(path, "study", JOURNAL["results"], 6)
    return Counter({"faults": 1, f"{kind}: {'one line' if str(path) in outcome else 'recovered'}": 1})


def bad_input(number: int, folder: Path) -> Counter[str]:
    """Get something wrong."""
    bad = bad_inputs.ALL[number % len(bad_inputs.ALL)]
    bad_inputs.told(bad, folder)
    return Counter({"faults": 1, bad.kind: 1})


FAULTS = {
    "kills": Fault("SIGKILL at a random moment of training", "ends with the same checksums as if never killed", 1_000, kill),
    "signals": Fault(
        "SIGTERM, SIGINT or SIGHUP at such a moment", "ends with the same checksums as if never stopped", 400, stop
    ),
    "writes": Fault(
        "a failing, or last, operation of a checkpoint's write", "the one before, or the new one, is whole", 3_000, write
    ),
    "power": Fault(
        "a disk as it may be after a power failure in the middle of a checkpoint's write",
        "the one before, or the new one, is whole",
        20_000,
        power,
    ),
    "damage": Fault("a damaged file", "found, or harmless", 10_000, damage),
    "hostile": Fault("a file that is made to do harm", "no code runs", 5_000, hostile),
    "environments": Fault("an environment that breaks", "stops in that step, names it, goes on from before", 600, environment),
    "studies": Fault(
        "a study whose three workers are killed and suspended", "each trial counts once, nobody runs or waits", 100, study
    ),
    "journals": Fault("a damaged journal of a study", "each trial counts once, or one line says why not", 2_000, journal),
    "inputs": Fault(
        "a bad argument, setting, command line or file",
        "one line names it: nothing is silent, and there is no traceback",
        len(bad_inputs.ALL),
        bad_input,
    ),
    "soak": Fault(
        "a step with a checkpoint every thousand", "memory grows by less than 1 %, open files not at all", 2_000_000, soak
    ),
}


def run_case(name: str, number: int, folder: Path) -> Counter[str]:
    """Run a case in a folder that is empty before and gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    th.set_num_threads(1)
    try:
        return FAULTS[name].case(number, folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
