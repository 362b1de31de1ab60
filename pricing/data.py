"""The price files that ship with the package. The only place in pricing/ that reads files, and only when called."""

from importlib.resources import files


def read_texts() -> dict[str, str]:
    """File name → TOML text of every packaged price file. OSError when the installation is broken."""
    folder = files("pricing") / "prices"
    return {item.name: item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".toml")}
