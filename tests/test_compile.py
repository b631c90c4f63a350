"""The kernel cache on disk: shared by processes, healed after damage."""

import multiprocessing
import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_rlx2 import SparseMLP, kernels
from sb3_rlx2.algorithms.sac import kernels as sac
from sb3_rlx2.algorithms.td3 import kernels as td3
from sb3_rlx2.kernels import compile as kernel_compile
from sb3_rlx2.kernels import losses
from sb3_rlx2.kernels.mlp import FORWARD
from sb3_rlx2.kernels.structs import Struct
from tests import apart

# the group that compiles fastest
COMPUTE = """
import ctypes, warnings
warnings.simplefilter("always")
from sb3_rlx2 import kernels
import numpy as np
from sb3_rlx2.kernels.parameters import PolyakArrays
from sb3_rlx2.kernels.structs import Struct
target = np.array([4], np.float32)
struct = Struct((PolyakArrays(np.array([8], np.float32), target, np.array([0.25])),))
number = ctypes.c_int64
ctypes.CFUNCTYPE(None, *[number] * 4)(kernels.load(".optimizer:POLYAK").polyak)(struct.address, 0, 0, 1)
print(target[0])
"""


def start(cache):
    return apart.Process(COMPUTE, cwd=cache.parent, variables={"SB3_RLX2_CACHE_DIR": str(cache)})


def outcome(process):
    result = process.result()
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "5.0"
    return result.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Eight processes start at once on an empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    errors = [outcome(process) for process in [start(folder) for _ in range(8)]]
    assert not any("damaged" in error for error in errors)
    return folder


def folders(cache):
    return [path for path in cache.iterdir() if path.is_dir()]


def test_eight_processes_fill_one_cache(cache):
    assert len(folders(cache)) == 1
    assert (folders(cache)[0] / kernel_compile.MANIFEST).exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty index", "no manifest", "missing"])
def test_a_damaged_cache_heals_with_one_warning(cache, damage):
    (folder,) = folders(cache)
    data = max(folder.rglob("*.nbc"), key=lambda path: path.stat().st_size)
    if damage == "truncated":
        data.write_bytes(data.read_bytes()[:1000])
    elif damage == "flipped":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "empty index":
        next(folder.rglob("*.nbi")).write_bytes(b"")
    elif damage == "no manifest":
        (folder / kernel_compile.MANIFEST).unlink()
    else:
        data.unlink()
    healed = outcome(start(cache))
    assert healed.count("is damaged; compiling again") == 1
    assert len(re.findall(r"sb3_rlx2: compiling kernels of polyak, once on this machine \.\.\. \d+\.\d s\n", healed)) == 1
    whole = outcome(start(cache))
    assert "damaged" not in whole
    assert "compiling" not in whole


def test_a_killed_process_leaves_no_damage(cache):
    (folder,) = folders(cache)
    unfinished = folder.with_name(f"{folder.name}.part")
    folder.rename(unfinished)
    (unfinished / kernel_compile.MANIFEST).unlink()
    assert "damaged" not in outcome(start(cache))
    assert folders(cache) == [folder]


def test_cache_off_and_unusable(tmp_path, monkeypatch):
    monkeypatch.setenv("SB3_RLX2_CACHE_DIR", "")
    assert kernel_compile.cache_folder(FORWARD, "float32") is None
    (tmp_path / "file").write_text("in the way")
    assert "cannot be used" in outcome(start(tmp_path / "file"))


def test_the_folder_is_named_after_what_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("SB3_RLX2_CACHE_DIR", str(tmp_path))
    before = kernel_compile.cache_folder(FORWARD, "float32")
    assert before != kernel_compile.cache_folder(FORWARD, "float64")
    assert before != kernel_compile.cache_folder(FORWARD, "float32", length=2)
    monkeypatch.setattr(kernel_compile.llvm, "get_host_cpu_name", lambda: "another")
    assert kernel_compile.cache_folder(FORWARD, "float32") != before


@pytest.mark.parametrize(("module", "compiled_anew"), [(td3, {"td3"}), (sac, {"sac"}), (losses, {"td3", "sac", "forward"})])
def test_a_change_in_a_source_makes_another_folder(monkeypatch, tmp_path, module, compiled_anew):
    monkeypatch.setenv("SB3_RLX2_CACHE_DIR", str(tmp_path))
    groups, read = (td3.TD3, sac.SAC, FORWARD), Path.read_bytes
    before = {group.name: kernel_compile.cache_folder(group, "float32", 2) for group in groups}
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path == Path(module.__file__)))
    after = {group.name: kernel_compile.cache_folder(group, "float32", 2) for group in groups}
    assert {name for name in before if before[name] != after[name]} == compiled_anew


NEW = """
from typing import NamedTuple
from sb3_rlx2.kernels.annotations import Vector
from sb3_rlx2.kernels.signatures import Group

class Arrays(NamedTuple):
    critics: tuple[Vector, ...]
    total: Vector

def add(arrays: Arrays, job: int, first: int, last: int) -> None:
    for critic in range(2):
        arrays.total[first:last] += job * arrays.critics[critic][first:last]

ADD = Group("add", jobs=(add,))
"""


def test_an_algorithm_brings_its_own_kernels(tmp_path, monkeypatch):
    (tmp_path / "new_kernels.py").write_text(NEW)
    monkeypatch.syspath_prepend(tmp_path)
    from new_kernels import Arrays

    vectors = np.arange(9, dtype=np.float32).reshape(3, 3)
    struct = Struct(Arrays((vectors[0], vectors[1]), vectors[2]))
    kernels.load(".mailbox:JOBS").run(kernels.load("new_kernels:ADD", length=2).add, struct.address, 10, 0, 2)
    assert vectors[2].tolist() == [36, 57, 8]


def test_a_struct_with_critics_needs_their_number():
    with pytest.raises(ValueError, match=r"^length=0 must be positive: TD3Arrays has tuples of that length"):
        kernels.load("sb3_rlx2.algorithms.td3.kernels:TD3")


@pytest.mark.parametrize("group", [".mlp", ".mlp:forward", ".mlp:mlp_forward"])
def test_an_unknown_group(group):
    with pytest.raises(ValueError, match=f"^group='{group}' must name a `Group` that a module declares"):
        kernels.load(group)


def compute(_=None):
    """Forward and backward of a fixed network, on two threads of its own."""
    th.manual_seed(0)
    mlp = SparseMLP.from_linears([th.nn.Linear(5, 8), th.nn.Linear(8, 2)], [20, 10], th.nn.ReLU(), backend="csr")
    x = th.linspace(-1, 1, 50).reshape(10, 5)
    results = [None, None]

    def run(i):
        y = mlp(x)
        (gradient,) = th.autograd.grad(y.sum(), [mlp.values])
        results[i] = np.concatenate([y.detach().numpy().ravel(), gradient.numpy()])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.stack(results)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_and_threads(method):
    expected = compute()
    assert np.array_equal(expected[0], expected[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        with multiprocessing.get_context(method).Pool(2) as pool:
            for result in pool.map(compute, range(4)):
                assert np.array_equal(result, expected)


SEVERAL_GROUPS = """
import threading
from sb3_rlx2 import kernels
groups = (".optimizer:ADAM", ".optimizer:POLYAK", ".mailbox:THREADS", ".mlp:FORWARD", ".mlp:SINGLE")
threads = [threading.Thread(target=kernels.load, args=(group,)) for group in groups]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_compile_at_once_keep_to_their_folders(tmp_path):
    cache, here = tmp_path / "cache", tmp_path / "here"
    here.mkdir()
    done = apart.run(SEVERAL_GROUPS, cwd=here, variables={"SB3_RLX2_CACHE_DIR": str(cache)})
    assert done.returncode == 0, done.stderr
    assert list(here.iterdir()) == []
    folders = {path.name.split("-")[0]: path for path in cache.iterdir() if path.is_dir()}
    assert set(folders) == {"adam", "polyak", "threads", "forward", "single"}
    entries = {group: len(list(folder.rglob("*.nbi"))) for group, folder in folders.items()}
    assert entries == {"adam": 1, "polyak": 1, "threads": 3, "forward": 3, "single": 1}
