"""How every error becomes a response: RFC 9457 problem details below `/v1`, `{"error": …}` below `/v2`."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engines.errors import FrameArrayError
from serve_app.errors import FramelaneError, FrameRejectedError
from serve_app.http.errors import HttpError, KeyMissingError, ParameterError
from serve_app.results import FrameResult

logger = logging.getLogger(__name__)

V2_PREFIX = "/v2/"
PROBLEM_TYPE = "application/problem+json"
# A value of the caller's is quoted so far and no further.
MAX_QUOTED = 80


def install(app: FastAPI) -> None:
    """Let every error of this application become such a response."""
    app.add_exception_handler(FramelaneError, _on_error)
    app.add_exception_handler(FrameArrayError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


def error_response(
    request: Request, err: FramelaneError, *, retry_after_s: float | None = None, **fields: Any
) -> JSONResponse:
    """The response to an error, in the words of the protocol that was asked.

    Args:
        request: whose path says which protocol that is.
        err: what went wrong; its class has the status.
        retry_after_s: when to try again; None: what the error says.
        fields: more for `/v1`, such as `outcome`.
    """
    wait_s = err.retry_after_s if retry_after_s is None else retry_after_s
    return _response(request, err.http_status, str(err), retry_after_s=wait_s, err=err, **fields)


def result_error(result: FrameResult) -> FramelaneError | None:
    """The error of a frame that did not finish, with the verdict's time to retry if it has none; None: it finished."""
    err, verdict = result.error, result.verdict
    if isinstance(err, FrameRejectedError) and err.retry_after_s is None and verdict is not None:
        return FrameRejectedError(err.message, verdict.retry_after_s)
    return err


def retry_after_header(retry_after_s: float | None) -> dict[str, str]:
    """`Retry-After` in whole seconds, rounded up (RFC 9110, 10.2.3); nothing if there is no time to retry."""
    if retry_after_s is None or not math.isfinite(retry_after_s):
        return {}
    return {"Retry-After": str(max(1, math.ceil(retry_after_s)))}


def _on_error(request: Request, err: Exception) -> JSONResponse:
    if isinstance(err, FramelaneError):
        return error_response(request, err)
    return error_response(request, ParameterError(str(err)))


def _on_invalid(request: Request, err: Exception) -> JSONResponse:
    problems = err.errors() if isinstance(err, RequestValidationError) else []
    return error_response(request, ParameterError("; ".join(_told(problem) for problem in problems) or "request"))


def _on_http_exception(request: Request, err: Exception) -> JSONResponse:
    """What the framework refuses itself: an unknown path, a method that is not there."""
    status = err.status_code if isinstance(err, HTTPException) else HTTPStatus.BAD_REQUEST
    told = f"{request.method} {request.url.path[:MAX_QUOTED]}: {HTTPStatus(status).phrase.lower()}; see /openapi.json"
    headers = dict(err.headers or {}) if isinstance(err, HTTPException) else {}
    return _response(request, status, told, headers=headers)


def _on_bug(request: Request, err: Exception) -> JSONResponse:
    """Ours; what it was stays in the log, since nobody knows what is in it."""
    logger.error("%s %s: %s", request.method, request.url.path[:MAX_QUOTED], type(err).__name__, exc_info=err)
    return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, "service: an error of its own; its log has more")


def _response(
    request: Request,
    status: int,
    message: str,
    *,
    retry_after_s: float | None = None,
    err: FramelaneError | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> JSONResponse:
    all_headers = (headers or {}) | retry_after_header(retry_after_s)
    if isinstance(err, KeyMissingError):
        all_headers["WWW-Authenticate"] = 'Bearer realm="framelane", Basic realm="framelane", charset="UTF-8"'
    if err is not None and err.http_status in (408, 413) and isinstance(err, HttpError):
        all_headers["Connection"] = "close"  # the rest of the body is not read
    if request.url.path.startswith(V2_PREFIX):
        return JSONResponse({"error": message}, status, headers=all_headers)
    body = {"type": "about:blank", "title": _phrase(status), "status": status, "detail": message}
    if retry_after_s is not None:
        body["retry_after_s"] = round(retry_after_s, 3)
    return JSONResponse(fields | body, status, headers=all_headers, media_type=PROBLEM_TYPE)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 499: the client went away
        return "Client Closed Request"


def _told(problem: Any) -> str:
    """One problem of a parameter: its place, what was got and what is allowed."""
    place = ".".join(str(part) for part in problem.get("loc", ()) if part not in ("query", "body", "header", "path"))
    message = str(problem.get("msg", "is wrong"))
    if problem.get("type") == "missing":
        return f"{place}: is missing"
    return f"{place}: got {problem.get('input')!r:.{MAX_QUOTED}}, {message[:1].lower()}{message[1:]}"
