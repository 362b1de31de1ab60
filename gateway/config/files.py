"""Files that connection strings name: certificates and keys. Drivers say that one is missing, but not which."""

from collections.abc import Mapping

from gateway.kit.errors import ConfigError


def check_files(setting: str, files: Mapping[str, str]) -> None:
    """`files`: option → path. Raises ConfigError naming the first that cannot be read, and where it is set."""
    for option, path in files.items():
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ConfigError(f"{setting}: {option}={path} cannot be read: {error.strerror}") from None
