"""Secrets in files: OPENAI_API_KEY_FILE names the file that holds what OPENAI_API_KEY would.

A message never shows the value of such a variable: somebody may have put the secret itself there.
"""

import os
import stat
from collections.abc import Mapping
from typing import Final

from gateway.config.secret_table import NEEDED_BY, file_variable, variable
from gateway.kit.errors import ConfigError

BYTES_MAX: Final = 64 * 1024


def with_file_values(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with each secret read from the file that its `…_FILE` names; these variables are left out.

    Raises ConfigError naming every one that cannot be used.
    """
    read, wrong = dict(environ), []
    for name in NEEDED_BY:
        plain, by_file = variable(name), file_variable(name)
        path = read.pop(by_file, "")
        if not path:
            continue
        if environ.get(plain):
            wrong.append(f"{plain} and {by_file} are both set: keep one")
            continue
        try:
            read[plain] = read_secret(path)
        except OSError as error:
            wrong.append(f"{by_file}: the file cannot be read: {error.strerror}")
        except ValueError as error:
            wrong.append(f"{by_file}: {error}")
    if wrong:
        raise ConfigError("\n  ".join(["configuration:", *wrong]))
    return read


def read_secret(path: str) -> str:
    """What the file holds, without the line break at its end. Raises OSError, ValueError with what would be right."""
    # Not blocking: a named pipe would wait for somebody who writes.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if is_too_open(found.st_mode) and not os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            raise ValueError(
                "other users may read or change the file: chmod 600 (or 640). Docker and Kubernetes mount secrets "
                "read-only, and there any mode is right"
            )
        data = os.read(fd, BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > BYTES_MAX:
        raise ValueError(f"the file is larger than {BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ValueError("the file is empty")
    if "\0" in text:
        raise ValueError("there is a NUL in the file")
    return text


def is_too_open(mode: int) -> bool:
    """Whether others than the owner and the group may read it, or others than the owner may change it."""
    return bool(mode & (stat.S_IRWXO | stat.S_IWGRP))
