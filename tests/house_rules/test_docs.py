"""The pages of the repository: every relative link leads somewhere, and README stays short enough to be read."""

import re
from typing import Final

from tests.support.source import TOP

LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
README_LINES_MAX: Final = 150


def test_every_link_leads_somewhere() -> None:
    pages = [TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")]
    pages += (TOP / "docs").rglob("*.md")
    broken, seen = [], 0
    for page in pages:
        for link in LINK.findall(page.read_text()):
            path = link.partition("#")[0]
            if "://" in link or not path:
                continue
            seen += 1
            if not (page.parent / path).exists():
                broken.append(f"{page.relative_to(TOP)}: {link}")
    assert seen
    assert broken == []


def test_readme_is_short_and_leads_to_every_page() -> None:
    readme = (TOP / "README.md").read_text()
    assert len(readme.splitlines()) <= README_LINES_MAX
    linked = set(LINK.findall(readme))
    pages = {f"docs/{page.name}" for page in (TOP / "docs").glob("*.md")}
    assert sorted(pages - linked) == []
