"""The sandbox's credentials: fixed, public and worth nothing. They open the stand-ins and nothing else."""

from typing import Final

OPENAI_API_KEY: Final = "sk-sandbox-openai"
UNKEY_ROOT_KEY: Final = "unkey_sandbox_root"
UNKEY_API_ID: Final = "api_sandbox"
STRIPE_SECRET_KEY: Final = "sk_test_sandbox"  # noqa: S105  # opens nothing but the stand-in
