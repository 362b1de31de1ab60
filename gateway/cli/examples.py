"""Examples that `--help` shows, by command. A test parses every one of them."""

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "": (
        "gateway up",
        "gateway users create ann@example.com",
        "gateway keys create --user ann@example.com",
        "gateway report usage --by user,model --during last-month",
    ),
    "up": ("gateway up --workers 2", "gateway up --real openai,unkey"),
    "serve": ("gateway serve --workers 4", "gateway serve --no-background", "gateway serve --take-over"),
    "worker": ("gateway worker --admin-port 8083",),
    "doctor": ("gateway doctor --verbose", "gateway doctor --json"),
    "sandbox": ("gateway sandbox --port 8090",),
    "config": ("gateway config show", "gateway config check"),
    "users": (
        "gateway users create ann@example.com",
        "gateway users set ann@example.com --stripe-customer cus_123",
        "gateway users set ann@example.com --stripe-customer cus_123 --accrued bill --yes",
        "gateway users set ann@example.com --cost-centre R-17 --from 2026-11-01",
    ),
    "customers": ("gateway customers list", "gateway customers set cus_123 --name 'Ann Ltd' --mode prepaid"),
    "keys": (
        "gateway keys create --user ann@example.com --models 'gpt-5*' --rpm 60",
        "gateway keys list --user ann@example.com",
        "gateway keys reroll key_123 --overlap 12h",
        "gateway keys revoke key_123",
    ),
    "keys create": (
        "gateway keys create --user ann@example.com --create-user",
        "gateway keys create --user ann@example.com --models 'gpt-5*' --endpoints chat,responses --expires 30d",
    ),
    "budgets": (
        "gateway budgets set --user ann@example.com --limit 50",
        "gateway budgets set --user ann@example.com --limit 5 --period day --model gpt-5 --soft",
    ),
    "credits": ("gateway credits add ann@example.com 20 --reference invoice-17",),
    "log": ("gateway log --since yesterday", "gateway log --what 'key revoke' --by ann"),
    "close": (
        "gateway close last-month --dry-run",
        'gateway close 2026-10 --accept openai="compared with the bill by hand"',
        "gateway close verify .gateway/closes/2026-10-v1",
    ),
    "plans": (
        "gateway plans set standard --markup 1.2",
        "gateway plans set acme --discount 10 --customer cus_123 --from 2027-01-01 --yes",
        "gateway plans set big --prices prices.json --otherwise 1.2 --user ann@example.com",
        "gateway plans explain --user ann@example.com --model gpt-5",
    ),
    "billing": ("gateway billing held", "gateway billing status --month last-month --by customer"),
    "reconcile": ("gateway reconcile stripe --month 2026-10",),
    "stripe": (
        "gateway stripe setup --dry-run",
        "gateway stripe sync --since 2026-10",
        "gateway stripe explain in_1Q2w3e --csv",
    ),
    "report": (
        "gateway report usage --by user,model --during last-month",
        "gateway report usage --by day --from 2026-11-01 --to 2026-11-15 --csv --output november.csv",
        "gateway report meetings --during yesterday",
        "gateway report accruals --during 2026-11 --csv",
    ),
    "audit": ("gateway audit", "gateway audit --from 2026-11-01 --to 2026-12-01 --stripe"),
    "adjust": (
        'gateway adjust 0193a8f0-1234-7abc-8def-0123456789ab --cost 0.0125 --why "priced by hand"',
        'gateway adjust req_123 --void --why "the customer was promised a refund" --ticket FIN-7 --yes',
        'gateway adjust --file refunds.csv --why "outage of 12 November" --total=-3.5 --yes',
    ),
    "corrections": (
        "gateway corrections list --during last-month --csv",
        "gateway corrections approve 0193a8f0-1234-7abc-8def-0123456789ab --key-file approver.key",
    ),
    "quarantine": (
        "gateway quarantine list",
        "gateway quarantine retry --all",
        'gateway quarantine resolve 17 --reason "a load test"',
    ),
    "journal": (
        "gateway journal inspect",
        "gateway journal adopt /mnt/dead-host/journal",
        "gateway journal resend --since 2026-11-22T10:00:00Z --dry-run",
    ),
    "rooms": ("gateway rooms new-key", "gateway rooms import-sqlite rooms.db --dry-run"),
    "daily": ("gateway daily register --url https://gateway.example.com/webhooks/daily", "gateway daily status"),
    "meetings": ("gateway meetings list --unassigned",),
    "retention": ("gateway retention --participants-after 90", "gateway retention --participants-after 90 --apply"),
}
"""Command, or group and command, or nothing for the whole program → lines to type."""


def epilog(command: str) -> str | None:
    """The end of a help text; a line each, because only an empty line ends one in there."""
    lines = EXAMPLES.get(command)
    return None if lines is None else "\n\n".join(["[bold]Examples[/bold]", *lines])
