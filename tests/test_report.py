"""`rlx2 report`: what it reads from a run's folder, what the page shows, how it looks in a browser, how it fails."""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from sb3_rlx2 import RLx2SAC, RLx2TD3, metrics
from sb3_rlx2.report import __main__ as command
from sb3_rlx2.report.agent_file import read_agent
from sb3_rlx2.report.networks import strongest
from sb3_rlx2.report.run_folder import agent_file, read_run
from sb3_rlx2.report.training import training_returns
from tests.chromium import chromium, require_chromium
from tests.envs import DriftEnv

SMALL = {
    "learning_starts": 100,
    "batch_size": 16,
    "buffer_size": 1000,
    "buffer_min_size": 50,
    "policy_kwargs": {"net_arch": [16, 300]},
    "critic_sparsity": 0.5,
    "update_interval": 50,
    "buffer_check_interval": 100,
    "seed": 3,
}
PICTURES = {
    "Learning curve": 1,
    "Final evaluation": 1,
    "FLOPs and bytes": 1,
    "Density of each layer": 1,
    "Which links live": 3,
    "Input importance": 1,
    "Churn at each topology update": 1,
    "Replay buffer and n-step targets": 1,
}


def train(folder, algorithm=RLx2TD3, **arguments):
    """Train as a user's own script does, with the log, evaluations, episodes and the agent in one folder."""
    env = make_vec_env("Pendulum-v1", 2, seed=0, monitor_dir=str(folder))
    model = algorithm("MlpPolicy", env, **(SMALL | arguments))
    places = {"log_path": str(folder), "best_model_save_path": str(folder)}
    evaluation = EvalCallback(make_vec_env("Pendulum-v1"), n_eval_episodes=2, eval_freq=100, verbose=0, **places)
    with closing(configure(str(folder), ["csv"])) as logger:
        model.set_logger(logger)
        model.learn(1000, callback=evaluation, log_interval=1)
    env.close()
    model.save(folder / "agent")
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Give the folder of a whole run, which nobody may write to, and its model."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    folder.mkdir()
    return folder, train(folder, actor_sparsity=0.8)


@pytest.fixture
def whole(trained, tmp_path):
    """Give a copy of the folder of a whole run."""
    return Path(shutil.copytree(trained[0], tmp_path / "whole"))


def report(*arguments):
    """Run the command in this process."""
    sys.argv = ["rlx2 report", *map(str, arguments)]
    command.main()


def sections(html):
    """Give, for each section, its number of pictures and what is said to be missing."""
    parts = re.findall(r"<section>.*?</section>", html, re.DOTALL)
    title = [re.search(r"<h2>(.*?)</h2>", part)[1] for part in parts]
    missing = [re.findall(r"<li>(.*?)</li>", part) for part in parts]
    return {name: (part.count("<img "), said) for name, part, said in zip(title, parts, missing, strict=True)}


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


# The page


def test_whole_run(whole, capsys):
    report(whole)
    html = (whole / "report.html").read_text()
    assert sections(html) == {title: (count, []) for title, count in PICTURES.items()}
    assert "Trained for 1,000 steps" in html
    assert f"Report: {whole / 'report.html'}" in capsys.readouterr().out
    assert not list(whole.glob(".report*"))


MEASURE = """(async () => {
  const measured = [];
  for (const image of document.images) {
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let [sum, squares] = [0, 0];
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4) {
      const grey = (data[i] + data[i + 1] + data[i + 2]) / 3;
      [sum, squares] = [sum + grey, squares + grey * grey];
      colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    }
    const pixels = data.length / 4;
    measured.push([image.naturalWidth, image.naturalHeight, squares / pixels - (sum / pixels) ** 2, colours.size]);
  }
  return measured;
})()"""


@pytest.mark.parametrize("several", [False, True])
def test_in_a_browser(several, whole, tmp_path):
    require_chromium()
    folders = [whole]
    if several:  # one of them with nothing but evaluations
        (tmp_path / "part").mkdir()
        folders += [shutil.copy(whole / "evaluations.npz", tmp_path / "part") and tmp_path / "part"]
    report(*folders, "-o", tmp_path / "page.html")
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile") as page:
        page.open((tmp_path / "page.html").as_uri())
        measured = page.evaluate(MEASURE)
        title = page.evaluate("document.querySelector('h1').innerText")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert page.named("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
        asked = [event["request"]["url"] for event in page.named("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
    assert "Pendulum-v1" in title
    assert overflow <= 0
    assert len(measured) == sum(PICTURES.values())
    for width, height, variance, colours in measured:
        assert width > 600
        assert height > 80
        assert variance > 100
        assert colours > 50


def test_heat_map_shows_every_live_link(whole, trained):
    """The pixels of the picture in the page: as many are not transparent as there are links."""
    from PIL import Image

    report(whole)
    pictures = re.findall(r'<img alt="Actor" src="data:image/svg\+xml;base64,(.*?)">', (whole / "report.html").read_text())
    svg = base64.b64decode(pictures[0]).decode()
    images = re.findall(r'href="data:image/png;base64,\s*(.*?)"', svg, re.DOTALL)
    seen = []
    for data in images:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            seen.append((image.size, int((np.asarray(image.convert("RGBA"))[..., 3] > 0).sum())))
    first, second, third = metrics.sparse_mlps(trained[1].actor)[0].layers
    assert ((first.in_features, first.out_features), first.nnz) in seen
    pairs = trained[1].actor.mu.dense_weights()[1].detach().numpy().reshape(150, 2, 16)  # 300 units share 256 cells
    assert ((second.in_features, 150), int((pairs != 0).any(axis=1).sum())) in seen
    assert (150, third.out_features) in [size for size, _ in seen]


def test_common_folder_gets_the_page_of_several(whole, trained, tmp_path):
    other = Path(shutil.copytree(whole, tmp_path / "other" / "run"))
    report(whole, other)
    html = (tmp_path / "report.html").read_text()
    assert "2 runs side by side" in html
    assert re.findall(r"<strong>(whole|other/run)</strong>", html) == ["whole", "other/run"]
    assert sections(html) == {title: (count, []) for title, count in PICTURES.items()}


NO_AGENT = "no saved agent (*.zip) of TD3 or SAC in the folder"
NO_EVALUATIONS = "no evaluations.npz (train with --eval-freq)"


@pytest.mark.parametrize(
    ("kept", "pictures", "said"),
    [
        ("evaluations.npz", {"Learning curve": 1, "Final evaluation": 1}, {"Which links live": [NO_AGENT]}),
        ("*.monitor.csv", {"Learning curve": 1}, {"Learning curve": [NO_EVALUATIONS], "Density of each layer": [NO_AGENT]}),
        (
            "progress.csv",
            {
                "Learning curve": 1,
                "FLOPs and bytes": 1,
                "Churn at each topology update": 1,
                "Replay buffer and n-step targets": 1,
            },
            {"Final evaluation": [NO_EVALUATIONS], "Input importance": [NO_AGENT]},
        ),
        (
            "agent.zip",
            {"FLOPs and bytes": 1, "Density of each layer": 1, "Which links live": 3, "Input importance": 1},
            {
                "Final evaluation": [NO_EVALUATIONS],
                "Churn at each topology update": ["no topology update was recorded (none happened, or no progress.csv)"],
                "Replay buffer and n-step targets": [
                    f"{what} was not recorded" for what in ("policy distance", "buffer size", "n")
                ],
            },
        ),
    ],
)
def test_what_is_missing_is_said(kept, pictures, said, trained, tmp_path):
    for path in trained[0].glob(kept):
        shutil.copy(path, tmp_path)
    report(tmp_path)
    shown = sections((tmp_path / "report.html").read_text())
    assert {title: count for title, (count, _) in shown.items() if count} == pictures
    assert all(missing for count, missing in shown.values() if not count)
    for title, missing in said.items():
        assert shown[title][1] == missing


def test_run_in_progress(whole):
    (whole / "agent.zip").unlink()
    for path in (whole / "progress.csv", whole / "0.monitor.csv"):
        path.write_text(path.read_text()[:-4])  # its last line is being written
    report(whole)
    html = (whole / "report.html").read_text()
    assert re.search(
        r"Still running or cut off, at step 1,000 of 1,000 \(100%\); networks as in best_model.zip, of step", html
    )
    assert sections(html) == {title: (count, []) for title, count in PICTURES.items()}


def test_zoo_run(tmp_path):
    def run(*arguments):
        line = [sys.executable, "-m", "sb3_rlx2", *arguments]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    task = [
        "--algo",
        "rlx2td3",
        "--env",
        "Pendulum-v1",
        "-n",
        "400",
        "--eval-freq",
        "200",
        "--eval-episodes",
        "1",
        "-f",
        "logs",
    ]
    small = ["learning_starts:100", "update_interval:50", "buffer_check_interval:100", "policy_kwargs:dict(net_arch=[16])"]
    run("train", *task, "--num-threads", "1", "-params", *small)
    run("report", "logs/rlx2td3/Pendulum-v1_1")
    html = (tmp_path / "logs/rlx2td3/Pendulum-v1_1/report.html").read_text()
    assert "rlx2td3 on Pendulum-v1" in html
    assert "Trained for 400 steps; networks as in Pendulum-v1.zip" in html
    assert sections(html) == {title: (count, []) for title, count in PICTURES.items()}
    assert re.search(r"<th>update_interval</th><td>50</td>", html)


def test_continued_run(whole):
    """Its steps go on from the other run's, as its log says; the episodes of its monitor files count from 0."""
    lines = (whole / "progress.csv").read_text().splitlines()
    step = lines[0].split(",").index("time/total_timesteps")
    rows = [line.split(",") for line in lines]
    for row in rows[1:]:
        row[step] = str(int(row[step]) + 5000)
    (whole / "progress.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    with np.load(whole / "evaluations.npz") as stored:
        evaluations = dict(stored)
    np.savez(whole / "evaluations.npz", **evaluations | {"timesteps": evaluations["timesteps"] + 5000})
    (whole / "Pendulum-v1").mkdir()
    arguments = "- trained_agent\n    - logs/first/Pendulum-v1.zip\n  - - n_timesteps\n    - 6000\n"
    (whole / "Pendulum-v1" / "args.yml").write_text(f"!!python/object/apply:collections.OrderedDict\n- - {arguments}")
    run = read_run(whole)
    curve = training_returns(run)
    assert curve.steps[0] > 5000
    assert run.steps == 6000
    report(whole)
    html = (whole / "report.html").read_text()
    assert "; continues logs/first/Pendulum-v1.zip, whose own steps are in its own folder" in html
    assert sections(html) == {title: (count, []) for title, count in PICTURES.items()}


def test_text_of_files_is_no_html(whole):
    config = whole / "Pendulum-v1" / "config.yml"
    config.parent.mkdir()
    config.write_text("env_wrapper: '<script>alert(1)</script>'\n")
    report(whole)
    html = (whole / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html


# What is read


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC, TD3, SAC])
def test_agent(algorithm, tmp_path):
    arguments = {"buffer_size": 10, "policy_kwargs": {"net_arch": [8, 5]}}
    model = algorithm("MlpPolicy", DriftEnv(), **arguments)
    model.save(tmp_path / "agent")
    agent = read_agent(tmp_path / "agent.zip")
    assert agent.is_sparse == (algorithm in (RLx2TD3, RLx2SAC))
    assert agent.observations == 3
    assert [network.name for network in agent.networks] == ["actor", "critic 1", "critic 2"]
    outputs = 4 if algorithm in (RLx2SAC, SAC) else 2
    assert [weight.shape for weight in agent.networks[0].weights] == [(8, 3), (5, 8), (outputs, 5)]
    assert [weight.shape for weight in agent.networks[2].weights] == [(8, 5), (5, 8), (1, 5)]
    assert agent.parameter_bytes == metrics.parameter_bytes(model.policy)
    if not agent.is_sparse:
        assert all(live == size for network in agent.networks for live, size in network.layers)
        assert agent.inference_flops is None
        return
    assert agent.inference_flops == (metrics.inference_flops(model.actor), metrics.inference_flops(model.actor, dense=True))
    for network, mlp in zip(agent.networks, metrics.sparse_mlps(model.actor) + metrics.sparse_mlps(model.critic), strict=True):
        assert network.layers == [(layer.nnz, layer.size) for layer in mlp.layers]
        for weight, dense in zip(network.weights, mlp.dense_weights(), strict=True):
            np.testing.assert_array_equal(np.nan_to_num(weight), dense.detach().numpy())


def test_features_are_not_called_observations(tmp_path):
    env = DriftEnv((1, 36, 36))
    env.observation_space = type(env.observation_space)(0, 255, (1, 36, 36), np.uint8)
    model = RLx2TD3("CnnPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [4]})
    model.save(tmp_path / "agent")
    assert read_agent(tmp_path / "agent.zip").observations is None
    report(tmp_path)
    said = sections((tmp_path / "report.html").read_text())["Input importance"]
    assert said == (1, ["the inputs are features of an extractor, not observation dimensions"])


def test_inputs_that_are_encoded_are_observations(tmp_path):
    env = DriftEnv()
    env.observation_space = spaces.MultiDiscrete([4, 3])
    model = RLx2TD3("MlpPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [4]})
    model.save(tmp_path / "agent")
    assert read_agent(tmp_path / "agent.zip").observations == 7


def test_latest_agent_is_shown(tmp_path):
    for name in ("best_model", "rl_model_900_steps", "rl_model_10000_steps"):
        (tmp_path / f"{name}.zip").touch()
    assert agent_file(tmp_path).name == "rl_model_10000_steps.zip"
    (tmp_path / "Pendulum-v1.zip").touch()
    assert agent_file(tmp_path).name == "Pendulum-v1.zip"
    with zipfile.ZipFile(tmp_path / "Pendulum-v1.zip", "w") as agent, zipfile.ZipFile(tmp_path / "videos.zip", "w") as other:
        agent.writestr("data", "")
        agent.writestr("policy.pth", "")
        other.writestr("video.mp4", "")
    assert agent_file(tmp_path).name == "Pendulum-v1.zip"


def test_later_progress_file_replaces_what_it_did_again(tmp_path):
    (tmp_path / "progress.csv").write_text("time/total_timesteps,a\n100,1\n200,2\n300,3\n")
    (tmp_path / "progress_2.csv").write_text("b,time/total_timesteps,a\n,200,4\n7,300,nan\n")
    run = read_run(tmp_path)
    assert list(zip(run.curve("a").steps, run.curve("a").values, strict=True)) == [(100, 1), (200, 4)]
    assert list(zip(run.curve("b").steps, run.curve("b").values, strict=True)) == [(300, 7)]
    assert run.steps == 300


def test_an_evaluation_repeats_what_was_logged_before_it(tmp_path):
    lines = [
        "time/total_timesteps,rlx2/n_steps,eval/mean_reward,rlx2/policy_distance",
        "90,1,,0.3",
        "100,3,,0.4",
        "100,1,5.0,0.3",
    ]
    (tmp_path / "progress.csv").write_text("\n".join(lines) + "\n")
    run = read_run(tmp_path)
    assert run.curve("rlx2/n_steps").values.tolist() == [1, 3]
    assert run.curve("rlx2/policy_distance").values.tolist() == [0.3, 0.4]
    assert run.curve("eval/mean_reward").values.tolist() == [5.0]


def test_episodes_of_several_environments(tmp_path):
    (tmp_path / "0.monitor.csv").write_text('#{"t_start": 100.0, "env_id": "A-v0"}\nr,l,t\n1,10,1.0\n2,20,4.0\n')
    (tmp_path / "1.monitor.csv").write_text('#{"t_start": 102.0, "env_id": "A-v0"}\nr,l,t\n5,30,0.5\n')
    run = read_run(tmp_path)
    assert run.environment == "A-v0"
    assert run.seconds == 4.0
    assert run.episodes.steps.tolist() == [10, 40, 60]
    assert training_returns(run).values.tolist() == [1, 3, pytest.approx(8 / 3)]


def test_environment_without_an_id(tmp_path):
    """As SB3's Monitor writes it."""
    (tmp_path / "monitor.csv").write_text('#{"t_start": 100.0, "env_id": "None"}\nr,l,t\n1,10,1.0\n')
    assert read_run(tmp_path).environment == "unknown environment"


def test_training_returns_are_of_the_last_100_episodes(tmp_path):
    returns = np.random.default_rng(0).normal(size=250)
    lines = [f"{value},5,{number}" for number, value in enumerate(returns)]
    (tmp_path / "monitor.csv").write_text("\n".join(['#{"t_start": 0}', "r,l,t", *lines]))
    means = [returns[max(end - 100, 0) : end].mean() for end in range(1, 251)]
    np.testing.assert_allclose(training_returns(read_run(tmp_path)).values, means)


def test_strongest_keeps_every_live_link_visible():
    weight = np.full((5, 7), np.nan)
    weight[4, 6], weight[0, 0], weight[1, 1], weight[2, 3] = 0.0, 1.0, -2.0, 0.5
    small = strongest(weight, 3)
    nan = np.nan
    np.testing.assert_array_equal(small, [[-2, nan, nan], [nan, 0.5, nan], [nan, nan, 0]])
    np.testing.assert_array_equal(strongest(weight, 7), weight)


# How it fails


def damage(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        with zipfile.ZipFile(path) as archive:
            place = archive.getinfo("policy.pth").header_offset + 500
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
    elif how == "other":
        path.unlink()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "no agent")
    else:
        path.write_bytes(b"\x00\xff junk\n")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("agent.zip", "cut"),
        ("agent.zip", "flipped"),
        ("agent.zip", "other"),
        ("agent.zip", "junk"),
        ("evaluations.npz", "cut"),
        ("evaluations.npz", "junk"),
        ("progress.csv", "junk"),
        ("0.monitor.csv", "junk"),
        ("Pendulum-v1/config.yml", "junk"),
    ],
)
def test_damaged_file(name, how, whole):
    if name.endswith("yml"):
        (whole / "Pendulum-v1").mkdir()
        (whole / name).touch()
    damage(whole / name, how)
    (whole / "report.html").write_text("the page from before")
    before = sorted(whole.iterdir())
    with pytest.raises(SystemExit) as error:
        report(whole)
    assert re.fullmatch(
        rf"rlx2 report: error: \S*{'monitor.csv' if 'monitor' in name else name} cannot be read, .*", error.value.code
    )
    assert sorted(whole.iterdir()) == before
    assert (whole / "report.html").read_text() == "the page from before"


def test_no_run(whole, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (tmp_path / "nowhere", "nowhere does not exist"),
        (whole / "agent.zip", "agent.zip is not a folder"),
        (tmp_path / "empty", "empty holds no run (no agent, evaluations.npz, monitor file or progress.csv)"),
        (tmp_path, f"; there are runs inside it: {whole}"),
    ):
        with pytest.raises(SystemExit, match=re.escape(message)):
            report(whole, folder)
    with pytest.raises(SystemExit, match=r"the folder .* does not exist"):
        report(whole, "-o", tmp_path / "nowhere" / "page.html")
    assert not list(tmp_path.rglob("*.html"))


def test_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text("before")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        command.write(tmp_path / "page.html", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "before"


def test_error_on_the_command_line(tmp_path):
    line = [sys.executable, "-m", "sb3_rlx2", "report", "nowhere"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "rlx2 report: error: nowhere does not exist\n"
