"""The command ``rlx2 export``."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from rl_zoo3.utils import create_test_env
from stable_baselines3 import DQN, PPO, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2ReplayBuffer, SparseTD3Policy
from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export import compiled, describe, read
from sb3_rlx2.export.evaluate import act_of_agent, make_env
from tests.exported import statistics

LOGS = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs"]


@pytest.fixture
def trained(rlx2):
    rlx2.train("rlx2td3", "-n", "300", "--save-freq", "200", parameters=["normalize:True"])
    return "logs/rlx2td3/Pendulum-v1_1"


def lines(output):
    """Give the summary as lists of texts by name."""
    found = {}
    for line in output.splitlines():
        name, _, text = line.partition("  ")
        found.setdefault(name, []).append(text.strip())
    return found


def test_agent_of_a_log_folder(rlx2, trained, tmp_path):
    before = set(tmp_path.iterdir())
    summary = lines(rlx2("export", *LOGS, "--format", "bin", "--evaluate", 2))
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"policy.rlx2", *rlx2_file.readers()}
    assert summary["agent"] == [f"{trained}/Pendulum-v1.zip (RLx2TD3)"]
    assert summary["normaliser"] == [f"{trained}/Pendulum-v1/vecnormalize.pkl"]
    assert summary["return"][0].endswith("over 2 episodes, agent")
    played = [float(line.partition(" ")[0].replace(",", "")) for line in summary["return"]]
    assert played == pytest.approx([played[0]] * len(played), rel=1e-3)  # what is rounded otherwise grows in an episode
    data = (tmp_path / "policy.rlx2").read_bytes()
    assert summary["file"][0] == f"policy.rlx2 ({len(data):,} bytes)"
    policy = read(data)
    assert policy.about["env"] == "Pendulum-v1"
    assert policy.about["command"].startswith("rlx2 export --algo rlx2td3 --env Pendulum-v1")
    assert summary["dense"] == [f"{4 * (3 * 16 + 16 + 16 + 1):,} bytes of weights and biases in fp32"]


def test_checkpoint_brings_its_own_statistics(rlx2, trained):
    summary = lines(rlx2("export", *LOGS, "--load-checkpoint", 200))
    assert summary["normaliser"] == [f"{trained}/rl_model_vecnormalize_200_steps.pkl"]


def test_zip(rlx2, trained, tmp_path):
    zip_ = f"{trained}/Pendulum-v1.zip"
    rlx2("export", zip_, "--vecnormalize", f"{trained}/Pendulum-v1/vecnormalize.pkl", "-o", "zip.c")
    rlx2("export", *LOGS, "-o", "logs.c")

    def numbers(name):
        return (tmp_path / name).read_text().partition("TABLE")[2].replace("zip", "logs")

    assert numbers("zip.c") == numbers("logs.c")
    assert lines(rlx2("export", zip_))["normaliser"] == [f"{trained}/Pendulum-v1/vecnormalize.pkl"]  # of the same run
    beside = f"{trained}/rl_model_vecnormalize_200_steps.pkl"
    assert lines(rlx2("export", f"{trained}/rl_model_200_steps.zip"))["normaliser"] == [beside]
    (tmp_path / zip_).rename(tmp_path / "alone.zip")
    assert lines(rlx2("export", "alone.zip"))["normaliser"] == ["none"]


def test_statistics_of_another_run_are_left_alone(rlx2, trained, tmp_path):
    TD3("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / trained / "another")
    assert lines(rlx2("export", f"{trained}/another.zip"))["normaliser"] == ["none"]


@pytest.mark.parametrize("given", [("--load-best",), ("--load-checkpoint", 7), ("--exp-id", 9), ("-f", "others")])
def test_an_agent_is_a_file_or_in_a_log_folder(given, rlx2, trained):
    message = rlx2.error("export", f"{trained}/Pendulum-v1.zip", *given)
    assert f"beside {trained}/Pendulum-v1.zip: an agent is one or the other" in message


def test_an_agent_is_not_exported_without_its_normaliser():
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    model = TD3("MlpPolicy", env, buffer_size=10)
    with pytest.raises(ValueError, match=r"vecnormalize=None must be the agent's, as model.get_vec_normalize_env"):
        describe(model)
    assert describe(model, env).mean is not None


@pytest.mark.parametrize(("algorithm", "env"), [(PPO, "CartPole-v1"), (DQN, "CartPole-v1"), (TD3, "Pendulum-v1")])
def test_dense_zip(rlx2, algorithm, env, tmp_path):
    model = algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=1, device="cpu")
    model.save(tmp_path / "dense.zip")
    summary = lines(rlx2("export", "dense", "--env", env, "--evaluate", 1))
    assert summary["agent"] == [f"dense.zip ({algorithm.__name__})"]
    assert (tmp_path / "policy.h").exists()


def test_zip_of_parts(rlx2, tmp_path):
    """A sparse policy in SB3's own class, as in the README."""
    kwargs = {"actor_sparsity": 0.5, "critic_sparsity": 0.5, "net_arch": [16]}
    parts = {"replay_buffer_class": RLx2ReplayBuffer, "replay_buffer_kwargs": {"n_steps": 3}, "buffer_size": 100}
    TD3(SparseTD3Policy, "Pendulum-v1", policy_kwargs=kwargs, device="cpu", **parts).save(tmp_path / "parts.zip")
    summary = lines(rlx2("export", "parts.zip"))
    assert summary["agent"] == ["parts.zip (TD3)"]
    assert summary["live weights"][0].startswith("33 of 64")


def test_smaller_types_must_be_played(rlx2, trained, tmp_path):
    message = rlx2.error("export", *LOGS, "--dtype", "int8")
    assert message == "rlx2 export: error: --dtype int8 needs --evaluate N, which measures what it costs, or --force"
    assert not list(tmp_path.glob("policy*"))
    rlx2("export", *LOGS, "--dtype", "int8", "--force")


@pytest.mark.parametrize(
    ("dtype", "of_agent", "of_policies", "differ"),
    [
        ("fp16", -100.0, [-101.0, -101.0], None),
        ("fp16", -90.0, [-91.0, -90.0], "the mean return is -91 (numpy), the agent's -90, which differ by more than 1%"),
        ("fp16", 50.0, [50.0, 49.4], "the mean return is 49.4 (compiled C), the agent's 50, which differ by more than 1%"),
        ("fp16", 50.0, [50.6, 50.0], "the mean return is 50.6 (numpy), the agent's 50, which differ by more than 1%"),
        ("fp16", 50.0, [np.nan, np.nan], "the mean return is nan (numpy)"),
        ("int8", 200.0, [206.0, 194.0], None),
        ("int8", 200.0, [193.9, 200.0], "the mean return is 193.9 (numpy), the agent's 200, which differ by more than 3%"),
        ("int8", 0.0, [0.0, 0.0], None),
        ("int8", 0.0, [0.1, 0.1], "the mean return is 0.1 (numpy), the agent's 0, which differ by more than 3%"),
        ("fp32", 200.0, [100.0, 100.0], None),
    ],
)
def test_lost_return_is_refused(rlx2, dtype, of_agent, of_policies, differ, tmp_path, monkeypatch):
    """With nothing written; else, and with --force, the policy is."""
    if compiled.compiler() is None:
        pytest.skip("no C compiler is installed")
    TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu").save(tmp_path / "agent.zip")
    arguments = ["export", "agent.zip", "--env", "Pendulum-v1", "--dtype", dtype, "--evaluate", 2]
    results = itertools.cycle(np.repeat([of_agent, *of_policies], 2))
    monkeypatch.setattr("sb3_rlx2.export.evaluate._play", lambda *_: next(results))
    if differ is not None:
        (tmp_path / "policy.h").write_text("an older one")
        message = rlx2.error(*arguments)
        assert f"--dtype {dtype}: {differ}" in message
        assert message.endswith("--force writes the policy all the same")
        assert {path.name for path in tmp_path.iterdir()} == {"agent.zip", "policy.h"}
        assert (tmp_path / "policy.h").read_text() == "an older one"
        arguments.append("--force")
    summary = lines(rlx2(*arguments))
    assert [line.split()[0] for line in summary["return"]] == [f"{each:,.6g}" for each in (of_agent, *of_policies)]
    assert (tmp_path / "policy.c").exists()


@pytest.mark.parametrize(
    ("algorithm", "env", "message"),
    [
        (DQN, "CartPole-v1", "another action on 20 of 2,000 observations"),
        (TD3, "Pendulum-v1", "0.01 of the action's range at most"),
    ],
)
def test_what_acts_otherwise_is_refused(rlx2, algorithm, env, message, tmp_path, monkeypatch):
    algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu").save(tmp_path / "agent.zip")
    monkeypatch.setattr("sb3_rlx2.export.__main__.difference", lambda *_: 0.01)
    error = rlx2.error("export", "agent.zip", "--force")
    assert f"agent.zip cannot be exported: exported, it acts otherwise: {message}" in error
    assert {path.name for path in tmp_path.iterdir()} == {"agent.zip"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.zip"], "nothing.zip does not exist"),
        (["."], ". is a folder, and no checkpoint of a run"),
        (["nothing"], "nothing.zip does not exist"),
        ([], "the agent must be given, as the path of a zip, or by --algo and --env"),
        (["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "nowhere"], "--folder nowhere does not exist"),
        (["--algo", "rlx2td3", "--env", "Pendulum-v9"], "--env Pendulum-v9 is unknown; did you mean Pendulum-v1?"),
        (["agent.zip", "-o", "policy.h"], "output=policy.h must end with .c, as format='c' does"),
        (["agent.zip", "-o", "my-policy.c"], "name='my-policy' must be an identifier of C"),
        (["agent.zip", "--evaluate", "2"], "--evaluate 2 needs --env"),
        (["agent.zip", "--evaluate", "-1"], "evaluate=-1 must be an integer >= 0"),
        (["agent.zip", "--vecnormalize", "nothing.pkl"], "--vecnormalize nothing.pkl does not exist"),
        (["agent.zip", "--vecnormalize", "agent.zip"], "--vecnormalize agent.zip is damaged"),
        (["agent.zip", "--vecnormalize", "zipped.pkl"], "--vecnormalize zipped.pkl is damaged"),
        (["agent.zip", "--vecnormalize", "other.pkl"], "vecnormalize: its statistics must be of the agent's observations"),
        (["agent.zip", "--algo", "td4"], "algo='td4' is unknown"),
    ],
)
def test_refused_before_anything_is_written(rlx2, arguments, message, tmp_path):
    TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu").save(tmp_path / "agent.zip")
    statistics(gym.make("CartPole-v1")).save(tmp_path / "other.pkl")
    (tmp_path / "zipped.pkl").write_bytes(b"PK\x03\x04\n.")  # as a pickle, it asks for an object by its persistent id
    assert message in rlx2.error("export", *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"agent.zip", "other.pkl", "zipped.pkl"}


WRAPPERS = {
    "env_wrapper": "gymnasium.wrappers.TimeAwareObservation",
    "vec_env_wrapper": [{"stable_baselines3.common.vec_env.VecFrameStack": {"n_stack": 2}}],
}


@pytest.mark.parametrize("wrappers", [{}, WRAPPERS])
@pytest.mark.parametrize("normalises", [False, True])
def test_agents_play_in_the_environment_of_enjoy(wrappers, normalises, tmp_path):
    """With its wrappers and its frames, of which the zoo stacks what has been normalised."""
    hyperparams = {"frame_stack": 3, "normalize": normalises, "normalize_kwargs": {"norm_reward": False}, **wrappers}
    frame = create_test_env("Pendulum-v1", should_render=False, hyperparams=dict(wrappers))
    vecnormalize = statistics(frame, variance=(0.1, 4.0)) if normalises else None
    if normalises:
        vecnormalize.save(tmp_path / "vecnormalize.pkl")
    enjoyed = create_test_env("Pendulum-v1", 1, str(tmp_path), should_render=False, hyperparams=dict(hyperparams))
    model = TD3("MlpPolicy", enjoyed, policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu", seed=0)
    shape = model.observation_space.shape
    env = make_env("Pendulum-v1", {}, hyperparams, shape, vecnormalize)
    act, policy = act_of_agent(model, vecnormalize), describe(model, vecnormalize).policy()
    for seed in (1, 2):
        for each in (enjoyed, env):
            each.seed(seed)
        seen, shown = enjoyed.reset(), env.reset()
        for _ in range(10):
            action, _ = model.predict(seen, deterministic=True)
            np.testing.assert_allclose(act(shown), action, atol=1e-5)
            np.testing.assert_allclose(policy(shown), action, atol=1e-5)
            seen, shown = enjoyed.step(action)[0], env.step(action)[0]


def test_environments_that_show_something_else_are_refused(rlx2, tmp_path):
    TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu").save(tmp_path / "agent.zip")
    message = rlx2.error("export", "agent.zip", "--env", "Hopper-v5", "--evaluate", 1)
    assert "--env Hopper-v5 must show observations of shape (3,), which the agent reads, not of (11,)" in message
    assert {path.name for path in tmp_path.iterdir()} == {"agent.zip"}


FRAMES = "vec_env_wrapper:[{'stable_baselines3.common.vec_env.VecFrameStack':{'n_stack':2}}]"


@pytest.mark.parametrize("parameters", [["frame_stack:2"], [FRAMES, "normalize:True"]])
def test_frames_of_a_run(rlx2, parameters, tmp_path):
    rlx2.train("rlx2td3", "-n", "300", parameters=parameters)
    summary = lines(rlx2("export", *LOGS, "--evaluate", 1))
    played = [float(line.partition(" ")[0].replace(",", "")) for line in summary["return"]]
    assert len(played) >= 2
    assert played == pytest.approx([played[0]] * len(played), rel=1e-3)
    policy = (tmp_path / "policy.h").read_text()
    assert "#define POLICY_OBSERVATIONS 6" in policy
