"""Files that would run code, and files of chance, for whatever reads files."""

import base64
import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile
from contextlib import contextmanager

HARMFUL = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "exec",
    "compile",
    "pickle.find_class",
    "socket.connect",
}


class Harm:
    """Unpickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful_pickles(marker):
    """Give pickles each of which makes a folder when it is read by ``pickle``."""
    path = str(marker)
    yield "a call", pickle.dumps(Harm(os.mkdir, path))
    yield "an old call", f"cos\nmkdir\n(S'{path}'\ntR.".encode()
    yield "an instance", f"(S'{path}'\nios\nmkdir\n.".encode()
    yield "an object", f"(cos\nmkdir\nS'{path}'\no.".encode()
    yield "eval", pickle.dumps(Harm(eval, f"__import__('os').mkdir({path!r})"))
    yield "inside a list", pickle.dumps([1, {"a": Harm(os.mkdir, path)}])
    dotted = b"\x80\x04\x8c\x11stable_baselines3\x8c\x19common.save_util.os.mkdir\x93"
    yield "a dotted name", dotted + b"\x8c" + bytes([len(path)]) + path.encode() + b"\x85R."
    module = b"\x80\x04\x8c\x22stable_baselines3.common.save_util\x8c\x02os\x93."
    yield "a module", module


@contextmanager
def watched():
    """Give the list of what is done meanwhile that a reader of values never does."""
    WATCH.seen = []
    try:
        yield WATCH.seen
    finally:
        WATCH.seen = None


class Watch:
    def __init__(self):
        self.seen = None
        sys.addaudithook(self.see)

    def see(self, event, arguments):
        if self.seen is not None and event in HARMFUL:
            self.seen.append((event, arguments))


WATCH = Watch()


def with_pickle(agent, key, content):
    """Give an agent's zip as earlier versions wrote it, with another pickle in place of an attribute's."""
    changed = io.BytesIO()
    with zipfile.ZipFile(agent) as archive, zipfile.ZipFile(changed, "w") as other:
        for name in archive.namelist():
            member = archive.read(name)
            if name.startswith("rlx2."):  # what is read instead of the pickles
                continue
            if name == "data":
                data = json.loads(member)
                data[key] = {":type:": "x", ":serialized:": base64.b64encode(content).decode()}
                member = json.dumps(data).encode()
            other.writestr(name, member)
    return changed.getvalue()


def mutations(content, count, seed=0):
    """Give a file with some bytes changed, cut, doubled or put in from elsewhere, over and over."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 5))):
            at, length = draw.randrange(len(changed)), draw.randrange(1, 40)
            kind = draw.randrange(5)
            if kind == 0:
                changed[at] = draw.randrange(256)
            elif kind == 1:
                del changed[at : at + length]
            elif kind == 2:
                changed[at:at] = changed[at : at + length]
            elif kind == 3:
                changed[at : at + 4] = struct.pack("<i", draw.choice((-1, 0, 2**31 - 1)))
            else:
                changed[at:at] = draw.choice((b"R", b"b", b"\x81", b"\x93", b"cos\nsystem\n", b"i", b"o", b"\x94", b"h\x00"))
        yield bytes(changed)
