"""Collecting the tests at less cost: each worker of `pytest -n` imports all of them."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Each worker begins with another folder: in a new clone it compiles those, and finds the others' compiled."""
    worker: dict[str, object] = getattr(config, "workerinput", {})
    if worker and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        files = sorted(path for top in config.args for path in (config.rootpath / top).rglob("test_*.py"))
        first = len(files) * int(str(worker["workerid"]).removeprefix("gw")) // int(str(worker["workercount"]))
        folders = [path.parent for path in files[first:] + files[:first]]
        config.args = [str(folder) for folder in dict.fromkeys(folders)]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In one order again: the workers must agree on it."""
    items.sort(key=_place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What was collected stays until the end: the garbage collector need not look through all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def _place(item: pytest.Item) -> Path:
    return item.path
