"""Errors that a client sees, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

CANCELLED = 499
"""The status in the log of a request whose client left; nobody receives it."""

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    CANCELLED: "cancelled_error",
}


class APIError(Exception):
    """A refusal with its HTTP status. The message is one or two sentences for the client."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.retry_after = retry_after
        """Seconds after which the client may try again (0: not said)."""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the error."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the status."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def timed_out(seconds: float) -> APIError:
    """The answer to a request past its deadline."""
    return APIError(f"The request took more than {seconds:g} seconds.", 408, code="deadline", retry_after=1)


def cancelled() -> APIError:
    """The end of a request that nobody waits for."""
    return APIError("The request was cancelled.", CANCELLED)


def internal() -> APIError:
    """The answer to a request that failed for a reason of ours; the log has the reason."""
    return APIError("An internal error; the server's log says more.", 500, code="internal")
