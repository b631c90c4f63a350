"""`rlx2 report`: what it reads from a run's folder, what the page shows, how it looks in a browser, how it fails."""

import base64
import dataclasses
import html
import io
import itertools
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
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DDPG, DQN, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from sb3_rlx2 import RLx2DQN, RLx2QRDQN, RLx2SAC, RLx2TD3, metrics
from sb3_rlx2.paths import find_paths
from sb3_rlx2.report import __main__ as command
from sb3_rlx2.report.agent_file import read_agent
from sb3_rlx2.report.groups import group
from sb3_rlx2.report.heat_map import strongest
from sb3_rlx2.report.networks import chance, why_not_moved
from sb3_rlx2.report.plot import Axis
from sb3_rlx2.report.run_folder import agent_file, read_run
from sb3_rlx2.report.sections import NO_AGENT, NO_EVALUATIONS, NO_PROGRESS
from sb3_rlx2.report.training import training_returns
from tests import apart
from tests.chromium import chromium, require_chromium
from tests.envs import DriftDictEnv, DriftEnv
from tests.every import ACTOR_CRITIC, MAXIMUM_ENTROPY, STOCK

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
FULL = "critic: its first layer is full: there is nothing to choose"
WHOLE = {title: (count, [FULL] if title == "Input importance" else []) for title, count in PICTURES.items()}


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


def sections(page):
    """Give, for each section, its number of pictures and what is said to be missing."""
    parts = re.findall(r"<section>.*?</section>", page, re.DOTALL)
    title = [re.search(r"<h2>(.*?)</h2>", part)[1] for part in parts]
    missing = [re.findall(r"<li>(.*?)</li>", re.sub('<ul class="key">.*?</ul>', "", part)) for part in parts]
    return {name: (part.count("<figure"), said) for name, part, said in zip(title, parts, missing, strict=True)}


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


# The page


def test_whole_run(whole, capsys):
    report(whole)
    page = (whole / "report.html").read_text()
    assert sections(page) == WHOLE
    assert "Trained for 1,000 steps" in page
    assert f"Report: {whole / 'report.html'}" in capsys.readouterr().out
    assert not list(whole.glob(".report*"))


def test_what_acts_comes_first(whole, trained):
    """The bytes that a device would hold, and the units that do something."""
    report(whole)
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd><dd class=\"note\">(.*?)</dd>", (whole / "report.html").read_text())
    size, dense = (count / 1e3 for count in metrics.parameter_bytes(trained[1].actor))
    assert facts[0][:2] == ("Actor", f"{size:,.1f} kB")
    assert facts[0][2].startswith(f"of {dense:,.1f} kB dense")
    units = find_paths(trained[1].actor.mu).units
    assert ("Dead units", f"{316 - sum(units[1:-1])}", f"on a path: {'-'.join(map(str, units))} of 3-16-300-1") in facts
    assert sum(units[1:-1]) < 316


def test_why_links_are_where_they_began(trained):
    run = read_run(trained[0])
    network = run.agent.networks[0]
    assert why_not_moved(run, network) is None
    for name, value in (("topology", "static"), ("hidden_weights", "fixed")):
        agent = dataclasses.replace(run.agent, settings=run.agent.settings | {name: value})
        assert why_not_moved(dataclasses.replace(run, agent=agent), network).startswith(f"{name}='{value}' leaves links")
    dense = dataclasses.replace(run.agent, is_sparse=False)
    assert why_not_moved(dataclasses.replace(run, agent=dense), network) == "it is dense"


# What a reader at this width cannot read: text that is small, cut off, or over other text of its plot.
UNREADABLE = """(() => {
  const found = [];
  const shown = (element) => getComputedStyle(element).display !== "none" && element.getClientRects().length > 0;
  const cuts = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  for (const plot of document.querySelectorAll("main, .area")) {
    const texts = [...plot.querySelectorAll(plot.tagName === "MAIN" ? "p, h1, h2, h3, h4, dt, dd, li" : "text")].filter(shown);
    texts.forEach((text, number) => {
      const place = text.getBoundingClientRect();
      if (parseFloat(getComputedStyle(text).fontSize) < 11.5) found.push(["small", text.textContent]);
      if (place.left < 0 || place.right > innerWidth) found.push(["cut off", text.textContent]);
      for (const other of plot.tagName === "MAIN" ? [] : texts.slice(number + 1))
        if (cuts(place, other.getBoundingClientRect())) found.push(["over", text.textContent, other.textContent]);
    });
  }
  return found;
})()"""


@pytest.mark.parametrize("several", [False, True])
def test_in_a_browser(several, whole, tmp_path):
    """On a desk and on a phone. The screenshots stay in the test's folder, to be looked at (``--basetemp``)."""
    require_chromium()
    folders = [whole]
    if several:  # one of them with nothing but evaluations
        (tmp_path / "part").mkdir()
        folders += [shutil.copy(whole / "evaluations.npz", tmp_path / "part") and tmp_path / "part"]
    report(*folders, "-o", tmp_path / "page.html")
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile") as page:
        page.open((tmp_path / "page.html").as_uri())
        for width, colours in itertools.product((400, 1280), ("light", "dark")):
            page.show(width, colours)
            (tmp_path / f"{width}_{colours}.png").write_bytes(page.picture())
            check_picture(page, tmp_path / f"{width}_{colours}.png", colours)
        said = page.hover(".tip .target", 3)
        assert page.named("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
        asked = [event["request"]["url"] for event in page.named("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
    assert len(said) == 3
    assert all(re.search(r"step \d+: -[\d,]+ ± ", text) for text in said)


def check_picture(page, path, colours):
    from PIL import Image

    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate(UNREADABLE) == []
    figures = page.evaluate("[...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().toJSON())")
    assert len(figures) == sum(PICTURES.values())
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[:5].mean() > 200) == (colours == "light")
    for place in figures:
        top, left = int(place["top"]), int(place["left"])
        part = pixels[top : top + int(place["height"]), left : left + int(place["width"])]
        assert len(np.unique(part @ np.array([1 << 16, 1 << 8, 1]))) > 20


def test_heat_map_shows_every_live_link(whole, trained):
    """The pixels of the picture in the page: as many are not transparent as there are links."""
    from PIL import Image

    report(whole)
    images = re.findall(r'src="data:image/png;base64,(.*?)"', (whole / "report.html").read_text())[:3]  # the actor's
    seen, strong = [], []
    for data in images:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            opacity = np.asarray(image.convert("RGBA"))[..., 3]
        seen.append((image.size, int((opacity > 0).sum())))
        strong.append((image.size, int((opacity == 255).sum())))
    first, second, third = metrics.sparse_mlps(trained[1].actor)[0].layers
    assert ((first.in_features, first.out_features), first.nnz) in seen
    alive = find_paths(trained[1].actor.mu).alive
    assert ((first.in_features, first.out_features), int(alive[0].sum())) in strong  # the others are faint
    pairs = trained[1].actor.mu.dense_weights()[1].detach().numpy().reshape(150, 2, 16)  # 300 units share 256 cells
    assert ((second.in_features, 150), int((pairs != 0).any(axis=1).sum())) in seen
    assert (150, third.out_features) in [size for size, _ in seen]


def test_common_folder_gets_the_page_of_several(whole, trained, tmp_path):
    other = Path(shutil.copytree(whole, tmp_path / "other" / "run"))
    report(whole, other)
    page = (tmp_path / "report.html").read_text()
    assert "2 runs side by side" in page
    assert re.findall(r"<strong>(whole|other/run)</strong>", page) == ["whole", "other/run"]
    assert {title: count for title, (count, _) in sections(page).items()} == PICTURES


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
                "Churn at each topology update": [NO_PROGRESS],
                "Replay buffer and n-step targets": [
                    f"{what} was not recorded: {NO_PROGRESS}" for what in ("policy distance", "buffer size", "n")
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
        assert [html.unescape(text) for text in shown[title][1]] == missing


def test_run_in_progress(whole):
    (whole / "agent.zip").unlink()
    for path in (whole / "progress.csv", whole / "0.monitor.csv"):
        path.write_text(path.read_text()[:-4])  # its last line is being written
    report(whole)
    page = (whole / "report.html").read_text()
    assert re.search(
        r"Still running or cut off, at step 1,000 of 1,000 \(100%\); networks as in best_model.zip, of step", page
    )
    assert sections(page) == WHOLE


def test_zoo_run(tmp_path):
    def run(*arguments):
        done = apart.run("sb3_rlx2", *arguments, cwd=tmp_path)
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
    page = (tmp_path / "logs/rlx2td3/Pendulum-v1_1/report.html").read_text()
    assert "rlx2td3 on Pendulum-v1" in page
    assert "Trained for 400 steps; networks as in Pendulum-v1.zip" in page
    assert sections(page) == {title: (count, []) for title, count in PICTURES.items()}
    assert re.search(r"<th>update_interval</th><td>50</td>", page)


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
    page = (whole / "report.html").read_text()
    assert "; continues logs/first/Pendulum-v1.zip, whose own steps are in its own folder" in page
    assert sections(page) == WHOLE


def test_text_of_files_is_no_html(whole):
    config = whole / "Pendulum-v1" / "config.yml"
    config.parent.mkdir()
    config.write_text("env_wrapper: '<script>alert(1)</script>'\n")
    report(whole)
    page = (whole / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


# What is read


@pytest.mark.parametrize("algorithm", [*ACTOR_CRITIC, *map(STOCK.get, ACTOR_CRITIC)])
def test_agent(algorithm, tmp_path):
    arguments = {"buffer_size": 10, "policy_kwargs": {"net_arch": [8, 5]}}
    sparse = {"actor_sparsity": 0.5, "critic_sparsity": 0.5} if algorithm in ACTOR_CRITIC else {}
    model = algorithm("MlpPolicy", DriftEnv(), **arguments, **sparse)
    model.save(tmp_path / "agent")
    agent = read_agent(tmp_path / "agent.zip")
    assert agent.is_sparse == algorithm.__name__.startswith("RLx2")
    assert agent.observations == 3
    critics = ["critic 1"] if isinstance(model, DDPG) else ["critic 1", "critic 2"]
    assert [network.name for network in agent.networks] == ["actor", *critics]
    outputs, values = 4 if hasattr(model, "ent_coef") else 2, 25 if isinstance(model, TQC) else 1
    assert [weight.shape for weight in agent.networks[0].weights] == [(8, 3), (5, 8), (outputs, 5)]
    assert [weight.shape for weight in agent.networks[-1].weights] == [(8, 5), (5, 8), (values, 5)]
    assert agent.parameter_bytes == metrics.parameter_bytes(model.policy)
    if not agent.is_sparse:
        assert all(live == size for network in agent.networks for live, size in network.layers)
        dense = metrics.inference_flops(model.actor)
        assert agent.inference_flops == (dense, dense)
        assert agent.dense_step_flops == metrics.step_flops(model)
        return
    entropies = 2 * agent.inference_flops[1] if hasattr(model, "ent_coef") else 0  # of the states on the way, with n = 3
    assert agent.dense_step_flops == metrics.step_flops(model, dense=True) + entropies
    assert agent.inference_flops == (metrics.inference_flops(model.actor), metrics.inference_flops(model.actor, dense=True))
    for network, mlp in zip(agent.networks, metrics.sparse_mlps(model.actor) + metrics.sparse_mlps(model.critic), strict=True):
        assert network.layers == [(layer.nnz, layer.size) for layer in mlp.layers]
        for weight, dense in zip(network.weights, mlp.dense_weights(), strict=True):
            np.testing.assert_array_equal(np.nan_to_num(weight), dense.detach().numpy())


@pytest.mark.parametrize(
    ("algorithm", "own", "states"),
    [
        (RLx2TD3, {}, 0),
        *((algorithm, {}, 2) for algorithm in MAXIMUM_ENTROPY),
        *((algorithm, {"soft_n_step": False}, 0) for algorithm in MAXIMUM_ENTROPY),
        (RLx2SAC, {"policy": "MultiInputPolicy", "env": DriftDictEnv()}, 0),  # without an RLx2ReplayBuffer
    ],
)
@pytest.mark.filterwarnings("ignore:replay buffer DictReplayBuffer")
def test_flops_are_those_of_the_agents_training(algorithm, own, states, tmp_path):
    """With the entropy of the states on the way where, and only where, training adds it."""
    arguments = {"policy": "MlpPolicy", "env": DriftEnv(), "buffer_size": 10, "n_steps": 3, "n_steps_delay": 0.0} | own
    model = algorithm(actor_sparsity=0.5, critic_sparsity=0.5, policy_kwargs={"net_arch": [8, 5]}, **arguments)
    before = metrics.step_flops(model, dense=True)
    model.learn(0)  # lends the buffer what it needs
    model.save(tmp_path / "agent")
    counted = metrics.step_flops(model, dense=True)
    assert counted == before + states * metrics.inference_flops(model.actor, dense=True)
    assert read_agent(tmp_path / "agent.zip").dense_step_flops == counted


@pytest.mark.parametrize("algorithm", [RLx2DQN, RLx2QRDQN, DQN, QRDQN])
def test_value_based_agent(algorithm, tmp_path):
    quantiles = {} if "QR" not in algorithm.__name__ else {"n_quantiles": 7}
    sparse = {"sparsity": 0.5} if algorithm in (RLx2DQN, RLx2QRDQN) else {}
    kwargs = {"net_arch": [8, 5]} | quantiles
    model = algorithm("MlpPolicy", DriftEnv(n_actions=3), buffer_size=10, policy_kwargs=kwargs, **sparse)
    model.save(tmp_path / "agent")
    agent = read_agent(tmp_path / "agent.zip")
    acting = metrics.acting_network(model.policy)
    assert agent.is_sparse == algorithm.__name__.startswith("RLx2")
    assert agent.observations == 3
    (network,) = agent.networks
    assert network.name == network.kind == ("quantile network" if quantiles else "Q-network")
    assert [weight.shape for weight in network.weights] == [(8, 3), (5, 8), (21 if quantiles else 3, 5)]
    assert agent.parameter_bytes == metrics.parameter_bytes(model.policy)
    if agent.is_sparse:
        assert agent.inference_flops == (metrics.inference_flops(acting), metrics.inference_flops(acting, dense=True))
        (mlp,) = metrics.sparse_mlps(acting)
        assert network.layers == [(layer.nnz, layer.size) for layer in mlp.layers]


@pytest.mark.filterwarnings("ignore")  # those of the zoo
def test_zoo_run_of_a_value_based_agent(rlx2):
    """One column where actor and critics have two."""
    small = ["train_freq:4", "gradient_steps:1", "update_interval:20", "buffer_check_interval:100"]
    rlx2.train("rlx2dqn", "-n", "600", "--eval-freq", "200", env="CartPole-v1", parameters=small)
    folder = Path("logs/rlx2dqn/CartPole-v1_1")
    assert list(read_run(folder).churn()) == ["q_net"]
    report(folder)
    page = (folder / "report.html").read_text()
    assert "rlx2dqn on CartPole-v1" in page
    assert "(the share of greedy actions that are others now" in page
    assert re.search(r"Q-network: (no input|more links|fewer links)", page)
    assert sections(page) == {title: (1, []) for title in PICTURES}


def test_features_are_not_called_observations(tmp_path):
    env = DriftEnv((1, 36, 36))
    env.observation_space = type(env.observation_space)(0, 255, (1, 36, 36), np.uint8)
    model = RLx2TD3("CnnPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [4]})
    model.save(tmp_path / "agent")
    assert read_agent(tmp_path / "agent.zip").observations is None
    report(tmp_path)
    said = sections((tmp_path / "report.html").read_text())["Input importance"]
    assert said[1][-1] == "the inputs are features of an extractor, not observation dimensions"


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
    small = strongest(weight, weight, 3)
    nan = np.nan
    np.testing.assert_array_equal(small, [[-2, nan, nan], [nan, 0.5, nan], [nan, nan, 0]])
    np.testing.assert_array_equal(strongest(weight, weight, 7), weight)


# Seeds, chance, and what has not happened


def test_seeds_are_one_line_with_an_interval(trained, tmp_path):
    """Means 1, 2, 3: the 95 % interval by Student's t with two degrees of freedom is 2 ± 4.303 / sqrt(3)."""
    for seed in (0, 1, 2):
        (tmp_path / f"run_{seed}" / "Pendulum-v1").mkdir(parents=True)
        arguments = f"- - seed\n    - {seed}\n"
        (tmp_path / f"run_{seed}/Pendulum-v1/args.yml").write_text(
            f"!!python/object/apply:collections.OrderedDict\n- {arguments}"
        )
        (tmp_path / f"run_{seed}/Pendulum-v1/config.yml").write_text("n_timesteps: 20\n")
        steps = [10, 20, 30][: 2 + seed]  # the first two have not come to 30
        np.savez(tmp_path / f"run_{seed}/evaluations.npz", timesteps=steps, results=[[seed + 0.5, seed + 1.5]] * len(steps))
    (one,) = group([read_run(tmp_path / f"run_{seed}") for seed in (0, 1, 2)])
    assert one.label == "run_0 and 2 more seeds"
    assert one.evaluations.steps.tolist() == [10, 20]
    assert one.evaluations.returns.tolist() == [[1, 2, 3]] * 2
    np.testing.assert_allclose(one.spread(one.evaluations.returns), 4.30265 / 3**0.5, rtol=1e-5)
    report(*(tmp_path / f"run_{seed}" for seed in (0, 1, 2)))
    page = (tmp_path / "report.html").read_text()
    assert "Last 2 ± 2.48 over 3 seeds" in page
    assert "Seeds 0, 1, 2." in page


def test_runs_of_other_settings_are_no_seeds(tmp_path):
    for name, setting in (("a", 1), ("b", 2), ("c", 1)):
        (tmp_path / name / "env").mkdir(parents=True)
        (tmp_path / name / "env" / "config.yml").write_text(f"n_steps: {setting}\n")
        np.savez(tmp_path / name / "evaluations.npz", timesteps=[1], results=[[0.0]])
    groups = group([read_run(tmp_path / name) for name in "abc"])
    assert [each.label for each in groups] == ["a and 1 more seed", "b"]


def test_a_buffer_keeps_no_more_than_it_holds(tmp_path):
    """Its minimum is a share of the planned steps."""
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=300, policy_kwargs={"net_arch": [8]})
    model._total_timesteps = 2_000
    model.save(tmp_path / "agent")
    assert read_agent(tmp_path / "agent.zip").settings["buffer_min_size"] == 300


def test_chance(trained):
    """42 links among 3 inputs of 16 units each: hypergeometric, the variance is 42 * 1/3 * 2/3 * 6/47; z(1 - 0.05/6)."""
    agent = read_agent(trained[0] / "agent.zip")
    assert agent.networks[0].layers[0] == (42, 48)
    expected = chance([agent.networks[0]], 1)
    assert expected.mean == pytest.approx(14)
    assert expected.band == pytest.approx(2.39398 * (42 * 2 / 9 * 6 / 47) ** 0.5, rel=1e-5)


def test_a_run_that_never_trained_says_so(tmp_path):
    env = make_vec_env("Pendulum-v1", 1, seed=0, monitor_dir=str(tmp_path))
    model = RLx2TD3("MlpPolicy", env, **SMALL | {"learning_starts": 1000, "buffer_check_interval": 5000})
    with closing(configure(str(tmp_path), ["csv"])) as logger:
        model.set_logger(logger)
        with pytest.warns(UserWarning, match="nothing is trained"):
            model.learn(400, log_interval=1)
    env.close()
    model.save(tmp_path / "agent")
    report(tmp_path)
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "nothing has been trained: learning_starts=1,000, and the run has 400 steps." in page
    assert "policy distance was not recorded: the first look is due at step 5,000, and the run has 400" in page
    said = "no topology update has come yet: the first is due after 50 optimizer steps, and it has had 0"
    assert sections(page)["Input importance"] == (0, [f"actor: {said}", FULL])
    assert sections(page)["Churn at each topology update"] == (0, [said])


def test_one_yardstick_for_several_shapes(tmp_path):
    for name, algorithm, shape in (("sparse", RLx2TD3, [8]), ("dense", TD3, [64])):
        model = algorithm("MlpPolicy", DriftEnv(), buffer_size=10, policy_kwargs={"net_arch": shape})
        (tmp_path / name).mkdir()
        model.save(tmp_path / name / "agent")
    report(tmp_path / "sparse", tmp_path / "dense")
    page = (tmp_path / "report.html").read_text()
    dense = 4 * (3 * 64 + 64 + 64 * 2 + 2)
    assert "measured against the largest dense one, 3-64-2." in page
    assert page.count(f"of {dense / 1e3:.1f} kB dense") == 2
    sparse = metrics.parameter_bytes(RLx2TD3.load(tmp_path / "sparse/agent").actor)[0]
    assert f"<b>{100 * sparse / dense:.3g}%</b> <span>{sparse / 1e3:,.1f} of {dense / 1e3:,.1f} kB · sparse" in page


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-1700, -1000, [-1600, -1400, -1200, -1000])]
)
def test_ticks_are_round(low, high, ticks):
    assert Axis(low, high).ticks == pytest.approx(ticks)


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


def test_a_full_disk_leaves_the_page_from_before(whole, monkeypatch):
    (whole / "report.html").write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit, match=r"^rlx2 report: error: .* No space left on device: "):
        report(whole)
    assert [path.name for path in whole.glob("*.html")] == ["report.html"]
    assert (whole / "report.html").read_text() == "before"


def test_error_on_the_command_line(tmp_path):
    line = [sys.executable, "-m", "sb3_rlx2", "report", "nowhere"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "rlx2 report: error: nowhere does not exist\n"


def test_shares_of_the_planned_steps_are_read(tmp_path):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=2000, policy_kwargs={"net_arch": [8]})
    model._total_timesteps = 1000
    model.save(tmp_path / "agent")
    settings = read_agent(tmp_path / "agent.zip").settings
    assert settings["update_interval"] == 500  # the least
