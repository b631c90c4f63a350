"""What is counted in steps follows the length of the run, and a run says what it is going to do."""

import sys
import warnings

import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.logger import HumanOutputFormat, Logger

from sb3_rlx2 import RLx2Callback, RLx2DQN, RLx2ReplayBuffer, RLx2SAC, RLx2TD3, SparseTD3Policy
from sb3_rlx2.checkpoint import Checkpoints, generations
from sb3_rlx2.checkpoint.agent import as_zip
from sb3_rlx2.plan import check_amount, episode_steps, gradient_steps_per_step, steps_of
from tests.envs import DriftEnv

TINY = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 4, "buffer_size": 4_000, "seed": 0}
PAPER = {"learning_starts": 25_000, "update_interval": 10_000, "buffer_check_interval": 10_000, "buffer_min_size": 100_000}


def make(**kwargs):
    env = kwargs.pop("env", None) or DriftEnv()
    return RLx2TD3("MlpPolicy", env, **(TINY | {"actor_sparsity": 0.5, "critic_sparsity": 0.5} | kwargs))


@pytest.mark.parametrize("planned", [1_000_000, 3_000_000, 10_000_000])
def test_defaults_are_the_papers_from_a_million_steps_on(planned):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10)
    assert {name: steps_of(name, getattr(model, name), planned) for name in PAPER} == PAPER


@pytest.mark.parametrize(
    ("planned", "expected"), [(20_000, (500, 500, 1_000, 2_000)), (100_000, (2_500, 1_000, 1_000, 10_000))]
)
def test_defaults_of_a_shorter_run(planned, expected):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10)
    assert tuple(steps_of(name, getattr(model, name), planned) for name in PAPER) == expected


def test_amounts():
    assert steps_of("update_interval", 10_000, 100) == 10_000  # a number of steps stays
    assert steps_of("update_interval", 0.01, 1_000_000) == 10_000
    assert steps_of("update_interval", 0.01, 1_000) == 500
    assert check_amount("update_interval", 1e4, 1) == 10_000
    assert check_amount("learning_starts", 0, 0) == 0
    for value in (0, -1, 1.5, True, "ten", float("nan")):
        with pytest.raises(ValueError, match=r"update_interval=.* must be an integer >= 1, or a share of the planned steps"):
            check_amount("update_interval", value, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 1.0),
        ({"train_freq": 4}, 0.25),
        ({"train_freq": 8, "gradient_steps": 4}, 0.5),
        ({"train_freq": 8, "gradient_steps": -1}, 1.0),
        ({"train_freq": (1, "episode"), "gradient_steps": 10}, 1.0),  # of a length that nobody knows
        ({"train_freq": (1, "episode"), "gradient_steps": -1, "env": "Pendulum-v1"}, 1.0),
        ({"train_freq": (2, "episode"), "gradient_steps": 10, "env": "Pendulum-v1"}, 10 / 400),
    ],
)
def test_gradient_steps_for_each_step(given, expected):
    model = make(**given)
    assert gradient_steps_per_step(model, episode_steps(model.get_env())) == expected


def told(model, steps, **learn):
    lines = []

    class Lines(HumanOutputFormat):
        def write_sequence(self, sequence):
            lines.extend(sequence)

    model.verbose = 1
    model.set_logger(Logger(None, [Lines(sys.stdout)]))
    model.learn(steps, **learn)
    return [line for line in lines if line.startswith("Plan")]


def test_the_plan_is_what_happens():
    model = make(learning_starts=100, update_interval=50, buffer_check_interval=100, buffer_min_size=10, n_steps_delay=0.5)
    (line,) = told(model, 500)
    updates = {name: network.updates for name, network in model.policy.topology_updater.networks.items()}
    assert updates == {"actor": 3, "critic": 7}  # the last one falls on the last step, where no link is left to move
    assert line == (
        "Plan for 500 steps: 400 gradient steps, from step 100 on; a topology update every 50 (actor 4, critic 8); "
        "3-step targets from step 300 on; 4 looks at the policy distance"
    )


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
def test_the_plan_of_a_run_that_has_ended():
    """Links stay where they are, and n is final."""
    model = make(learning_starts=100, update_interval=50, buffer_check_interval=100, buffer_min_size=10)
    told(model, 300)
    (line,) = told(model, 200, reset_num_timesteps=False)
    assert line.startswith("Plan for 500 steps: 200 gradient steps, from step 300 on; ")
    before = {name: network.updates for name, network in model.policy.topology_updater.networks.items()}
    assert before == {"actor": 1, "critic": 3}
    assert "; a static topology; 3-step targets from step 300 on; 2 looks at the policy distance" in line


def test_the_warm_up_is_a_share_of_each_run():
    model = make(topology="static", policy_distance_threshold=float("inf"))
    model.learn(150)
    assert model._n_updates == 50  # 100 steps at least
    assert model.learning_starts < 1
    saved = []
    make(learning_starts=0.4, topology="static", policy_distance_threshold=float("inf")).learn(
        300, callback=lambda given, _: saved.append(given["self"].learning_starts) or True
    )
    assert {*saved} == {120}


def test_value_based_agents_count_their_gradient_steps():
    model = RLx2DQN("MlpPolicy", "CartPole-v1", **TINY, train_freq=2, update_interval=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.learn(2_000)
    assert model.policy.topology_updater.update_interval == 900


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"update_interval": 1_000}, r"links of the actor never move \(update_interval=1,000 .* links of the critic never"),
        ({"n_steps_delay": 1.0}, "3-step targets never begin"),
        ({"buffer_check_interval": 1_000}, r"the replay buffer never shrinks \(buffer_check_interval"),
        ({"buffer_min_size": 2_000}, r"the replay buffer never shrinks \(buffer_min_size=2,000\)"),
        ({"buffer_size": 100, "buffer_min_size": 0.9}, r"the replay buffer never shrinks \(buffer_min_size=100\)"),
    ],
)
def test_a_part_that_never_acts_is_named(given, message):
    acting = {"update_interval": 50, "buffer_check_interval": 100, "buffer_min_size": 10}
    with pytest.warns(UserWarning, match=r"in this run of 300 steps .*" + message):
        make(learning_starts=50, **(acting | given)).learn(300)


def test_parts_follow_the_run_too():
    buffer = {"replay_buffer_class": RLx2ReplayBuffer, "replay_buffer_kwargs": {"buffer_min_size": 0.25}}
    policy = {"policy_kwargs": {"net_arch": [8], "actor_sparsity": 0.5, "critic_sparsity": 0.5}}
    model = TD3(SparseTD3Policy, DriftEnv(), learning_starts=50, **(TINY | buffer | policy))
    assert model.replay_buffer.min_size == 4_000  # as much as there is, until the length of the run is known
    model.learn(3_000, callback=RLx2Callback(update_interval=0.4, buffer_check_interval=0.5, topology="static"))
    assert model.replay_buffer.min_size == 1_000
    assert model.policy.topology_updater.update_interval == 1_200


def test_several_calls_are_one_run():
    settings = {"learning_starts": 50, "update_interval": 40, "buffer_check_interval": 100, "buffer_min_size": 10}
    whole, pieces = make(**settings), make(**settings, planned_timesteps=400)
    whole.learn(400)
    for _ in range(4):
        pieces.learn(100, reset_num_timesteps=False)
    assert pieces.num_timesteps == 400
    counts = [
        {name: network.updates for name, network in each.policy.topology_updater.networks.items()} for each in (whole, pieces)
    ]
    assert counts[0] == counts[1] == {"actor": 3, "critic": 7}
    assert pieces.policy.topology_updater.progress == 1.0


def test_learning_rates_follow_the_plan():
    rates = []
    model = make(planned_timesteps=400, learning_rate=lambda left: 1e-3 * left, learning_starts=10, topology="static")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.learn(100, callback=lambda given, _: rates.append(given["self"]._current_progress_remaining) or True)
    assert rates[-1] == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("reset", [True, False])
def test_a_trained_agent_starts_a_new_schedule(reset, tmp_path):
    settings = {"learning_starts": 50, "update_interval": 40, "buffer_check_interval": 100, "buffer_min_size": 10}
    make(**settings).save(tmp_path / "new")
    model = make(**settings)
    model.learn(300)
    model.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match=r"planned_timesteps.*restart_topology\(\)"):
        RLx2TD3.load(tmp_path / "agent", DriftEnv()).learn(300, reset_num_timesteps=reset)
    model = RLx2TD3.load(tmp_path / "agent", DriftEnv())
    before = model.policy.topology_updater.networks["critic"].updates
    model.restart_topology()
    progress = []
    model.learn(
        200, reset_num_timesteps=reset,
        callback=lambda given, _: progress.append(given["self"].policy.topology_updater.progress) or True,
    )  # fmt: skip
    assert progress[0] < 0.01
    assert progress[99] == pytest.approx((100 - 50) / 150 if reset else 0.5, abs=0.01)
    assert progress[-1] == 1.0
    assert model.policy.topology_updater.networks["critic"].updates > before


def test_misuse():
    for name in PAPER:
        with pytest.raises(ValueError, match=f"{name}=-1 must be an integer >= [01], or a share"):
            make(**{name: -1})
    with pytest.raises(ValueError, match="planned_timesteps=0 must be an integer >= 1"):
        RLx2SAC("MlpPolicy", DriftEnv(), **TINY, planned_timesteps=0)


@pytest.mark.filterwarnings("ignore:in this run", "ignore:progress=1 since an earlier learn")
def test_a_warm_up_that_was_over_is_over(tmp_path):
    # a share of a longer run is more steps
    model = make(learning_starts=0.1).learn(1_000)
    before = model._n_updates
    assert before == 900
    model.learn(9_000, callback=lambda values, _: values["self"].num_timesteps < 1_500, reset_num_timesteps=False)
    assert model._n_updates - before > 490
    model.learn(9_000, callback=lambda values, _: values["self"].num_timesteps < 500)  # begun anew: a warm-up of 900
    assert model._n_updates - before < 510


@pytest.mark.filterwarnings("ignore:in this run", "ignore:the run in .* goes on, but not to the last bit")
def test_a_warm_up_that_was_over_is_over_in_another_process(tmp_path):
    make(learning_starts=0.1).learn(1_000, callback=Checkpoints(tmp_path, 500))
    model = make(learning_starts=0.1)
    longer = [lambda values, _: values["self"].num_timesteps < 1_500, Checkpoints(tmp_path, 500)]
    model.learn(20_000, callback=longer)
    assert model._n_updates == 900 + 499
    assert model.learning_starts == 0.1


def test_an_agent_saved_on_the_way_has_its_share(tmp_path):
    model = make(learning_starts=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.learn(1_000, callback=[CheckpointCallback(500, str(tmp_path)), Checkpoints(tmp_path / "run", 500)])
    assert RLx2TD3.load(tmp_path / "rl_model_500_steps.zip").learning_starts == 0.1
    newest = generations.newest(tmp_path / "run")
    assert RLx2TD3.load(as_zip(newest.path)).learning_starts == 0.1
    assert model.learning_starts == 0.1


def test_a_loaded_buffer_is_planned_with(tmp_path):
    make(buffer_size=200, buffer_min_size=100).save_replay_buffer(tmp_path / "small")
    model = make(buffer_size=10_000, buffer_min_size=200)
    model.load_replay_buffer(tmp_path / "small")
    with pytest.warns(UserWarning, match=r"the replay buffer never shrinks \(buffer_min_size=200\)"):
        model.learn(5_000, callback=lambda *_: False)
