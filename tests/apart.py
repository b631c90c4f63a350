"""Python in processes of its own, forked from one that has imported what is not ours: seconds less for each."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

# Nothing that reads variables which a caller may set; our own package and RL Zoo are imported anew by each. What a process
# imports, or does without a package, is not to be seen in one of these.
IMPORTED = (
    "stable_baselines3",
    "sb3_contrib",
    "gymnasium.envs.mujoco",
    "numba",
    "optuna",
    "matplotlib.pyplot",
    "pandas",
    "scipy.stats",
)
SERVER = f"""
import gc, json, os, runpy, signal, sys
from contextlib import suppress
import {", ".join(IMPORTED)}

def tell(path, number):
    with open(path + ".part", "w") as file:
        file.write(str(number))
    os.rename(path + ".part", path)

gc.freeze()  # or a child would copy all of it as it ends
for line in sys.stdin:
    job = json.loads(line)
    with suppress(ChildProcessError):  # there is none yet
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    if os.fork() > 0:
        continue
    child = os.fork()
    if child > 0:
        tell(job["pid"], child)
        tell(job["status"], os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    for number, path in enumerate((os.devnull, job["out"], job["err"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["variables"])
    sys.argv, sys.path[0] = job["arguments"], job["folder"]
    signal.alarm(job["timeout"])
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    sys.exit()
"""


@cache
def _server():
    line = [sys.executable, "-W", "ignore", "-c", SERVER]
    headless = os.environ | {"MPLBACKEND": "Agg"}  # read as matplotlib is imported
    server = subprocess.Popen(line, stdin=subprocess.PIPE, text=True, env=headless)
    atexit.register(server.communicate)  # the end of its input is its end
    return server


class Process:
    """`python -W ignore -m MODULE ARGUMENT ...`, or `python -W ignore -c CODE ARGUMENT ...` of several lines."""

    def __init__(self, what, *arguments, cwd, timeout=600, variables=None):
        self._result = None
        self._place = tempfile.TemporaryDirectory()
        if "\n" in what:
            code = Path(self._place.name, "code.py")
            code.write_text(what)
            what = code
        self._files = {name: Path(self._place.name, name) for name in ("out", "err", "status", "pid")}
        job = {"arguments": [*map(str, (what, *arguments))], "folder": str(cwd), "timeout": timeout}
        job |= {name: str(path) for name, path in self._files.items()} | {"variables": os.environ | (variables or {})}
        print(json.dumps(job), file=_server().stdin, flush=True)

    def _read(self, name):
        while not self._files[name].exists():
            assert _server().poll() is None
            time.sleep(0.01)
        return self._files[name].read_text()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(int(self._read("pid")), number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def poll(self):
        return self.result().returncode if self._result or self._files["status"].exists() else None

    def result(self):
        """Wait for the end, and give what `subprocess.run` does."""
        if self._result is None:
            with self._place:
                status = int(self._read("status"))
                self._result = subprocess.CompletedProcess((), status, self._read("out"), self._read("err"))
        return self._result


def run(what, *arguments, **kwargs):
    return Process(what, *arguments, **kwargs).result()
