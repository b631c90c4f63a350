"""
Checkpoints in a folder, a generation each: what is there is whole, and damage is found.

``000007_step_120000/`` holds ``state.json`` and ``arrays.npz`` (the state of the run, see
:mod:`sb3_rlx2.packing`) and ``manifest.json`` (sizes and checksums of all files; written last). ``rows/`` holds
the replay buffer's segments, which generations share.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_rlx2.checkpoint.transitions import DamagedError, Segment, Transitions, check_file, checksum_of
from sb3_rlx2.files import replacing
from sb3_rlx2.packing import pack, unpack
from sb3_rlx2.warning import warn

# In 1, what a topology updater remembers was no tensor; up to 2, callbacks had other names; up to 3, nothing was shared.
FORMAT = 4
MANIFEST, STATE, ARRAYS, ROWS = "manifest.json", "state.json", "arrays.npz", "rows"
NAME = re.compile(r"(?P<number>\d{6,})_step_(?P<step>\d+)")


class Generation(NamedTuple):
    """
    A whole checkpoint.

    :param path: its folder
    :param manifest: what it says of itself
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def number(self) -> int:
        """How many there have been."""
        return _number(self.path)

    @property
    def step(self) -> int:
        """Environment steps of the run."""
        return int(self.manifest["step"])

    @property
    def planned(self) -> int | None:
        """Environment steps at which the call of ``learn`` was to end, None if it does not say, as of earlier versions."""
        planned = self.manifest.get("planned")
        return None if planned is None else int(planned)

    @property
    def segments(self) -> list[Segment]:
        """What holds its replay buffer."""
        return [Segment(*each) for each in self.manifest["segments"]]

    def read(self) -> Any:
        """Give the state of the run."""
        with np.load(self.path / ARRAYS, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        return unpack(json.loads((self.path / STATE).read_text()), arrays)


def write(
    folder: Path,
    step: int,
    state: Any,
    segments: list[Segment],
    about: Mapping[str, Any],
) -> Generation:
    """
    Write a generation: once this returns, the disk has it; if it fails, those before are as they were.

    :param folder: folder of the generations
    :param step: environment steps of the run
    :param state: state of the run, plain values and arrays
    :param segments: what holds the replay buffer
    :param about: more for the manifest, plain
    :return: the generation
    :raises OSError: if there is no room for it
    """
    number = max(map(_number, _folders(folder)), default=0) + 1
    path = folder / f"{number:06d}_step_{step}"
    arrays: dict[str, np.ndarray] = {}
    packed = pack(state, arrays)
    with replacing(path) as unfinished:
        unfinished.mkdir()
        (unfinished / STATE).write_text(json.dumps(packed))
        with (unfinished / ARRAYS).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        files = {part.name: [part.stat().st_size, checksum_of(part)] for part in sorted(unfinished.iterdir())}
        manifest = {"format": FORMAT, "step": step, "files": files, "segments": [list(each) for each in segments], **about}
        (unfinished / MANIFEST).write_text(_sealed(manifest))
    return Generation(path, manifest)


def newest(folder: Path, rows: bool = True) -> Generation | None:
    """
    Find the newest whole generation.

    :param folder: folder of the generations
    :param rows: whether its replay buffer is looked at, too
    :return: it, None if there is none at all
    :raises DamagedError: if all that there are are damaged
    :raises ValueError: if a newer version of this package wrote it
    """
    paths = sorted(_folders(folder), key=_number, reverse=True)
    for path in paths:
        found = check(path, rows)
        if isinstance(found, Generation):
            return found
        warn(f"checkpoint {path.name} is left out: {found}")
    if paths:
        raise DamagedError(f"no checkpoint in {folder} is whole; delete the folder to begin anew")
    return None


def check(path: Path, rows: bool = True) -> Generation | DamagedError:
    """
    Check that a generation is what was written.

    :param path: its folder
    :param rows: whether its replay buffer is looked at, too
    :return: the generation, or what is wrong with it
    :raises ValueError: if a newer version of this package wrote it
    """
    try:
        return _checked(path, rows)
    except DamagedError as error:
        return error


def _checked(path: Path, rows: bool) -> Generation:
    generation = Generation(path, _opened(path / MANIFEST))
    if not 1 <= generation.manifest["format"] <= FORMAT:
        raise ValueError(f"{path} has format {generation.manifest['format']}; this version reads formats 1 to {FORMAT}")
    for name, (size, checksum) in generation.manifest["files"].items():
        check_file(path / name, size, checksum)
    if rows:
        Transitions(path.parent / ROWS).check(generation.segments)
    return generation


def drop_newer(generation: Generation) -> None:
    """
    Remove what is newer than a generation: damaged, it would take the place of one that is whole.

    :param generation: what :func:`newest` found
    """
    for path in _folders(generation.path.parent):
        if _number(path) > generation.number:
            shutil.rmtree(path, ignore_errors=True)


def keep(folder: Path, number: int) -> None:
    """
    Remove the generations that are no longer needed, and what only they needed.

    :param folder: folder of the generations
    :param number: how many of the newest stay, beside the first one behind the best evaluation
    """
    manifests = {path: _manifest(path) for path in sorted(_folders(folder), key=_number)}
    best = max(manifests.values(), key=_score, default=None)  # of equal ones the first
    stay = [
        *list(manifests)[-number:],
        *(path for path, each in manifests.items() if each is best and "best" in each),
    ]
    for path in manifests:
        if path not in stay:
            shutil.rmtree(path, ignore_errors=True)
    Transitions(folder / ROWS).sweep({Segment(*each).name for path in stay for each in manifests[path].get("segments", ())})


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return _opened(path / MANIFEST)
    except DamagedError:  # nobody will go on from it
        return {}


def _score(manifest: Mapping[str, Any]) -> float:
    return float(manifest.get("best", -math.inf))


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []


def _number(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match["number"])


def _sealed(manifest: Mapping[str, Any]) -> str:
    """Give a manifest with a checksum of itself."""
    content = json.dumps(manifest, indent=1, sort_keys=True)
    return f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}\n"


def _opened(path: Path) -> dict[str, Any]:
    """Read a manifest, every byte of which must be as it was written."""
    try:
        text = path.read_bytes().decode()
        seal, _, content = text.partition("\n")
        if hashlib.sha256(content[:-1].encode()).hexdigest() != seal or content[-1:] != "\n":
            raise DamagedError(f"{path} is damaged")
        manifest: dict[str, Any] = json.loads(content)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, DamagedError) else DamagedError(f"{path} is damaged: {error}") from None
    return manifest
