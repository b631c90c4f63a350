"""Measures what a policy takes of a Cortex-M4F: bytes of flash and of stack, and instructions of an action."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.export.emulator import MACHINES, Emulator
from sb3_rlx2.export import Policy, c
from sb3_rlx2.export import bin as rlx2_file

MACHINE = MACHINES["Cortex-M4F"]
GCC = (*(*MACHINE.gcc, "-std=c99", "-Os", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections", "-fstack-usage"),)
LINK = ("-nostdlib", "-Wl,--gc-sections", "-Wl,-e,policy_act")
SECTION = re.compile(r"^\.(text|rodata|data|bss)\S*\s+(\d+)", re.MULTILINE)


class Size(NamedTuple):
    """
    What a policy takes.

    :param code: bytes of machine code, without the self-test
    :param tables: bytes of constants, without the self-test
    :param self_test: bytes of the self-test, which the linker leaves out where it is not called
    :param stack: bytes of stack, and of other memory where there is some
    :param instructions: of an action, on average
    """

    code: int
    tables: int
    self_test: int
    stack: int
    instructions: int

    @property
    def flash(self) -> int:
        """Bytes of code and constants."""
        return self.code + self.tables


def measure(policy: Policy) -> Size:
    """Compile for Cortex-M4F with -Os, look at the sections, and play the test observations on an emulated one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in c.source(policy).items():
            (folder / file).write_bytes(content)
        _run([*GCC, "-c", "policy.c", "-o", "whole.o"], folder)
        _run([*GCC, *LINK, "policy.c", "-o", "policy.elf"], folder)
        whole, linked = (_sections(folder, file) for file in ("whole.o", "policy.elf"))
        emulator = Emulator((folder / "policy.elf").read_bytes(), MACHINES["Cortex-M4F"])
        for observation, action in zip(policy.test_observations, policy.test_actions, strict=True):
            assert np.array_equal(emulator(observation, policy.actions), action)
        stacks = _stacks((folder / "whole.su").read_text())
        called = max((size for function, size in stacks.items() if function.endswith("_layer")), default=0)
        return Size(
            code=linked["text"],
            tables=linked["rodata"],
            self_test=sum(whole.values()) - sum(linked.values()),
            stack=stacks["policy_act"] + called,
            instructions=_instructions(emulator, policy.test_observations, policy.actions),
        )


def measure_reader(policy: Policy) -> Size:
    """Measure the reader of .rlx2 files, all but its self-test, with a policy's file in flash."""
    data, files = rlx2_file.pack(policy), rlx2_file.readers()
    source = f"""
static const unsigned char file[] = {{{",".join(map(str, data))}}};
static float scratch[{2 * max(policy.inputs, *(layer.outputs for layer in policy.layers))}];
void policy_act(const float *x, float *y) {{ rlx2_act(file, x, y, scratch); }}
"""
    header, code = (files[f"rlx2_reader.{kind}"].decode() for kind in "hc")
    whole = header + code.replace('#include "rlx2_reader.h"', "") + source
    return measure_source(whole, policy.test_observations, policy.actions, "-Wl,-u,rlx2_floats")


def measure_source(source: str, observations: np.ndarray, actions: int, *options: str) -> Size:
    """
    Measure C of others, which defines ``void policy_act(const float *, float *)``, with the C library it needs.

    :param source: the C
    :param observations: to play
    :param actions: number of numbers that it writes
    :param options: for the compiler
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.c").write_text(source)
        command = [
            *GCC,
            "-nostartfiles",
            "-Wl,--gc-sections",
            "-Wl,-e,policy_act",
            "--specs=nano.specs",
            "--specs=nosys.specs",
        ]
        _run([*command, *options, "-w", "policy.c", "-o", "policy.elf", "-lm"], folder)
        sizes = _sections(folder, "policy.elf")
        emulator = Emulator((folder / "policy.elf").read_bytes(), MACHINES["Cortex-M4F"])
        stack = max(_stacks(next(folder.glob("*.su")).read_text()).values())
        return Size(
            code=sizes["text"],
            tables=sizes["rodata"] + sizes["data"],
            self_test=0,
            stack=stack + sizes["data"] + sizes["bss"],
            instructions=_instructions(emulator, observations, actions),
        )


def _instructions(emulator: Emulator, observations: np.ndarray, actions: int) -> int:
    return round(float(np.mean([emulator.count(observation, actions) for observation in observations])))


def _run(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def _sections(folder: Path, file: str) -> dict[str, int]:
    sizes = {"text": 0, "rodata": 0, "data": 0, "bss": 0}
    for kind, size in SECTION.findall(_run(["arm-none-eabi-size", "-A", file], folder)):
        sizes[kind] += int(size)
    return sizes


def _stacks(usage: str) -> dict[str, int]:
    """Read what -fstack-usage wrote: ``policy.c:1:2:function<tab>bytes<tab>static``."""
    rows = [line.split("\t") for line in usage.splitlines()]
    return {row[0].rpartition(":")[2]: int(row[1]) for row in rows}
