"""The C that is written: every compiler takes it without a warning, and it computes the same to the last bit everywhere."""

import ctypes
import functools
import shutil
import zlib
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.export import fuzz
from benchmarks.export.emulator import MACHINES, Emulator
from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export import c, compiled, describe, read
from sb3_rlx2.export.rlx2_reader import Layer
from tests.compilers import COMPILERS, C, command, needs, put, run
from tests.exported import agent, by_hand, exported, some, statistics

F = np.float32
LINK = ("-Os", "-ffunction-sections", "-fdata-sections", "-nostdlib", "-Wl,--gc-sections")
CASES = [
    ("RLx2TD3 98 %", "fp32"),
    ("RLx2TD3 98 %", "fp16"),
    ("RLx2TD3 98 %", "int8"),
    ("PPO", "fp32"),
    ("PPO, discrete", "int8"),
]


def wide():
    """More than 256 inputs, so that columns have two bytes, and no layer behind."""
    counts, columns = np.array([2, 0], "u2"), np.array([299, 0], "u2")
    layer = Layer(300, np.array([0.5, -2], F), np.array([0, 1.5], F), "tanh", counts, columns)
    tests = {"test_observations": np.ones((1, 300), F), "test_actions": np.ones((1, 1), F)}  # tanh(-1.5) < tanh(1.5)
    return by_hand(layers=(layer,), output="argmax", low=np.empty(0, F), high=np.empty(0, F), **tests)


@functools.cache
def policies():
    return {"by hand": by_hand(), "wide": wide()} | {f"{name}, {dtype}": exported(name, dtype) for name, dtype in CASES}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All kinds of policies in C, and the reader."""
    folder = tmp_path_factory.mktemp("c")
    names = put(folder, rlx2_file.readers())
    for number, policy in enumerate(policies().values()):
        names += put(folder, c.source(policy, f"policy_{number}"))
    return folder, names


@pytest.fixture
def cc():
    found = compiled.compiler()
    if found is None:
        pytest.skip("no C compiler is installed")
    return found


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_compiler_warns(written, compiler, tmp_path):
    folder, names = written
    program = command(compiler)
    run([*program, "-O2", "-c", *[folder / name for name in names]], tmp_path)


@pytest.mark.parametrize("name", ["by hand", "wide", *map(", ".join, CASES)])
def test_c_is_numpy_to_the_last_bit(name, cc):
    policy = policies()[name]
    seen = np.random.default_rng(0).normal(0, 3, (1000, policy.inputs)).astype(F)
    seen[7, 0], seen[8, -1], seen[9, 0] = np.nan, np.inf, 1e38
    with np.errstate(all="ignore"):
        expected = policy(seen)
    assert np.isnan(expected[7]).all()
    files = c.source(policy)
    np.testing.assert_array_equal(compiled.act_of_source(files, "policy", policy, cc)(seen), expected)
    data = rlx2_file.pack(policy)
    np.testing.assert_array_equal(compiled.act_of_reader(rlx2_file.readers(), data, policy, cc)(seen), expected)
    assert compiled.load(files, cc).policy_self_test() == 0


@pytest.mark.parametrize("optimise", [("-O0",), ("-O3", "-march=native"), ("-Os", "-m32", "-msse2", "-mfpmath=sse")])
def test_optimising_changes_nothing(optimise, cc, tmp_path):
    """By the self-test, with a tolerance of 0."""
    policy = exported("RLx2TD3 98 %")
    names = put(tmp_path, c.source(policy))
    text = (tmp_path / "policy.c").read_text()
    (tmp_path / "policy.c").write_text(
        text.replace(f"{np.float32(c.TOLERANCE * np.abs(policy.test_actions).max())!s}f", "0.0f")
    )
    (tmp_path / "main.c").write_text('#include "policy.h"\nint main(void) { return policy_self_test(); }\n')
    if "-m32" in optimise and not Path("/usr/include/gnu/stubs-32.h").exists():
        pytest.skip("no 32-bit C library is installed")
    run([*cc, *C, *optimise, *names, "main.c", "-o", "main"], tmp_path)
    run([tmp_path / "main"], tmp_path)


def test_self_test_fails_where_it_should(cc):
    policy = exported("RLx2SAC")
    files = c.source(policy)
    spoiled = files["policy.c"].replace(f"    {policy.layers[-1].bias[0]!s}f,".encode(), b"    9.0f,")
    assert spoiled != files["policy.c"]
    assert compiled.load(files | {"policy.c": spoiled}, cc).policy_self_test() > 0
    library = compiled.load(rlx2_file.readers(), cc)
    data = bytearray(rlx2_file.pack(policy))
    scratch = (ctypes.c_float * 2000)()
    assert library.rlx2_self_test(bytes(data), ctypes.c_float(0), scratch) == 0
    data[52 + 3 * 4 * 11 + 3 * 4 + 3] ^= 1  # the largest action
    assert library.rlx2_self_test(bytes(data), ctypes.c_float(0), scratch) > 0


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("machine", "compiler"),
    [(machine, f"{machine}, {compiler}") for machine in MACHINES for compiler in ("gcc", "zig")],
)
def test_emulated_machines_agree_to_the_last_bit(machine, compiler, dtype, tmp_path):
    needs("unicorn")
    policy, seen = exported("RLx2TD3 98 %", dtype), some("RLx2TD3 98 %", 40)
    seen[7, 0] = np.nan
    run([*command(compiler), *LINK, "-Wl,-e,policy_act", *put(tmp_path, c.source(policy)), "-o", "policy.elf"], tmp_path)
    emulator = Emulator((tmp_path / "policy.elf").read_bytes(), MACHINES[machine])
    actions = np.stack([emulator(observation, policy.actions) for observation in seen])
    np.testing.assert_array_equal(actions, policy(seen))
    units = sum(layer.outputs for layer in policy.layers)
    assert policy.about["links"] < emulator.count(seen[0], policy.actions) <= 12 * policy.about["links"] + 60 * units


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("fuzz")
    fuzz.build(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "mutations"),
    [
        *(("by hand", 2000), ("wide", 2000), ("RLx2TD3 98 %, int8", 500)),
        *(pytest.param(name, 100_000, marks=pytest.mark.slow) for name in ("by hand", "wide", *map(", ".join, CASES))),
    ],
)
def test_reader_survives_mutated_files(fuzzing, name, mutations):
    accepted, equal = fuzz.mutate(fuzzing, policies()[name], mutations)
    assert 0 < equal <= accepted < mutations / 2  # some mutations hit nothing that acts


def test_policies_are_clean_under_sanitizers(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    everything, calls = [], []
    for number, policy in enumerate(policies().values()):
        everything += put(tmp_path, c.source(policy, f"policy_{number}"))
        calls.append(f"policy_{number}_self_test()")
    includes = "".join(f'#include "policy_{number}.h"\n' for number in range(len(calls)))
    (tmp_path / "main.c").write_text(f"{includes}int main(void) {{ return {' + '.join(calls)}; }}\n")
    run(["gcc", *C, *fuzz.SANITIZED, *everything, "main.c", "-o", "main"], tmp_path)
    run([tmp_path / "main"], tmp_path)


def test_numpy_reader_refuses_or_agrees(cc):
    """Mutated files whose checksum is right: both readers accept the same, and act alike."""
    generator, policy = np.random.default_rng(0), exported("PPO, discrete", "int8")
    data = rlx2_file.pack(policy)
    library = compiled.load(rlx2_file.readers(), cc)
    seen, accepted = np.array([0.1, -0.2, 0.3, -0.4], F), 0
    for _ in range(500):
        changed = bytearray(data)
        changed[generator.integers(12, 100 if generator.random() < 0.5 else len(data) - 4)] = generator.integers(256)
        changed[-4:] = zlib.crc32(changed[:-4]).to_bytes(4, "little")
        floats = library.rlx2_floats(bytes(changed), len(changed))
        try:
            action = read(bytes(changed))(seen)
        except ValueError:
            continue
        assert floats > 0
        its, scratch = (ctypes.c_float * 1)(), (ctypes.c_float * floats)()
        library.rlx2_act(bytes(changed), seen.ctypes.data_as(ctypes.c_void_p), its, scratch)
        np.testing.assert_array_equal(np.array(its, F), action)
        accepted += 1
    assert 100 < accepted < 500


def test_damaged_files_are_refused():
    data = rlx2_file.pack(by_hand())
    for position in range(len(data)):
        with pytest.raises(ValueError, match=r"rlx2|version"):
            read(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ValueError, match="rlx2"):
            read(data[:position])


def test_size_of_hopper():
    """What issue and README promise, before the code of some 1 kB."""
    for dtype, largest in (("fp32", 9_300), ("fp16", 6_300), ("int8", 5_500)):
        policy = exported("RLx2TD3 98 %", dtype)
        assert sum(table.array.nbytes for table in c.tables(policy)) < largest
        assert len(rlx2_file.pack(policy)) < largest + 1000


def test_names_are_identifiers():
    with pytest.raises(ValueError, match=r"name='my-policy' must be an identifier"):
        c.source(by_hand(), "my-policy")


def test_comment_cannot_be_left():
    policy = by_hand(about={"algorithm": "TD3 */ int x; /*", "env": "a\nb", "version": "1", "command": "*/"})
    head = c.source(policy)["policy.h"].decode().partition("#ifndef")[0]
    assert head.count("*/") == head.count("/*") == 1


def test_infinite_clip(cc):
    unlimited = statistics(gym.make("Hopper-v5"))
    unlimited.clip_obs = np.inf
    policy, seen = describe(agent("RLx2TD3")[0], unlimited).policy(), some("RLx2TD3", 100)
    np.testing.assert_array_equal(compiled.act_of_source(c.source(policy), "policy", policy, cc)(seen), policy(seen))
