"""The page that the hub shows of an agent."""

import argparse
from pprint import pformat
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from rl_zoo3 import ALGOS

import sb3_rlx2
from sb3_rlx2 import metrics
from sb3_rlx2.paths import architecture
from sb3_rlx2.sparse_mlp import sparse_mlps

CARD = """
# **{name}** agent playing **{env}**

A [Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3) agent{origin}. Return over {episodes} episodes: {returns}.

{size}

## Use

```bash
pip install "git+URL"  # the address of sb3_rlx2's repository; version {version} trained it

rlx2 load_from_hub {command} {repository} -f logs
rlx2 enjoy {command} -f logs
```

`rlx2` runs no code of the files. Stable-Baselines3's own `load` does, as they hold pickled Python objects: only if you trust
their author.

## Train

```bash
rlx2 train {command} -f logs
rlx2 push_to_hub {command} {repository} -f logs
```

```python
{hyperparams}
```
"""
SPARSE = """, trained with sb3_rlx2: its networks are sparse
from the first training step to the last ([RLx2](https://arxiv.org/abs/2205.15043))"""


def model_card(
    model: Any, args: argparse.Namespace, hyperparams: dict[str, Any], returns: list[float], size: int
) -> ModelCard:
    """
    Write the page that the hub shows.

    :param model: the agent
    :param args: of ``push_to_hub``
    :param hyperparams: of its training
    :param returns: of its evaluation
    :param size: bytes of its zip
    """
    env_id, name = args.env.gym_id, ALGOS[args.algo].__name__
    result = EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=env_id,
        dataset_name=env_id,  # the zoo finds agents by this and by the model's name
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=f"{np.mean(returns):.2f} +/- {np.std(returns):.2f}",
    )
    data = ModelCardData(
        library_name="stable-baselines3",
        tags=[env_id, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3_rlx2"],
        model_name=name,
        eval_results=[result],
    )
    repository = f"-orga {args.organization}" + (f" -name {args.repo_name}" if args.repo_name else "")
    text = CARD.format(
        name=name,
        env=env_id,
        command=f"--algo {args.algo} --env {env_id}",
        repository=repository,
        origin=SPARSE if sparse_mlps(model.policy) else "",
        version=sb3_rlx2.__version__,
        returns=f"{np.mean(returns):.2f} +/- {np.std(returns):.2f}",
        episodes=len(returns),
        size=size_table(model, size),
        hyperparams=pformat({key: value for key, value in hyperparams.items() if key != "normalize_kwargs"}),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def size_table(model: Any, size: int) -> str:
    """
    Lay out what an agent weighs as a table in Markdown.

    :param model: the agent
    :param size: bytes of its zip
    """
    counts = metrics.live_weights(model.policy)
    rows = [(f"{name}'s weights", f"{live:,} of {all_:,}", f"{1 - live / all_:.1%}") for name, (live, all_) in counts.items()]
    own, dense = metrics.parameter_bytes(model.policy)
    rows.append(("parameters, with targets", f"{own / 1e3:,.1f} kB of {dense / 1e3:,.1f} kB", f"{1 - own / dense:.1%}"))
    if counts:
        acting = metrics.acting_network(model.policy)
        flops, dense_flops = metrics.inference_flops(acting), metrics.inference_flops(acting, dense=True)
        row = f"{flops / 1e3:,.1f} kFLOP of {dense_flops / 1e3:,.1f} kFLOP", f"{1 - flops / dense_flops:.1%}"
        rows.append(("one action", *row))
        rows += [(f"{next(iter(counts))} on a path", architecture(mlp), "") for mlp in sparse_mlps(acting)]
    rows.append(("zip on disk", f"{size / 1e3:,.1f} kB", ""))
    return "\n".join(f"| {' | '.join(row)} |" for row in [("", "of dense", "sparsity"), ("---",) * 3, *rows])
