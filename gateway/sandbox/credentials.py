"""The sandbox's credentials: fixed, public and worth nothing. They open the stand-ins and nothing else."""

from typing import Final

OPENAI_API_KEY: Final = "sk-sandbox-openai"
UNKEY_ROOT_KEY: Final = "unkey_sandbox_root"
UNKEY_API_ID: Final = "api_sandbox"
DAILY_API_KEY: Final = "daily_sandbox"
DAILY_WEBHOOK_SECRET: Final = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # noqa: S105  # of the digits, for all to know
STRIPE_ACCOUNT: Final = "acct_sandbox"
STRIPE_SECRET_KEY: Final = "sk_test_sandbox"  # noqa: S105  # opens nothing but the stand-in
