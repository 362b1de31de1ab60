"""Whether a key of Unkey may approve corrections: the second pair of eyes shows that it is one."""

from pathlib import Path
from typing import Final

from gateway.config.settings import Settings
from gateway.http.outbound import vendor_session
from gateway.keys.verify import Keys
from gateway.kit.errors import ConfigError, OptionError

APPROVE: Final = "corrections.approve"
EVERY: Final = "corrections.*"
KEY_CHARS_MAX: Final = 512


async def check_approver(settings: Settings, key_file: Path) -> str:
    """Unkey's id of the key in this file, which has the permission to approve.

    Raises OptionError where it has not, ConfigError without UNKEY_ROOT_KEY, DependencyDown.
    """
    if settings.unkey_root_key is None:
        raise ConfigError("UNKEY_ROOT_KEY is not set: Unkey says whether a key may approve corrections")
    key = _read_key(key_file)
    url = settings.unkey_base_url
    async with vendor_session(settings, url) as session:
        root_key = settings.unkey_root_key.get_secret_value()
        keys = Keys(session, url, root_key, timeout_s=settings.keys.timeout_s)
        verdict = await keys.verify(key)
    if not verdict.valid or verdict.code != "VALID" or verdict.key_id is None:
        raise OptionError(f"--key-file: Unkey does not accept this key ({verdict.code})")
    if not {APPROVE, EVERY} & set(verdict.permissions or ()):
        raise OptionError(f"--key-file: the key {verdict.key_id} lacks the permission {APPROVE}")
    return verdict.key_id


def _read_key(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        # Of a UnicodeError the name alone: its message quotes the file.
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise OptionError(f"--key-file: {path} cannot be read: {reason}") from None
    if not text or len(text) > KEY_CHARS_MAX or not text.isprintable() or " " in text:
        raise OptionError(f"--key-file: {path} does not hold one key")
    return text
