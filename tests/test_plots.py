"""The zoo's three plotting commands on runs made up for it."""

import re

import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

pytestmark = pytest.mark.filterwarnings("ignore")
ENVS = {"Hopper-v5": 3000.0, "HalfCheetah-v4": 9000.0, "Pendulum-v1": 1.0}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def logs(tmp_path):
    """Two seeds each, of two algorithms on three environments, whose returns grow to a level."""
    for algo, share in (("rlx2td3", 0.9), ("td3", 0.6)):
        for env, level in ENVS.items():
            for seed in (1, 2):
                make_run(tmp_path / f"logs/{algo}/{env}_{seed}", share * level + seed)
    return tmp_path / "logs"


def make_run(folder, level, evaluations=5, episodes=120):
    folder.mkdir(parents=True)
    curve = level * np.linspace(0, 1, evaluations)[:, None] * np.ones(3)
    np.savez(folder / "evaluations.npz", timesteps=1000 * np.arange(1, evaluations + 1), results=curve, ep_lengths=curve)
    rows = "".join(f"{level * episode / episodes},10,{episode}.0\n" for episode in range(episodes))
    (folder / "0.monitor.csv").write_text('#{"t_start": 0.0, "env_id": "x"}\nr,l,t\n' + rows)


def check_figures(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in names)
    for path in folder.iterdir():
        assert len(np.unique(image.imread(path).reshape(-1, 4), axis=0)) > 10


def test_plot_train(rlx2, logs, tmp_path):
    given = ["plot_train", "-a", "rlx2td3", "-e", "Hopper-v5", "-f", "logs"]
    assert "Figure: figures/Training_Episodic_Reward.png" in rlx2(*given, "--save-figures", "figures")
    check_figures(tmp_path / "figures", "Training_Episodic_Reward")
    assert "No screen to show the figures on: --save-figures" in rlx2(*given)


def test_an_environment_of_a_namespace(rlx2, tmp_path):
    for seed in (1, 2):
        make_run(tmp_path / f"logs/rlx2td3/my-Env-v0_{seed}", 10 + seed)
    names = ["-e", "my/Env-v0", "-f", "logs", "--save-figures", "figures"]
    rlx2("plot_train", "-a", "rlx2td3", *names)
    rlx2("all_plots", "-a", "rlx2td3", *names, "-o", "results", "--no-million")
    check_figures(tmp_path / "figures", "Training_Episodic_Reward", "Results_my_Env_v0")
    rlx2("plot_from_file", "-i", "results", "-o", "bars.png", "--format", "png", "--save-figures", "figures")


def test_all_plots(rlx2, logs, tmp_path):
    given = ["all_plots", "-a", "rlx2td3", "td3", "-e", "Hopper-v5", "Pendulum-v1", "-f", "logs"]
    output = rlx2(*given, "-o", "results", "--save-figures", "figures", "--no-million")
    assert re.search(r"\|Hopper-v5 *\|2702 \+/- 0 *\|1802 \+/- 0", output)
    check_figures(tmp_path / "figures", "Results_Hopper_v5", "Results_Pendulum_v1")
    assert (tmp_path / "results.pkl").exists()
    rlx2(*given, "--no-display")


@pytest.fixture
def results(rlx2, logs):
    rlx2("all_plots", "-a", "rlx2td3", "td3", "-e", *ENVS, "-f", "logs", "-o", "results", "--no-display")
    plt.close("all")


def test_plot_from_file(rlx2, results, tmp_path):
    rlx2("plot_from_file", "-i", "results", "-o", "bars.png", "--format", "png", "--boxplot", "--save-figures", "figures")
    curves = [f"Results_{env.replace('-', '_')}" for env in ENVS]
    check_figures(tmp_path / "figures", *curves, "Sensitivity_plot", "Sensitivity_box_plot")


def test_rliable_normalises_mujoco(rlx2, results, monkeypatch, tmp_path):
    """Aggregates come from returns between a random and an expert agent's; an environment without references stays."""
    from rliable import library

    seen = []
    estimate = library.get_interval_estimates

    def noted(scores, *args, **kwargs):
        seen.append(scores)
        return estimate(scores, *args, **kwargs | {"reps": 20})  # the zoo's 2,000 take half a minute

    monkeypatch.setattr(library, "get_interval_estimates", noted)
    envs = ["Hopper-v5", "HalfCheetah-v4", "Pendulum-v1"]
    given = ["-r", "-vs", "-iqm", "--skip-timesteps", "--save-figures", "figures"]
    rlx2("plot_from_file", "-i", "results", *given)
    names = ["RLX2TD3-logs", "TD3-logs"]
    aggregates, profile, improvement, curve = seen
    expected = [
        [(0.9 * ENVS[env] + seed - low) / (high - low) for env, (low, high) in zip(envs, REFERENCES, strict=True)]
        for seed in (1, 2)
    ]
    np.testing.assert_allclose(np.sort(aggregates[names[0]], axis=0), expected)
    np.testing.assert_allclose(profile[names[0]], aggregates[names[0]])
    np.testing.assert_allclose(improvement[", ".join(names)][1], aggregates[names[1]])
    np.testing.assert_allclose(curve[names[0]][:, :, -1], aggregates[names[0]])
    assert len(list((tmp_path / "figures").iterdir())) == 5


REFERENCES = [(-20.272305, 3234.3), (-280.178953, 12135.0), (0.0, 1.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("plot_train -a rlx2sac -e Hopper-v5 -f logs", "the folder logs/rlx2sac does not exist"),
        ("plot_train -a td3 -e Hoper-v5 -f logs", "no run of Hoper-v5 in logs/td3"),
        ("plot_train -a td3 -e Hopper-v5 -f logs -w 200", "nothing to plot; is any run shorter than --episode-window 200"),
        ("all_plots -e Hopper-v5 -f logs", "--algos is missing"),
        ("all_plots -a td3 -f logs", "--env is missing"),
        ("all_plots -a td3 -e Hopper-v5", "--exp-folders is missing"),
        ("all_plots -a td3 -e Hopper-v5 -f nowhere", "--exp-folders nowhere does not exist"),
        ("all_plots -a td3 -e Hopper-v5 -f logs -l a b", "--labels ['a', 'b'] must be as many as"),
        ("all_plots -a td3 -e Ant-v5 -f logs", "no run of Ant-v5 by td3 in logs has two evaluations to plot"),
        ("all_plots -a td3 -e short -f logs", "runs found: logs/td3/short_1"),
        ("plot_from_file", "--input is missing"),
        ("plot_from_file -i nothing", "nothing.pkl does not exist"),
        ("plot_from_file -i broken", "broken.pkl is damaged, or not written by all_plots"),
        ("plot_from_file -i results --keep-envs Ant-v5", "has no environment to plot; it holds Hopper-v5, HalfCheetah-v4"),
    ],
)
def test_misuse(given, message, rlx2, logs, results, tmp_path):
    (tmp_path / "broken.pkl").write_bytes((tmp_path / "results.pkl").read_bytes()[:100])
    make_run(logs / "td3/short_1", 1.0, evaluations=1)
    assert message in rlx2.error(*given.split())


def test_a_single_run_is_no_comparison(rlx2, logs):
    make_run(logs / "td3/single_1", 1.0)
    rlx2("all_plots", "-a", "td3", "-e", "single", "-f", "logs", "-o", "one", "--no-display")
    assert "one must hold two runs (seeds) or more of TD3-logs on single" in rlx2.error("plot_from_file", "-i", "one")
