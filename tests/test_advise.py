"""`rlx2 advise` says what the stored runs say."""

import pytest

from benchmarks.returns import lessons
from benchmarks.returns.results import load
from sb3_rlx2.advise import MEASURED, Lesson, advise, basis, enough_links, reached, read_lessons
from sb3_rlx2.backends.network import LayerSpec


def lesson(env, links, of_dense, steps=1_000_000):
    return Lesson("td3", env, steps, 0.9, 0.9, {"actor": links, "critic": 2 * links}, of_dense, 3, 2, 1_000_000)


FOUND = [
    *(lesson("A", links, of_dense) for links, of_dense in ((4.0, 0.5), (10.0, 1.0), (20.0, 1.1))),
    *(lesson("B", links, of_dense, steps) for links, of_dense, steps in ((6.0, 0.98, 1_000_000), (5.0, 1.2, 3_000_000))),
]
NETWORKS = {
    "actor_sparsity": [LayerSpec(20, 100, 0), LayerSpec(100, 100, 0), LayerSpec(100, 10, 0)],
    "critic_sparsity": [LayerSpec(30, 100, 0), LayerSpec(100, 100, 0), LayerSpec(100, 1, 0)],
}


def test_the_package_knows_the_stored_runs():
    assert MEASURED.read_text() == lessons.text(load())
    assert any(each.env == "Walker2d-v4" and each.of_dense < 0.7 for each in read_lessons())


def test_what_has_done_for_all():
    assert enough_links(FOUND, "actor") == 10.0  # A took 10, B 6
    assert enough_links(FOUND, "critic") == 20.0


def test_sparsity_follows_sizes_and_steps():
    """2,000 links of 13,000 and 4,000 of 13,100; twice as many where it is short, and half at most."""
    assert [each.sparsity for each in advise(NETWORKS, 1_000_000, FOUND)] == [0.84, 0.69]
    assert [each.sparsity for each in advise(NETWORKS, 999_999, FOUND)] == [0.69, 0.5]


@pytest.mark.parametrize(("env", "algo", "keyword"), [("Pendulum-v1", "rlx2td3", "actor_"), ("CartPole-v1", "rlx2dqn", "")])
def test_the_command(env, algo, keyword, rlx2):
    output = rlx2("advise", "--env", env, "--steps", "30000")
    assert f"rlx2 train --algo {algo} --env {env} -n 30000 --eval-freq 3000 -params {keyword}sparsity:" in output
    assert "-n 30000 --dense-twin --eval-freq 3000 -params" in output
    assert "Few links learn slowly: on Walker2d-v4 1,000,000 steps with" in output


def test_commands_name_the_modules_that_register_an_environment(rlx2):
    output = rlx2("advise", "--env", "Pendulum-v1", "--gym-packages", "json", "csv")
    commands = [line for line in output.splitlines() if line.startswith("  rlx2 ")]
    assert len(commands) == 4
    assert all(" --gym-packages json csv " in line for line in commands)


@pytest.mark.parametrize(
    ("algo", "env", "widths"),
    [
        ("rlx2dqn", "CartPole-v1", "4-256-256-2"),
        ("rlx2qrdqn", "CartPole-v1", "4-256-256-20"),
        ("rlx2crossq", "Pendulum-v1", "4-256-256-1"),
        ("rlx2td3", "MountainCarContinuous-v0", "2-256-256-1"),
    ],
)
def test_networks_are_those_that_the_settings_build(algo, env, widths, rlx2):
    assert f"in {widths}, " in rlx2("advise", "--algo", algo, "--env", env)


def test_it_says_which_tasks_it_rests_on(rlx2):
    few = [lesson("C", 30.0, 0.9), lesson("D", 3.0, 0.98, 3_000_000)]
    assert reached([*FOUND, *few]) == {"td3 A": FOUND[1:3], "td3 B": FOUND[3:4], "td3 C": [], "td3 D": []}
    assert basis([*FOUND, *few]) == (
        "Each unit gets as many links as the most demanding of these tasks needed to reach 97% of dense's return: td3 A, "
        "td3 B. No stored run has reached it on td3 C, td3 D: these may need more."
    )
    assert basis(FOUND).endswith("return: td3 A, td3 B.")
    assert basis(read_lessons()) in rlx2("advise", "--env", "Pendulum-v1")


def test_misuse(rlx2):
    assert "--steps=0 must be an integer >= 1" in rlx2.error("advise", "--env", "Pendulum-v1", "--steps", "0")
    assert "--env Nope-v1 is unknown" in rlx2.error("advise", "--env", "Nope-v1")
