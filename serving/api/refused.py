"""Requests that are not answered as asked, and the one shape in which that is said."""

from http import HTTPStatus


class RefusedError(Exception):
    """Ends a request with a status and one sentence, which is all that the caller gets to know."""

    def __init__(self, status: HTTPStatus, sentence: str, *, retry_after_s: int | None = None, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        if retry_after_s is not None:
            headers["retry-after"] = str(retry_after_s)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ClientGoneError(Exception):
    """The caller closed the connection before the whole request was here: nobody reads an answer."""
