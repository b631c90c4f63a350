"""Imports go one way: rooms have an order, and so have the files inside some of them; the host is imported at the edges."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import sb3_rlx2

PACKAGE = Path(sb3_rlx2.__file__).parent

# Rooms (folders, or files of the root) from the leaves up. A room may import from those on lines above its own; of those on
# the same line from none but itself.
ORDER = [
    "validation warning files contrib safe_pickle packing",
    "saved_objects settings environment_guard extras minatar hooks patching schedules progress_log",
    "distributions dead_units kernels plan",
    "buffers backends predictive inits",
    "sparse_mlp paths",
    "topology summary fast",
    "updater evolving metrics",
    "callbacks deploy distillation offline",
    "algorithms",
    "policies",
    "__init__",
    "checkpoint studies",
    "report",
    "zoo",
    "tuning compress export advise",
    "commands",
    "__main__",
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}

# An algorithm imports no other, but where one is the other.
IS_ALSO = {"ddpg": {"td3"}, "td3bc": {"td3"}}

# The same inside rooms with many files: from the leaves up, without the package's own door.
INSIDE = {
    "kernels": [
        "annotations constants options pointers structs",
        "signatures parameters network prefetch tiles tiling",
        "elementary losses replay optimizer mailbox compile",
        "mlp gaussian quantiles",
        "maximum_entropy value_based renorm",
    ],
    "algorithms": [
        "keywords values noise extractors",
        "networks",
        "policies",
        "smaller save_load",
        "base value_based maximum_entropy",
        "entropy_coefficient",
        "table",
    ],
}

HOST_FREE = {  # rooms that know nothing of Stable-Baselines3
    *(
        "validation",
        "warning",
        "files",
        "settings",
        "safe_pickle",
        "packing",
        "saved_objects",
        "extras",
        "minatar",
        "contrib",
        "hooks",
        "patching",
        "schedules",
        "distributions",
        "kernels",
        "backends",
    ),
    *("sparse_mlp", "paths", "inits", "predictive", "topology", "summary", "updater", "evolving", "studies", "commands"),
}
ZOO_ROOMS = {"checkpoint", "tuning", "zoo", "compress", "export"}  # rooms that know RL Zoo

MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """Give the full names of what a file imports, also late and for types only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(path):
    """Give the modules of the package that a file imports."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "sb3_rlx2":
            continue
        paths = ("/".join(parts[1:length]) for length in range(len(parts), 0, -1))
        found.add(next(module for path in paths for module in (path, f"{path}/__init__".lstrip("/")) if module in MODULES))
    return found


GRAPH = {module: own_imports(path) for module, path in MODULES.items()}


def room(module):
    return module.split("/")[0]


def in_algorithms(depth):
    return [module for module in MODULES if module.startswith("algorithms/") and module.count("/") == depth]


def test_every_room_has_a_place():
    assert {room(module) for module in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_downwards(module):
    above = {other for other in GRAPH[module] if room(other) != room(module) and LEVEL[room(other)] >= LEVEL[room(module)]}
    assert above == set()


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in INSIDE and module.count("/") == 1])
def test_files_of_a_room_import_downwards(module):
    level = {f"{room(module)}/{name}": level for level, names in enumerate(INSIDE[room(module)]) for name in names.split()}
    if not module.endswith("__init__"):
        assert {other for other in GRAPH[module] if level.get(other, -1) >= level[module]} <= {module}


def test_no_circle():
    graph = {module: {other for other in others if other != module} for module, others in GRAPH.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", in_algorithms(2))
def test_algorithms_do_not_import_each_other(module):
    algorithm = module.split("/")[1]
    others = {other.split("/")[1] for other in GRAPH[module] & {*in_algorithms(2)}}
    assert others <= {algorithm} | IS_ALSO.get(algorithm, set())


@pytest.mark.parametrize("module", in_algorithms(1))
def test_what_algorithms_share_knows_none_of_them(module):
    names = GRAPH[module] & {*in_algorithms(2)}
    assert not names or module in ("algorithms/__init__", "algorithms/table")


@pytest.mark.parametrize("module", MODULES)
def test_numba_stays_in_kernels(module):
    names = {name.split(".")[0] for name in imports(MODULES[module])}
    assert not names & {"numba", "llvmlite"} or "kernels" in module.split("/")


@pytest.mark.parametrize("module", [module for module in in_algorithms(2) if module.endswith("/kernels")])
def test_kernels_call_what_the_cache_looks_at(module):
    """The folder is named after their own file and ``kernels/``, so a change elsewhere would go unnoticed."""
    assert {room(other) for other in GRAPH[module]} == {"kernels"}


def test_compile_knows_no_kernel():
    names = ("mlp", "losses", "gaussian", "quantiles", "maximum_entropy", "value_based", "replay", "optimizer", "mailbox")
    kernels = {f"kernels/{name}" for name in names}
    assert not GRAPH["kernels/compile"] & kernels


@pytest.mark.parametrize("module", MODULES)
def test_host_stays_at_the_edges(module):
    hosts = {name.split(".")[0] for name in imports(MODULES[module])}
    assert "stable_baselines3" not in hosts or room(module) not in HOST_FREE
    assert "rl_zoo3" not in hosts or room(module) in ZOO_ROOMS


def test_import_is_light():
    heavy = ("numba", "rl_zoo3", "optuna", "sqlalchemy", "matplotlib", "plotly", "seaborn", "rliable", "moviepy", "psycopg")
    heavy += ("huggingface_hub", "onnx", "minatar")
    code = f"import sys, sb3_rlx2; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_functions_stay_short(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            assert node.end_lineno - node.lineno < 50, node.name
