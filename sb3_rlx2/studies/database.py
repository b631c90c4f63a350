"""A database as Optuna's storage, with the holes closed that sudden death of workers finds in it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, _CachedStorage

from sb3_rlx2.studies import timing

LOCK_SPACE = 0x524C7832  # of our PostgreSQL advisory locks: "RLx2" in ASCII


class DatabaseStorage(_CachedStorage):
    """
    PostgreSQL or an SQLite file, with Optuna's heartbeats.

    :param url: of the database
    :param heartbeat_interval: seconds between two heartbeats of a running trial
    :param grace_period: seconds without a heartbeat after which a trial's worker counts as dead
    """

    _backend: RDBStorage

    def __init__(self, url: sqlalchemy.URL, heartbeat_interval: int, grace_period: int) -> None:
        options: dict[str, Any] = {"timeout": 60}
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            # Heartbeats are compared as local times. PostgreSQL would take hours to notice that a host lost its power.
            server = f"-c timezone=utc -c idle_in_transaction_session_timeout={timing.SILENCE}s"
            options = {"connect_timeout": 10, "options": server}
        else:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        # Each thread of `--n-jobs` may hold one connection in wait for the lock and need another: as many as are asked for.
        engine_kwargs = {"pool_pre_ping": True, "max_overflow": -1, "connect_args": options}
        engine = sqlalchemy.create_engine(url, **engine_kwargs)
        try:
            # Workers that start together would otherwise create the tables together, and all but one fail.
            with _lock(engine, 0), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                backend = RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs,
                    heartbeat_interval=heartbeat_interval,
                    grace_period=grace_period,
                )
        finally:
            engine.dispose()
        super().__init__(backend)

    @contextmanager
    def exclusive(self, study_id: int) -> Iterator[Callable[[], bool]]:
        """
        Keep other workers of a study out.

        :param study_id: the study
        :return: tells whether they still are: not after a restart of the database, nor after it was suspended for long
        """
        with _lock(self._backend.engine, study_id) as held:
            yield held

    def dead_trials(self, study_id: int) -> list[int]:
        """
        List the ids of running trials without a recent heartbeat.

        Optuna passes over trials that never had one (killed between start and first beat). They get one here, by the
        database's clock; if nobody renews it, they are dead at a later look.

        :param study_id: the study
        """
        query = sqlalchemy.text(
            "SELECT trials.trial_id FROM trials LEFT JOIN trial_heartbeats ON trials.trial_id = trial_heartbeats.trial_id "
            "WHERE study_id = :study AND state = 'RUNNING' AND trial_heartbeats.trial_id IS NULL"
        )
        with self._backend.engine.connect() as connection:
            beatless = connection.execute(query, {"study": study_id}).scalars().all()
        for trial_id in beatless:
            self.record_heartbeat(trial_id)
        return self._get_stale_trial_ids(study_id)

    def close(self) -> None:
        """Close the connections."""
        self._backend.engine.dispose()


@contextmanager
def _lock(engine: sqlalchemy.Engine, key: int) -> Iterator[Callable[[], bool]]:
    """Keep other workers out. The lock opens when its holder dies or, over the network, is silent for ``timing.SILENCE``."""
    if engine.dialect.name == "sqlite":
        with FileLock(f"{engine.url.database}.lock"):
            yield lambda: True  # it opens with the end of its process only
        return
    connection = engine.connect()

    def held() -> bool:
        with suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.execute(sqlalchemy.text("SELECT 1"))
            return True
        return False

    try:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:space, :key)"), {"space": LOCK_SPACE, "key": key})
        yield held
    finally:
        with suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.close()
