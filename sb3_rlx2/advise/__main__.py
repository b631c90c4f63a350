"""The command ``rlx2 advise``."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import gymnasium as gym
import yaml
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_rlx2.advise import LEAST, Advice, Lesson, advise, basis, command_line, read_lessons, shortest
from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.patching import patched
from sb3_rlx2.settings import plain_dict
from sb3_rlx2.sparse_mlp import sparse_mlps
from sb3_rlx2.validation import check_integer
from sb3_rlx2.zoo import agents, hyperparams_file
from sb3_rlx2.zoo.prepare import algorithm_for

EVAL_FREQ = 25_000  # the zoo's; shorter runs are given their own, or rlx2 report would have nothing to compare
EVALUATIONS = 10


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="rlx2 advise", description="Say how sparse to begin with, what that rests on, and what to try. Trains nothing."
    )
    parser.add_argument("--env", required=True, help="environment ID")
    parser.add_argument("-n", "--steps", type=int, help="environment steps planned (default: those of the hyper-parameters)")
    parser.add_argument("--algo", choices=[*ALGORITHMS], help="algorithm (default: by the actions)")
    agents.add_packages(parser)
    args = parser.parse_args()
    agents.check_env(args.env, args.gym_packages)
    algo = args.algo or algorithm_for(args.env)
    settings = settings_of(algo, args.env)
    steps = int(float(settings["n_timesteps"])) if args.steps is None else check_integer("--steps", args.steps, 1)
    packages = ("--gym-packages", *args.gym_packages) if args.gym_packages else ()
    print(text(algo, args.env, steps, settings, read_lessons(), packages))


def settings_of(algo: str, env: str) -> dict[str, Any]:
    """
    Give the hyper-parameters that ``rlx2 train`` takes.

    :param algo: name in the zoo
    :param env: environment
    """
    stored = yaml.safe_load(hyperparams_file(algo).read_text())
    return dict(stored.get(env, stored["default"]))


def policy_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    Give the arguments of the policy, which stand in the settings as the zoo has them: the text of a call of ``dict``.

    :param settings: hyper-parameters
    :raises ValueError: if some are no plain values
    """
    text: str = settings.get("policy_kwargs", "dict()")
    try:
        return plain_dict(text)
    except ValueError as error:
        raise ValueError(f"policy_kwargs={text!r} must be a dict of plain values to be advised on") from error


def networks_of(algo: str, env_id: str, settings: Mapping[str, Any]) -> dict[str, Sequence[LayerSpec]]:
    """
    Give the layers of an algorithm's sparse networks, of one of each kind, by the argument that says how sparse they are.

    :param algo: name in the zoo
    :param env_id: environment
    :param settings: hyper-parameters, which may say how wide they are
    :raises ValueError: if the algorithm cannot act in it
    """
    cls = ALGORITHMS[algo]
    with closing(gym.make(env_id)) as env, patched(SparsePolicy, check_connected=lambda _: None):
        space: Any = env.observation_space
        kind = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "CnnPolicy" if is_image_space(space) else "MlpPolicy"
        policy: Any = cls(kind, env, buffer_size=1, policy_kwargs=policy_arguments(settings)).policy  # type: ignore[call-arg]
        return {keyword: sparse_mlps(getattr(policy, name))[0].layers for name, keyword in policy.networks.items()}


def text(
    algo: str, env: str, steps: int, settings: Mapping[str, Any], lessons: Sequence[Lesson], packages: Sequence[str] = ()
) -> str:
    """
    Lay out the advice.

    :param algo: name in the zoo
    :param env: environment
    :param steps: environment steps planned
    :param settings: hyper-parameters that ``rlx2 train`` takes by itself
    :param lessons: what was measured
    :param packages: option for the modules that register the environment
    """
    advice = advise(networks_of(algo, env, settings), steps, lessons)
    sparsities = {each.keyword: each.sparsity for each in advice}
    options = () if steps >= EVALUATIONS * EVAL_FREQ else (f"--eval-freq {max(steps // EVALUATIONS, 1)}",)
    options = (*packages, *options)
    search = " ".join([f"rlx2 compress --algo {algo} --env {env} -n {steps}", *packages])
    fewer = {name: 1 - (1 - share) / 2 for name, share in sparsities.items()}
    parts = [
        f"{algo} on {env}, {steps:,} steps: begin with",
        "\n".join(_row(each) for each in advice),
        _reason(steps, lessons),
        "What that rests on, runs of RLx2 beside dense ones:",
        "\n".join(map(_measured, lessons)),
        *_lesson(lessons),
        *_settings(env, settings, sparsities),
        "Try, in this order:",
        "\n".join(
            f"  {command}    # {why}"
            for command, why in (
                (command_line(algo, env, steps, sparsities, *options), "what is advised"),
                (command_line(algo, env, steps, sparsities, "--dense-twin", *options), "what it is measured against"),
                (command_line(algo, env, steps, fewer, *options), "half the links, if it keeps up with dense"),
                (search, "the smallest that keeps up; many trainings"),
            )
        ),
    ]
    return "\n\n".join(parts)


def _row(each: Advice) -> str:
    return (
        f"  {each.keyword} {each.sparsity:g}: {round((1 - each.sparsity) * each.size):,} links of {each.size:,} in "
        f"{each.widths}, {(1 - each.sparsity) * each.size / each.units:.0f} to a hidden unit"
    )


def _reason(steps: int, lessons: Sequence[Lesson]) -> str:
    if steps >= shortest(lessons):
        return basis(lessons)
    return (
        f"{basis(lessons)} Here that is doubled: few links learn slowly, and no run shorter than {shortest(lessons):,} steps "
        f"is among them. Doubling is a rule of thumb, and stops at {LEAST:.0%} of zeros."
    )


def _measured(lesson: Lesson) -> str:
    links, dense = lesson.links_of_a_unit, ""
    if lesson.dense_steps != lesson.steps:
        dense = f" in {lesson.dense_steps:,}"
    return (
        f"  {lesson.algorithm} {lesson.env}, {lesson.steps:,} steps, {lesson.actor_sparsity:g}/{lesson.critic_sparsity:g} "
        f"(actor/critic), {links['actor']:g}/{links['critic']:g} links to a unit: {lesson.of_dense:.0%} of dense{dense} "
        f"({lesson.seeds} / {lesson.dense_seeds} seeds)"
    )


def _lesson(lessons: Sequence[Lesson]) -> list[str]:
    """Say what more links have done where nothing else was changed."""
    found = []
    for few in lessons:
        for many in lessons:
            same = (few.algorithm, few.env, few.steps) == (many.algorithm, many.env, many.steps)
            if same and few.links_of_a_unit["actor"] < many.links_of_a_unit["actor"]:
                links = few.links_of_a_unit["actor"], many.links_of_a_unit["actor"]
                found.append(
                    f"Few links learn slowly: on {few.env} {few.steps:,} steps with {links[0]:g} links to a unit of the actor "
                    f"came to {few.of_dense:.0%} of dense, with {links[1]:g} to {many.of_dense:.0%}."
                )
    return found


def _settings(env: str, settings: Mapping[str, Any], sparsities: Mapping[str, float]) -> list[str]:
    own = {name: settings[name] for name in sparsities if name in settings}
    if not own:
        return []
    named = ", ".join(f"{name} {share:g}" for name, share in own.items())
    return [f"Without -params, rlx2 train takes what hyperparams/ has for {env}: {named}."]
