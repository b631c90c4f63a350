"""Optuna's journal file, mended after killed writers and with the heartbeats that Optuna gives to databases only."""

import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import TrialState

from sb3_rlx2.files import replacing
from sb3_rlx2.studies import timing

CHECKSUM = "crc32"
CREATE_STUDY, CREATE_TRIAL = 0, 4  # op_code of Optuna's records


class LeasedJournalStorage(JournalStorage):
    """
    A journal file beside a folder of leases: an empty file per running trial, whose time is the last heartbeat.

    :param path: the journal, which is made if it does not exist; its file system may be shared over a network
    :param grace_period: seconds without a heartbeat after which a trial's worker counts as dead
    :raises ValueError: if it holds what is no record of a study
    """

    def __init__(self, path: Path, grace_period: float) -> None:
        self._path, self._grace_period = path, grace_period
        self._leases = path.with_name(f"{path.name}.leases")
        self._leases.mkdir(parents=True, exist_ok=True)
        mend(path)
        try:
            super().__init__(_Journal(str(path)))
        except (StorageInternalError, OSError):
            raise
        except Exception as error:  # whatever Optuna makes of a record that holds something else than it wrote
            raise ValueError(f"{path} holds what is no record of a study: {type(error).__name__}: {error}") from error

    @contextmanager
    def exclusive(self, study_id: int) -> Iterator[Callable[[], bool]]:
        """
        Keep other workers of a study out. A lock whose holder died opens after ``timing.LOCK``, as the journal's own does.

        :param study_id: the study
        :return: tells whether they still are: not after this worker was suspended for so long
        """
        with _locked(f"{self._path}.study{study_id}") as held:
            yield held

    def record_heartbeat(self, trial_id: int) -> None:
        """
        Renew the lease of a trial.

        :param trial_id: a running trial
        """
        (self._leases / str(trial_id)).touch()

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """
        Store a trial's state, and end the lease of one that is finished.

        :param trial_id: the trial
        :param state: its new state
        :param values: its results
        """
        changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            (self._leases / str(trial_id)).unlink(missing_ok=True)
        return changed

    def dead_trials(self, study_id: int) -> list[int]:
        """
        List the ids of running trials without a recent heartbeat, by the clock of the file system that all workers share.

        :param study_id: the study
        """
        clock = self._leases / "clock"
        clock.touch()
        now = _modification_time(clock)
        dead = []
        for trial in self.get_all_trials(study_id, deepcopy=False):
            lease = self._leases / str(trial._trial_id)
            if trial.state.is_finished():
                lease.unlink(missing_ok=True)
            elif trial.state == TrialState.RUNNING:
                try:
                    if now - _modification_time(lease) > self._grace_period:
                        dead.append(trial._trial_id)
                except FileNotFoundError:  # killed before its first heartbeat, or just about to give it
                    lease.touch()
        return dead

    def close(self) -> None:
        """Do nothing: the file is opened anew for each access."""


class _Journal(JournalFileBackend):
    """
    A journal whose writers first remove the unfinished line that a killed one left: a record that was never confirmed. Each
    line has a checksum, as an entry more of its record.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(_line(log | {CHECKSUM: _checksum(log)}) for log in logs)
        with _storage_errors(), _locked(self._file_path):
            # In place and not by `files`: to append a line, nobody copies a journal; what a killed writer leaves is cut off.
            _cut_unfinished_line(self._file_path)
            with open(self._file_path, "ab", buffering=0) as file:  # at the end, wherever that is by now
                file.write(lines.encode())
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        with _storage_errors():
            try:
                yield from super().read_logs(log_number_from)
            except ValueError as error:  # a line that was whole when this worker began
                raise ValueError(f"{self._file_path} is damaged: {error}; the same command again mends it") from error


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Tell a file system that is away from an error of the objective, as a database does."""
    try:
        yield
    except OSError as error:
        raise StorageInternalError(str(error)) from error


@contextmanager
def _locked(path: str) -> Iterator[Callable[[], bool]]:
    """
    Hold Optuna's lock of a file. Others break it after ``timing.LOCK``, which a worker that was only suspended finds out by
    what it gets here; at the end it leaves the lock of whoever holds it now alone.
    """
    lock, file, token = JournalFileOpenLock(path, timing.LOCK), Path(f"{path}.lock"), uuid.uuid4().hex

    def held() -> bool:
        with suppress(OSError):  # gone
            return file.read_text() in ("", token)  # empty on a full disk
        return False

    lock.acquire()
    try:
        file.write_text(token)
        yield held
    finally:
        if held():
            with suppress(RuntimeError):  # gone
                lock.release()


def mend(path: Path) -> None:
    """
    Remove lines from a journal that hold no record, which Optuna cannot read past. The journal as it was is kept beside it.

    Such a line arises where Optuna's own writer appends behind the unfinished line of a killed one
    (https://github.com/optuna/optuna/issues/5138).

    :param path: the journal; nothing happens if it does not exist
    :raises ValueError: if a line is lost by which the others are numbered
    """
    if not path.exists():
        return
    with _locked(str(path)):
        lines = path.read_bytes().splitlines(keepends=True)
        sound = [line for line in lines if _is_record(line)]
        if len(sound) == len(lines):
            return
        if _lacks_a_beginning(sound):
            raise ValueError(
                f"{path} is damaged: the line that began a study or a trial is broken, and with it all that is told of it by "
                "its number; put a copy of the journal in its place, or begin with another file"
            )
        backup = path.with_name(f"{path.name}.torn-{time.strftime('%Y%m%d-%H%M%S')}")
        shutil.copy2(path, backup)
        with replacing(path) as mended:
            mended.write_bytes(b"".join(sound))
        print(f"{path} held {len(lines) - len(sound)} broken line(s) of killed writers, now removed; as it was: {backup}")


def _lacks_a_beginning(lines: list[bytes]) -> bool:
    """Tell whether records speak of studies or trials that none has begun: these are numbered as they come."""
    records = [json.loads(line) for line in lines]
    for begins, number in ((CREATE_STUDY, "study_id"), (CREATE_TRIAL, "trial_id")):
        begun = sum(record.get("op_code") == begins for record in records)
        if any(record[number] >= begun for record in records if isinstance(record.get(number), int)):
            return True
    return False


def _is_record(line: bytes) -> bool:
    with suppress(ValueError):
        record = json.loads(line) if line.endswith(b"\n") else None
        return isinstance(record, dict) and record.pop(CHECKSUM, None) in (None, _checksum(record))  # Optuna's have none
    return False


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(_line(record).encode())


def _cut_unfinished_line(path: str) -> None:
    with open(path, "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        tail = b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 4096)
            file.seek(start)
            tail = file.read(end - start)
            if b"\n" not in tail:
                end = start
        end = end - len(tail) + tail.rfind(b"\n") + 1 if b"\n" in tail else 0
        if end < size:
            file.truncate(end)


def _modification_time(path: Path) -> float:
    """Ask for it through an open file: network file systems answer that with the server's state, not a cached one."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime
