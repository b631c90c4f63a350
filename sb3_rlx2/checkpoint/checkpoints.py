"""The callback that makes a run one that can be killed at any moment and goes on as if nothing had happened."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_rlx2.callbacks import RLx2Callback, all_callbacks
from sb3_rlx2.checkpoint import agent, generations, run_state
from sb3_rlx2.checkpoint.context import arguments, context, difference, kept_arguments
from sb3_rlx2.checkpoint.interruptible import Interruptible
from sb3_rlx2.checkpoint.run_state import Run
from sb3_rlx2.checkpoint.transitions import Transitions
from sb3_rlx2.environment_guard import guard, require_alive, unguard
from sb3_rlx2.files import sweep
from sb3_rlx2.plan import is_share
from sb3_rlx2.validation import check_integer
from sb3_rlx2.warning import warn


class Checkpoints(Interruptible):
    """
    Writes checkpoints of all that a training run is, and goes on from the newest whole one in its folder: a script that is
    started again with the same arguments ends with the same weights, to the last bit, as if it had never been killed. It
    serves SB3's off-policy algorithms and those of this package, and comes after an :class:`RLx2Callback` in a list.

    At Ctrl-C, SIGTERM and SIGHUP the rollout and its gradient steps are finished, a checkpoint is written, and
    :class:`Interrupted` (a ``KeyboardInterrupt``) is raised; a second signal ends the process at once.

    A full disk is a warning. Environments must give their state (see :mod:`sb3_rlx2.checkpoint.environments`); those that do
    not go on at the start of an episode, of which one line warns. So does one where the machine, the number of threads or
    versions have changed, with which numbers may round differently.

    :param folder: folder of the checkpoints; what is in it is gone on from, so a new run needs a new one
    :param every: environment steps between two checkpoints, of ``learn_offline`` gradient steps
    :param keep: how many of the newest stay, besides the one behind the best evaluation
    :param verbose: 1 says when a run goes on
    :raises ValueError: if an argument is out of its range
    """

    model: OffPolicyAlgorithm

    def __init__(
        self,
        folder: str | Path,
        every: int = 10_000,
        keep: int = 2,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if not isinstance(folder, str | Path):
            raise ValueError(f"folder={folder!r} must be the path of a folder")
        self.folder = Path(folder)
        self.every = check_integer("every", every, minimum=1)
        self.keep = check_integer("keep", keep, minimum=1)
        self.seconds = 0.0  # that checkpoints have taken, in the processes before, too
        self._rows = Transitions(self.folder / generations.ROWS)
        self._added = 0  # rows that were added to the buffer since the last checkpoint
        self._seen = 0  # the buffer's next row, when they were last counted
        self._next = 0
        self._step: int | None = None  # of the newest checkpoint, once this callback has written or read it
        self._found: generations.Generation | None = None  # what to go on from
        self._begun: dict[str, Any] = {}
        self._kept: dict[str, Any] | None = None  # arguments whose effect a checkpoint holds
        self._ends: list[int] = []  # steps at which the calls of `learn` have ended that came before
        self._is_whole = False
        self._warned = False

    @property
    def _buffer(self) -> Any:
        return self.model.replay_buffer

    def _on_training_start(self) -> None:
        reason = run_state.why_not(self.model)
        if reason is not None:
            raise ValueError(f"callback=Checkpoints cannot serve: {reason}")
        self._check_order()
        guard(self.model)
        self._is_whole, self._added, self._seen = True, 0, self._buffer.pos
        self._begun = {name: deepcopy(run_state.plain_attributes(each)) for name, each in self._others()}
        self._next = (self.model.num_timesteps // self.every + 1) * self.every
        self._kept = kept_arguments(self.model) if self._kept is None else self._kept
        self._find()
        super()._on_training_start()

    def _find(self) -> None:
        """Look for what to go on from; if the planned steps are done, nothing more will happen, so go there now."""
        sweep(self.folder)
        planned = self.locals["total_timesteps"]
        self._found = generations.newest(self.folder)
        if self._found is None or self._found.step == self._step == self.model.num_timesteps:  # this process has been there
            self._found = None
        elif (self._found.planned or planned) > planned and self._found.step >= planned:
            self._pass_by(planned)
        elif self._found.step >= planned:
            self._go_on()
        elif self._found.step < self.model.learning_starts:
            self._end_warm_up(self._found)

    def _pass_by(self, planned: int) -> None:
        """
        Leave a call of ``learn`` to its end at once, which a checkpoint of a later one is behind: that one counts from where
        this one ended.
        """
        assert self._found is not None
        step = self._found.step
        self._go_on(passes_by=True)
        self._step = self.model.num_timesteps = next((end for end in self._ends if end >= planned), planned)
        warn(f"a call of learn() for {planned} steps passes by: the model is that of step {step}, from {self.folder}")

    def _end_warm_up(self, found: generations.Generation) -> None:
        """Have a warm-up that was over be over, where it is a share of a run that has become longer since."""
        is_given_so = is_share(getattr(self.model, "_as_given", {}).get("learning_starts"))
        if is_given_so and found.read()["counters"]["_n_updates"] > 0:
            self.model.learning_starts = found.step

    def _check_order(self) -> None:
        given = all_callbacks(self.locals["callback"])
        behind = given[next(number for number, each in enumerate(given) if each is self) :]
        if any(isinstance(each, RLx2Callback) for each in behind):
            raise ValueError("callback must hold Checkpoints behind RLx2Callback, which finishes at the start of a rollout")

    def _on_rollout_start(self) -> None:
        if self._found is not None:
            self._go_on()
        elif self.model.num_timesteps >= self._next:
            self._write()
        self._is_whole = False
        super()._on_rollout_start()

    def _on_step(self) -> bool:
        self._count()
        return True

    def _count(self) -> None:
        """Count the rows that have come since the last call: one at most, and none where data are given."""
        self._added += (self._buffer.pos - self._seen) % self._buffer.buffer_size
        self._seen = self._buffer.pos

    def _on_rollout_end(self) -> None:
        self._is_whole = True

    def _on_training_end(self) -> None:
        # A rollout that a callback has broken off has lost a transition, and an error may have come within a gradient step.
        if self._is_whole and sys.exc_info()[0] is None and self._step != self.model.num_timesteps:
            self._ends.append(self.model.num_timesteps)
            self._write()
        unguard(self.training_env)
        super()._on_training_end()

    def _leave(self, how: str = "") -> NoReturn:
        if self._step != self.model.num_timesteps:
            self._write()
        super()._leave(f"; the same call goes on from {self.folder}")

    def _write(self) -> None:
        start = time.monotonic()
        broken = run_state.non_finite(self.model)
        if broken is not None:
            raise ValueError(f"{broken} holds NaN or infinity at step {self.model.num_timesteps}; {self._last_good()}")
        require_alive(self.training_env, self.model.num_timesteps)
        try:
            self._write_generation()
        except OSError as error:  # a full disk is no reason to lose the run
            warn(f"no checkpoint at step {self.model.num_timesteps}: {error}")
        self._next = (self.model.num_timesteps // self.every + 1) * self.every
        self.seconds += time.monotonic() - start

    def _write_generation(self) -> None:
        run = self._run()
        state = run_state.capture(run) | {agent.AGENT: agent.describe(self.model)}
        self._say_what_is_missing(run, state)
        self._count()
        segments = self._rows.write_new(self._buffer, self._added)
        self._added = 0
        about = {
            "algorithm": type(self.model).__name__,
            "arguments": arguments(self.model),
            "kept": self._kept,
            "planned": self.locals["total_timesteps"],
            "ends": self._ends,
            "context": context(),
            "rows": self._rows.total,
            "seconds": self.seconds,
        }
        scores = [each.best_mean_reward for _, each in self._others() if isinstance(each, EvalCallback)]
        about |= {"best": max(scores)} if scores else {}
        generations.write(self.folder, self.model.num_timesteps, state, segments, about)
        self._step = self.model.num_timesteps
        generations.keep(self.folder, self.keep)

    def _go_on(self, passes_by: bool = False) -> None:
        found, self._found = self._found, None
        assert found is not None
        manifest = found.manifest
        self._check_same(manifest, passes_by)
        self._kept, self._ends = manifest.get("kept", self._kept), [*manifest.get("ends", ())]
        state = found.read()
        run = self._run()
        self._say_what_is_missing(run, state)
        left = run_state.left_over(run, state)
        if left:
            warn(f"the run in {self.folder} goes on without {', '.join(left)}, whose state is lost")
        try:
            self._rows.read(self._buffer, found.segments, manifest["rows"])
            run_state.restore(run, state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"the run in {self.folder} was begun with other arguments: {error}") from error
        self.model._num_timesteps_at_start = found.step  # since when this process counts its steps per second
        generations.drop_newer(found)
        self._added, self._seen, self._step = 0, self._buffer.pos, found.step
        self.seconds += manifest.get("seconds", 0.0)
        self._next = (found.step // self.every + 1) * self.every
        if self.verbose > 0:
            print(f"Training goes on from step {found.step:,}: {found.path}")

    def _check_same(self, manifest: Mapping[str, Any], passes_by: bool) -> None:
        """Refuse another run's checkpoint, and say what is not as it was when this call of ``learn`` began."""
        if manifest["algorithm"] != type(self.model).__name__:
            raise ValueError(f"{self.folder} holds checkpoints of {manifest['algorithm']}, not of {type(self.model).__name__}")
        kept, before, now = manifest.get("kept", {}), manifest["arguments"], arguments(self.model)
        held, wanted = before | kept, now | (self._kept or {})
        for name in ("buffer_size", "n_envs", "policy_kwargs.optimizer_class"):
            if name in held and name in wanted and held[name] != wanted[name]:
                raise ValueError(f"{name}={wanted[name]} must be {held[name]}, as in the run in {self.folder} that goes on")
        if passes_by:
            return
        for changed in filter(None, (difference(manifest["context"], context()), difference(before, now))):
            warn(f"the run in {self.folder} goes on, but not to the last bit: {changed}")
        changed = difference(kept, self._kept or {})
        if changed:
            warn(f"the run in {self.folder} goes on with what it was begun with, and not with what is given now: {changed}")

    def _say_what_is_missing(self, run: Run, state: dict[str, Any]) -> None:
        if self._warned:
            return
        missing, lost = state["environments"]["missing"], run_state.lost(run, state)
        self._warned = bool(missing or lost)
        if lost:
            warn(f"a run that goes on ends otherwise, because the state of {', '.join(lost)} cannot be saved")
        if missing:
            warn(
                f"a run that goes on begins a new episode, because the state of {', '.join(missing)} cannot be saved; "
                "environments with get_state() and set_state(state) go on where they were"
            )

    def _last_good(self) -> str:
        return "nothing was saved before" if self._step is None else f"go back to step {self._step} in {self.folder}"

    def _run(self) -> Run:
        return Run(self.model, dict(self._others()), self._begun)

    def _others(self) -> Iterator[tuple[str, BaseCallback]]:
        """Give all callbacks but this one, also those inside others, by a name that the next process gives them too."""
        count = Counter[str]()
        for callback in all_callbacks(self.locals["callback"]):
            kind = type(callback).__name__
            if callback is not self and kind not in run_state.WITHOUT_STATE:
                yield run_state.callback_name(kind, count[kind]), callback
                count[kind] += 1
