"""
The one way to write a file: it appears whole or not at all.

What is written lies in a hidden folder beside its place until the disk has it, and moves there in one step. A process that
is killed on the way leaves that folder behind, and the file as it was.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

UNFINISHED = ".unfinished-"  # how the hidden folders' names begin
ABANDONED = 86_400.0  # seconds after which nobody is writing there any more


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    Give a temporary place for a file or a folder, which takes the old one's place when the block ends well; else nothing
    changes. Of a link, it takes the place of what that leads to.

    :param path: the file or folder; the folder that holds it is made
    :return: where to write; the name is the same, since SB3 and matplotlib look at the suffix
    :raises OSError: of whatever fails, with the name of a file or folder
    """
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    with filling(real.parent) as folder, _naming(path):
        yield folder / path.name
        if real.name != path.name and (folder / path.name).exists():
            os.rename(folder / path.name, folder / real.name)


@contextmanager
def filling(folder: Path, last: str = "*") -> Iterator[Path]:
    """
    Give a temporary folder, the files and folders of which move into another one when the block ends well, in place of those
    that have their names there; else nothing changes.

    :param folder: where they go; made if it does not exist
    :param last: pattern of the names that come last: where they are, the others are too
    :return: where to write
    :raises OSError: of whatever fails, with the name of a file or folder
    """
    with _naming(folder):
        _make(folder)
        # Its own name for each writer: of several at a time the last one's file stays, whole.
        # Not `TemporaryDirectory`, whose cleaning up never ends where it may not remove a file.
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        try:
            yield unfinished
            for part in unfinished.rglob("*"):
                _sync(part)
            for new in sorted(unfinished.iterdir(), key=lambda path: path.match(last)):
                _put(new, folder / new.name)
            _sync(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def move(old: Path, new: Path) -> None:
    """
    Give a folder another name in the same folder, under which there is nothing.

    :param old: the folder
    :param new: its name from now on
    :raises OSError: if it is not there, or something else is
    """
    old.rename(new)
    _sync(new.parent)


def with_suffix(path: str | Path, suffix: str) -> Path:
    """
    Name the file that SB3 and numpy write to where they are given a name without a suffix.

    :param path: what they are given
    :param suffix: what they add
    """
    path = Path(path)
    return path if path.suffix else path.with_name(f"{path.name}{suffix}")


@contextmanager
def saving(path: str | Path, suffix: str) -> Iterator[Path]:
    """
    Give a temporary place for what SB3 saves.

    :param path: the file, by the name that SB3 is given
    :param suffix: what SB3 adds to a name without one
    :return: where to write
    :raises OSError: of whatever fails, also by torch's word for a disk that takes no more
    """
    with replacing(with_suffix(path, suffix)) as unfinished:
        try:
            yield unfinished
        except RuntimeError as error:
            raise OSError(f"{path}: {error}") from error


def sweep(folder: Path, age: float = 0.0) -> None:
    """
    Remove what writers that were killed have left, anywhere in a folder.

    :param folder: the folder
    :param age: seconds for which nothing has been put into it; 0 where nobody else writes to the folder
    """
    for path in folder.rglob(f"{UNFINISHED}*"):
        with suppress(OSError):  # another sweep was faster
            if time.time() - path.stat().st_mtime >= age:
                shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """
    Write a text file whole or not at all.

    :param path: the file; its folder is made
    :param text: its content
    :raises OSError: of whatever fails, with the name of a file or folder
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, as a full disk gives, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _make(folder: Path) -> None:
    """Make a folder, with those above, and wait until the disk has them."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(new):
        _sync(each.parent)


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder, which some network file systems refuse to promise."""
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put(new: Path, path: Path) -> None:
    if not (new.is_dir() and path.is_dir()):
        os.replace(new, path)
        return
    old = new.with_name(f"{new.name}.old")  # a folder that holds something gives way to no other, so it steps aside
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
