"""`rlx2 train -optimize` and `--trial-id`: what is searched, what a trial trains with, and what comes back."""

import argparse
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import optuna
import pytest
from rl_zoo3 import ALGOS
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from sb3_rlx2 import metrics
from sb3_rlx2.checkpoint import Checkpoints, generations
from sb3_rlx2.studies import timing
from sb3_rlx2.studies.storage import open_storage
from sb3_rlx2.tuning import manager as tuning
from sb3_rlx2.zoo import search_space
from sb3_rlx2.zoo.trials import trial_checkpoints
from tests import apart

HYPERPARAMS = Path(__file__).parents[1] / "hyperparams"
OURS = ["rlx2td3", "rlx2ddpg", "rlx2sac", "rlx2tqc", "rlx2crossq", "rlx2dqn", "rlx2qrdqn"]
STOCK = ["td3", "ddpg", "sac", "tqc", "crossq", "dqn", "qrdqn"]
SMALL = {  # what a sampler suggests for small and quick networks
    "one_minus_gamma": 0.02,
    "batch_size_pow": 4,
    "learning_rate": 1e-3,
    "train_freq": 4,
    "net_arch": "small",
    "topology": "set",
    "drop_fraction": 0.4,
    "update_interval": 100,
    "n_steps": 4,
    "n_steps_delay": 0.25,
    "policy_distance_threshold": 0.5,
    "buffer_min_size_pow": 10,
}
NOISE = {"noise_type": "normal", "noise_std": 0.3}
DENSITIES = {"actor_density": 0.05, "critic_density": 0.2}
ACTOR_CRITIC = {"tau": 0.01} | DENSITIES
VALUE_BASED = {
    "subsample_steps": 1,
    "exploration_fraction": 0.2,
    "exploration_final_eps": 0.1,
    "target_update_interval": 20,
    "density": 0.2,
}
OWN = {
    "td3": ACTOR_CRITIC | NOISE,
    "ddpg": ACTOR_CRITIC | NOISE,
    "sac": ACTOR_CRITIC,
    "tqc": ACTOR_CRITIC | {"n_quantiles": 5, "top_quantiles_to_drop_per_net": 1},
    "crossq": DENSITIES,  # no target networks
    "dqn": VALUE_BASED,
    "qrdqn": VALUE_BASED | {"n_quantiles": 5},
}


def small(algo):
    return SMALL | OWN[algo.removeprefix("rlx2")]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def models(monkeypatch):
    """The models that trials make, each with its trial's density at the end of training."""
    made = []
    for name in (*OURS, *STOCK):
        cls = ALGOS[name]

        class Recorded(cls):
            def learn(self, *arguments, **keywords):
                made.append(self)
                return super().learn(*arguments, **keywords)

        Recorded.__name__ = cls.__name__
        monkeypatch.setitem(ALGOS, name, Recorded)
    return made


def manage(algo, folder, n_timesteps=120, hyperparams=None, env=None, n_evaluations=1, **kwargs):
    value_based = algo.endswith("dqn")
    manager = tuning.TuningManager(
        argparse.Namespace(),
        algo,
        env or ("CartPole-v1" if value_based else "Pendulum-v1"),
        str(folder / "logs"),
        n_timesteps=n_timesteps,
        n_eval_episodes=1,
        hyperparams={"learning_starts": 60, "buffer_size": 20_000 if value_based else 5000} | (hyperparams or {}),
        config=str(HYPERPARAMS / f"{algo}.yml"),
        n_evaluations=n_evaluations,
        log_interval=-1,
        no_optim_plots=True,
        sampler="random",
        pruner="none",
        seed=1,
        device="cpu",
        verbose=0,
        storage=kwargs.pop("storage", str(folder / "study.log")),
        study_name=kwargs.pop("study_name", "study"),
        **kwargs,
    )
    return manager, manager.setup_experiment()


def optimize(algo, folder, *points, **kwargs):
    """Run a trial for each of the points, which leave the rest to the sampler."""
    with closing(open_storage(str(folder / "study.log"))) as opened:
        study = optuna.create_study(storage=opened, study_name="study", direction="maximize", load_if_exists=True)
        for point in points:
            study.enqueue_trial(small(algo) | point)
        manager, _ = manage(algo, folder, optimize_hyperparameters=True, n_trials=len(points) or None, **kwargs)
        manager.hyperparameters_optimization()
        return study.trials


def restored(algo, folder, trial_id, **kwargs):
    manager, (model, _) = manage(algo, folder, trial_id=trial_id, eval_freq=-1, **kwargs)
    if algo in STOCK:
        manager.learn(model)  # then the callback gives the buffer its gamma
    model.env.close()
    return model


def noise_of(model):
    noise = model.action_noise
    return noise if noise is None else (type(noise), noise._sigma.tolist(), noise._mu.tolist())


SETTINGS = (
    *("gamma", "learning_rate", "batch_size", "tau", "train_freq", "gradient_steps"),
    *("actor_sparsity", "critic_sparsity", "sparsity", "exploration_fraction", "target_update_interval"),
    *("topology", "drop_fraction", "update_interval", "n_steps", "n_steps_delay", "policy_distance_threshold"),
    *("buffer_min_size", "buffer_check_interval", "learning_starts", "buffer_size", "policy_kwargs"),
)


def densities(model):
    return [metrics.density(network) for network in metrics.trained_networks(model.policy).values()]


def settings(model):
    found = {name: getattr(model, name) for name in SETTINGS if hasattr(model, name)}
    found["learning_rate"] = model.lr_schedule(1.0)
    buffer = model.replay_buffer
    found["buffer"] = (buffer.gamma, buffer.final_n_steps, buffer.buffer_min_size)
    found["density"] = densities(model)
    found["layers"] = str(model.policy)
    found["noise"] = noise_of(model)
    return found


@pytest.mark.parametrize("algo", OURS)
def test_trial_trains_with_what_was_sampled(algo, tmp_path, models):
    (trial,) = optimize(algo, tmp_path, {})
    (model,) = models
    assert trial.state.name == "COMPLETE"
    assert trial.params == small(algo)
    assert densities(model) == pytest.approx([0.05, 0.2] if hasattr(model, "actor") else [0.2], abs=0.005)
    assert (model.gamma, model.replay_buffer.gamma) == pytest.approx((0.98, 0.98))
    assert (model.topology, model.drop_fraction, model.update_interval) == ("set", 0.4, 100)
    assert (model.n_steps, model.replay_buffer.final_n_steps, model.n_steps_delay) == (4, 4, 0.25)
    assert (model.policy_distance_threshold, model.buffer_min_size) == (0.5, 1024)
    assert (model.batch_size, model.train_freq.frequency, model.gradient_steps) == (16, 4, 4)
    assert model.num_timesteps == 120
    keywords = list(model.policy.networks.values())
    assert [trial.user_attrs[keyword] for keyword in keywords] == ([0.95, 0.8] if hasattr(model, "actor") else [0.8])


@pytest.mark.parametrize(
    ("algo", "point"),
    [
        ("rlx2td3", {}),
        ("rlx2td3", {"noise_type": None}),
        ("rlx2td3", {"noise_type": "ornstein-uhlenbeck"}),
        ("rlx2ddpg", {}),
        ("rlx2sac", {}),
        ("rlx2tqc", {}),
        ("rlx2crossq", {}),
        ("rlx2dqn", {}),
        ("rlx2qrdqn", {}),
        ("td3", {}),
        ("td3", {"noise_type": None}),
        ("ddpg", {}),
        ("sac", {}),
        ("tqc", {}),
        ("crossq", {}),
        ("dqn", {}),
        ("qrdqn", {}),
    ],
)
def test_trial_id_restores_exactly(algo, point, tmp_path, models):
    optimize(algo, tmp_path, point, {"one_minus_gamma": 0.01} | point)
    kinds = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}
    if "td3" in algo:
        expected = kinds.get((small(algo) | point)["noise_type"])
        assert noise_of(models[0]) == (expected and (expected, [0.3], [0.0]))
    for number, gamma in enumerate((0.98, 0.99)):
        model = restored(algo, tmp_path, number)
        assert settings(model) == settings(models[number])
        assert model.gamma == gamma


@pytest.mark.parametrize("algo", ["rlx2td3", "td3"])
@pytest.mark.parametrize("tried", ["normal", None])
@pytest.mark.parametrize("given", [{"noise_type": "normal", "noise_std": 0.2}, {"noise_std": 0.2}])
def test_the_command_lines_noise_has_the_last_word(algo, tried, given, tmp_path, models):
    optimize(algo, tmp_path, {"noise_type": tried})
    model = restored(algo, tmp_path, 0, hyperparams=given)
    assert noise_of(model) == (NormalActionNoise, [0.2], [0.0])


@pytest.mark.parametrize("algo", STOCK)
def test_stock_names_keep_the_sparsity(algo, tmp_path, models):
    """SB3's own classes with our parts; the zoo's samplers replace ``policy_kwargs``, and know nothing of n-step buffers."""
    trials = optimize(algo, tmp_path, {}, {"one_minus_gamma": 0.01})
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    for model, gamma in zip(models, (0.98, 0.99), strict=True):
        assert densities(model) == pytest.approx([0.2, 0.2] if hasattr(model, "actor") else [0.05], abs=1e-3)
        assert (model.gamma, model.replay_buffer.gamma) == pytest.approx((gamma, gamma))
        assert model.replay_buffer.final_n_steps == 3


def test_stock_command_refuses_to_lose_the_sparsity(tmp_path):
    command = ["rl_zoo3.train", "--algo", "td3", "--env", "Pendulum-v1", "-conf", str(HYPERPARAMS / "td3.yml")]
    command += ["-optimize", "--n-trials", "1", "-n", "100", "-f", "logs"]
    result = apart.run(*command, cwd=tmp_path)
    assert result.returncode != 0
    assert "actor_sparsity=None: SparseTD3Policy has no default sparsity" in result.stderr


def test_stock_names_without_sparsity_are_refused_before_the_first_trial(tmp_path):
    with pytest.raises(ValueError, match="policy_kwargs lacks critic_sparsity, which SparseTD3Policy needs"):
        optimize("td3", tmp_path, {}, hyperparams={"policy_kwargs": {"actor_sparsity": 0.5}})


def test_yaml_policy_kwargs_outlive_the_sampler(tmp_path, models):
    optimize("rlx2td3", tmp_path, {}, hyperparams={"policy_kwargs": "dict(n_critics=3)"})
    assert models[0].policy_kwargs == {"n_critics": 3, "net_arch": [64, 64]}
    model = restored("rlx2td3", tmp_path, 0, hyperparams={"policy_kwargs": "dict(n_critics=3)"})
    assert model.policy_kwargs == {"n_critics": 3}  # the command line has the last word, as in the zoo


def test_bad_combination_prunes_the_trial_only(tmp_path, capsys):
    trials = optimize("rlx2td3", tmp_path, {"buffer_min_size_pow": 18}, {"net_arch": "big", "actor_density": 0.01}, {})
    assert [trial.state.name for trial in trials] == ["PRUNED", "COMPLETE", "COMPLETE"]
    assert "Trial 0 is pruned: buffer_min_size=262144 must be <= buffer_size=5000" in capsys.readouterr().out


def test_no_completed_trial_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"--study-name study has no completed trial, .* \(2 pruned\)"):
        optimize("rlx2td3", tmp_path, {"buffer_min_size_pow": 18}, {"buffer_min_size_pow": 17})


def test_bug_ends_the_study(tmp_path):
    with pytest.raises(TypeError, match="sparsity"):
        optimize("td3", tmp_path, {}, hyperparams={"policy": "MlpPolicy"})  # dense, with the YAML file's sparsities


@pytest.fixture
def behind_checkpoint(monkeypatch):
    """Give a function that has something happen behind a checkpoint of a trial, by default an interruption, once."""

    def happen(number=1, act=None):
        written = Checkpoints._write

        def write(self):
            written(self)
            if len(self._rows.segments) == number:
                monkeypatch.setattr(Checkpoints, "_write", written)
                raise KeyboardInterrupt if act is None else act()

        monkeypatch.setattr(Checkpoints, "_write", write)

    return happen


@pytest.mark.parametrize("normalize", [False, True])
def test_retry_goes_on_from_the_last_evaluation(normalize, tmp_path, behind_checkpoint, capsys, models):
    keywords = {"hyperparams": {"normalize": normalize}, "n_timesteps": 240, "n_evaluations": 3}
    behind_checkpoint(2)
    with pytest.raises(ValueError, match="has no completed trial"):
        optimize("rlx2td3", tmp_path, {}, **keywords)
    interrupted = models.pop()
    manager, _ = manage("rlx2td3", tmp_path, optimize_hyperparameters=True, max_total_trials=1, **keywords)
    manager.hyperparameters_optimization()
    assert "Training goes on from step 160" in capsys.readouterr().out
    (model,) = models
    assert model.num_timesteps == model.replay_buffer.pos == 240
    assert model._n_updates > interrupted._n_updates
    with closing(open_storage(str(tmp_path / "study.log"))) as opened:
        trials = optuna.load_study(storage=opened, study_name="study").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert trials[1].system_attrs["retry_history"] == [0]
    reported = list(trials[0].intermediate_values.values())
    assert len(reported) == 2
    assert list(trials[1].intermediate_values.values())[:2] == reported
    assert list(trials[1].intermediate_values) == [1, 2, 3]
    assert not (tmp_path / "logs/rlx2td3/study_study").exists()
    if normalize:
        assert model.get_vec_normalize_env().obs_rms.count > 230


def test_a_retry_of_a_trial_that_had_come_to_its_end(tmp_path, behind_checkpoint, models):
    behind_checkpoint(2)
    with pytest.raises(ValueError, match="has no completed trial"):
        optimize("rlx2td3", tmp_path, {}, n_evaluations=2)
    trials = optimize("rlx2td3", tmp_path, n_evaluations=2, max_total_trials=1)
    assert models[1]._n_updates == models[0]._n_updates
    assert trials[1].intermediate_values == trials[0].intermediate_values
    assert trials[1].value == trials[0].intermediate_values[2]


def test_damaged_checkpoints_start_the_trial_anew(tmp_path, behind_checkpoint, models):
    behind_checkpoint()
    with pytest.raises(ValueError, match="has no completed trial"):
        optimize("rlx2td3", tmp_path, {}, n_evaluations=3)
    (manifest,) = tmp_path.glob("logs/rlx2td3/study_study/trial_0_*/0/*/manifest.json")
    manifest.write_text("")
    cannot = pytest.warns(UserWarning, match="trial_0_.*/0 cannot be used: no checkpoint in .* is whole")
    with cannot, pytest.warns(UserWarning, match="000001_step_40 is left out"):
        *_, trial = optimize("rlx2td3", tmp_path, n_evaluations=3, max_total_trials=1)
    assert trial.state.name == "COMPLETE"
    assert models[-1].num_timesteps == 120


@pytest.mark.filterwarnings("ignore:the run in .* goes on, but")  # to another end
def test_a_worker_that_was_taken_for_dead_leaves_its_retry_alone(tmp_path, models):
    """It writes on where it did, and the retry goes on from what was there when it began."""
    folder, (first, second) = tmp_path / "trial", (SimpleNamespace(number=number) for number in (0, 3))
    env = gym.make("Pendulum-v1")

    def learn(steps, *callbacks):
        model = TD3("MlpPolicy", env, learning_starts=10, buffer_size=100, policy_kwargs={"net_arch": [8]})
        return model.learn(steps, callback=[*callbacks])

    (suspended,) = trial_checkpoints(folder, first, learn(0), 20)
    learn(40, suspended)
    assert trial_checkpoints(None, second, learn(0), 20) == []
    (own,) = trial_checkpoints(folder, second, learn(0), 20)
    assert generations.newest(folder / "3").step == 40
    learn(60, suspended)
    assert learn(60, own).num_timesteps == 60
    assert generations.newest(folder / "3").step == 60
    assert generations.newest(folder / "0").step == 60


def test_a_new_study_of_the_same_name_goes_on_from_nothing(tmp_path, behind_checkpoint, capsys, models):
    behind_checkpoint()
    with pytest.raises(ValueError, match="has no completed trial"):
        optimize("rlx2td3", tmp_path, {}, n_evaluations=3)
    for path in tmp_path.glob("study.log*"):
        path.rename(path.with_name(f"earlier-{path.name}"))
    (trial,) = optimize("rlx2td3", tmp_path, {}, n_evaluations=3)
    assert trial.state.name == "COMPLETE"
    assert "goes on from step" not in capsys.readouterr().out


@pytest.mark.parametrize(("error", "message"), [(ValueError, "has no completed trial"), (TypeError, "NaN")])
def test_a_trial_that_breaks_down_leaves_no_checkpoints(error, message, tmp_path, behind_checkpoint, models):
    def break_down():
        assert list((tmp_path / "logs/rlx2td3/study_study").glob("trial_0_*/0/rows/*.npz"))
        return error("NaN")

    behind_checkpoint(act=break_down)
    with pytest.raises(error, match=message):
        optimize("rlx2td3", tmp_path, {}, n_evaluations=3)
    assert not (tmp_path / "logs/rlx2td3/study_study").exists()


def test_a_trial_that_is_given_up_leaves_no_checkpoints(tmp_path, behind_checkpoint, monkeypatch, models):
    behind_checkpoint()
    with pytest.raises(ValueError, match="has no completed trial"):
        optimize("rlx2td3", tmp_path, {}, n_evaluations=3)
    assert (tmp_path / "logs/rlx2td3/study_study").exists()
    monkeypatch.setattr(timing, "MAX_RETRIES", -1)
    trials = optimize("rlx2td3", tmp_path, {}, max_total_trials=1)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert not (tmp_path / "logs/rlx2td3/study_study").exists()


def test_study_in_memory_leaves_no_checkpoints(tmp_path, models):
    manager, _ = manage(
        "rlx2sac", tmp_path, storage=None, optimize_hyperparameters=True, n_trials=1, n_timesteps=100, n_evaluations=2
    )
    manager.hyperparameters_optimization()
    assert len(models) == 1
    (report,) = (tmp_path / "logs/rlx2sac").glob("report_*.csv")
    assert not (tmp_path / "logs/rlx2sac").joinpath("study_study").exists()
    assert report.read_text().count("\n") == 2


def test_report_has_table_study_and_plots(tmp_path, models):
    optimize("rlx2sac", tmp_path, {})
    manager, _ = manage("rlx2sac", tmp_path, optimize_hyperparameters=True, max_total_trials=3)
    manager.no_optim_plots = False
    manager.hyperparameters_optimization()
    (html,) = (tmp_path / "logs/rlx2sac").glob("report_*_3-trials-*_history.html")
    assert "Optimization History Plot" in html.read_text()


@pytest.fixture
def study(tmp_path):
    optimize("rlx2td3", tmp_path, {})


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize(
    ("algo", "keywords", "message"),
    [
        ("rlx2sac", {}, "--study-name study holds trials of --algo rlx2td3, not of rlx2sac"),
        ("rlx2td3", {"env": "InvertedPendulum-v5"}, "holds trials of --env Pendulum-v1, not of InvertedPendulum-v5"),
    ],
)
def test_study_of_another_task_is_refused(algo, keywords, message, tmp_path):
    manager, _ = manage(algo, tmp_path, optimize_hyperparameters=True, n_trials=1, **keywords)
    with pytest.raises(ValueError, match=message):
        manager.hyperparameters_optimization()


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize(
    ("algo", "keywords", "message"),
    [
        ("rlx2sac", {}, "--study-name study holds trials of --algo rlx2td3, not of rlx2sac"),
        ("rlx2td3", {"trial_id": 7}, r"--trial-id 7 must lie in \[0, 0\], the trials of study study"),
        ("rlx2td3", {"trial_id": -1}, r"--trial-id -1 must lie in \[0, 0\]"),
        ("rlx2td3", {"study_name": "studi"}, "--study-name studi is not in the storage, which holds: study"),
        ("rlx2td3", {"storage": None}, "--trial-id 0 needs the --storage and the --study-name"),
        ("rlx2td3", {"storage": "sqlite:///studdy.db"}, "storage='sqlite:///studdy.db' does not exist"),
        ("rlx2td3", {"storage": "studdy.log"}, "storage='studdy.log' does not exist"),
        ("rlx2td3", {"study_name": None}, "--trial-id 0 needs the --storage and the --study-name"),
    ],
)
def test_wrong_trial_id(algo, keywords, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        manage(algo, tmp_path, **({"trial_id": 0} | keywords))
    assert not list(Path().glob("studdy*"))


def test_shared_study_without_a_name(tmp_path):
    with pytest.raises(ValueError, match=r"--storage .*study.log needs a --study-name"):
        manage("rlx2td3", tmp_path, optimize_hyperparameters=True, n_trials=1, study_name=None)
    assert not list(tmp_path.iterdir())


def test_study_of_the_zoo_tells_its_task_by_its_command(tmp_path):
    with closing(open_storage(str(tmp_path / "study.log"))) as opened:
        study = optuna.create_study(storage=opened, study_name="study", direction="maximize")
        study.set_user_attr("command", "python -m rl_zoo3.train --algo tqc --env Pendulum-v1 -optimize")
    manager, _ = manage("td3", tmp_path, optimize_hyperparameters=True, n_trials=1)
    with pytest.raises(ValueError, match="holds trials of --algo tqc, not of td3"):
        manager.hyperparameters_optimization()


@pytest.mark.parametrize("algo", OURS)
def test_every_sampled_point_converts(algo):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    args = {"using_her_replay_buffer": False, "her_kwargs": {}}
    for _ in range(50):
        trial = study.ask()
        sampled = HYPERPARAMS_SAMPLER[algo](trial, 2, 1, args)
        converted = HYPERPARAMS_CONVERTER[algo](trial.params)
        noise = {"noise_type", "noise_std", "action_noise"}
        assert {k: v for k, v in sampled.items() if k not in noise} == {k: v for k, v in converted.items() if k not in noise}
        if algo == "rlx2td3":
            std = converted.get("noise_std")
            sigma = None if sampled["action_noise"] is None else sampled["action_noise"]._sigma
            assert (sigma is None and converted["noise_type"] is None) or np.array_equal(sigma, [std, std])
        assert all(0.01 <= 1 - converted[keyword] <= 0.5 for keyword in ALGOS[algo].sparse_policy_class.networks.values())


def test_densities_are_searched_by_their_logarithm():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    search_space.SAMPLERS["rlx2sac"](trial, 1, 1, {"using_her_replay_buffer": False})
    assert all(trial.distributions[f"{network}_density"].log for network in ("actor", "critic"))


@pytest.mark.parametrize("algo", OURS)
def test_hindsight_settings_come_back(algo):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    her = {"using_her_replay_buffer": True, "her_kwargs": {"copy_info_dict": True}}
    sampled = HYPERPARAMS_SAMPLER[algo](trial, 2, 1, her)
    combined = tuning.combine({"replay_buffer_kwargs": {"copy_info_dict": True}}, HYPERPARAMS_CONVERTER[algo](trial.params))
    assert combined["replay_buffer_kwargs"] == sampled["replay_buffer_kwargs"]
    assert combined.keys() - {"noise_type", "noise_std"} == sampled.keys() - {"action_noise"} | (
        combined.keys() & {"action_noise"}
    )


def test_storage_is_the_managers(tmp_path):
    manager, _ = manage("rlx2td3", tmp_path, storage="study.txt", optimize_hyperparameters=True)
    with pytest.raises(ValueError, match=r"storage='study\.txt' must be postgresql://"):
        manager.hyperparameters_optimization()
    assert timing.GRACE_PERIOD > 2 * timing.HEARTBEAT_INTERVAL


def test_a_trial_of_anybodys_study_runs_no_code(tmp_path):
    assert tuning.combine({}, {"replay_buffer_kwargs": "{'n_steps': 3}"}) == {"replay_buffer_kwargs": {"n_steps": 3}}
    with pytest.raises(ValueError, match="malformed"):
        tuning.combine({}, {"replay_buffer_kwargs": f"__import__('os').mkdir('{tmp_path}/made')"})
    assert not (tmp_path / "made").exists()


FEW = ("--sampler", "random", "--pruner", "none")


def test_a_study_leaves_no_empty_run(rlx2, monkeypatch):
    monkeypatch.setattr(tuning.TuningManager, "_train", lambda *given: 0.0)
    rlx2.train("rlx2td3", "-n", "60")
    rlx2.train("rlx2td3", "-n", "60", "-optimize", "--n-trials", "1", "--no-optim-plots", *FEW)
    play = ("enjoy", "--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs", "--no-render", "-n", "10")
    assert "Pendulum-v1_1" in rlx2(*play)
    assert "--sampler auto needs optunahub" in rlx2.error("train", "-optimize", "--sampler", "auto", "--env", "Pendulum-v1")
    agent = "logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip"
    message = rlx2.error("train", "-optimize", "-i", agent, "--env", "Pendulum-v1")
    assert f"--trained-agent {agent} beside -optimize" in message
