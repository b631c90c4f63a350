"""Optuna's journal file, mended after killed writers and with the heartbeats that Optuna gives to databases only."""

import json
import os
import re
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

from sb3_rlx2.studies import timing

CHECKSUM = "crc32"
CREATE_STUDY, CREATE_TRIAL = 0, 4  # op_code of Optuna's records
BEGINNING = b'{"op_code"'  # of a record
LINE = re.compile(rb"[^\n]*\n|[^\n]+")


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
        Keep other workers of a study out. A lock whose holder died opens after ``timing.SILENCE``, as the journal's own does.

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
    A journal whose writers first blank the unfinished line that a killed one left: a record that was never confirmed. Each
    line has a checksum, as an entry more of its record.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(_line(log | {CHECKSUM: _checksum(log)}) for log in logs).encode()
        with _storage_errors(), _locked(self._file_path):
            # In place and not by `files`: to append a line, nobody copies a journal; what a killed writer leaves is blanked.
            _blank(self._file_path, _unfinished_line(self._file_path))
            with open(self._file_path, "ab", buffering=0) as file:  # at the end, wherever that is by now
                file.write(lines)
                # Again, where this writer was suspended, and another one was killed meanwhile.
                _blank(self._file_path, _unfinished_line(self._file_path, file.tell() - len(lines)))
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        number = log_number_from
        with _storage_errors():
            try:
                for record in super().read_logs(number):
                    number += 1
                    yield record
            except ValueError as error:  # a line that others have damaged since this worker began
                if not mend(Path(self._file_path)):
                    about = f"{self._file_path} is not the file that was read before: {error}"
                    raise ValueError(f"{about}; the same command again reads it from its beginning") from error
                yield from self.read_logs(number)


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
    Hold Optuna's lock of a file. Others break it after ``timing.SILENCE``, which a worker that was only suspended finds out by
    what it gets here; at the end it leaves the lock of whoever holds it now alone.
    """
    lock, file, token = JournalFileOpenLock(path, timing.SILENCE), Path(f"{path}.lock"), uuid.uuid4().hex

    def held() -> bool:
        with suppress(OSError):  # gone
            return file.read_text() == token
        return False

    lock.acquire()
    try:
        file.write_text(token)
    except BaseException:  # a full disk
        lock.release()
        raise
    try:
        yield held
    finally:
        if held():
            with suppress(RuntimeError):  # gone
                lock.release()


def mend(path: Path) -> bool:
    """
    Blank what holds no record in a journal, which Optuna cannot read past. The journal as it was is kept beside it.

    Such a line arises where Optuna's own writer appends behind the unfinished line of a killed one
    (https://github.com/optuna/optuna/issues/5138). Nothing is moved: who reads on has noted where, and who was suspended while
    it wrote, and has lost the lock, writes into this file, too.

    :param path: the journal; nothing happens if it does not exist
    :return: whether there was such a line
    :raises ValueError: if a line is lost by which the others are numbered
    """
    if not path.exists():
        return False
    with _locked(str(path)):
        content = bytearray(path.read_bytes())
        broken = [place for line in LINE.finditer(content) if (place := _broken_part(content, line.start(), line.end()))]
        if not broken:
            return False
        for place in broken:
            content[place.start : place.stop] = b" " * len(place)
        if _lacks_a_beginning(content):
            raise ValueError(
                f"{path} is damaged: the line that began a study or a trial is broken, and with it all that is told of it by "
                "its number; put a copy of the journal in its place, or begin with another file"
            )
        backup = path.with_name(f"{path.name}.torn-{time.strftime('%Y%m%d-%H%M%S')}")
        shutil.copy2(path, backup)
        for place in broken:
            _blank(str(path), place)
        print(f"{path} held {len(broken)} broken line(s) of killed writers, now blank; as it was: {backup}")
        return True


def _broken_part(content: bytearray, start: int, end: int) -> range:
    """Find the bytes of a line before its record; those of one that holds none, with the end that keeps it from the next."""
    line = bytes(content[start:end])
    if _is_record(line) or not (line.strip(b" ") or line.endswith(b"\n")):  # blank up to the next record
        return range(0)
    at = line.find(BEGINNING, 1)
    while at > 0:  # what a writer has appended to the unfinished line of a killed one
        if _is_record(line[at:]) and CHECKSUM.encode() in line[at:]:
            return range(start, start + at)
        at = line.find(BEGINNING, at + 1)
    return range(start, end)


def _lacks_a_beginning(content: bytearray) -> bool:
    """Tell whether records speak of studies or trials that none has begun: these are numbered as they come."""
    records = [json.loads(line) for line in content.split(b"\n") if line.strip(b" ")]
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


def _unfinished_line(path: str, size: int | None = None) -> range:
    """Find the bytes of a last line that has no end, in so many bytes of a file or in all."""
    with open(path, "rb") as file:
        size = end = file.seek(0, os.SEEK_END) if size is None else size
        tail = b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 4096)
            file.seek(start)
            tail = file.read(end - start)
            if b"\n" not in tail:
                end = start
    return range(end - len(tail) + tail.rfind(b"\n") + 1 if b"\n" in tail else 0, size)


def _blank(path: str, place: range) -> None:
    """
    Overwrite some bytes with spaces, which JSON may begin with. A writer that was suspended before this, and has lost the lock
    to others, does nothing to what they have appended; cutting the file would.
    """
    if place:
        with open(path, "r+b", buffering=0) as file:
            file.seek(place.start)
            file.write(b" " * len(place))


def _modification_time(path: Path) -> float:
    """Ask for it through an open file: network file systems answer that with the server's state, not a cached one."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime
