"""DATABASE_URL and REDIS_URL as people write them: read as their drivers read what is right, refused where a part of a
secret would be taken for something else, and never quoted.
"""

import contextlib
import re
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.asyncio.connection import parse_url

from gateway.config.dsn import read_dsn
from gateway.config.problems import problems, without_effect
from gateway.config.redis_url import read_redis_url
from gateway.config.settings import Settings

SECRETS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


def driver(url: str, **options: Any) -> tuple[list[Any], Any]:
    """Addresses and parameters, as asyncpg understands them."""
    nothing = dict.fromkeys(
        ("host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile", "direct_tls",
         "server_settings", "target_session_attrs", "krbsrvname", "gsslib")
    )  # fmt: skip
    return connect_utils._parse_connect_dsn_and_args(dsn=url, **{**nothing, **options})  # type: ignore[no-any-return, attr-defined]


@given(SECRETS, SECRETS)
def test_an_escaped_login_arrives_at_the_driver(user: str, password: str) -> None:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    _, found = driver(read_dsn(f"postgresql://{login}@h/db").url)
    assert (found.user, found.password) == (user, password)
    _, found = driver(read_dsn(f"postgres://h/db?user={quote(user, safe='')}&password={quote(password, safe='')}").url)
    assert (found.user, found.password) == (user, password)
    redis = read_redis_url(f"redis://{login}@h/2")
    assert redis.options == {"host": "h", "port": 6379, "db": 2, "username": user, "password": password}


@pytest.mark.parametrize(
    ("given_", "addresses", "pooled"),
    [
        ("postgresql://u:p@h/db", [("h", 5432)], False),
        ("postgresql://u:p@h:6543/db", [("h", 6543)], True),
        ("postgresql://u:p@h:6432/db?pgbouncer=true", [("h", 6432)], True),
        ("postgresql://u@h/db?pgbouncer=true&sslmode=require", [("h", 5432)], True),
        ("postgresql://u@h:6543/db?pgbouncer=false", [("h", 6543)], False),
        ("postgresql://u@/db?host=/run/x&port=5433", ["/run/x/.s.PGSQL.5433"], False),
        ("postgresql://u@%2Frun%2Fx/db", ["/run/x/.s.PGSQL.5432"], False),
        ("postgresql://u@[::1]:5433/db", [("::1", 5433)], False),
        ("postgresql://u@a:1,b:2/db", [("a", 1), ("b", 2)], False),
        ("postgresql://u@a:1,b:2/db?pgbouncer=true", [("a", 1), ("b", 2)], True),
        ("postgresql://u@a,b:5433/db?pgbouncer=1&sslmode=require", [("a", 5432), ("b", 5433)], True),
        ("postgresql://u@a:5432,b:6543/db", [("a", 5432), ("b", 6543)], True),
        ("postgresql://u@/db?host=a,b&port=6543,5432", [("a", 6543), ("b", 5432)], True),
        ("postgresql://u@a:6543,b:6543/db?pgbouncer=true", [("a", 6543), ("b", 6543)], True),
        ("  postgresql://u:pa:ss@h/db\n", [("h", 5432)], False),
    ],
)
def test_where_a_database_url_leads(given_: str, addresses: list[Any], pooled: bool) -> None:
    found = read_dsn(given_)
    assert driver(found.url)[0] == addresses
    assert found.pooled is pooled


def test_one_of_several_hosts_must_take_writes() -> None:
    assert driver(read_dsn("postgresql://u@a,b/db").url)[1].target_session_attrs == "primary"
    assert driver(read_dsn("postgresql://u@a,b/db?target_session_attrs=any").url)[1].target_session_attrs == "any"
    assert driver(read_dsn("postgresql://u@a/db").url)[1].target_session_attrs == "any"


def test_what_the_driver_knows_reaches_it() -> None:
    found = read_dsn(
        "postgresql://u@h/db?sslmode=require&connect_timeout=7&options=-c%20search_path%3Dx&ssl_min_protocol_version=TLSv1.3"
    )
    _, known = driver(found.url)
    assert (known.sslmode.name, known.server_settings) == ("require", {"options": "-c search_path=x"})
    assert (found.connect_timeout_s, found.dropped) == (7, ())


def test_the_systems_certificates() -> None:
    found = read_dsn("postgresql://u@h/db?sslmode=verify-full&sslrootcert=system")
    _, known = driver(found.url, **found.tls)
    assert (known.sslmode.name, known.ssl.check_hostname) == ("verify_full", True)
    with pytest.raises(ValueError, match="sslmode must be verify-full"):
        read_dsn("postgresql://u@h/db?sslmode=require&sslrootcert=system")


NEON = "channel_binding=require"
SUPABASE = "supa=base-pooler.x"
PRISMA = "schema=public&connection_limit=5&pool_timeout=20&socket_timeout=30&statement_cache_size=0"
LIBPQ = "application_name=x&keepalives=1&keepalives_idle=30&tcp_user_timeout=5000&gssencmode=disable&sslsni=1"


@pytest.mark.parametrize("options", [NEON, SUPABASE, PRISMA, LIBPQ])
def test_what_others_need_is_dropped_by_name(options: str) -> None:
    text = f"postgresql://u:p@h/db?{options}&sslmode=require"
    found = read_dsn(text)
    names = sorted(each.partition("=")[0] for each in options.split("&"))
    assert list(found.dropped) == names
    assert driver(found.url)[1].server_settings is None
    (line,) = without_effect(Settings.of({"DATABASE_URL": text}))
    assert line == f"DATABASE_URL: without effect here: {', '.join(names)}"


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("mysql://u@h/d", "it must begin with postgresql:// or postgres://"),
        ("postgresql://u:SECRET/x@h/db", "percent-encoded"),
        ("postgresql://u:SECRET#x@h/db", "percent-encoded"),
        ("postgresql://u:SECRET?x=1@h/db", "percent-encoded"),
        ("postgresql://u:SECRET@x@h/db", "percent-encoded"),
        ("postgresql://u:SECRET x@h/db", "a space or a line break"),
        ("postgresql://u:SECRET%ff@h/db", "not UTF-8"),
        ("postgresql://u:x%00SECRET@h/db", "%00"),
        ("postgresql://u@h:SECRET/db", "the port is not a number"),
        ("postgresql://u@h:70000/db", "the port is not a number"),
        ("postgresql://u@h!SECRET/db", "neither a name nor an address"),
        ("postgresql://u@h/db?sslmode=SECRET", "sslmode must be disable, allow"),
        ("postgresql://u@h/db?target_session_attrs=SECRET", "target_session_attrs must be any"),
        ("postgresql://u@h/db?connect_timeout=SECRET", "connect_timeout must be a whole number"),
        ("postgresql://u@h/db?port=SECRET", "port must be a whole number"),
        ("postgresql://u@h/db?pgbouncer=SECRET", "pgbouncer must be true or false"),
        ("postgresql://u@h/db?gssencmode=require", "gssencmode must be disable, prefer"),
        ("postgresql://u@h/db?sslaccept=strict", "sslaccept must be accept_invalid_certs"),
        ("postgresql://u@h/db?require_auth=SECRET&jit=off", "not known here, remove it: jit, require_auth"),
        ("postgresql://u@h/db?password=a&SECRET=b", "1 option(s) after the ? are not known"),
        ("postgresql://u@h/db?SECRET", "has no value"),
    ],
)  # fmt: skip
def test_a_database_url_that_is_refused(given_: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        read_dsn(given_)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    "given_",
    [
        "redis://",
        "redis://h",
        "redis://h:6380/3",
        "redis://:p%40ss@h/0",
        "redis://u:p%2Fss@[::1]:6380?db=4",
        "unix:///run/x.sock?db=2",
        "unix://u:p@/run/x%20y.sock",
        "rediss://u:p@h/0?ssl_ca_certs=/ca.crt&ssl_certfile=/a&ssl_keyfile=/b&ssl_cert_reqs=none",
    ],
)
def test_a_redis_url_is_read_as_redis_py_does(given_: str) -> None:
    theirs = dict(parse_url(given_))
    kind = theirs.pop("connection_class", None)
    ours = read_redis_url(given_)
    defaults: dict[str, Any] = {"db": 0, "username": None, "password": None}
    defaults |= {} if ours.kind == "unix" else {"host": "localhost", "port": 6379}
    assert ours.options == defaults | theirs
    assert (kind is None) == (ours.kind == "tcp")


def test_what_the_gateway_sets_itself_is_dropped_by_name() -> None:
    text = "redis://h/0?timeout=5&socket_timeout=60&decode_responses=true&protocol=3&max_connections=1"
    found = read_redis_url(text)
    assert found.options == read_redis_url("redis://h/0").options
    (line,) = without_effect(Settings.of({"REDIS_URL": text}))
    assert line == (
        "REDIS_URL: without effect here: decode_responses, max_connections, protocol, socket_timeout, timeout"
    )


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("SECRET", "it must begin with redis:// or rediss:// or unix:// or redis+sentinel:// or rediss+sentinel://"),
        ("redis+sentinel://SECRET@h", "name what the Sentinels call the master"),
        ("redis+sentinel://:SECRET@h/0", "name what the Sentinels call the master"),
        ("redis+sentinel://:SECRET@/main", "name the Sentinels"),
        ("redis+sentinel://h/main/SECRET", "the database after the slash must be a whole number"),
        ("redis+sentinel://h/main?ssl_ca_certs=SECRET", "ssl_ca_certs: only with rediss://"),
        ("redis+sentinel://h/main?sentinel_password=a&SECRET=b", "1 option(s) after the ? are not known"),
        ("redis://h/0?sentinel_password=SECRET", "1 option(s) after the ? are not known"),
        ("redis://:SECRET/x@h/0", "percent-encoded"),
        ("redis://:SECRET#x@h/0", "percent-encoded"),
        ("redis://:SECRET?x@h/0", "percent-encoded"),
        ("redis://:SECRET@x@h/0", "percent-encoded"),
        ("redis://h/SECRET", "the database after the slash must be a whole number"),
        ("redis://a:1,b:2/0", "several hosts"),
        ("redis+cluster://SECRET@a:1,b:2/0", "a Redis Cluster cannot hold the limits"),
        ("redis://h/0?db=SECRET", "db must be a whole number"),
        ("redis://h/0?ssl_ca_certs=SECRET", "ssl_ca_certs: only with rediss://"),
        ("rediss://h/0?ssl_cert_reqs=SECRET", "ssl_cert_reqs must be none, optional, required"),
        ("redis://h/0?sentinel=SECRET", "not known here, remove it: sentinel"),
        ("redis://h/0?password=a&SECRET=b", "1 option(s) after the ? are not known"),
        ("unix://run/SECRET", "absolute path"),
    ],
)
def test_a_redis_url_that_is_refused(given_: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        read_redis_url(given_)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("given_", "sentinels", "service", "db"),
    [
        ("redis+sentinel://a:1,b:2,c/main/3", (("a", 1), ("b", 2), ("c", 26379)), "main", 3),
        ("redis+sentinel://a/main", (("a", 26379),), "main", 0),
        ("redis+sentinel://[::1]:1/main?db=2", (("::1", 1),), "main", 2),
        ("redis+sentinel://a,b/4?service=main.one-1", (("a", 26379), ("b", 26379)), "main.one-1", 4),
    ],
)
def test_sentinels(given_: str, sentinels: tuple[tuple[str, int], ...], service: str, db: int) -> None:
    found = read_redis_url(given_)
    assert (found.kind, found.sentinels, found.service, found.options["db"]) == ("tcp", sentinels, service, db)
    assert "host" not in found.options


def test_the_logins_of_a_master_and_of_its_sentinels() -> None:
    text = "rediss+sentinel://u:p%40@a,b/main/0?sentinel_username=s&sentinel_password=q&ssl_ca_certs=/ca"
    found = read_redis_url(text)
    master = {"db": 0, "username": "u", "password": "p@", "ssl_ca_certs": "/ca"}
    assert (found.kind, found.options, found.files) == ("tls", master, {"ssl_ca_certs": "/ca"})
    assert found.sentinel_login == {"username": "s", "password": "q", "ssl": True, "ssl_ca_certs": "/ca"}
    assert found.shown == "rediss+sentinel://a:26379,b:26379/main/0"


MARK = "Xq7"


@given(st.text("@:/#?&=%[],. \\\n\u20ac", max_size=6), st.text("@:/#?&=%[],. \\\n\u20ac", max_size=6), st.booleans())
def test_no_password_as_it_is_written_is_ever_shown(before: str, after: str, in_query: bool) -> None:
    """Accepted or refused: not in what is said, not in the trace, and nowhere but in the password when accepted."""
    password = f"{before}{MARK}{after}"
    place = f"h/0?password={password}" if in_query else f"u:{password}@h/0"
    for name, scheme in (("DATABASE_URL", "postgresql"), ("REDIS_URL", "redis")):
        try:
            settings = Settings.of({name: f"{scheme}://{place}"})
        except ValidationError as error:
            said = [*problems(error, {}, {}, None), *traceback.format_exception(error), str(error)]
            assert all(MARK not in line for line in said)
        else:
            assert all(MARK not in line for line in [*without_effect(settings), repr(settings)])
            dsn = read_dsn(f"postgresql://{place}")
            assert MARK in str(driver(dsn.url)[1].password)
            assert MARK in str(read_redis_url(f"redis://{place}").options["password"])
            assert MARK not in dsn.shown + read_redis_url(f"redis://{place}").shown


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read, scheme in ((read_dsn, "postgresql"), (read_redis_url, "redis")):
        for each in (text, f"{scheme}://{text}"):
            with contextlib.suppress(ValueError):
                read(each)
