"""C compilers, those that are there: the system's, Debian's cross compilers, and zig (pip), which is clang for everything."""

import importlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.export.emulator import MACHINES

STRICT = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-ffp-contract=off")
C = ("-std=c99", *STRICT)
CPP = ("-x", "c++", *STRICT)
BARE_C = (*C, "-ffreestanding")
M4F, RV32 = MACHINES["Cortex-M4F"], MACHINES["RISC-V"]
ZIG = (sys.executable, "-m", "ziglang")
COMPILERS = {
    "gcc": ("gcc", *C),
    "gcc, C++": ("g++", *CPP),
    "clang": ("clang", *C),
    "clang, C++": ("clang++", *CPP),
    "zig": (*ZIG, "cc", *C),
    "zig, C++": (*ZIG, "c++", *CPP),
    "Cortex-M4F, gcc": (*M4F.gcc, *BARE_C),
    "Cortex-M4F, zig": (*ZIG, "cc", *C, *M4F.zig),
    "RISC-V, gcc": (*RV32.gcc, *BARE_C),
    "RISC-V, zig": (*ZIG, "cc", *C, *RV32.zig),
    "AVR, gcc": ("avr-gcc", *BARE_C, "-mmcu=atmega328p"),
    "AVR, gcc, tables in flash": ("avr-gcc", "-ffreestanding", *STRICT, "-std=gnu99", "-mmcu=atmega328p"),
    "AVR, zig": (*ZIG, "cc", *C, "-Wno-avr-rtlib-linking-quirks", "-target", "avr-freestanding-none", "-mcpu=atmega328p"),
}


def command(name):
    """Give a compiler's command; skip the test where it is not installed."""
    program, *rest = COMPILERS[name]
    there = find_spec("ziglang") is not None if program == sys.executable else shutil.which(program) is not None
    if not there and program == sys.executable and os.environ.get("CI") == "true":
        pytest.fail("ziglang is not installed")  # CI has it, and with it clang for every machine
    if not there:
        pytest.skip(f"{'ziglang (pip)' if program == sys.executable else program} is not installed")
    return [program, *rest]


def needs(package):
    """Give a package of an extra; skip the test where it is not installed, but not in CI."""
    if find_spec(package) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{package} (pip) is not installed")
    return importlib.import_module(package)


def run(arguments, folder, **kwargs):
    result = subprocess.run([*map(str, arguments)], cwd=folder, capture_output=True, timeout=600, **kwargs)
    assert result.returncode == 0, result.stderr.decode()[-3000:]
    assert not result.stderr, result.stderr.decode()[-3000:]
    return result.stdout


def put(folder, files):
    """Write files, and give the names of those to compile."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [name for name in files if name.endswith(".c")]
