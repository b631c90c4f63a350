"""Gives damaged ``.rlx2`` files to the reader in C, under sanitizers."""

import shutil
import subprocess
from pathlib import Path

from sb3_rlx2.export import Policy
from sb3_rlx2.export import bin as rlx2_file

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(folder: Path) -> None:
    """Compile the mutator and the reader, with gcc."""
    for name, content in rlx2_file.readers().items():
        (folder / name).write_bytes(content)
    shutil.copy(Path(__file__).with_name("fuzz.c"), folder)
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", *SANITIZED, "fuzz.c", "rlx2_reader.c", "-o", "fuzz"]
    subprocess.run(command, cwd=folder, check=True)


def mutate(folder: Path, policy: Policy, mutations: int, seed: int = 1) -> tuple[int, int]:
    """
    Have the reader read mutations of a policy's file: it refuses them, or it stays inside what it was given, and where the
    checksum was not repaired after the mutation it acts as before.

    :param folder: given to :func:`build`
    :param policy: the policy
    :param mutations: how many; every second one has a right checksum
    :param seed: of the mutations
    :return: number of those that were not refused, and of those among them that act as before
    :raises subprocess.CalledProcessError: if a sanitizer found something, or a damaged file was taken for a whole one
    """
    (folder / "policy.rlx2").write_bytes(rlx2_file.pack(policy))
    command = ["./fuzz", "policy.rlx2", str(mutations), str(seed)]
    output = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    accepted, equal = map(int, output.split())
    return accepted, equal
