"""What a search leaves behind: a page with a table and a plot, the chosen model, and the YAML entry that reproduces it."""

import csv
import math
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_sb3 import EnvironmentName

from sb3_rlx2.compress.plot import plot
from sb3_rlx2.compress.rows import Row, interval, rows
from sb3_rlx2.compress.search import Findings, Plan, Point
from sb3_rlx2.compress.training import Sparsities, normalization_beside
from sb3_rlx2.files import replacing, write_text

EXPLANATION = """size: parameters with biases and target networks (with --objective actor, the actor's alone), relative to
dense. search: one seed, which only nominates. stopped: a hopeless training, with its last return. finalist, chosen: fresh
seeds. The interval is of the score of the mean over seeds and holds the noise of the dense and random means too, but not that
others were tried before."""


def table(findings: Findings, tolerance: float) -> str:
    """
    Write the findings as a table in Markdown.

    :param findings: of the search
    :param tolerance: share of the dense agent's score that may be lost
    """
    found = rows(findings, tolerance)
    names = [keyword.replace("_", " ") for keyword, _ in found[0].sparsities.arguments]
    header = ["agent", *names, "size", "compression", "seeds", "return", "score", "95 % interval", "Pareto"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in found:
        span = f"{row.low:.3f} to {row.high:.3f}" if math.isfinite(row.low) else "-" if math.isnan(row.low) else "unbounded"
        lines.append(
            f"| {row.kind} | {row.sparsities.label('{share:.5g}', ' | ')} | {row.size:.2%} | {row.compression:.1f}x | "
            f"{row.seeds} | {row.mean_return:,.2f} | {row.score:.3f} | {span} | {'yes' if row.pareto else ''} |"
        )
    return "\n".join(lines)


def verdict(plan: Plan, findings: Findings) -> str:
    """
    Say what was found, in words.

    :param plan: what was asked
    :param findings: what was found
    """
    task, scale, chosen = plan.task, findings.scale, findings.chosen
    tried = sum(point.kind == "finalist" for point in findings.points)
    dense, random = (sum(values) / len(values) for values in (scale.dense, scale.random))
    scale_line = (
        f"Dense {dense:,.2f} (mean of {len(scale.dense)}), random {random:,.2f}; score = (return - random) / (dense - random)."
    )
    limit = "" if plan.budget is None else f" of at most {plan.budget.max_bytes:,} bytes"
    if chosen is None:
        limits = "--max-density" if plan.budget is None else "--max-bytes"
        return (
            f"No agent of {task.algo} on {task.env}{limit} was found within {plan.tolerance:g} of dense in "
            f"{task.n_timesteps:,} steps: {tried} finalist(s) of {plan.n_trials} trainings were tried on fresh seeds. Look at "
            f"the plot; raise --n-trials, --n-timesteps, {limits} or --tolerance. {scale_line}"
        )
    assert chosen.sparsities is not None
    low, high = interval(scale, chosen)
    found = ", ".join(f"{keyword} {share:g}" for keyword, share in chosen.sparsities.arguments)
    proof = (
        "" if low >= 1 - plan.tolerance else f" The interval reaches below {1 - plan.tolerance:g}: more --n-seeds would tell."
    )
    return (
        f"{task.algo} on {task.env} stays within {plan.tolerance:g} of dense at {chosen.share:.2%} of its size, "
        f"{chosen.size:,} bytes{limit and f',{limit}'}, {1 / chosen.share:.1f} times smaller ({found}): score "
        f"{scale.score(chosen.mean_return):.3f}, 95 % confidence interval {low:.3f} to {high:.3f}, mean return "
        f"{chosen.mean_return:,.2f} over {len(chosen.returns)} fresh seeds. It is the first to pass of {tried} finalist(s) "
        f"tried.{proof} {scale_line}"
    )


def entry(plan: Plan, sparsities: Sparsities) -> dict[str, Any]:
    """
    Give the hyper-parameters of one agent, as ``rlx2 train`` reads them.

    :param plan: what was asked
    :param sparsities: of the agent
    """
    given = {"env_kwargs": plan.task.env_kwargs} if plan.task.env_kwargs else {}
    return {**plan.hyperparams, "n_timesteps": plan.task.n_timesteps, **given, **dict(sparsities.arguments)}


def check_plain(hyperparams: Mapping[str, Any]) -> None:
    """
    Check that hyper-parameters can be written down, before anything is trained with them.

    :param hyperparams: as written
    :raises ValueError: if one cannot
    """
    for name, value in hyperparams.items():
        try:
            plain = yaml.safe_load(yaml.safe_dump(value)) == value
        except yaml.YAMLError:
            plain = False
        if not plain:
            raise ValueError(
                f"{name}={value!r} cannot be written to the YAML file of the result: give it as a string or a number"
            )


class Results:
    """
    The folder of a search's results. The chosen model lies where ``rlx2 enjoy -f FOLDER --exp-id -1`` looks for it.

    :param log_folder: all searches' folder
    :param algo: the algorithm
    :param env: the environment
    """

    def __init__(self, log_folder: str, algo: str, env: str) -> None:
        name = EnvironmentName(env)  # without the slashes of a namespace, as the zoo names files
        self.folder = Path(log_folder, algo, name)
        self.model = Path(log_folder, algo, f"{name}.zip")
        self.statistics = self.folder / "vecnormalize.pkl"
        self.settings = self.folder / "config.yml"  # this and the next as the zoo's `train` writes them
        self.arguments = self.folder / "args.yml"
        self.config = self.folder / f"{algo}.yml"
        self.page = self.folder / "result.md"

    def write(self, plan: Plan, findings: Findings, options: str) -> str:
        """
        Write everything, each file whole or not at all.

        :param plan: what was asked
        :param findings: what was found
        :param options: further arguments that ``rlx2 train`` needs to do the same training
        :return: the page
        """
        text = [f"# {plan.task.algo} on {plan.task.env}", verdict(plan, findings)]
        if findings.chosen is not None:
            text += self._write_chosen(plan, findings.chosen, options)
        else:
            _remove(self.model, self.statistics, self.config, self.settings, self.arguments)  # of another tolerance
        self._write_csv(rows(findings, plan.tolerance))
        with replacing(self.folder / "points.png") as temporary:
            plot(plan, findings).savefig(temporary, dpi=150)
        text += ["![Return against size](points.png)", table(findings, plan.tolerance), EXPLANATION]
        page = "\n\n".join(text) + "\n"
        write_text(self.page, page)
        return page

    def _write_chosen(self, plan: Plan, chosen: Point, options: str) -> list[str]:
        """Write the YAML entry, and the model of the best seed: it is within tolerance because the mean is."""
        assert chosen.sparsities is not None
        best = max(range(len(chosen.returns)), key=lambda i: chosen.returns[i])
        seed, place = chosen.seeds[best], chosen.models[best]
        config = shlex.quote(str(self.config))
        command = f"rlx2 train --algo {plan.task.algo} --env {plan.task.env} -conf {config} --seed {seed}{options}"
        hyperparams = entry(plan, chosen.sparsities)
        config_text = f"# {command}\n" + yaml.safe_dump({plan.task.env: hyperparams}, sort_keys=False)
        host, _, path = place.partition(":")
        trained = Path(path)  # perhaps on a file system that all workers share
        unchanged = self.config.is_file() and self.config.read_text() == config_text
        for source, target in ((trained, self.model), (normalization_beside(trained), self.statistics)):
            if source.is_file():
                with replacing(target) as temporary:
                    shutil.copyfile(source, temporary)
            elif trained.is_file() or not unchanged:
                _remove(target)  # of another choice, before more trials or another tolerance
        write_text(self.config, config_text)
        write_text(self.settings, yaml.safe_dump(hyperparams, sort_keys=False))
        arguments = {"algo": plan.task.algo, "env": plan.task.env, "env_kwargs": plan.task.env_kwargs or None, "seed": seed}
        write_text(self.arguments, yaml.safe_dump(arguments, sort_keys=False))
        where = str(self.model) if self.model.is_file() else f"lies on {host}: {path}"
        return [
            f"Model of the best seed ({seed}, return {chosen.returns[best]:,.2f}): {where}",
            f"Hyper-parameters: {self.config}. The same training again:\n\n```bash\n{command}\n```",
        ]

    def _write_csv(self, table: list[Row]) -> None:
        with replacing(self.folder / "points.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, table[0].columns().keys())
            writer.writeheader()
            writer.writerows(row.columns() for row in table)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
