"""What is made of the address of a PostgreSQL database."""

from __future__ import annotations

import pytest

from langswarm_session import InvalidInputError
from langswarm_session.storage.postgres.address import parse_address

VARIABLES = ("PGSERVICE", "PGHOSTADDR", "PGPORT", "PGCHANNELBINDING", "PGGSSENCMODE")


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def query_for_driver(query: str) -> str:
    dsn = parse_address(f"postgresql://ann@host/db?{query}").dsn
    assert dsn is not None
    return dsn.partition("?")[2]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://ann:p%40ss%2F%23@h1:1,[::1]:2,h3/db?sslmode=verify-full&target_session_attrs=any",
        "postgres://host:/db?application_name=my%20app&options=-c%20work_mem%3D5MB",
        "postgresql://ann@%2Frun%2Fpostgresql/db",
    ],
)
def test_the_driver_is_given_what_it_understands_as_it_is(dsn: str) -> None:
    assert parse_address(dsn).dsn == dsn


def test_what_is_ours_is_taken_out() -> None:
    address = parse_address(
        "postgresql://ann:secret@host/db?schema=a%20b&sslmode=disable&table_prefix=&connect_timeout=5"
    )
    assert address.dsn == "postgresql://ann:secret@host/db?sslmode=disable"
    assert (address.schema, address.table_prefix, address.connect_timeout) == ("a b", "", 5.0)
    assert address.name == "postgresql://host/db"
    assert "secret" not in repr(address)


def test_the_last_option_of_a_name_counts() -> None:
    dsn = "postgresql://host/db?schema=a&schema=b&connect_timeout="
    address = parse_address(dsn)
    assert (address.schema, address.connect_timeout) == ("b", None)


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer",
        "gssencmode=disable",
        "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3",
        "tcp_user_timeout=5000",
        "load_balance_hosts=random",
        "sslcompression=0&sslsni=1&sslcertmode=allow",
        "fallback_application_name=x",
        "channel%5Fbinding=disable",
    ],
)
def test_what_only_tunes_libpq_is_left_out(query: str) -> None:
    assert query_for_driver(f"{query}&application_name=x") == "application_name=x"


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=require",
        "gssencmode=require",
        "sslcertmode=require",
        "sslsni=0",
        "sslmode=secret",
        "ssl_min_protocol_version=secret",
        "target_session_attrs=secret",
        "require_auth=scram-sha-256",
        "requirepeer=postgres",
        "hostaddr=127.0.0.1",
        "service=secret",
        "sslcrldir=/x",
        "connect_timeout=secret",
        "port=5432,x",
        "port=99999",
    ],
)
def test_what_would_not_be_done_is_refused_by_its_name(query: str) -> None:
    with pytest.raises(InvalidInputError, match=query.partition("=")[0]) as caught:
        parse_address(f"postgresql://ann@host/db?{query}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "99999", "123456789"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(InvalidInputError, match="port .* from 1 to 65535") as caught:
        parse_address(f"postgresql://h:1,[::1]:{port}/db")
    assert port not in str(caught.value).replace("from 1 to 65535", "").split()


@pytest.mark.parametrize(
    "begin", ["postgresql+asyncpg", "postgres+psycopg2", "POSTGRESQL", "Postgres"]
)
def test_another_scheme_is_the_reason(begin: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_address(f"{begin}://ann:secret@host/db")
    assert str(caught.value) == f"the dsn begins with {begin}://; write postgresql://"


@pytest.mark.parametrize(
    "dsn", ["", "postgresql:secret", "postgresql://ann%00@h/db", "postgresql://h/db?secret"]
)
def test_what_is_no_address_is_not_shown(dsn: str) -> None:
    with pytest.raises(InvalidInputError, match="no address") as caught:
        parse_address(dsn)
    assert "secret" not in str(caught.value)


# The environment


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGSERVICE", "secret"),
        ("PGHOSTADDR", "127.0.0.1"),
        ("PGPORT", "abc"),
        ("PGPORT", "5432,99999"),
        ("PGCHANNELBINDING", "require"),
        ("PGGSSENCMODE", "require"),
    ],
)
@pytest.mark.parametrize("dsn", [None, "postgresql://ann@host", "postgresql:///db"])
def test_what_the_environment_asks_for_is_not_passed_over(
    name: str, value: str, dsn: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError, match=name) as caught:
        parse_address(dsn)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("dsn", ["postgresql://host/db", "postgresql://?host=/run&dbname=x"])
def test_a_service_is_for_those_who_do_not_say_where_to_go(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICE", "service")
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    assert parse_address(dsn).dsn
    monkeypatch.setenv("PGCHANNELBINDING", "require")
    with pytest.raises(InvalidInputError, match="PGCHANNELBINDING"):
        parse_address(dsn)


def test_the_address_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCHANNELBINDING", "require")
    monkeypatch.setenv("PGPORT", "abc")
    assert query_for_driver("channel_binding=prefer&port=5432") == "port=5432"
