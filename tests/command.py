"""The command `rlx2` inside the process of the tests, which saves seconds of imports per call; and what its tests share."""

import os
import sys
from unittest import mock

from sb3_rlx2.__main__ import main

# A run of a second: tiny networks, a small buffer, one thread.
TINY = ["--eval-freq", "-1", "-f", "logs", "--num-threads", "1", "--seed", "1"]
TINY_PARAMETERS = ["policy_kwargs:dict(net_arch=[16])", "buffer_size:1000", "buffer_min_size:10", "learning_starts:50"]


class Command:
    def __init__(self, monkeypatch, capfd):
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *arguments, status=0):
        """Run the command, check its exit status, and give what it wrote."""
        self.capfd.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["rlx2", *map(str, arguments)])
        code: object = None
        with mock.patch.dict(os.environ):
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code
        output = "".join(self.capfd.readouterr())
        if isinstance(code, str):  # Python writes it to stderr and exits with 1
            code, output = 1, output + code
        assert (code or 0) == status, output
        return output

    def error(self, *arguments, status=1):
        """Run a command that fails, and give its last line."""
        output = self(*arguments, status=status)
        assert "Traceback" not in output
        return output.splitlines()[-1]

    def train(self, algo, *arguments, env="Pendulum-v1", parameters=()):
        return self("train", "--algo", algo, "--env", env, *TINY, *arguments, "-params", *TINY_PARAMETERS, *parameters)
