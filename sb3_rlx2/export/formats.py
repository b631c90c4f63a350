"""The table of formats: what files each one writes, and who can play what was written."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export import c, compiled, onnx, safetensors
from sb3_rlx2.export.compiled import Act
from sb3_rlx2.export.rlx2_reader import Policy, read
from sb3_rlx2.files import filling
from sb3_rlx2.validation import lookup


class Format(NamedTuple):
    """
    A format.

    :param suffix: of its file
    :param files: gives, for a policy and a name without suffix, the content of each file by its name, the main one first
    :param players: gives, for the same, functions of observations that act as the files say, by who computes them
    """

    suffix: str
    files: Callable[[Policy, str], dict[str, bytes]]
    players: Callable[[Policy, str], dict[str, Act]]


def _players_of_source(policy: Policy, name: str) -> dict[str, Act]:
    command = compiled.compiler()
    act = {} if command is None else {"compiled C": compiled.act_of_source(c.source(policy, name), name, policy, command)}
    return {"numpy": policy, **act}


def _players_of_file(policy: Policy, name: str) -> dict[str, Act]:
    command, data = compiled.compiler(), rlx2_file.pack(policy)
    act = {} if command is None else {"compiled C": compiled.act_of_reader(rlx2_file.readers(), data, policy, command)}
    return {"numpy": read(data), **act}


def _players_of_model(policy: Policy, name: str) -> dict[str, Act]:
    there = find_spec("onnxruntime") is not None
    return {"numpy": policy, **({"onnxruntime": onnx.act_of_model(onnx.pack(policy))} if there else {})}


FORMATS = {
    "c": Format(".c", c.source, _players_of_source),
    "bin": Format(
        ".rlx2", lambda policy, name: {f"{name}.rlx2": rlx2_file.pack(policy), **rlx2_file.readers()}, _players_of_file
    ),
    "onnx": Format(".onnx", lambda policy, name: {f"{name}.onnx": onnx.pack(policy)}, _players_of_model),
    "safetensors": Format(
        ".safetensors",
        lambda policy, name: {f"{name}.safetensors": safetensors.pack(policy)},
        lambda policy, name: {"numpy": safetensors.load(safetensors.pack(policy))},
    ),
}


def check_path(path: Path, format: str) -> None:
    """
    Check where a policy is to be written.

    :param path: the main file
    :param format: of ``FORMATS``
    :raises ValueError: if its folder does not exist, or its suffix is another
    """
    suffix = lookup("format", format, FORMATS).suffix
    if path.suffix != suffix:
        raise ValueError(f"output={path} must end with {suffix}, as format={format!r} does")
    if not path.parent.is_dir():
        raise ValueError(f"output={path}: the folder {path.parent} must exist")


def write(policy: Policy, path: str | Path, format: str = "c") -> list[Path]:
    """
    Write a policy.

    :param policy: what :meth:`sb3_rlx2.export.Description.policy` gave
    :param path: the main file; others are put beside it
    :param format: of ``FORMATS``
    :return: the files
    :raises ValueError: if it cannot be written there, or a package is missing
    """
    path = Path(path)
    check_path(path, format)
    return write_files(path.parent, FORMATS[format].files(policy, path.stem))


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """
    Write files, whole or not at all.

    :param folder: where
    :param files: content of each, by its name
    :return: the files
    :raises OSError: of whatever fails, with nothing written
    """
    with filling(folder) as unfinished:
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
    return [folder / name for name in files]
