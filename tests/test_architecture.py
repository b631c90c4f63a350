"""Imports go one way, and the host is imported only at the edges."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sb3_rlx2

PACKAGE = Path(sb3_rlx2.__file__).parent
ALLOWED = {
    "__init__": {"algorithms", "buffers", "callbacks", "policies", "sparse_mlp"},
    "__main__": {"zoo"},
    "adam": {"backends"},
    "agents": set(),
    "algorithms": {
        "buffers",
        "callbacks",
        "gradient_steps",
        "metrics",
        "noise",
        "policies",
        "sac_steps",
        "td3_steps",
        "updater",
    },
    "backends/__init__": {"backends", "sparse_mlp (types)"},
    "backends/compile": {"backends"},
    "backends/csr": {"backends", "sparse_mlp (types)"},
    "backends/elementary": {"backends"},
    "backends/gaussian": {"backends"},
    "backends/kernels": {"backends"},
    "backends/masked": {"sparse_mlp (types)"},
    "backends/networks": set(),
    "backends/optimizer_kernels": {"backends"},
    "backends/options": set(),
    "backends/pointers": set(),
    "backends/prefetch": {"backends"},
    "backends/replay_kernels": {"backends"},
    "backends/sac_kernels": {"backends"},
    "backends/step_kernels": {"backends"},
    "backends/structs": set(),
    "backends/td3_kernels": {"backends"},
    "backends/thread_kernels": {"backends"},
    "backends/tiles": set(),
    "buffers": {"backends", "samples", "validation"},
    "callbacks": {"buffers", "metrics", "recording", "topology", "updater", "validation"},
    "compress/__init__": set(),
    "compress/__main__": {"agents", "compress", "storage", "zoo"},
    "compress/files": set(),
    "compress/options": {"compress", "validation", "zoo"},
    "compress/plot": {"compress"},
    "compress/results": {"compress"},
    "compress/rows": {"compress"},
    "compress/sampling": set(),
    "compress/search": {"compress", "storage"},
    "compress/statistics": set(),
    "compress/training": {"__init__", "algorithms", "buffers", "compress", "metrics", "zoo"},
    "database": set(),
    "distributions": {"validation"},
    "gradient_steps": {"adam", "backends", "buffers", "metrics", "networks", "samples", "sparse_mlp", "team"},
    "hub": {"agents", "model_card", "videos"},
    "journal": set(),
    "metrics": {"sparse_mlp"},
    "model_card": {"__init__", "metrics"},
    "networks": {"backends", "distributions", "sparse_mlp", "validation"},
    "noise": {"validation"},
    "plots": set(),
    "policies": {"adam", "backends", "distributions", "metrics", "networks", "sparse_mlp", "updater", "validation"},
    "recording": set(),
    "report/__init__": set(),
    "report/__main__": {"__init__", "report"},
    "report/agent_file": {"algorithms", "metrics", "sparse_mlp"},
    "report/networks": {"report"},
    "report/run_folder": {"recording", "report"},
    "report/sections": {"report"},
    "report/style": {"report"},
    "report/training": {"report"},
    "sac_steps": {"adam", "backends", "gradient_steps", "updater"},
    "samples": set(),
    "resume": {"distributions"},
    "schedules": set(),
    "search_space": {"topology"},
    "sparse_mlp": {"backends", "validation"},
    "storage": {"database", "journal"},
    "team": {"backends"},
    "td3_steps": {"backends", "gradient_steps", "metrics", "sparse_mlp"},
    "topology": set(),
    "trial_evaluation": set(),
    "tuning": {"policies", "search_space", "storage", "trial_evaluation"},
    "updater": {"schedules", "sparse_mlp", "topology", "validation"},
    "validation": set(),
    "videos": {"agents"},
    "zoo": {"__init__", "agents", "hub", "metrics", "plots", "recording", "resume", "tuning", "videos"},
}
ZOO_USERS = {
    *("agents", "compress/options", "compress/training", "hub", "model_card", "resume", "search_space", "trial_evaluation"),
    *("tuning", "videos", "zoo"),
}
SB3_USERS = {
    *(
        "algorithms",
        "buffers",
        "callbacks",
        "gradient_steps",
        "networks",
        "noise",
        "policies",
        "recording",
        "report/agent_file",
    ),
    *ZOO_USERS,
}
MODULES = {str(path.relative_to(PACKAGE).with_suffix("")).replace("\\", "/"): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """Yield (module, whether it is for type checking only)."""
    tree = ast.parse(path.read_text())
    guarded = {id(node) for block in ast.walk(tree) if is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "sb3_rlx2" else [node.module]
            yield from ((name, id(node) in guarded) for name in names)


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def own_module(name):
    short = name.removeprefix("sb3_rlx2.").split(".")[0]
    return short if short in MODULES or f"{short}/__init__" in MODULES else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports(module):
    own = {
        own_module(name) + (" (types)" if guarded else "")
        for name, guarded in imports(MODULES[module])
        if name.startswith("sb3_rlx2")
    }
    assert own <= ALLOWED[module]


@pytest.mark.parametrize("module", MODULES)
def test_host_stays_at_the_edges(module):
    names = {name.split(".")[0] for name, _ in imports(MODULES[module])}
    assert "stable_baselines3" not in names or module in SB3_USERS
    assert "rl_zoo3" not in names or module in ZOO_USERS


def test_import_is_light():
    code = "import sys, sb3_rlx2; print([m for m in ('numba', 'rl_zoo3', 'optuna') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_small(module):
    tree = ast.parse(MODULES[module].read_text())
    assert len(MODULES[module].read_text().splitlines()) <= 370
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            assert node.end_lineno - node.lineno < 45, node.name
