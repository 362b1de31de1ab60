"""The 400s of a request that the gateway reads. Pure."""

from gateway.kit.errors import ApiError


def bad_request(message: str, param: str | None = None, code: str = "invalid_request_error") -> ApiError:
    """A 400 that names the parameter."""
    return ApiError(400, code, message, param=param)


def unsupported_error(param: str, what: str) -> ApiError:
    """A 400 for what the gateway cannot serve yet."""
    message = f"This gateway does not support {what} yet: it could not check the cost, or whose data the call uses."
    return bad_request(message, param, "unsupported_parameter")


def duplicate(name: str) -> ApiError:
    """A 400 for a field that comes twice."""
    return bad_request(f"The field '{name}' is given twice.", name, "duplicate_field")


def unreadable(what: str = "the JSON body of your request") -> ApiError:
    """A 400 for bytes that are no JSON, no UTF-8, or nested too deeply."""
    return bad_request(f"We could not parse {what}: it must be one JSON object in UTF-8, not nested too deeply.")


def too_complex(what: str) -> ApiError:
    """A 400 for a body that holds more than anything that OpenAI takes; `what` names the bound."""
    message = f"The JSON body of your request holds {what}, and this gateway reads no more than that."
    return bad_request(message, None, "request_too_complex")
