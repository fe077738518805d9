"""Ask a running service from Python, with the standard library alone."""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from recsys.errors import InputError


def ask(url: str, *, timeout_s: float = 30, **query: Any) -> dict[str, Any]:
    """POST /recommend. A refused query raises InputError with the server's own sentence."""
    request = Request(f"{url}/recommend", json.dumps(query).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=timeout_s) as response:
            answer: dict[str, Any] = json.load(response)
    except HTTPError as error:
        if error.code >= 500:
            raise
        raise InputError(json.load(error)["error"]) from error
    except URLError as error:
        raise InputError(
            f"{url} does not answer ({error.reason}): start it with `recsys serve`, or name another url"
        ) from error
    return answer
