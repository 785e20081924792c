"""The store: tokens used, cards issued, feedback, overrides and tallies, in SQLite or PostgreSQL.

Patients are in it as keyed hashes only. A write that returns is on disk.
"""

import hmac
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from cds_service.errors import CannotServe, StoreDown

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.sql.compiler import SQLCompiler

SCHEMA = "0001"  # the newest of migrations/versions
BUSY_MILLISECONDS = 5000  # how long SQLite waits for another writer
CONNECT_SECONDS = 3
SILENT_MILLISECONDS = 10_000  # how long PostgreSQL may leave what was sent without a sign

TABLES = MetaData()
# As alembic makes it, which writes down there how far its migrations have come.
VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def _text(name: str, **more: Any) -> "Column[str]":
    return Column(name, Text, nullable=False, **more)


def _when(name: str, **more: Any) -> "Column[int]":
    """Milliseconds since 1970, UTC."""
    return Column(name, BigInteger, nullable=False, **more)


TOKEN_USED = Table(
    "token_used",
    TABLES,
    _text("issuer", primary_key=True),
    _text("token", primary_key=True),
    _when("until", index=True),
)
CARD = Table(
    "card",
    TABLES,
    _text("id", primary_key=True),
    *map(_text, ("issuer", "tenant", "service", "topic", "variant", "indicator")),
    Column("shadow", Boolean, nullable=False),
    *map(_text, ("content", "patient", "asked_by", "evidence", "suggestions")),
    _when("issued", index=True),
    Index("card_of_patient", "issuer", "tenant", "patient", "topic"),
)
FEEDBACK = Table(
    "feedback",
    TABLES,
    Column("id", Integer, primary_key=True),
    *map(_text, ("issuer", "tenant", "service", "card", "suggestion", "outcome", "outcome_at")),
    *map(_text, ("reason_system", "reason")),
    _when("received", index=True),
    UniqueConstraint("issuer", "tenant", "card", "suggestion", "outcome", "outcome_at"),
)
COMMENT = Table(
    "comment",
    TABLES,
    Column("feedback", ForeignKey("feedback.id", ondelete="CASCADE"), primary_key=True),
    _text("text"),
)
OVERRIDE = Table(
    "override",
    TABLES,
    Column("id", Integer, primary_key=True),
    *map(_text, ("issuer", "tenant", "patient", "topic", "reason", "asked_by", "card", "evidence")),
    Column("commented", Boolean, nullable=False),
    _when("began"),
    Index("override_of_patient", "issuer", "tenant", "patient"),
    UniqueConstraint("issuer", "tenant", "card", "reason", "began"),
)
CHARTS_SEEN = Table(
    "charts_seen",
    TABLES,
    *(_text(name, primary_key=True) for name in ("day", "issuer", "service", "content")),
    Column("count", Integer, nullable=False),
)


class Store:
    """One database; any number of threads and processes may use it at once.

    Raises ValueError for a URL that is neither SQLite's nor PostgreSQL's.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._reader = self._engine.execution_options(only_reads=True)
        # Who asks in their turn must not wait for a connection that writers have: SQLite's readers
        # have their own, which costs next to nothing.
        self._asking = _engine(url) if self.is_sqlite else self._engine
        self._compiled: dict[Select[Any], SQLCompiler] = {}

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end; raises StoreDown when it cannot be."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise _down(error) from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with; raises StoreDown when there is none."""
        try:
            with self._reader.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _down(error) from None

    def rows(self, statement: Select[Any], values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """What a statement that is asked with every call finds, each of its values by a bindparam;
        raises StoreDown.

        It is compiled once and goes to the driver: on SQLAlchemy's own way it takes five times as
        long. Rows are as the driver has them.
        """
        compiled = self._compiled.get(statement)
        if compiled is None:
            compiled = self._compiled[statement] = statement.compile(self._engine)
        names = compiled.positiontup
        given = dict(values) if names is None else [values[x] for x in names]
        dbapi = self._engine.dialect.dbapi
        assert dbapi is not None
        try:
            with closing(self._asking.raw_connection()) as connection:
                try:
                    cursor = connection.cursor()
                    cursor.execute(compiled.string, given)
                    return list(cursor.fetchall())
                except dbapi.Error:
                    connection.invalidate()  # it may be of no use any more
                    raise
        except (SQLAlchemyError, dbapi.Error) as error:
            raise _down(error) from None

    def use_token(self, issuer: str, token: str, until: int) -> bool:
        """Notes that a token was used, to be kept until then; whether it was for the first time.

        Raises StoreDown.
        """
        try:
            with self.writing() as connection:
                row = {"issuer": issuer, "token": token, "until": until}
                connection.execute(TOKEN_USED.insert(), row)
        except IntegrityError:
            return False
        return True

    def forget_tokens(self, before: int) -> None:
        """Deletes the used tokens that were to be kept until an earlier time; raises StoreDown."""
        with self.writing() as connection:
            connection.execute(TOKEN_USED.delete().where(TOKEN_USED.c.until < before))

    def check_writable(self) -> None:
        """Raises StoreDown unless a write comes to the disk."""
        with self.writing() as connection:
            insert = insert_into(connection, TOKEN_USED).values(issuer="", token="", until=0)
            again = insert.on_conflict_do_update(
                index_elements=["issuer", "token"], set_={"until": TOKEN_USED.c.until + 1}
            )
            connection.execute(again)

    def check(self) -> None:
        """Raises CannotServe unless the schema is the one this software writes."""
        found = self.schema()
        if found != SCHEMA:
            was = f"is {found}" if found else "has no tables of ours"
            why = f"{was}; this software needs {SCHEMA}: cds-service migrate"
            raise CannotServe(f"the store {self.where} {why}")

    def schema(self) -> str:
        """The schema's revision, "" for an empty store; raises StoreDown."""
        with self.reading() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return (
                connection.execute(text("select version_num from alembic_version")).scalar() or ""
            )

    def create(self) -> None:
        """Makes the tables of an empty store, as all migrations together would; raises
        StoreDown. Another server may have made them in between.
        """
        with self.writing() as connection:
            if not inspect(connection).has_table("alembic_version"):
                TABLES.create_all(connection)
                VERSION.create(connection)
                connection.execute(VERSION.insert(), {"version_num": SCHEMA})

    def migrate(self, scripts: Path) -> None:
        """Brings the schema up to date; `scripts` is the folder of migrations."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(scripts))
        with self.writing() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @property
    def where(self) -> str:
        """Its URL, without a password."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """The file of a SQLite store, None for another."""
        return Path(self._engine.url.database or "") if self.is_sqlite else None

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this machine."""
        return self._engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Ends its connections."""
        self._engine.dispose()
        self._asking.dispose()


def insert_into(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """An insert that can be told what to do about a row that is there already."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # takes long to import: only where it is in use

    return postgresql.insert(table)


def checked_url(text: str) -> str:
    """The URL of a store; raises ValueError, without the URL, for one that is none."""
    try:
        kind = make_url(text).get_backend_name()
    except (ArgumentError, ValueError):
        kind = ""
    if kind not in ("sqlite", "postgresql"):
        raise ValueError("must be a sqlite: or postgresql: URL")
    return text


def milliseconds(at: datetime) -> int:
    """A moment as the store has it."""
    return int(at.timestamp() * 1000)


def patient_key(secret: bytes, issuer: str, tenant: str, fhir_server: str, patient: str) -> str:
    """What stands for a patient in the store: the same for the same patient of the same client, and
    nothing to anybody without the secret.
    """
    said = "\0".join((issuer, tenant, fhir_server.rstrip("/"), patient)).encode()
    return hmac.digest(secret, said, "sha256").hex()


def user_key(secret: bytes, issuer: str, tenant: str, user: str) -> str:
    """What stands for a user in the store, likewise; "" for none."""
    return patient_key(secret, issuer, tenant, "user", user) if user else ""


def _engine(url: str) -> Engine:
    parsed = make_url(checked_url(url))
    wait = BUSY_MILLISECONDS / 1000
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, pool_timeout=wait, connect_args={"timeout": wait})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_timeout=wait,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": SILENT_MILLISECONDS,
        },
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say: see _begin_sqlite
    pragmas = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its place in the queue at once; one that first read could only fail. Who only
    reads waits for nobody.
    """
    if not connection.get_execution_options().get("only_reads"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("BEGIN")  # does not touch the file yet, so there is nothing that can fail


# What SQLite says of its file, as opposed to what it was asked.
_OF_THE_FILE = (
    *("database is locked", "unable to open database file", "database or disk is full"),
    *("attempt to write a readonly database", "disk I/O error", "file is not a database"),
)


def _down(error: Exception) -> StoreDown:
    """Without the statement or its values: they may hold what no log may."""
    said = str(getattr(error, "orig", error))
    why = said if said in _OF_THE_FILE else type(error).__name__
    return StoreDown("The store cannot be reached.", why)
