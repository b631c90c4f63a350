"""What a disk may hold when the power has failed at some moment of a sequence of writes."""

import os
from contextlib import contextmanager
from pathlib import Path

from tests.faults import FAULTS

LOSSES = {
    "nothing of it": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "all": lambda content: content,
}


class Node:
    """A file or a folder: what it holds, and what of that the disk has for certain."""

    def __init__(self, holds):
        self.holds, self.kept = holds, dict(holds) if isinstance(holds, dict) else holds
        self.is_written = False  # a file, since it was last synced


class Disk:
    """
    Follows what is asked of the file system below a folder.

    The disk has a change of a folder for certain when that folder has been synced, a file's content when the file has. Until
    then it may have any of the changes or none, each by itself, and of the content nothing, half, zeros or all.

    :param folder: the folder, all of which the disk has now
    :param draw: a random generator, to look at more states than the regular ones
    """

    def __init__(self, folder: Path, draw=None):
        self.folder, self.draw = folder, draw
        self.root = _load(folder)
        self.changes = []  # those that the disk may not have: (folder, name, what has the name now or None)
        self.seen = {}  # states at a moment before the end, each once
        self.is_busy = False

    def hear(self, event, arguments):
        """Take notice of what is asked for, before it is done."""
        if self.is_busy:
            return
        self.is_busy = True
        try:
            places = self._places(event, arguments)
            if places is not None:
                self.seen.update({frozenset(state.items()): state for state in self.states()})
                self._do(event, *places)
        finally:
            self.is_busy = False

    def _places(self, event, arguments):
        """Give the folder and the name that each path of an event stands for; None if it changes nothing here."""
        if event == "open" and not (isinstance(arguments[0], str | Path) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return None
        paths, folders = arguments[:1], arguments[-1:]
        if event == "os.rename":
            paths, folders = arguments[:2], arguments[2:]
        found = []
        for path, within in zip(map(str, paths), folders, strict=True):
            if event.startswith("os.") and within >= 0:
                path = f"{os.readlink(f'/proc/self/fd/{within}')}/{path}"
            place = self._place(Path(path))
            if place is None:
                return None
            found.append(place)
        return found

    def _place(self, path):
        if path == self.folder:
            return None, ""
        if not path.is_relative_to(self.folder):
            return None
        *above, name = path.relative_to(self.folder).parts
        node = self.root
        for each in above:
            node = node.holds.get(each)
            if node is None:
                return None
        return node, name

    def _do(self, event, place, target=None):
        folder, name = place
        node = self.root if folder is None else folder.holds.get(name)
        if event == "fsync":
            self._sync(node)
        elif event == "os.rename":
            self._change((folder, name, None), (*target, node))
        elif event in ("os.remove", "os.rmdir"):
            self._change((folder, name, None))
        elif node is None:
            self._change((folder, name, Node({} if event == "os.mkdir" else b"")))
        if event == "open":
            folder.holds[name].is_written = True

    def _change(self, *parts):
        self.changes.append(parts)
        for folder, name, node in parts:
            _put(folder.holds, name, node)

    def _sync(self, node):
        if isinstance(node.holds, bytes):
            node.kept, node.is_written = node.holds, False
            return
        waiting = []
        for parts in self.changes:
            if not any(folder is node for folder, _, _ in parts):
                waiting.append(parts)
                continue
            for folder, name, entry in parts:
                _put(folder.kept, name, entry)
                # What came before, in a folder that was not synced, is over.
                waiting = [tuple(part for part in each if part[:2] != (folder, name)) for each in waiting]
        self.changes = [parts for parts in waiting if parts]

    def states(self):
        """Give what the disk may hold if the power fails now: paths, and contents, None of folders."""
        self._read_files(self.root, self.folder)
        count = len(self.changes)
        chosen = [range(n) for n in range(count + 1)] + [[n for n in range(count) if n != out] for out in range(count)]
        for each in chosen:
            for lose in LOSSES.values():
                yield self._state(each, lambda content, lose=lose: lose(content))
        if self.draw is not None:
            for _ in range(20):
                some = [n for n in range(count) if self.draw.random() < 0.5]
                yield self._state(some, lambda content: self.draw.choice([*LOSSES.values()])(content))

    def _state(self, chosen, lose):
        folders = {}
        for folder, name, node in (part for n in chosen for part in self.changes[n]):
            _put(folders.setdefault(folder, dict(folder.kept)), name, node)
        state = {}

        def walk(node, path):
            for name, each in folders.get(node, node.kept).items():
                place = f"{path}{name}"
                if isinstance(each.holds, dict):
                    state[place] = None
                    walk(each, f"{place}/")
                else:
                    state[place] = lose(each.holds) if each.kept != each.holds else each.kept

        walk(self.root, "")
        return state

    def _read_files(self, node, path):
        for name, each in node.holds.items():
            if isinstance(each.holds, dict):
                self._read_files(each, path / name)
            elif each.is_written and (path / name).exists():
                each.holds = (path / name).read_bytes()


def _load(path):
    return Node({each.name: _load(each) for each in path.iterdir()} if path.is_dir() else path.read_bytes())


def _put(names, name, node):
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


@contextmanager
def followed(disk):
    """Have a disk follow what is asked of the file system."""
    FAULTS.hear = disk.hear
    try:
        yield disk
    finally:
        FAULTS.hear = None


def restore(state, folder: Path):
    """Write what a disk holds into a new folder."""
    folder.mkdir(parents=True)
    for name in sorted(state):
        path = folder / name
        path.mkdir() if state[name] is None else path.write_bytes(state[name])
