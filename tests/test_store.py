"""The store on SQLite and on PostgreSQL: its tables, who waits for whom, and that it is down in a
clear way.
"""

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import bindparam, func, inspect, select

from cds_service.config import migrations_dir
from cds_service.errors import CannotServe, StoreDown
from cds_service.store import (
    SCHEMA,
    TABLES,
    TOKEN_USED,
    Store,
    checked_url,
    patient_key,
    user_key,
)
from tests.databases import Cluster, Databases, opened
from tests.loopback import free_port

SECRET = b"s" * 32


@pytest.fixture
def store(databases: Databases) -> Iterator[Store]:
    with opened(databases.migrated()) as found:
        yield found


# -- tables ------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_code_writes(store: Store) -> None:
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, TABLES) == []
        assert set(inspect(connection).get_table_names()) == {*TABLES.tables, "alembic_version"}
    assert store.schema() == SCHEMA
    store.check()


def test_a_store_that_is_created_is_one_that_was_migrated(databases: Databases) -> None:
    with opened(databases.empty()) as created, opened(databases.empty()) as migrated:
        created.create()
        created.create()  # as a second server that started beside the first
        migrated.migrate(migrations_dir())
        assert _tables(created) == _tables(migrated)
        created.check()
        created.migrate(migrations_dir())
        created.check()


def _tables(store: Store) -> dict[str, object]:
    with store.reading() as connection:
        found = inspect(connection)
        return {
            name: (
                [{**x, "type": str(x["type"])} for x in found.get_columns(name)],
                found.get_pk_constraint(name)["constrained_columns"],
                sorted(map(str, found.get_indexes(name))),
                sorted(map(str, found.get_unique_constraints(name))),
                sorted(map(str, found.get_foreign_keys(name))),
            )
            for name in sorted(found.get_table_names())
        }


def test_migrating_again_changes_nothing(store: Store) -> None:
    assert store.use_token("https://ehr.example", "t1", 1)
    store.migrate(migrations_dir())
    assert not store.use_token("https://ehr.example", "t1", 1)


def test_a_store_without_our_tables_is_refused_and_told_what_to_do(databases: Databases) -> None:
    with opened(databases.empty()) as store:
        assert store.schema() == ""
        with pytest.raises(CannotServe, match=r"no tables of ours.*cds-service migrate"):
            store.check()


# -- writing and reading -----------------------------------------------------------------------


def _tokens(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(TOKEN_USED)).scalar_one()


_TOKENS_OF = select(TOKEN_USED.c.token, TOKEN_USED.c.until).where(
    TOKEN_USED.c.issuer == bindparam("issuer"), TOKEN_USED.c.until > bindparam("since")
)


def test_what_every_call_asks_finds_what_was_written(store: Store) -> None:
    for issuer, token, until in (("a", "one", 1), ("a", "it's 100 %s", 2), ("b", "three", 3)):
        store.use_token(issuer, token, until)
        assert (token, until) in store.rows(_TOKENS_OF, {"issuer": issuer, "since": 0})
    assert store.rows(_TOKENS_OF, {"issuer": "a", "since": 1}) == [("it's 100 %s", 2)]
    assert store.rows(_TOKENS_OF, {"issuer": "a' or 'a' = 'a", "since": 0}) == []


def test_what_fails_half_way_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.writing() as connection:
        connection.execute(TOKEN_USED.insert(), {"issuer": "a", "token": "b", "until": 1})
        raise ZeroDivisionError
    assert _tokens(store) == 0


def test_of_many_who_use_a_token_at_once_one_is_first(databases: Databases) -> None:
    url = databases.migrated()
    with opened(url) as one, opened(url) as other, ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(store.use_token, "https://ehr.example", f"t{n}", n)
            for n in range(20)
            for store in (one, other, one, other)
        ]
        assert [x.result() for x in asked].count(True) == 20
        assert _tokens(one) == 20


def test_the_same_token_of_another_issuer_is_another(store: Store) -> None:
    assert store.use_token("https://a.example", "t", 1)
    assert store.use_token("https://b.example", "t", 1)


def test_who_reads_and_who_writes_do_not_wait_for_each_other(store: Store) -> None:
    with store.reading() as reader:
        reader.execute(select(TOKEN_USED)).all()
        started = time.monotonic()
        assert store.use_token("a", "b", 1)
        with store.writing() as writer:
            writer.execute(TOKEN_USED.insert(), {"issuer": "a", "token": "c", "until": 1})
            assert _tokens(store) == 1
    assert _tokens(store) == 2
    assert time.monotonic() - started < 2


def test_sqlite_is_on_disk_when_a_write_returns(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/store.sqlite") as store, store.reading() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        found = [connection.exec_driver_sql(f"PRAGMA {x}").scalar() for x in asked]
        assert found == ["wal", 2, 1, 1]


# -- down --------------------------------------------------------------------------------------


def _down_within(seconds: float, store: Store) -> StoreDown:
    started = time.monotonic()
    with pytest.raises(StoreDown) as down:
        store.use_token("https://ehr.example", "secret-token", 1)
    assert time.monotonic() - started < seconds
    said = f"{down.value} {down.value.diagnostics}"
    assert "secret-token" not in said and "insert" not in said.lower()
    return down.value


def test_a_database_that_does_not_listen_is_down_at_once() -> None:
    with opened(f"postgresql://cds:hidden@127.0.0.1:{free_port()}/cds") as store:
        assert "hidden" not in str(_down_within(5, store))


def test_after_a_restart_of_postgresql_the_first_write_succeeds(postgresql: Cluster) -> None:
    url = Databases("postgresql", postgresql.folder, postgresql).migrated()
    with opened(url) as store:
        assert store.use_token("a", "before", 1)
        postgresql.stop()
        postgresql.start()
        assert store.rows(_TOKENS_OF, {"issuer": "a", "since": 0}) == [("before", 1)]
        assert store.use_token("a", "after", 1)
        assert store.rows(_TOKENS_OF, {"issuer": "a", "since": 0}) == [("before", 1), ("after", 1)]
        postgresql.stop()
        _down_within(5, store)
        with pytest.raises(StoreDown) as down:
            store.rows(_TOKENS_OF, {"issuer": "secret", "since": 0})
        assert "secret" not in f"{down.value} {down.value.diagnostics}"
        postgresql.start()
        assert len(store.rows(_TOKENS_OF, {"issuer": "a", "since": 0})) == 2
        assert store.use_token("a", "after both", 1)
        assert _tokens(store) == 3


def test_a_file_that_cannot_be_opened_is_down(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/no/such/store.sqlite") as store:
        _down_within(5, store)


def test_a_file_that_another_keeps_locked_is_down_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with opened(f"sqlite:///{path}") as store:
        store.migrate(migrations_dir())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            _down_within(15, store)
            other.execute("ROLLBACK")
        assert store.use_token("a", "b", 1)


def test_a_file_that_may_only_be_read_is_down_for_writers(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with opened(f"sqlite:///{path}") as first:
        first.migrate(migrations_dir())
        with opened(f"sqlite:///file:{path}?mode=ro&uri=true") as store:
            assert _tokens(store) == 0
            _down_within(5, store)


@pytest.mark.parametrize(
    "url", ["mysql://db/cds", "store.sqlite", "", "postgresql://db:port/cds", "sqlite"]
)
def test_what_is_neither_sqlite_nor_postgresql_is_refused_without_a_word_of_it(url: str) -> None:
    for refuses in (checked_url, Store):
        with pytest.raises(ValueError, match=r"^must be a sqlite: or postgresql: URL$"):
            refuses(url)


# -- keys --------------------------------------------------------------------------------------


def test_a_patient_has_one_key_per_client_server_and_secret() -> None:
    whole = ("https://ehr", "north", "https://fhir/r4", "p1")
    key = patient_key(SECRET, *whole)
    assert key == patient_key(SECRET, "https://ehr", "north", "https://fhir/r4/", "p1")
    others = [
        patient_key(b"t" * 32, *whole),
        patient_key(SECRET, "https://e", *whole[1:]),
        patient_key(SECRET, "https://ehr", "south", *whole[2:]),
        patient_key(SECRET, "https://ehr", "north", "https://fhir", "p1"),
        patient_key(SECRET, *whole[:3], "p2"),
    ]
    assert len({key, *others}) == 6
    assert patient_key(SECRET, "a", "b", "", "c") != patient_key(SECRET, "ab", "", "", "c")
    assert "p1" not in key and len(key) == 64


def test_a_user_has_one_key_per_client_whatever_the_server() -> None:
    assert user_key(SECRET, "a", "b", "Practitioner/1") != user_key(SECRET, "a", "", "b")
    assert user_key(SECRET, "a", "b", "") == ""
