"""Has signals wait for the end of a rollout and its gradient steps."""

import os
import signal
import threading
from typing import Any, NoReturn

from stable_baselines3.common.callbacks import BaseCallback

from sb3_rlx2.checkpoint.environments import FROM_TERMINAL

TRAINING = {"learn", "learn_offline"}  # methods of algorithms
SIGNALS = FROM_TERMINAL | {signal.SIGTERM}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or the end of its terminal has ended training, behind a whole gradient step."""


class Interruptible(BaseCallback):
    """
    Has training end at Ctrl-C, SIGTERM and SIGHUP behind a rollout and its gradient steps, by :class:`Interrupted` (a
    ``KeyboardInterrupt``); a second signal ends the process at once.

    :param verbose: see SB3
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.interrupted = False
        self._handlers: dict[signal.Signals, Any] = {}

    def _on_training_start(self) -> None:
        self.interrupted = False
        self._listen()

    def _on_rollout_start(self) -> None:
        if self.interrupted:
            self._leave()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._forget_signals()

    def _leave(self, how: str = "") -> NoReturn:
        self._forget_signals()
        raise Interrupted(f"interrupted at step {self.model.num_timesteps}{how}")

    def _listen(self) -> None:
        """Have signals wait for the end of a rollout; only the main thread can."""
        if threading.current_thread() is threading.main_thread() and not self._handlers:
            _LISTENING.append(self)
            # `nohup` has a closed terminal ignored.
            heard = [each for each in SIGNALS if each == signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._hear) for number in heard}

    def _hear(self, number: int, frame: Any) -> None:
        if not self._is_training(frame):  # it has ended by an error
            self._forget_signals()
            os.kill(os.getpid(), number)
            return
        if self.interrupted:
            os._exit(128 + number)
        self.interrupted = True

    def _is_training(self, frame: Any) -> bool:
        """Tell whether the model's training is among the calls that a signal has interrupted."""
        while frame is not None:
            if frame.f_code.co_name in TRAINING and frame.f_locals.get("self") is self.model:
                return True
            frame = frame.f_back
        return False

    def _forget_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        if self in _LISTENING:
            _LISTENING.remove(self)


_LISTENING: list[Interruptible] = []  # those that signals wait for, from the first on


def _forget_signals_in_child() -> None:
    """Have signals end a child as they would have: where it waits for a lock, Python calls no handler of ours."""
    for listener in reversed(_LISTENING.copy()):
        listener._forget_signals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_signals_in_child)
