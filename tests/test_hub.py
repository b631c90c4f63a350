"""Agents go to a hub on loopback and come back, through huggingface_hub and by HTTP."""

import os
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from huggingface_sb3 import EnvironmentName
from stable_baselines3 import PPO

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.paths import architecture
from sb3_rlx2.zoo import hub
from tests import apart
from tests.hub_server import serve

pytestmark = pytest.mark.filterwarnings("ignore")
TASK = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-orga", "me"]
RUN = Path("logs/rlx2td3/Pendulum-v1_1")


@pytest.fixture
def server():
    with serve() as server:
        yield server


@pytest.fixture
def rlx2_online(server, tmp_path, monkeypatch):
    """The command in a process of its own: huggingface_hub reads the address of the hub when it is imported."""
    monkeypatch.chdir(tmp_path)
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_me", "HF_HUB_DISABLE_XET": "1"}
    for name in [name for name in os.environ if name.startswith(("HF_", "TRUST"))]:
        monkeypatch.delenv(name)

    def run(*arguments, status=0, **variables):
        result = apart.run("sb3_rlx2", *arguments, cwd=tmp_path, variables=own | variables)
        assert result.returncode == status, result.stdout + result.stderr
        return result.stdout + result.stderr

    return run


def test_there_and_back(rlx2, rlx2_online, server, tmp_path):
    rlx2.train("rlx2td3", "-n", "60", parameters=["normalize:True"])
    arguments = Path("logs/rlx2td3/Pendulum-v1_1/Pendulum-v1/args.yml")
    without = arguments.read_text()
    arguments.write_text(without.replace("- - storage\n    - null", "- - storage\n    - postgresql://me:secret@host/studies"))
    assert "secret" in arguments.read_text()
    assert "evaluating" in rlx2_online("push_to_hub", *TASK, "-f", "logs", "-n", "20", "-m", "A commit")
    assert server.tokens == {"Bearer hf_me"}
    assert server.commits == ["A commit"]
    (files,) = server.repositories.values()
    others = {
        "README.md",
        "args.yml",
        "config.yml",
        "env_kwargs.yml",
        "replay.mp4",
        "train_eval_metrics.zip",
        "vec_normalize.pkl",
    }
    assert set(files) == others | {"rlx2td3-Pendulum-v1.zip"}
    assert b"postgresql://me:***@host/studies" in files["args.yml"]
    assert files["rlx2td3-Pendulum-v1.zip"] == (RUN / "Pendulum-v1.zip").read_bytes()
    check_card(files["README.md"].decode(), RLx2TD3.load(RUN / "Pendulum-v1.zip"))

    rlx2_online("load_from_hub", *TASK, "-f", "mine")
    copy = Path("mine/rlx2td3/Pendulum-v1_1")
    for name in ("Pendulum-v1.zip", "Pendulum-v1/vecnormalize.pkl", "Pendulum-v1/config.yml", "0.monitor.csv"):
        assert (copy / name).read_bytes() == (RUN / name).read_bytes()
    play = ["enjoy", "--algo", "rlx2td3", "--env", "Pendulum-v1", "--no-render", "-n", "200"]
    assert rlx2(*play, "-f", "mine").split("Mean")[1:] == rlx2(*play, "-f", "logs").split("Mean")[1:]


def check_card(card, model):
    _, header, text = card.split("---\n", 2)
    data = yaml.safe_load(header)
    assert data["model-index"][0]["name"] == "RLx2TD3"  # the zoo's get_hf_trained_models reads these
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == "Pendulum-v1"
    assert 'pip install "git+URL"' in text  # it is not on PyPI, where somebody else might take the name
    assert "`rlx2` runs no code of the files" in text
    assert "rlx2 load_from_hub --algo rlx2td3 --env Pendulum-v1 -orga me -f logs" in text
    live = sum(mlp.nnz for mlp in model.actor.modules() if hasattr(mlp, "nnz"))
    assert f"| actor's weights | {live:,} of " in text
    assert f"| actor on a path | {architecture(model.actor.mu)} |" in text
    assert "| zip on disk |" in text


def test_missing_repository(rlx2_online, server):
    output = rlx2_online("load_from_hub", *TASK, "-f", "mine", status=1)
    assert output.splitlines()[-1].endswith(
        f"error: no repository me/rlx2td3-Pendulum-v1 at {server.url}, or a private one (hf auth login)"
    )
    assert not Path("mine").exists()


def test_no_hub_there(rlx2_online):
    output = rlx2_online("load_from_hub", *TASK, "-f", "mine", status=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert output.splitlines()[-1].startswith("rlx2 load_from_hub: error: ")
    assert "Traceback" not in output


def test_nobody_uploads(rlx2, monkeypatch):
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert "hf auth login" in rlx2.error("push_to_hub", *TASK, "-f", "logs")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """What the hub would give for an agent in the zoo's format."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("args.yml", "config.yml", "env_kwargs.yml"):
        (folder / name).write_text("{}")
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("evaluations.npz", "new")
    PPO("MlpPolicy", "Pendulum-v1").save(folder / "ppo-Pendulum-v1.zip")
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **kwargs: str(folder))
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *args, **kwargs: Namespace(sha="0" * 40, siblings=[]))
    return folder


def download(tmp_path, exp_id, force=False):
    env = EnvironmentName("Pendulum-v1")
    args = {"folder": str(tmp_path / "logs"), "algo": "ppo", "env": env, "organization": "sb3", "repo_name": None}
    hub.download(Namespace(**args, exp_id=exp_id, force=force))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_numbered_runs(source, tmp_path):
    download(tmp_path, 0)
    download(tmp_path, 0)
    assert sorted(path.name for path in (tmp_path / "logs/ppo").iterdir()) == ["Pendulum-v1_1", "Pendulum-v1_2"]
    with pytest.raises(ValueError, match="Pendulum-v1_2 exists: --force replaces it"):
        download(tmp_path, 2)
    (tmp_path / "logs/ppo/Pendulum-v1_2/old").touch()
    download(tmp_path, 2, force=True)
    assert contents(tmp_path / "logs/ppo/Pendulum-v1_2") == contents(tmp_path / "logs/ppo/Pendulum-v1_1")


def test_other_runs_stay(source, tmp_path):
    """The zoo's own command, asked for no folder of the run's own and --force, deletes all runs of the algorithm."""
    (tmp_path / "logs/ppo/Ant-v5_1").mkdir(parents=True)
    download(tmp_path, -1)
    with pytest.raises(ValueError, match=r"Pendulum-v1\.zip exists: --force"):
        download(tmp_path, -1)
    download(tmp_path, -1, force=True)
    names = ["Ant-v5_1", "Pendulum-v1", "Pendulum-v1.zip", "evaluations.npz"]
    assert sorted(path.name for path in (tmp_path / "logs/ppo").iterdir()) == names


def test_a_repository_replaces_nothing_else(source, tmp_path):
    mine = tmp_path / "logs/ppo/Ant-v5_1"
    mine.mkdir(parents=True)
    (mine / "Ant-v5.zip").touch()
    with zipfile.ZipFile(source / "train_eval_metrics.zip", "a") as archive:
        for name in ("Ant-v5_1/other", "Ant-v5.zip", "Ant-v5_1/0.monitor.csv"):
            archive.writestr(name, "theirs")
    download(tmp_path, -1, force=True)
    assert contents(mine) == {"Ant-v5.zip": b""}
    assert not (tmp_path / "logs/ppo/Ant-v5.zip").exists()


@pytest.mark.parametrize("name", ["ppo-Pendulum-v1.zip", "train_eval_metrics.zip"])
def test_a_damaged_download_leaves_all_as_it_was(name, source, tmp_path):
    download(tmp_path, 0)
    before = contents(tmp_path / "logs")
    (source / name).write_bytes(b"half of it")
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        download(tmp_path, 1, force=True)
    assert contents(tmp_path / "logs") == before


def test_something_else(source, tmp_path):
    (source / "config.yml").unlink()
    with pytest.raises(ValueError, match=r"holds no agent in the zoo's format: config\.yml missing"):
        download(tmp_path, 0)


def test_a_repository_that_is_too_large_is_not_downloaded(source, tmp_path, monkeypatch):
    sizes = {"ppo-Pendulum-v1.zip": hub.LARGEST, "args.yml": 1, "README.md": 10**12}  # the last one is not wanted
    siblings = [Namespace(rfilename=name, size=size) for name, size in sizes.items()]
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *args, **kwargs: Namespace(sha="0" * 40, siblings=siblings))
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **kwargs: pytest.fail("is downloaded"))
    with pytest.raises(ValueError, match=r"sb3/ppo-Pendulum-v1 holds an agent of 2,000,000,001 bytes, which must be at most"):
        download(tmp_path, 0)
    assert not (tmp_path / "logs").exists()


def test_what_killed_downloads_left_is_swept(source, tmp_path):
    left = tmp_path / "logs/ppo/.unfinished-abc"
    left.mkdir(parents=True)
    download(tmp_path, 0)
    assert left.exists()  # somebody may be writing it
    os.utime(left, (0, 0))
    download(tmp_path, 0)
    assert not left.exists()
