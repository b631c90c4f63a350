"""
A replay buffer on disk, in segments that are only ever added: a checkpoint writes the transitions that are new.

Rows are counted from the beginning of training, so a row's place in the ring is its number modulo the ring's size.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.her import HerReplayBuffer

from sb3_rlx2 import packing
from sb3_rlx2.files import replacing
from sb3_rlx2.saved_objects import check_members

# What a buffer holds beside its rows. `entropy_bonus` is lent anew by each training.
COUNTERS = ("pos", "full", "live", "n_steps", "_current_ep_start")
LENGTHS = "ep_length"  # of HerReplayBuffer: of the episode of each row, filled in when it ends, so it is no part of the row
CHUNK = 100_000  # rows of a segment at most, which bounds memory
THREADS = 4  # that read segments, at most


T = TypeVar("T")


class DamagedError(ValueError):
    """A file is not what was written."""


class Segment(NamedTuple):
    """
    Some rows in a file.

    :param name: the file's name
    :param first: number of the first row
    :param last: number behind the last row
    :param size: bytes
    :param sha256: checksum
    """

    name: str
    first: int
    last: int
    size: int
    sha256: str


def why_not(buffer: Any) -> str | None:
    """
    Say why a replay buffer cannot be kept in segments.

    :param buffer: the buffer
    :return: the reason, None if it can
    """
    if not isinstance(buffer, BaseBuffer):
        return f"{type(buffer).__name__} is no replay buffer of Stable-Baselines3"
    if isinstance(buffer, HerReplayBuffer) and buffer.copy_info_dict:
        return "HerReplayBuffer with copy_info_dict=True holds Python objects"
    return None


def ring(buffer: Any) -> dict[str, np.ndarray]:
    """
    Give the arrays that hold a buffer's rows.

    :param buffer: the buffer
    """
    found: dict[str, np.ndarray] = {}
    for name, value in vars(buffer).items():
        parts = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        found |= {
            key: part
            for key, part in parts.items()
            if isinstance(part, np.ndarray) and part.ndim >= 2 and len(part) == buffer.buffer_size
            if key != LENGTHS and not part.dtype.hasobject
        }
    return found


def size(model: Any) -> int:
    """
    Give the bytes of a full replay buffer.

    :param model: an off-policy algorithm
    """
    return sum(array.nbytes for array in ring(model.replay_buffer).values())


def counters(buffer: Any) -> dict[str, Any]:
    """
    Give what a buffer holds beside its rows.

    :param buffer: the buffer
    """
    found = {name: getattr(buffer, name) for name in COUNTERS if hasattr(buffer, name)}
    if hasattr(buffer, LENGTHS):
        found[LENGTHS] = _runs(getattr(buffer, LENGTHS).T.ravel())
    return found


def set_counters(buffer: Any, saved: dict[str, Any]) -> None:
    """
    Give a buffer back what it held beside its rows.

    :param buffer: the buffer
    :param saved: what :func:`counters` gave
    """
    vars(buffer).update({name: value for name, value in saved.items() if name != LENGTHS})
    if LENGTHS in saved:
        lengths = getattr(buffer, LENGTHS)
        lengths[...] = np.repeat(*saved[LENGTHS]).reshape(lengths.T.shape).T


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the values of runs of equal ones, and how long the runs are."""
    begin = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    return values[begin], np.diff(begin, append=len(values))


def live_rows(buffer: Any) -> int:
    """
    Give the number of rows that can still be sampled.

    :param buffer: the buffer
    """
    return int(buffer.live if hasattr(buffer, "live") else buffer.buffer_size if buffer.full else buffer.pos)


class Transitions:
    """
    The rows of a buffer on disk.

    :param folder: folder of the segments
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.total = 0  # rows that were added to the buffer since training began
        self.written = 0  # number behind the last row that is on disk
        self.segments: list[Segment] = []

    def write_new(self, buffer: Any, added: int) -> list[Segment]:
        """
        Write the rows that are not on disk yet.

        :param buffer: the buffer
        :param added: number of rows that were added to it since the last call
        :return: the segments that hold what can be sampled
        :raises OSError: if there is no room for them
        """
        size, live = buffer.buffer_size, live_rows(buffer)
        total = self.total + added
        if total % size != buffer.pos or total - live < self._oldest():  # not what was on disk: say, another buffer
            total = (total // size + 2) * size + buffer.pos
            self.segments, self.written = [], total - live
        begin = max(total - live, self.written - 1)  # the newest row again: a new `learn` may have marked it
        end = total + int(buffer.optimize_memory_usage)  # then the next observation lies in the next row
        segments = [each for each in self.segments if each.last > total - live]
        segments += [self._write(buffer, first, min(first + CHUNK, end)) for first in range(begin, end, CHUNK)]
        self.segments, self.total, self.written = segments, total, total
        return segments

    def _oldest(self) -> int:
        return min((each.first for each in self.segments), default=self.written)

    def _write(self, buffer: Any, first: int, last: int) -> Segment:
        rows = np.arange(first, last) % buffer.buffer_size
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **{name: array[rows] for name, array in ring(buffer).items()})
        checksum = hashlib.sha256(file.getbuffer()).hexdigest()
        name = f"rows_{first:012d}_{last:012d}_{checksum[:8]}.npz"  # so that none is replaced by other rows of these numbers
        with replacing(self.folder / name) as unfinished:
            unfinished.write_bytes(file.getbuffer())
        return Segment(name, first, last, file.tell(), checksum)

    def read(self, buffer: Any, segments: list[Segment], total: int) -> None:
        """
        Put the rows back into a buffer, in place.

        :param buffer: a buffer like the one that was written
        :param segments: what :meth:`write_new` gave
        :param total: rows that had been added by then
        :raises DamagedError: if a file is not what was written
        :raises ValueError: if the buffer has other arrays
        """
        arrays, size = ring(buffer), buffer.buffer_size
        # Where segments share a row, or a place in the ring, the later one has it.
        oldest = max((segment.last for segment in segments), default=0) - size
        ends = [min(segment.last, each.first) for segment, each in pairwise(segments)]
        parts = [
            (segment, range(max(segment.first, oldest), end))
            for segment, end in zip(segments, [*ends, *(each.last for each in segments[-1:])], strict=True)
        ]
        _each(lambda part: self._put(arrays, size, *part), parts)
        self.segments, self.total, self.written = list(segments), total, total

    def check(self, segments: list[Segment]) -> None:
        """
        Check that the files are what was written.

        :param segments: the files
        :raises DamagedError: if one is not
        """
        _each(lambda segment: check_file(self.folder / segment.name, segment.size, segment.sha256), segments)

    def _put(self, arrays: packing.Arrays, size: int, segment: Segment, rows: range) -> None:
        with np.load(self.folder / segment.name, allow_pickle=False) as content:
            for name in content.files:
                values = content[name]
                if name not in arrays or arrays[name].shape[1:] != values.shape[1:] or arrays[name].dtype != values.dtype:
                    raise ValueError(f"the replay buffer has no {name} of {values.dtype}, {values.shape[1:]} a row")
                for first, place in _places(rows, size):
                    begin = first - segment.first
                    arrays[name][place] = values[begin : begin + place.stop - place.start]

    def sweep(self, needed: set[str]) -> None:
        """
        Remove the files that no checkpoint needs.

        :param needed: names of those that one does
        """
        for path in self.folder.glob("rows_*.npz"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


def _each(act: Callable[[T], None], segments: list[T]) -> None:
    """Do something with segments side by side: checksums and copies of large arrays leave Python to others."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(act, segments):
            pass


def _places(rows: range, size: int) -> Iterator[tuple[int, slice]]:
    """Give the parts of some rows that lie together in a ring: the first row of each, and where it lies."""
    row = rows.start
    while row < rows.stop:
        at = row % size
        end = min(at + rows.stop - row, size)
        yield row, slice(at, end)
        row += end - at


def checksum_of(path: Path) -> str:
    """
    Give a file's SHA-256.

    :param path: the file
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):  # `hashlib.file_digest` came with Python 3.11
            digest.update(block)
        return digest.hexdigest()


def check_file(path: Path, size: int, sha256: str) -> None:
    """
    Check that a file is what was written, and of arrays that reading them takes no more memory than is to be expected.

    :param path: the file
    :param size: its bytes
    :param sha256: its checksum
    :raises DamagedError: if it is not, or not there
    """
    if not path.is_file():
        raise DamagedError(f"{path} is missing")
    if path.stat().st_size != size or checksum_of(path) != sha256:
        raise DamagedError(f"{path} is damaged")
    if path.suffix == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                check_members(archive)
        except (ValueError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{path} is damaged: {error}") from error
