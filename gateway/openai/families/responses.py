"""Responses: making one, compacting and counting its input, and what can be done with one that is stored."""

from typing import Final

from gateway.openai.families.family import ID, Family, serve
from gateway.openai.tools import OBJECT_IDS

_OBJECT: Final = rf"/responses/(?P<id>resp_{ID})"
FAMILY: Final = Family(
    name="responses",
    endpoints=(
        serve(
            "responses",
            "metered",
            "POST",
            r"/responses",
            "responses",
            price="responses",
            settles_later=True,
            operation="chat",
        ),
        serve("responses.compact", "metered", "POST", r"/responses/compact", price="responses.compact"),
        serve("responses.input_tokens", "counted", "POST", r"/responses/input_tokens"),
        serve("responses.get", "owned", "GET", _OBJECT, "responses"),
        serve("responses.delete", "owned", "DELETE", _OBJECT),
        serve("responses.cancel", "owned", "POST", _OBJECT + r"/cancel"),
        serve("responses.input_items", "owned", "GET", _OBJECT + r"/input_items"),
    ),
    text_fields=("input", "instructions", "tools", "text"),
    prompt_fields=("input", "instructions", "tools", "text"),
    cap_fields=("max_output_tokens",),
    refused={
        "conversation": "conversations",
        "prompt": "stored prompts",
        "background_options": "background responses",
        "multi_agent": "multi-agent responses",
    },
    refused_if_true={"background": "background responses"},
    client_tools=frozenset({
        "apply_patch", "local_shell", "computer", "computer_use_preview", "shell", "tool_search", "namespace",
    }),
    # openai-python 3.54, responses/response_create_params.py and response_compact_params.py
    user_fields={
        "responses": ("prompt_cache_key", "safety_identifier"),
        "responses.compact": ("prompt_cache_key",),
    },
    referring_fields=("input", "instructions"),
    reference_marks=(b"item_reference", b'"id"', b'"tools"', *(name.encode() for name in OBJECT_IDS)),
    has_items=True,
    previous_field="previous_response_id",
)  # fmt: skip
