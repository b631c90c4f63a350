"""Where Optuna's studies are kept: a database, a journal file, or this process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sb3_rlx2.extras import require
from sb3_rlx2.studies import timing
from sb3_rlx2.studies.database import DatabaseStorage
from sb3_rlx2.studies.journal import LeasedJournalStorage

T = TypeVar("T")

STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError, OSError)  # what a storage that cannot be reached raises


def open_storage(url: str | None, create: bool = True) -> "Storage":
    """
    Open a place for studies that several workers can share, on one machine or on many.

    :param url: ``postgresql://user:password@host/database``, ``sqlite:///file.db`` (one machine), the path of a journal file
        that ends in ``.log`` (a file system that all workers share), or None (this process only)
    :param create: whether to make a file that does not exist
    :return: a storage for Optuna and for :func:`run_trials`, to be closed; a journal that a killed writer left torn is mended
    :raises ValueError: if the URL is of another kind, or the file does not exist and shall not be made
    :raises ConnectionError: if the storage cannot be reached
    :raises MissingExtra: if the packages for PostgreSQL are not installed
    """
    if url is None:
        return _MemoryStorage()
    is_journal = url.endswith(".log") and "://" not in url
    database = None if is_journal else _parse(url)
    if database is not None and database.get_backend_name() == "postgresql":
        require("postgres", f"storage={database.render_as_string()!r}")
    file = url if database is None else _sqlite_file(database)
    if file is not None and not create and not Path(file).exists():
        raise ValueError(f"storage={url!r} does not exist")
    try:
        if database is None:
            return LeasedJournalStorage(Path(url), timing.GRACE_PERIOD)
        return _open_database(database)
    except STORAGE_ERRORS as error:
        shown = url if "://" not in url else sqlalchemy.make_url(url).render_as_string()
        raise ConnectionError(f"storage={shown!r} cannot be reached: {_cause(error)}") from error


def join_study(
    storage: BaseStorage, name: str | None, direction: Literal["minimize", "maximize"], **kwargs: Any
) -> optuna.Study:
    """
    Open a study, which is made if it does not exist; the storage may be restarting meanwhile.

    :param storage: of :func:`open_storage`
    :param name: name of the study, None for one that Optuna makes up
    :param direction: of its objective
    :param kwargs: further arguments of :func:`optuna.create_study`
    :raises StorageInternalError: if the storage does not come back
    """
    return _while_it_recovers(
        lambda: optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True, **kwargs)
    )


def _open_database(database: sqlalchemy.URL) -> DatabaseStorage:
    return _while_it_recovers(lambda: DatabaseStorage(database, timing.HEARTBEAT_INTERVAL, timing.GRACE_PERIOD))


def _while_it_recovers(call: Callable[[], T]) -> T:
    """Repeat a call to a database that may be restarting: for seconds, where a worker that has begun waits for minutes."""
    end = time.monotonic() + timing.OPENING
    while time.monotonic() < end:
        with suppress(*STORAGE_ERRORS):
            return call()
        time.sleep(timing.POLL_INTERVAL)
    return call()


def _sqlite_file(database: sqlalchemy.URL) -> str | None:
    return database.database if database.get_backend_name() == "sqlite" else None


def _parse(url: str) -> sqlalchemy.URL:
    with suppress(ArgumentError):
        parsed = sqlalchemy.make_url(url)
        kind = parsed.get_backend_name()
        if kind == "postgresql" or (kind == "sqlite" and parsed.database not in (None, "", ":memory:")):
            return parsed
    raise ValueError(
        f"storage={url!r} must be postgresql://user:password@host/database, sqlite:///FILE.db or a journal file, FILE.log"
    )


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error).splitlines()[0]


class _MemoryStorage(InMemoryStorage):
    """For one process, which takes its studies with it when it dies."""

    _claims = threading.Lock()  # of the class, because studies are pickled

    @contextmanager
    def exclusive(self, study_id: int) -> Iterator[Callable[[], bool]]:
        with self._claims:
            yield lambda: True

    def record_heartbeat(self, trial_id: int) -> None:
        pass

    def dead_trials(self, study_id: int) -> list[int]:
        return []

    def close(self) -> None:
        pass


Storage = DatabaseStorage | LeasedJournalStorage | _MemoryStorage
