"""The result of the audit for one invariant: whether it holds, figures, and where to look. Plain values."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from gateway.audit.marks import Mark
from gateway.audit.reads.snapshot import AuditRange, Offenders

State = Literal["ok", "breach", "not checked", "no answer"]
"""`not checked` was not asked for or is not here; `no answer` was asked for, and whoever knows did not answer."""
Figures = Mapping[str, int | str]
EXAMPLES_MAX: Final = 10


class InvariantResult(NamedTuple):
    """One invariant."""

    name: str
    """`INV-1` … `INV-11` (docs/audit.md)."""
    title: str
    state: State
    figures: Figures
    wrong: tuple[str, ...] = ()
    """For a breach: each rule that is broken, and how often."""
    examples: tuple[str, ...] = ()
    """Ids of what is wrong, EXAMPLES_MAX at most."""
    look: str = ""
    """For a breach what to look at; otherwise why it was not checked, or what deserves a look all the same."""
    days: tuple[dict[str, int | str], ...] = ()
    """INV-9: figures by UTC day."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; amounts are strings of USD."""
        return self._asdict() | {"figures": dict(self.figures)}


class AuditReport(NamedTuple):
    """A whole audit."""

    span: AuditRange
    """The range of `completed_at` that was used, in whole hours and billing windows."""
    verdicts: tuple[InvariantResult, ...]
    kept: str = ""
    """From where sums of all time were compared."""
    mark: Mark | None = None
    """What a later audit may go on from, not signed yet: of one that compared all sums and found them right."""

    @property
    def breached(self) -> bool:
        """Whether anything is wrong."""
        return any(verdict.state == "breach" for verdict in self.verdicts)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The invariants that could not be judged although that was asked for."""
        return tuple(verdict.name for verdict in self.verdicts if verdict.state == "no answer")

    @property
    def exit_status(self) -> int:
        """1 on a breach, 3 when nothing is known to be wrong but not everything could be judged."""
        return 1 if self.breached else 3 if self.unanswered else 0


def judge(
    name: str, title: str, figures: Figures, broken: Mapping[str, Offenders | None], look: str, *, note: str = ""
) -> InvariantResult:
    """A breach where any rule of `broken` has offenders; `look` says what to do then, `note` what to know otherwise."""
    found = {rule: offenders for rule, offenders in broken.items() if offenders is not None and offenders.found}
    if not found:
        return InvariantResult(name, title, "ok", figures, look=note)
    # Some of each rule, rather than ten of the first.
    shown = max(1, EXAMPLES_MAX // len(found))
    return InvariantResult(
        name,
        title,
        "breach",
        figures,
        tuple(f"{offenders.found:,} × {rule}" for rule, offenders in found.items()),
        tuple(example for offenders in found.values() for example in offenders.examples[:shown])[:EXAMPLES_MAX],
        look,
    )


def not_checked(name: str, title: str, why: str) -> InvariantResult:
    """Nothing is said about it, and why."""
    return InvariantResult(name, title, "not checked", {}, look=why)


class Collector:
    """Counts what breaks a rule while rows go by, and remembers the first few. Memory does not grow."""

    def __init__(self) -> None:
        self._found: Final[dict[str, tuple[int, tuple[str, ...]]]] = {}

    def add(self, rule: str, example: str) -> None:
        """One more."""
        count, examples = self._found.get(rule, (0, ()))
        self._found[rule] = (count + 1, (*examples, example) if len(examples) < EXAMPLES_MAX else examples)

    def offenders(self) -> dict[str, Offenders]:
        """By rule."""
        return {rule: Offenders(*found) for rule, found in self._found.items()}
