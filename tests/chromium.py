"""A headless Chromium, driven by the DevTools protocol through a pipe: no package and no port needed."""

import base64
import json
import os
import shutil
import signal
import threading
from contextlib import contextmanager

import pytest

COMMAND = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


def require_chromium():
    """Skip where there is no Chromium; in CI, where one is installed, fail."""
    if COMMAND is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no chromium on the PATH")


class Page:
    """
    A tab.

    :param write: file to send commands to
    :param read: file that answers and events come from
    """

    def __init__(self, write, read):
        self._write, self._read = write, read
        self._id, self._session = 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send a command and wait for its answer; events that come before it are kept."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while (answer := self._receive()).get("id") != self._id:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url):
        """Open an address and wait until all of it has loaded."""
        self.call("Page.navigate", url=url)
        while not self.named("Page.loadEventFired"):
            self.events.append(self._receive())

    def evaluate(self, expression):
        """Give the value of a JavaScript expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def show(self, width, colours):
        """Have a window of a width in pixels, and the user prefer ``"light"`` or ``"dark"`` colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])

    def picture(self):
        """Give a PNG of the whole page."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def hover(self, selector, most):
        """Put the pointer on the first elements, one after the other, and give the texts that then appear beside them."""
        texts = []
        for number in range(most):
            element = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
            place = self.evaluate(
                f"({element}.scrollIntoView({{block: 'center'}}), {element}.getBoundingClientRect().toJSON())"
            )
            x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            shown = "[...document.querySelectorAll('.tip text')].filter((t) => t.getClientRects().length)"
            texts += self.evaluate(f"{shown}.map((t) => t.textContent)")
        return texts

    def named(self, *methods):
        """Give the parameters of all events of these names so far."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def _receive(self):
        data = bytearray()
        while not data.endswith(b"\0"):
            waiting = self._read.peek()
            assert waiting, "chromium has ended"
            data += self._read.read(waiting.find(b"\0") + 1 or len(waiting))
        del data[-1]
        return json.loads(data)


@contextmanager
def chromium(profile):
    """
    Start a browser with one tab.

    :param profile: an empty folder
    """
    commands, write = os.pipe()
    read, answers = os.pipe()
    placed = [(os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]  # where Chromium looks for them
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    arguments = [COMMAND, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    pid = os.posix_spawn(COMMAND, arguments, os.environ, file_actions=[*placed, *silent])
    os.close(commands)
    os.close(answers)
    watchdog = threading.Timer(120, os.kill, (pid, signal.SIGKILL))  # a browser that hangs ends, and with it the pipe
    watchdog.start()
    with os.fdopen(write, "wb") as write_file, os.fdopen(read, "rb") as read_file:
        try:
            yield Page(write_file, read_file)
        finally:
            watchdog.cancel()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
