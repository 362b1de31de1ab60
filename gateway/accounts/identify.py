"""Finds a user by id or e-mail address."""

import re
from typing import Final

from gateway.accounts.store import Accounts, User
from gateway.kit.errors import OptionError

EMAIL_MAX: Final = 254
"""Characters in an e-mail address at most (RFC 5321, a path without its brackets)."""
NAME_MAX: Final = 255
"""Characters in the name of a user or a key at most."""
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)*")


def is_email(text: str) -> bool:
    """Catches a slip, proves nothing: one @ with something around it, no blanks, not too long."""
    return bool(_EMAIL.fullmatch(text)) and len(text) <= EMAIL_MAX and text.isprintable()


async def known_user(accounts: Accounts, who: str) -> User:
    """The user whom WHO names. Raises OptionError when there is none."""
    user = await accounts.find(who.strip()) if who.isprintable() else None
    if user is None:
        raise OptionError(f"WHO: there is no user {who!r}; `gateway users list --all` has all of them")
    return user
