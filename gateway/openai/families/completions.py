"""Legacy completions."""

from typing import Final

from gateway.openai.families.family import Family, serve

COMPLETION_CAP: Final = 16
"""Output tokens of a legacy completion that sets no limit (openai-python 3.54, `max_tokens`)."""
FAMILY: Final = Family(
    name="completions",
    endpoints=(
        serve(
            "completions", "metered", "POST", r"/completions", "chat", price="completions", operation="text_completion"
        ),
    ),
    text_fields=("prompt", "suffix"),
    prompt_fields=("prompt", "suffix"),
    cap_fields=("max_tokens",),
    cap_unless_set=COMPLETION_CAP,
    choice_fields=("n", "best_of"),  # `best_of` are written and billed, `n` are shown
    usage_on_request=True,
)
