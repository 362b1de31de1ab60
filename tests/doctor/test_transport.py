"""`doctor` recommends TLS to stores on other machines."""

import pytest

from gateway.config.database_logins import PROCESSES, Process, setting
from gateway.config.settings import Settings
from gateway.doctor.transport import check_stores_tls, is_postgres_safe, is_redis_safe


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://u:p@127.0.0.1/d", True),
        ("postgresql://u:p@localhost:5433/d", True),
        ("postgresql:///d?host=/run/postgresql", True),
        ("postgresql://u@db.example/d", False),
        ("postgresql://u@db.example/d?sslmode=require", False),
        ("postgresql://u@db.example/d?sslmode=verify-ca", False),
        ("postgresql://u@127.0.0.1,db.example/d", False),
        ("postgresql://u@127.0.0.1/d?host=db.example", False),
        ("postgresql://u@db.example/d?sslmode=verify-full", True),
        ("postgresql://u@db.example/d?sslrootcert=system", True),
    ],
)
def test_postgres(url: str, safe: bool) -> None:
    assert is_postgres_safe(url) is safe


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://127.0.0.1/0", True),
        ("unix:///run/redis.sock", True),
        ("redis://u:p@redis.example/0", False),
        ("rediss://u:p@redis.example/0", True),
        ("redis+sentinel://127.0.0.1,localhost/main", True),
        ("redis+sentinel://127.0.0.1,redis.example/main", False),
        ("rediss+sentinel://redis.example/main", True),
        ("rediss://redis.example/0?ssl_cert_reqs=none", False),
        ("rediss://redis.example/0?ssl_check_hostname=false", False),
    ],
)
def test_redis(url: str, safe: bool) -> None:
    assert is_redis_safe(url) is safe


def test_both_are_named_and_no_password_is() -> None:
    env = {"DATABASE_URL": "postgresql://u:Xq7@db.example/d", "REDIS_URL": "redis://:Xq7@redis.example"}
    found = check_stores_tls(Settings.of(env))
    assert [(each.what, each.level) for each in found] == [("postgres", "warn"), ("redis", "warn")]
    assert "Xq7" not in str(found)
    assert "sslmode=verify-full" in found[0].fix
    assert "rediss://" in found[1].fix


@pytest.mark.parametrize("process", PROCESSES)
def test_the_login_of_a_process_is_looked_at_too(process: Process) -> None:
    name = setting(process).upper()
    env = {
        "DATABASE_URL": "postgresql://u:Xq7@db.example/d?sslmode=verify-full",
        name: "postgresql://u:Xq7@db.example/d",
    }
    (found,) = check_stores_tls(Settings.of(env))
    assert found.says.startswith(f"{name}: ")
    assert "Xq7" not in str(found)
