"""The API key of a request: from `Authorization: Bearer K`, from `api-key: K` as Azure's clients send it, or from both.

Some clients send both with the same key, which is one credential. Different ones are refused: a proxy in front could
have looked at the other one. Pure.
"""

from multidict import CIMultiDictProxy

from gateway.kit.errors import ApiError


def key_of(headers: "CIMultiDictProxy[str]") -> str:
    """The key. Raises ApiError: 401 without one, 400 when it is not clear which."""
    authorization, api_key = headers.getall("Authorization", []), headers.getall("api-key", [])
    if len(authorization) > 1 or len(api_key) > 1:
        name = "Authorization" if len(authorization) > 1 else "api-key"
        raise ApiError(400, "duplicate_header", f"The {name} header is given more than once.")
    if authorization:
        scheme, _, key = authorization[0].partition(" ")
        if scheme.lower() != "bearer":
            raise invalid_key()
    elif api_key:
        key = api_key[0]
    else:
        message = "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'."
        raise ApiError(401, "missing_api_key", message)
    if api_key and api_key[0] != key:
        message = "The Authorization header and the api-key header hold different keys. Send one key."
        raise ApiError(400, "duplicate_header", message)
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise invalid_key()
    return key


def invalid_key(message: str = "Incorrect API key provided.") -> ApiError:
    """401, as OpenAI says it."""
    return ApiError(401, "invalid_api_key", message)
