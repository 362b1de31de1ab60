"""Chat completions."""

from typing import Final

from gateway.openai.families.family import ID, Family, refuse, serve

_STORED: Final = "the gateway keeps no record of whose a stored completion is"
FAMILY: Final = Family(
    name="chat",
    endpoints=(serve("chat", "metered", "POST", r"/chat/completions", "chat", price="chat", operation="chat"),),
    unserved=(
        refuse("GET", r"/chat/completions", _STORED),
        refuse("GET", rf"/chat/completions/{ID}", _STORED),
        refuse("POST", rf"/chat/completions/{ID}", _STORED),
        refuse("DELETE", rf"/chat/completions/{ID}", _STORED),
        refuse("GET", rf"/chat/completions/{ID}/messages", _STORED),
    ),
    text_fields=("messages", "tools", "functions", "response_format", "prediction"),
    prompt_fields=("messages", "tools", "functions", "response_format"),
    cap_fields=("max_completion_tokens", "max_tokens"),
    choice_fields=("n",),
    usage_on_request=True,
    refused={"web_search_options": "hosted web search"},
    voice_field="audio",
    # openai-python 3.54, chat/completion_create_params.py
    user_fields={"chat": ("prompt_cache_key", "safety_identifier")},
    referring_fields=("messages",),
    reference_marks=(b"file_id", b'"audio"'),
)
