"""The sections of the benchmark: each measures side by side what is compared, and gives rows of seconds per unit of work."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.speed.cells import ALGORITHMS, CELLS, ROOT, agent
from benchmarks.speed.measure import Bench, Job, Worker
from benchmarks.speed.mkl import both_ways
from sb3_rlx2.fast.team import usable_threads

Rows = list[dict[str, Any]]

# Steps in a go, so that a go takes one to two seconds
STEPS = {"rlx2": 1_000, "dense": 200, "sbx": 300}
WARM_UP = 300
BATCHES = (1, 32, 100, 256, 1024)
DENSITIES = (0.03, 0.05, 0.10, 0.20)
PRODUCTS = ("forward", "input gradient", "weight gradient")
WIDTHS = (256, 512, 1024, 2048)
# Width, and density of all layers together
CROSSOVER = (*((256, density) for density in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)), (32, 1.0), (64, 1.0), (128, 1.0))
LAYERS = (1, 5)  # a layer inside a network costs a quarter of the difference
NNZ_MULTIPLES = (1, 2, 4, 8, 16)
NNZ_WIDTH = 1024
ACTOR_CRITIC = {"actor_sparsity": 0.9, "critic_sparsity": 0.85}
# Algorithm, environment, what is not as usual about the networks and the batch, sparsity
OTHER_ALGORITHMS: tuple[tuple[str, str, dict[str, int], dict[str, float]], ...] = (
    ("TQC", "HalfCheetah-v4", {}, ACTOR_CRITIC),
    ("DDPG", "HalfCheetah-v4", {}, ACTOR_CRITIC),
    ("QRDQN", "CartPole-v1", {"width": 64, "batch": 32}, {"sparsity": 0.9}),
    ("DQN", "Bits-v0", {"width": 1024, "hidden": 1, "batch": 32}, {"sparsity": 0.91}),
    ("CrossQ", "HalfCheetah-v4", {"width": 1024}, {"actor_sparsity": 0.9, "critic_sparsity": 0.9}),
)


def end_to_end(bench: Bench) -> Rows:
    """Points 1 and 2: environment steps, each with a gradient step."""
    return [{"algorithm": a, "env": e, "seconds": bench.alternate(_end_to_end_jobs(bench, a, e))} for a, e in CELLS]


def _end_to_end_jobs(bench: Bench, algorithm: str, env: str) -> dict[str, Job]:
    warm_up = {"warm_up": bench.amount(WARM_UP)}
    jobs = {kind: Job("end_to_end", n, warm_up | agent(kind, algorithm, env)) for kind, n in STEPS.items()}
    if bench.sbx is None:
        del jobs["sbx"]
    else:
        jobs["sbx"].python = bench.sbx
    return both_ways(jobs, "dense")


def earlier(bench: Bench) -> Rows:
    """End to end, this code and that of an earlier checkout."""
    if bench.earlier is None:
        return []
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=bench.earlier, capture_output=True, text=True, check=True
    )
    rows = []
    for algorithm, env in CELLS:
        described = {ROOT: agent("rlx2", algorithm, env), bench.earlier: _described(bench.earlier, algorithm, env)}
        jobs = {
            name: Job("end_to_end", STEPS["rlx2"], {"warm_up": bench.amount(WARM_UP)} | described[root], root=root)
            for name, root in (("now", ROOT), ("earlier", bench.earlier))
        }
        about = {"algorithm": algorithm, "env": env, "commit": commit.stdout.strip()}
        rows.append(about | {"seconds": bench.alternate(jobs)})
    return rows


def _described(root: Path, algorithm: str, env: str) -> dict[str, Any]:
    """Give an agent as another checkout describes it to its own workers."""
    code = f"import json; from benchmarks.speed.cells import agent; print(json.dumps(agent('rlx2', {algorithm!r}, {env!r})))"
    variables = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=variables, capture_output=True, text=True, check=True)
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def vec_normalize(bench: Bench) -> Rows:
    """Environment steps as in ``end_to_end``, without and with SB3's ``VecNormalize``."""
    rows = []
    for algorithm in ALGORITHMS:
        jobs = {
            name: Job(
                "end_to_end",
                STEPS["rlx2"],
                {"warm_up": bench.amount(WARM_UP)} | agent("rlx2", algorithm, "HalfCheetah-v4", normalize=normalize),
            )
            for name, normalize in (("plain", False), ("normalized", True))
        }
        rows.append({"algorithm": algorithm, "env": "HalfCheetah-v4", "seconds": bench.alternate(jobs)})
    return rows


def gradient_step(bench: Bench) -> Rows:
    """Point 3: the gradient step, ours in SB3's algorithms and in our own."""
    rows = []
    for algorithm, env in product(ALGORITHMS, ("HalfCheetah-v4", "Hopper-v4")):
        jobs = {
            kind: Job("gradient_step", n, {"warm_up": bench.amount(WARM_UP)} | agent(kind, algorithm, env))
            for kind, n in (("dense", 150), ("parts", 600), ("rlx2", 800))
        }
        rows.append({"algorithm": algorithm, "env": env, "seconds": bench.alternate(both_ways(jobs, "dense"))})
    return rows


def algorithms(bench: Bench) -> Rows:
    """The gradient step of the algorithms that the paper does not have, against the host's dense one."""
    rows = []
    for algorithm, env, sizes, own in OTHER_ALGORITHMS:
        kinds = {"dense": agent("dense", algorithm, env, **sizes), "rlx2": agent("rlx2", algorithm, env, **sizes, **own)}
        if env == "Bits-v0":
            kinds["small dense"] = agent("dense", algorithm, env, **sizes | {"width": _small_width(sizes["width"], **own)})
        jobs = {
            kind: Job("gradient_step", _go(algorithm, kind), {"warm_up": bench.amount(WARM_UP)} | arguments)
            for kind, arguments in kinds.items()
        }
        for kind in kinds.keys() - {"rlx2"}:
            jobs = both_ways(jobs, kind)
        rows.append({"algorithm": algorithm, "env": env, "seconds": bench.alternate(jobs)})
    return rows


def _go(algorithm: str, kind: str) -> int:
    """Give how many gradient steps are about a second's."""
    slow = 10 if algorithm == "CrossQ" else 1
    return (800 if kind == "rlx2" else 80) // slow


def _small_width(width: int, sparsity: float, inputs: int = 400, outputs: int = 6) -> int:
    """Give the width of a dense network that has as many parameters as a sparse one, both with one hidden layer."""
    parameters = (1 - sparsity) * width * (inputs + outputs) + width
    return round(parameters / (inputs + outputs + 1))


def threads(bench: Bench) -> Rows:
    """Point 4: one thread and two, and what the second core is worth, which a virtual machine's host may change."""
    if usable_threads(2) < 2:
        return []
    rows = []
    for (algorithm, env), task in product(CELLS, ("gradient_step", "end_to_end")):
        arguments = {"warm_up": bench.amount(WARM_UP)} | agent("rlx2", algorithm, env)
        jobs = {str(count): Job(task, 800, arguments, threads=count) for count in (1, 2)}
        jobs["line"] = Job("line_transfer", 200_000, {}, threads=2)
        jobs |= {f"arithmetic, {count}": Job("arithmetic", 20_000, {"threads": count}, threads=2) for count in (1, 2)}
        rows.append({"algorithm": algorithm, "env": env, "task": task, "seconds": bench.alternate(jobs)})
    return rows


def predict(bench: Bench) -> Rows:
    """Point 5: one observation."""
    rows = []
    for (algorithm, env), task in [*product(CELLS, ["predict"]), (("TD3", "HalfCheetah-v4"), "bare_forward")]:
        jobs = {kind: Job(task, 5_000, agent(kind, algorithm, env)) for kind in ("rlx2", "dense")}
        rows.append({"algorithm": algorithm, "env": env, "task": task, "seconds": bench.alternate(jobs)})
    return rows


def kernels(bench: Bench) -> Rows:
    """Point 6: each product of a 256 x 256 layer against torch's dense one."""
    with Worker() as worker:
        return [
            {"batch": batch, "density": density, "seconds": bench.alternate(_kernel_jobs(batch, density), worker)}
            for batch, density in product(BATCHES, DENSITIES)
        ]


def _kernel_jobs(batch: int, density: float) -> dict[str, Job]:
    n = min(max(200_000 // batch, 200), 5_000)
    jobs = {"dense": Job("dense_product", n, {"width": 256, "batch": batch})}
    for name, layers in product(PRODUCTS, LAYERS):
        shape = {"product": name, "width": 256, "layers": layers, "density": density, "batch": batch}
        jobs[f"{name}, {layers}"] = Job("sparse_product", n, shape)
    return both_ways(jobs, "dense")


def crossover(bench: Bench) -> Rows:
    """Where `masked` begins to win on the CPU: the gradient step of TD3 on HalfCheetah at growing densities and widths."""
    arguments = {"warm_up": bench.amount(20)}
    kinds = {"RLx2, csr": ("rlx2", "csr"), "parts, csr": ("parts", "csr"), "parts, masked": ("parts", "masked")}
    rows = []
    for width, density in CROSSOVER:
        own = {"actor_sparsity": 1 - density, "critic_sparsity": 1 - density}
        jobs = {
            name: Job("gradient_step", 150, arguments | agent(kind, "TD3", "HalfCheetah-v4", width, backend=backend, **own))
            for name, (kind, backend) in kinds.items()
        }
        seconds = bench.alternate(both_ways(jobs, "parts, masked"))
        rows.append({"width": width, "density": density, "seconds": seconds})
    return rows


def scaling(bench: Bench) -> Rows:
    """Point 7: wider networks with as many links, and more links in networks of one width."""
    return [*_widths(bench), *_links(bench)]


def _widths(bench: Bench) -> Rows:
    arguments = {"warm_up": bench.amount(20)}
    sparse = {str(width): Job("gradient_step", 400, arguments | _wide("rlx2", width)) for width in WIDTHS}
    updates = {str(width): Job("topology_update", 20_000 // width, arguments | _wide("rlx2", width)) for width in WIDTHS}
    dense = {str(width): Job("gradient_step", 200 * 256**2 // width**2, arguments | _wide("dense", width)) for width in WIDTHS}
    return [
        {"what": "sparse", "seconds": bench.alternate(sparse), "bytes": _bytes(sparse)},
        {"what": "topology update", "seconds": bench.alternate(updates)},
        {"what": "dense", "seconds": bench.alternate(dense), "bytes": _bytes(dense)},
    ]


def _links(bench: Bench) -> Rows:
    arguments = {"warm_up": bench.amount(20)}
    jobs = {str(m): Job("gradient_step", 600 // m + 50, arguments | _wide("rlx2", NNZ_WIDTH, m)) for m in NNZ_MULTIPLES}
    return [{"what": "links", "width": NNZ_WIDTH, "seconds": bench.alternate(jobs), "bytes": _bytes(jobs)}]


def _bytes(jobs: dict[str, Job]) -> dict[str, dict[str, int]]:
    found = {}
    for name, job in jobs.items():
        with job.start() as worker:
            _, found[name] = worker.run("memory", 1, job.arguments | {"warm_up": 4})
    return found


def _wide(kind: str, width: int, multiple: float = 1.0) -> dict[str, Any]:
    """Describe a TD3 on HalfCheetah (17 inputs, 6 actions) with as many links as the paper's, or a multiple of that."""
    paper = agent("rlx2", "TD3", "HalfCheetah-v4")
    sizes = {"actor_sparsity": (17, 6), "critic_sparsity": (17 + 6, 1)}
    own = {}
    for name, (inputs, outputs) in sizes.items():
        usual, wide = (side * (inputs + side + outputs) for side in (256, width))
        own[name] = 1 - multiple * (1 - paper[name]) * usual / wide
    return agent(kind, "TD3", "HalfCheetah-v4", width, **(own if kind == "rlx2" else {}))


IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
# What an algorithm needs beside what all of them do, as arguments of `kernels.load`
POLYAK, ON_THE_WAY = (".optimizer:POLYAK",), (".replay:ON_THE_WAY", "float64")
MORE = {"td3": [POLYAK], "sac": [POLYAK, ON_THE_WAY], "tqc": [POLYAK, ON_THE_WAY], "dqn": [], "qrdqn": []}
COMPILED: dict[str, list[tuple[Any, ...]]] = {
    name: [(f"sb3_rlx2.algorithms.{name}.kernels:{name.upper()}", "float32", 2), *more] for name, more in MORE.items()
}
COMPILED["crossq"] = [(".renorm:RENORM",), (".renorm:FOLD",), (".gaussian:SQUASH",), ON_THE_WAY]
COMPILE = """
import time
import sb3_rlx2
start = time.perf_counter()
from sb3_rlx2 import kernels
for arguments in {!r}:
    kernels.load(*arguments)
kernels.load(".replay:REPLAY", "float64")
kernels.load(".replay:ACTIONS")
for group in (".mlp:SINGLE", ".mlp:FORWARD", ".optimizer:ADAM", ".mailbox:JOBS", ".mailbox:THREADS"):
    kernels.load(group)
print(time.perf_counter() - start)
"""


def startup(bench: Bench) -> Rows:
    """Point 8: imports in fresh processes; all kernels that training on MuJoCo needs (its observations are float64)."""
    imports: dict[str, list[float]] = {"stable_baselines3": [], "sb3_rlx2": []}
    compiles: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": []} for name in COMPILED}
    for _ in range(bench.repeats):
        for module, seconds in imports.items():
            seconds.append(_fresh(IMPORT.format(module)))
    for algorithm, _ in product(compiles, range(max(2, bench.repeats // 2))):
        with tempfile.TemporaryDirectory() as folder:
            for seconds in compiles[algorithm].values():
                seconds.append(_fresh(COMPILE.format(COMPILED[algorithm]), SB3_RLX2_CACHE_DIR=folder))
    by_algorithm = [{"what": f"compile for {name.upper()}", "seconds": seconds} for name, seconds in compiles.items()]
    return [{"what": "import", "seconds": imports}, *by_algorithm]


def _fresh(code: str, **environment: str) -> float:
    """Run code that prints seconds in a process of its own, on one core."""
    pin = "import os\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])\n"
    command = [sys.executable, "-c", pin + code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def stages(bench: Bench) -> Rows:
    """Where a step's time goes, next to its floor."""
    rows = []
    for algorithm, env in product(ALGORITHMS, ("HalfCheetah-v4", "Hopper-v4")):
        ours = agent("rlx2", algorithm, env)
        with Worker() as worker:
            rows.append({"algorithm": algorithm, "env": env, **_stages(bench, worker, ours)})
    return rows


def _stages(bench: Bench, worker: Worker, ours: dict[str, Any]) -> dict[str, Any]:
    n, arguments = bench.amount(1_000), {"warm_up": bench.amount(WARM_UP)} | ours
    _, work = worker.run("stage_work", 1, ours)
    numbers = round(work["optimizer"] / 7 / 4)
    worker.run("stages", bench.amount(100), arguments)
    seconds: dict[str, list[float]] = {"addition": []}
    for _ in range(bench.repeats):
        seconds["addition"].append(worker.run("bandwidth", 1_000, {"numbers": numbers})[0] / 1_000)
        for stage, took in worker.run("stages", n, arguments)[1].items():
            seconds.setdefault(stage, []).append(took / n)
    return {"seconds": seconds, "work": work, "addition_bytes": 12 * numbers}


SECTIONS: dict[str, Callable[[Bench], Rows]] = {
    section.__name__: section
    for section in (
        end_to_end, earlier, vec_normalize, gradient_step, algorithms, threads, predict, kernels, crossover, scaling, startup,
        stages,
    )
}  # fmt: skip
