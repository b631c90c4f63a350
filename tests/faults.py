"""Faults of a file system: the Nth thing that is asked of it below a folder fails, or is the last that the process does."""

import errno
import os
import sys
from contextlib import contextmanager
from pathlib import Path

EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "fsync"}
ERRORS = {
    "ENOSPC": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": OSError(errno.EIO, os.strerror(errno.EIO)),
    "EACCES": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "Ctrl-C": KeyboardInterrupt(),
}


class Faults:
    def __init__(self):
        self.folder, self.act, self.at, self.once, self.count = None, None, 0, True, 0
        self.hear = None  # gets all that happens anywhere
        sys.addaudithook(self.see)  # which stays for good, and does nothing while there is no folder
        self.fsync, os.fsync = os.fsync, self.sync

    def sync(self, descriptor):
        self.see("fsync", (os.readlink(f"/proc/self/fd/{descriptor}"),))
        self.fsync(descriptor)

    def see(self, event, arguments):
        if self.hear is not None and event in EVENTS:
            self.hear(event, arguments)
        if self.folder is None or event not in EVENTS or not str(arguments[0]).startswith(self.folder):
            return
        if event == "open" and isinstance(arguments[1], str) and not set("wax+") & set(arguments[1]):
            return
        self.count += 1
        if self.count == self.at or (self.count > self.at and not self.once):
            self.act()


FAULTS = Faults()


@contextmanager
def failing(folder: Path, act, at: int, once: bool = True):
    """Have ``act`` called in place of the Nth thing that is asked of the file system, or of all from there on."""
    FAULTS.folder, FAULTS.act, FAULTS.at, FAULTS.once, FAULTS.count = str(folder), act, at, once, 0
    try:
        yield FAULTS
    finally:
        FAULTS.folder = None
