"""Legacy completions of the OpenAI stand-in: from the request's fields to a body or a stream of chunks."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from gateway.sandbox.openai.answer import Choice, Wish
from gateway.sandbox.openai.errors import check_types, invalid
from gateway.sandbox.openai.printing import LF, data_event, encode_indented
from gateway.sandbox.openai.tokens import Counter, Prompt
from gateway.sandbox.openai.usage import OMIT
from gateway.sandbox.openai.wire import StreamEvent

CAP: Final = 16
"""Output tokens of a request that sets no limit."""
BEST_OF_MAX: Final = 20
_TYPES: Final[dict[str, type[Any]]] = {"best_of": int, "max_tokens": int, "n": int, "stream_options": dict}


class Completion(NamedTuple):
    """One completion, answered but not sent."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    """Those that are shown; `best_of` may have written more."""

    def head(self) -> dict[str, Any]:
        """What the body and every chunk begin with."""
        return {"id": self.id, "object": "text_completion", "created": self.created}


def completion_wishes(fields: dict[str, Any], counter: Counter, encoding: str) -> tuple[list[Wish], int]:
    """(what each prompt asks for, how many of its answers are shown). Raises OpenAIError (400)."""
    check_types(fields, _TYPES)
    shown = 1 if fields.get("n") is None else fields["n"]
    written = shown if fields.get("best_of") is None else fields["best_of"]
    if not 1 <= shown <= written <= max(BEST_OF_MAX, shown):
        raise invalid("Invalid 'best_of': expected an integer from 'n' to 20.", "best_of", "invalid_value")
    if written > shown and fields.get("stream"):
        raise invalid("You cannot stream with 'best_of' above 'n'.", "best_of", "invalid_value")
    cap = CAP if fields.get("max_tokens") is None else fields["max_tokens"]
    if cap < 0:
        message = f"Invalid 'max_tokens': integer below minimum value. Expected a value >= 0, but got {cap} instead."
        raise invalid(message, "max_tokens", "integer_below_min_value")
    prompts = [_prompt(item, counter, encoding) for item in _items(fields.get("prompt", "<|endoftext|>"))]
    return [Wish(prompt=prompt, choices=written, cap=cap) for prompt in prompts], shown


def _items(given: Any) -> list[Any]:
    """One item per answer: a text, or an array of token ids."""
    several = isinstance(given, list) and given and not all(type(token) is int for token in given)
    return given if several else [given]


def _prompt(item: Any, counter: Counter, encoding: str) -> Prompt:
    if isinstance(item, str):
        return Prompt(item, counter.count(item, encoding), item, answers_tool=False)
    if isinstance(item, list) and item and all(type(token) is int for token in item):
        return Prompt(",".join(map(str, item)), len(item), "", answers_tool=False)
    raise invalid("'$.prompt' is invalid: texts or arrays of token ids are expected.", "prompt", "invalid_type")


def completion_body(completion: Completion, usage: Any) -> bytes:
    """The answer in one piece."""
    choices = [_choice(index, choice.text, choice.finish) for index, choice in enumerate(completion.choices)]
    body = completion.head() | {"model": completion.model, "choices": choices}
    return encode_indented(body if usage == OMIT else body | {"usage": usage}, LF)


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def completion_events(completion: Completion, options: Any, usage: Any) -> Iterator[StreamEvent]:
    """The answer as chunks. `usage`, unless it is `OMIT`, comes last and only when `options` ask for it.

    Recordings of 2025: the model after the choices, but in the last chunk before them; an answer that stops by itself
    says so in a chunk without text, one that is too long in its last piece.
    """
    asked = isinstance(options, dict) and options.get("include_usage") is True
    model = {"model": completion.model}
    tail: dict[str, Any] = model | ({"usage": None} if asked else {})
    head, produced = completion.head(), 0
    for index, choice in enumerate(completion.choices):
        cut = choice.finish == "length" and bool(choice.pieces)
        for position, piece in enumerate(choice.pieces, 1):
            produced += 1
            finish = choice.finish if cut and position == len(choice.pieces) else None
            yield StreamEvent(data_event(head | {"choices": [_choice(index, piece, finish)]} | tail), produced)
        if not cut:
            yield StreamEvent(data_event(head | {"choices": [_choice(index, "", choice.finish)]} | tail), produced)
    if asked and usage != OMIT:
        yield StreamEvent(data_event(head | model | {"usage": usage, "choices": []}), produced)
    yield StreamEvent(b"data: [DONE]\n\n", produced)
