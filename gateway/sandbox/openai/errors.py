"""OpenAI's refusals as its stand-in says them: status, envelope, code (OpenAI's docs). Pure."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.sandbox.openai.printing import LF, encode_indented

_TYPES: Final = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    409: ("conflict_error", "conflict"),
    429: ("requests", "rate_limit_exceeded"),
}
_MESSAGES: Final = {
    429: "Rate limit reached for requests. Please try again later.",
    500: "The server had an error while processing your request. Sorry about that!",
    503: "The engine is currently overloaded, please try again later.",
}

_RETRY_AFTER_S: Final = 1
"""What a 429 says unless told otherwise."""


class OpenAIError(Exception):
    """A request that gets an error instead of an answer, and costs nothing."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        at_door: bool = False,
    ) -> None:
        """`at_door`: the model was not asked; such refusals are printed otherwise and carry fewer headers."""
        super().__init__(message)
        self.status: Final = status
        self.message: Final = message
        self.kind: Final = kind
        self.code: Final = code
        self.param: Final = param
        self.headers: Final = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        self.at_door: Final = at_door

    def body(self) -> bytes:
        """The envelope: recordings have two columns and no line's end, at the door four and one."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return encode_indented({"error": error}, LF, 4) if self.at_door else encode_indented({"error": error})


def ordered_error(status: int, code: str | None, message: str | None, retry_after_s: int | None) -> OpenAIError:
    """The error that a control call asked for."""
    kind, usual = _TYPES.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    if code == "insufficient_quota":
        kind = code
    if status == 429 and retry_after_s is None and code != "insufficient_quota":
        retry_after_s = (
            _RETRY_AFTER_S  # waiting does not help against an empty account, and OpenAI does not say it does
        )
    words = message or _MESSAGES.get(status, "The sandbox was told to say so.")
    return OpenAIError(status, words, kind=kind, code=code or usual, retry_after_s=retry_after_s)


def wrong_key(header: str | None, endpoint: str) -> OpenAIError:
    """401, with the key made unreadable, or none at all."""
    kind, at_door = "invalid_request_error", not endpoint.startswith("responses")
    if header is None or not header.startswith("Bearer "):
        message = "You didn't provide an API key. Send it in an Authorization header (Authorization: Bearer YOUR_KEY)."
        return OpenAIError(401, message, kind=kind, at_door=at_door)
    message = (
        "Incorrect API key provided: sk-***. You can find your API key at https://platform.openai.com/account/api-keys."
    )
    return OpenAIError(401, message, kind=kind, code="invalid_api_key", at_door=at_door)


def invalid(message: str, param: str | None = None, code: str | None = None) -> OpenAIError:
    """400."""
    return OpenAIError(400, message, kind="invalid_request_error", param=param, code=code)


def unreadable() -> OpenAIError:
    """400: no JSON object."""
    return invalid("We could not parse the JSON body of your request. It must be a JSON object.")


def missing(param: str) -> OpenAIError:
    """400: a parameter that must be there."""
    return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def check_types(fields: Mapping[str, Any], kinds: Mapping[str, type[Any]]) -> None:
    """Raises OpenAIError (400) when a field is there, not null, and of another type than `kinds` says."""
    for name, kind in kinds.items():
        value = fields.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            words = {dict: "an object", list: "an array", str: "a string", int: "an integer"}[kind]
            raise invalid(f"Invalid type for '{name}': expected {words}.", name, "invalid_type")


def no_model(name: str, endpoint: str) -> OpenAIError:
    """A model that nobody has: 404 without `param`, but 400 with it where Responses are made."""
    if endpoint.startswith("responses"):
        return invalid(f"The requested model '{name}' does not exist.", "model", "model_not_found")
    message = f"The model `{name}` does not exist or you do not have access to it."
    return OpenAIError(404, message, kind="invalid_request_error", code="model_not_found", at_door=True)


def wrong_kind(name: str, endpoint: str) -> OpenAIError:
    """A model that does something else: 404 in chat, 403 in completions and embeddings."""
    kind = "invalid_request_error"
    if endpoint == "chat":
        message = (
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. "
            "Did you mean to use v1/completions?"
        )
        return OpenAIError(404, message, kind=kind, param="model")
    if endpoint in ("completions", "embeddings"):
        does = "sample" if endpoint == "completions" else "generate embeddings"
        return OpenAIError(403, f"You are not allowed to {does} from this model", kind=kind, at_door=True)
    return invalid(f"The model '{name}' cannot be used here.", "model", "model_not_supported")


def no_such_model(name: str) -> OpenAIError:
    """404 of `GET /models/{id}`."""
    message = f"The model '{name}' does not exist"
    return OpenAIError(404, message, kind="invalid_request_error", param="model", code="model_not_found")


def no_item(item_id: str) -> OpenAIError:
    """404: an item of no stored response, in the words that users of OpenAI report (can1357/oh-my-pi issue 41)."""
    message = (
        f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. Try again with "
        "`store` set to true, or remove this item from your input."
    )
    return OpenAIError(404, message, kind="invalid_request_error", param="input")


def no_response(response_id: str) -> OpenAIError:
    """404: a response that is not stored."""
    return OpenAIError(404, f"Response with id '{response_id}' not found.", kind="invalid_request_error")


def no_url(method: str, path: str) -> OpenAIError:
    """404: an address that the API does not have."""
    return OpenAIError(404, f"Invalid URL ({method} {path})", kind="invalid_request_error")
