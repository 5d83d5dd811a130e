"""What can be wrong with a request before it is a frame; each with its HTTP status.

FramelaneError
└── HttpError                       400  the request makes no sense
    ├── KeyMissingError             401  no API key, or one that is not known
    ├── NotAllowedError             403  the key may not do this
    ├── SlowClientError             408  the body did not come in time
    ├── BodyTooLargeError           413  more bytes or parts than allowed
    ├── MediaTypeError              415  neither an image nor parts of them
    ├── ParameterError              422  a parameter or a field of a body
    ├── RateExceededError           429  the key has used up its frames a second
    └── DoorFullError               503  as many requests or bytes are here as may be
"""

from __future__ import annotations

from serve_app.errors import FramelaneError


class HttpError(FramelaneError):
    """The request makes no sense."""

    http_status = 400


class KeyMissingError(HttpError):
    """There is no API key in the request, or one that is not known."""

    http_status = 401


class NotAllowedError(HttpError):
    """This key may not do this."""

    http_status = 403


class SlowClientError(HttpError):
    """The body did not come in time."""

    http_status = 408


class BodyTooLargeError(HttpError):
    """More bytes, or more parts, than a request may have."""

    http_status = 413


class MediaTypeError(HttpError):
    """A body that is neither an image of a known kind nor parts of them."""

    http_status = 415


class ParameterError(HttpError):
    """A parameter, a header or a field of the body has a value that is not allowed."""

    http_status = 422


class RateExceededError(HttpError):
    """The key has used up its frames a second; `retry_after_s` says when there are more."""

    http_status = 429


class DoorFullError(HttpError):
    """As many requests, or bytes of them, are in this process as may be."""

    http_status = 503
