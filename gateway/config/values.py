"""Validates the values of settings. A message never quotes the value, which may be a secret.

Raise ValueError; config/problems.py says it with the setting's name.
"""

import json
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from gateway.config.dsn import read_dsn
from gateway.config.egress import parse_proxy
from gateway.config.key_ring import parse_ring
from gateway.config.redis_url import read_redis_url
from gateway.config.secrets import secret_of, stripe_secrets_of
from gateway.kit.loopback import is_loopback

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
"""What a header's value or a request line can hold without a space, a line break or an encoding to guess."""

_DAY_S: Final = 86_400


def credential(value: SecretStr) -> SecretStr:
    """What is sent in a header. White space around it is removed: mounted secrets often end in a line break."""
    text = value.get_secret_value().strip()
    if not _VISIBLE.fullmatch(text):
        raise ValueError("it is empty or has a space, a line break or a character outside ASCII in it")
    return SecretStr(text)


def items(value: Any) -> Any:
    """A list from one string: `a,b`, or JSON. A list of a file passes through."""
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return [item for each in text.split(",") if (item := each.strip())]
        try:
            value = json.loads(text)
        except ValueError:
            value = None
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError('it must be a list: a,b or ["a", "b"]')
    return value


def part_of_a_day(seconds: int) -> int:
    """Such spans, one after another since the epoch, never hold the end of a UTC day in them."""
    if seconds > 0 and _DAY_S % seconds:
        raise ValueError(f"it must divide a day of {_DAY_S} s, as 3600 or 900 do, so that no span is of two months")
    return seconds


def url(*schemes: str, ends: str = "") -> AfterValidator:
    """A URL with one of these schemes and a host, without query or fragment; `http` only to this machine, because keys,
    prompts and answers would cross a network in the clear. The message never has the value in it.
    """

    def check(value: str) -> str:
        value = value.strip()
        if not _VISIBLE.fullmatch(value):
            raise ValueError("there is a space, a line break or a character outside ASCII in it")
        try:
            parts = urlsplit(value)
            port = parts.port  # raises ValueError when it is none
        except ValueError:
            raise ValueError("it is not a URL") from None
        if parts.scheme not in schemes or not parts.hostname or port == 0:
            raise ValueError(f"it must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("http:// is only for this machine (localhost, 127.0.0.1, [::1]): use https://")
        if parts.query or parts.fragment:
            raise ValueError("it must have neither a query (?) nor a fragment (#)")
        if not value.endswith(ends):
            raise ValueError(f"it must end in {ends}")
        return value

    return AfterValidator(check)


def database_url(value: SecretStr) -> SecretStr:
    read_dsn(value.get_secret_value())
    return value


def redis_url(value: SecretStr) -> SecretStr:
    read_redis_url(value.get_secret_value())
    return value


def stripe_key(value: SecretStr) -> SecretStr:
    if value.get_secret_value().startswith("pk_"):
        raise ValueError("this is a publishable key (pk_); a secret (sk_) or restricted one (rk_) is needed")
    return value


def webhook_secret(value: SecretStr) -> SecretStr:
    """The base64 that Daily.co signs with."""
    secret_of(value.get_secret_value())
    return value


def signing_secrets(value: SecretStr) -> SecretStr:
    """One signing secret of Stripe's, or several."""
    stripe_secrets_of(value.get_secret_value())
    return value


def origin(value: str) -> str:
    """What a browser sends as Origin: scheme, host and port, nothing after them."""
    if value != "*" and re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", value) is None:
        raise ValueError("an origin is https://HOST or https://HOST:PORT in lower case, without a path; or * for any")
    return value


def network(value: Any) -> Any:
    """An IPv4 or IPv6 network, or one address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(str(value).strip())
    except ValueError:
        raise ValueError("a network is 10.0.0.0/8 or fd00::/8, without bits of a host; or one address") from None


def egress_proxy(value: SecretStr) -> SecretStr:
    parse_proxy(value.get_secret_value())
    return value


def ring(value: SecretStr) -> SecretStr:
    parse_ring(value.get_secret_value())
    return value


Credential = Annotated[SecretStr, AfterValidator(credential)]
HttpUrl = Annotated[str, url("http", "https")]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(network)]
