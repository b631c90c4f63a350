"""Runs compiled C on an emulated processor, and counts its instructions. The emulator is unicorn (pip)."""

import struct
from typing import Any, NamedTuple

import numpy as np

STACK, DATA, RETURN = 0x20000000, 0x30000000, 0x40000000
SIZE = 0x200000


class Machine(NamedTuple):
    """
    A processor.

    :param gcc: its gcc, and what that is to compile for
    :param zig: what ``zig cc`` is to compile for
    :param architecture: unicorn's name of it
    :param modes: unicorn's modes
    :param pointer_bytes: bytes of a pointer
    :param arguments: registers of the first two arguments
    :param stack: register of the stack
    :param link: register of the address to return to
    """

    gcc: tuple[str, ...]
    zig: tuple[str, ...]
    architecture: str
    modes: tuple[str, ...]
    pointer_bytes: int
    arguments: tuple[str, str]
    stack: str
    link: str


MACHINES = {
    "Cortex-M4F": Machine(
        ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
        *("ARCH_ARM", ("MODE_THUMB",), 4),
        *(("ARM_REG_R0", "ARM_REG_R1"), "ARM_REG_SP", "ARM_REG_LR"),
    ),
    "RISC-V": Machine(
        ("riscv64-unknown-elf-gcc", "-march=rv32imf", "-mabi=ilp32f", "-mno-relax"),
        ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+f", "-mno-relax"),
        *("ARCH_RISCV", ("MODE_RISCV32",), 4),
        *(("RISCV_REG_A0", "RISCV_REG_A1"), "RISCV_REG_SP", "RISCV_REG_RA"),
    ),
}


class Emulator:
    """
    A program in the memory of an emulated processor.

    :param elf: an executable, whose entry is the function to call, ``void (const float *, float *)``
    :param machine: the processor, of ``MACHINES``
    """

    def __init__(self, elf: bytes, machine: Machine) -> None:
        import unicorn
        from unicorn import arm_const, riscv_const

        names = vars(arm_const) | vars(riscv_const) | vars(unicorn)
        self.registers = [names[f"UC_{name}"] for name in (*machine.arguments, machine.stack, machine.link)]
        self.machine = machine
        self.core: Any = unicorn.Uc(names[f"UC_{machine.architecture}"], sum(names[f"UC_{mode}"] for mode in machine.modes))
        self.instructions = 0
        self._load(elf)
        for start in (STACK, DATA, RETURN):
            self.core.mem_map(start, SIZE)
        self._switch_on_floats(names)
        self.every_instruction = unicorn.UC_HOOK_CODE

    def _count(self, *_: Any) -> None:
        self.instructions += 1

    def _load(self, elf: bytes) -> None:
        """Put the segments where they belong (ELF, little-endian, 32 bits)."""
        assert elf[:6] == b"\x7fELF\x01\x01"
        self.entry, headers = struct.unpack_from("<II", elf, 24)
        count = struct.unpack_from("<H", elf, 44)[0]
        pages = set()
        for number in range(count):
            kind, offset, address, _, size, in_memory = struct.unpack_from("<6I", elf, headers + 32 * number)
            if kind != 1 or not in_memory:
                continue
            for page in range(address // 4096, (address + in_memory - 1) // 4096 + 1):
                if page not in pages:
                    self.core.mem_map(4096 * page, 4096)
                    pages.add(page)
            self.core.mem_write(address, elf[offset : offset + size])

    def _switch_on_floats(self, names: dict[str, Any]) -> None:
        if self.machine.architecture == "ARCH_ARM":
            access = self.core.reg_read(names["UC_ARM_REG_C1_C0_2"])
            self.core.reg_write(names["UC_ARM_REG_C1_C0_2"], access | 0xF << 20)
            self.core.reg_write(names["UC_ARM_REG_FPEXC"], 1 << 30)
        else:
            status = self.core.reg_read(names["UC_RISCV_REG_MSTATUS"])
            self.core.reg_write(names["UC_RISCV_REG_MSTATUS"], status | 0x3 << 13)

    def count(self, observation: np.ndarray, actions: int) -> int:
        """
        Count the instructions of a call.

        :param observation: one observation, float32
        :param actions: number of numbers that it writes
        """
        self.instructions = 0
        hook = self.core.hook_add(self.every_instruction, self._count)
        self.core.ctl_flush_tb()  # what was translated before does not know the hook
        self(observation, actions)
        self.core.hook_del(hook)
        self.core.ctl_flush_tb()
        return self.instructions

    def __call__(self, observation: np.ndarray, actions: int) -> np.ndarray:
        """
        Call the function.

        :param observation: one observation, float32
        :param actions: number of numbers that it writes
        :return: the action, float32
        """
        there = DATA + SIZE // 2
        self.core.mem_write(DATA, np.asarray(observation, "<f4").tobytes())
        values = DATA, there, STACK + SIZE - 64, RETURN
        for register, value in zip(self.registers, values, strict=True):
            self.core.reg_write(register, value)
        self.core.emu_start(self.entry, RETURN)
        return np.frombuffer(bytes(self.core.mem_read(there, 4 * actions)), "<f4")
