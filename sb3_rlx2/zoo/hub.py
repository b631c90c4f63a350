"""
Agents on the Hugging Face hub, in the zoo's format.

The zoo's own commands fail with current versions of huggingface_hub and its SB3 integration; these take the same arguments.
"""

import argparse
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch as th
import yaml
from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_sb3 import EnvironmentName, ModelName
from rl_zoo3 import ALGOS, utils
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecVideoRecorder
from tqdm import tqdm

from sb3_rlx2.checkpoint.archive import check_agent, opened
from sb3_rlx2.files import ABANDONED, filling, sweep
from sb3_rlx2.saved_objects import check_members
from sb3_rlx2.zoo import agents, videos
from sb3_rlx2.zoo.checks import check_one_way
from sb3_rlx2.zoo.model_card import model_card

EVALUATION_EPISODES = 10
# Beside the agent. The zoo's `push_to_hub` writes these names and its `load_from_hub` expects them.
METRICS = "train_eval_metrics.zip"
REQUIRED = ("args.yml", "config.yml", "env_kwargs.yml", METRICS)
STATISTICS = "vec_normalize.pkl"
EVALUATIONS = "evaluations.npz"
LARGEST = 2_000_000_000  # bytes of what is downloaded at a time, a thousand times what an agent has


def push_to_hub() -> None:
    """Run ``rlx2 push_to_hub``."""
    parser = make_parser("push_to_hub", "Evaluate an agent, record a video of it, write its model card, and upload it all.")
    add = parser.add_argument
    add("-orga", "--organization", required=True, help="organization or user on the hub")
    add("-m", "--commit-message", default="Initial commit", help="commit message (%(default)s)")
    add("-n", "--n-timesteps", type=int, default=1000, help="steps of the video (%(default)s)")
    add("--no-render", action="store_true", help="upload no video")
    add("--load-best", action="store_true", help="the best agent instead of the last")
    add("--load-checkpoint", type=int, metavar="STEPS", help="the checkpoint of that step instead of the last agent")
    add("--load-last-checkpoint", action="store_true", help="the last checkpoint instead of the last agent")
    add("--deterministic", action="store_true", help="deterministic actions (default, except on Atari and MiniGrid)")
    add("--stochastic", action="store_true", help="stochastic actions")
    add("--n-envs", type=int, default=1, help="environments of the evaluation (%(default)s)")
    add("--env-kwargs", nargs="+", action=utils.StoreDict, metavar="NAME:VALUE", help="arguments of the environment")
    add("--seed", type=int, default=0, help="seed (%(default)s)")
    add("--num-threads", type=int, default=-1, help="threads of PyTorch (-1: its default)")
    add("--device", default="auto", help="PyTorch device (%(default)s)")
    agents.add_packages(parser)
    push(parser.parse_args())


def load_from_hub() -> None:
    """Run ``rlx2 load_from_hub``."""
    parser = make_parser("load_from_hub", "Download an agent into the log folder.")
    parser.add_argument("-orga", "--organization", default="sb3", help="organization or user on the hub (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace what is in the run's folder")
    download(parser.parse_args())


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """
    Make a parser of the options that both commands have, spelled as the zoo's.

    :param command: name of the command
    :param description: what it does
    """
    parser = argparse.ArgumentParser(prog=f"rlx2 {command}", description=description)
    add = parser.add_argument
    add("--algo", choices=list(ALGOS), required=True, help="algorithm")
    add("--env", type=EnvironmentName, required=True, help="environment ID")
    add("-f", "--folder", required=True, help="log folder")
    add("--exp-id", type=int, default=0, help="number of the run (0: the latest or a new one; -1: no folder of its own)")
    add("-name", "--repo-name", help="repository on the hub (ALGO-ENV)")
    add("--verbose", type=int, default=1, help="taken because the zoo's commands do; changes nothing")
    return parser


def push(args: argparse.Namespace) -> None:
    """
    Evaluate an agent, record a video of it, write its model card, and upload it all in one commit.

    :param args: of ``push_to_hub``
    :raises ValueError: without a login, or if there is no such agent or environment
    """
    videos.render_offscreen()
    agents.check_env(args.env.gym_id, args.gym_packages)
    check_one_way(args)
    if get_token() is None:
        raise ValueError("the hub wants to know who you are: `hf auth login`, or set HF_TOKEN")
    path = agents.find_agent(args)
    check_agent(path)
    repo_id = f"{args.organization}/{args.repo_name or ModelName(args.algo, args.env)}"
    with tempfile.TemporaryDirectory(prefix="sb3_rlx2-") as name:
        folder = Path(name)
        fill(folder, path, args)
        print(f"Uploading to {constants.ENDPOINT}/{repo_id}")
        api = HfApi()
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=args.commit_message)
    print(f"Agent: {constants.ENDPOINT}/{repo_id}")


def fill(folder: Path, path: Path, args: argparse.Namespace) -> None:
    """
    Write all that goes to the hub.

    :param folder: where to
    :param path: the agent's zip, or the folder of its checkpoint
    :param args: of ``push_to_hub``
    """
    set_random_seed(args.seed)
    if args.num_threads > 0:
        th.set_num_threads(args.num_threads)
    run = agents.find_run(args)
    kwargs = agents.env_kwargs(run, args.env, args.env_kwargs)
    hyperparams, statistics = utils.get_saved_hyperparams(str(run / args.env), test_mode=True)
    env = agents.with_own_statistics(utils.create_test_env, args)(
        args.env.gym_id,
        n_envs=args.n_envs,
        stats_path=statistics,
        seed=args.seed,
        should_render=False,
        hyperparams=deepcopy(hyperparams),
        env_kwargs=kwargs if args.no_render else kwargs | {"render_mode": "rgb_array"},
    )
    model = agents.load_to_play(ALGOS[args.algo], path, env=env, device=args.device, seed=args.seed)
    returns = evaluate(model, env, deterministic(args))
    if not args.no_render:
        record(model, env, args.n_timesteps, deterministic(args), folder / "replay.mp4")
    env.close()
    copy_run(folder, path, run, args)
    (folder / "env_kwargs.yml").write_text(yaml.dump(kwargs))
    size = (folder / ModelName(args.algo, args.env).filename).stat().st_size
    model_card(model, args, hyperparams, returns, size).save(folder / "README.md")


def deterministic(args: argparse.Namespace) -> bool:
    """
    Say whether actions are deterministic, by the zoo's rule.

    :param args: of ``push_to_hub``
    """
    random = ExperimentManager.is_atari(args.env.gym_id) or ExperimentManager.is_minigrid(args.env.gym_id)
    return not (args.stochastic or (random and not args.deterministic))


def evaluate(model: BaseAlgorithm, env: VecEnv, deterministic: bool) -> list[float]:
    """
    Play some episodes.

    :param model: the agent
    :param env: its environment
    :param deterministic: whether actions are
    :return: the return of each
    """
    with tqdm(total=EVALUATION_EPISODES, desc="evaluating", unit="episode") as bar:

        def count(local: dict[str, Any], _: dict[str, Any]) -> None:
            bar.update(int(local["done"]))

        returns, _ = evaluate_policy(
            model, env, EVALUATION_EPISODES, deterministic, callback=count, return_episode_rewards=True
        )
    return [float(value) for value in returns]  # type: ignore[union-attr]


def record(model: BaseAlgorithm, env: VecEnv, length: int, deterministic: bool, path: Path) -> None:
    """
    Record a video.

    :param model: the agent
    :param env: its environment, which renders arrays; closed at the end
    :param length: steps
    :param deterministic: whether actions are
    :param path: the file
    :raises RuntimeError: if the environment cannot be rendered
    """
    with tempfile.TemporaryDirectory(prefix="sb3_rlx2-") as folder:
        recorder = VecVideoRecorder(env, folder, lambda step: step == 0, video_length=length)
        try:
            observations: Any = recorder.reset()
            for _ in tqdm(range(length), desc="recording", unit="step"):
                actions, _ = model.predict(observations, deterministic=deterministic)
                observations, *_ = recorder.step(actions)
        except Exception as error:
            raise RuntimeError(f"cannot record a video ({error}); --no-render uploads without one") from error
        recorder.close()
        shutil.move(recorder.video_path, path)


def copy_run(folder: Path, path: Path, run: Path, args: argparse.Namespace) -> None:
    """
    Copy what training saved.

    :param folder: where to
    :param path: the agent's zip, or the folder of its checkpoint
    :param run: the run's folder
    :param args: of ``push_to_hub``
    """
    with opened(path) as agent:
        (folder / ModelName(args.algo, args.env).filename).write_bytes(agent.read())
    for name in ("args.yml", "config.yml"):
        (folder / name).write_text(_without_passwords((run / args.env / name).read_text()))
    statistics = agents.beside_checkpoint(path, "vecnormalize") or run / args.env / "vecnormalize.pkl"
    if statistics.exists():
        agents.copy_statistics(statistics, folder / STATISTICS)
    with zipfile.ZipFile(folder / METRICS, "w") as archive:
        for file in sorted([*run.glob(EVALUATIONS), *run.glob("*.csv")]):
            archive.write(file, file.name)


def _without_passwords(text: str) -> str:
    """Hide those in URLs: ``--storage`` may hold the database's."""
    return re.sub(r"(://[^\s:/@]*):[^\s@]*@", r"\1:***@", text)


def download_trained_agent(args: argparse.Namespace) -> None:
    """
    Download an agent of the zoo's authors, as the zoo's ``enjoy`` does where it finds none.

    :param args: of ``enjoy``
    :raises ValueError: unless the user trusts them, in the way that the zoo asks for
    """
    if os.environ.get("TRUST_REMOTE_CODE", "").lower() not in {"y", "yes", "t", "true", "on", "1"}:
        raise ValueError(
            f"{args.folder} has no {args.algo} agent for {args.env}: name your log folder with -f, or download the zoo's own "
            "from the hub with TRUST_REMOTE_CODE=True in the environment (its files run code when they are loaded)"
        )
    download(argparse.Namespace(**vars(args) | {"organization": "sb3", "repo_name": None, "force": False}))


def download(args: argparse.Namespace) -> None:
    """
    Download an agent into the log folder; it is there whole or not at all.

    :param args: of ``load_from_hub``
    :raises ValueError: if there is one already, or the hub has none
    """
    root = Path(args.folder, args.algo)
    exp_id = args.exp_id or utils.get_latest_run_id(str(root), args.env) + 1
    target = root / f"{args.env}_{exp_id}" if exp_id > 0 else root
    model = ModelName(args.algo, args.env)
    blocking = target if exp_id > 0 else target / f"{args.env}.zip"
    if blocking.exists() and not args.force:
        raise ValueError(f"{blocking} exists: --force replaces it, --exp-id 0 makes a new folder")
    sweep(root, ABANDONED)
    source = fetch(f"{args.organization}/{args.repo_name or model}", model.filename)
    with filling(root, last="*.zip") as unfinished:
        # Without a folder of its own the run lies among others, which stay.
        run = unfinished / target.name if exp_id > 0 else unfinished
        config = run / args.env
        config.mkdir(parents=True)
        shutil.copy(source / model.filename, run / f"{args.env}.zip")
        for file in ("args.yml", "config.yml", "env_kwargs.yml"):
            shutil.copy(source / file, config / file)
        if (source / STATISTICS).is_file():
            shutil.copy(source / STATISTICS, config / "vecnormalize.pkl")
        with zipfile.ZipFile(source / METRICS) as archive:
            check_members(archive)
            for name in archive.namelist():  # anything else would take the place of something of the user's
                if name == EVALUATIONS or (name.endswith(".csv") and "/" not in name):
                    archive.extract(name, run)
        check_agent(run / f"{args.env}.zip")
        taken = [root / each.name for each in unfinished.iterdir() if (root / each.name).exists()]
        if taken and not args.force:
            raise ValueError(f"{taken[0]} exists: --force replaces it, --exp-id 0 makes a new folder")
    print(f"Agent: {target / f'{args.env}.zip'}")


def fetch(repo_id: str, model: str) -> Path:
    """
    Download an agent's files into the hub's cache.

    :param repo_id: organization and name
    :param model: name of the agent's zip
    :return: the folder that holds them
    :raises ValueError: if it lacks some, or they are too large
    """
    print(f"Downloading from {constants.ENDPOINT}/{repo_id}")
    wanted = [model, *REQUIRED, STATISTICS]
    try:
        folder = Path(snapshot_download(repo_id, revision=_checked(repo_id, wanted), allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise ValueError(f"no repository {repo_id} at {constants.ENDPOINT}, or a private one (hf auth login)") from error
    missing = [name for name in (model, *REQUIRED) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{repo_id} holds no agent in the zoo's format: {', '.join(missing)} missing")
    return folder


def _checked(repo_id: str, wanted: Collection[str]) -> str | None:
    """Check the size of files on the hub before they are downloaded, and give the revision that has it."""
    info = HfApi().model_info(repo_id, files_metadata=True)
    size = sum(each.size or 0 for each in info.siblings or () if each.rfilename in wanted)
    if size > LARGEST:
        raise ValueError(
            f"{repo_id} holds an agent of {size:,} bytes, which must be at most {LARGEST:,}: `hf download {repo_id}` takes any"
        )
    return info.sha
