"""A PostgreSQL server of the tests' own, in a temporary folder and on a free port of this machine."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest


def program(name):
    """Find a server program; Debian keeps them off the path."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server():
    """Run a server and give its URL. It refuses to run as root."""
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="rlx2-postgres-") as folder:
        if user:
            shutil.chown(folder, user)
        initialise = [program("initdb"), "-D", f"{folder}/data", "-U", "rlx2", "--auth", "trust", "--no-sync"]
        done = subprocess.run(initialise, user=user, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        port = free_port()
        settings = ["listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off"]
        command = [program("postgres"), "-D", f"{folder}/data", *(part for line in settings for part in ("-c", line))]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(port, process, Path(folder, "log"))
            yield f"postgresql://rlx2@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)  # immediate shutdown: nothing is to be kept
            process.wait(30)


def wait_until_ready(port, process, log):
    import psycopg

    for _ in range(300):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, user="rlx2", dbname="postgres").close()
            return
        time.sleep(0.1)
    raise TimeoutError(log.read_text())
