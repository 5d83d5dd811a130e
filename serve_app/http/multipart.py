"""A `multipart/form-data` body, already read whole, as its parts; pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.http.errors import BodyTooLargeError, HttpError

# RFC 2046, 5.1.1.
MAX_BOUNDARY_CHARS = 70
MAX_HEADER_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        name: of its form field.
        file_name: what it was called; empty: it is no file.
        media_type: what it is said to be; empty: nothing was said.
        headers: all of its headers, names in lower case.
        content: its bytes.
    """

    name: str
    file_name: str
    media_type: str
    headers: dict[str, str]
    content: bytes


@dataclass(slots=True)
class _Parts:
    """Collects what the parser tells."""

    max_parts: int
    parts: list[Part] = field(default_factory=list)
    _headers: dict[str, str] = field(default_factory=dict)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _content: list[bytes] = field(default_factory=list)
    is_whole: bool = False

    def begin(self) -> None:
        if len(self.parts) == self.max_parts:
            raise BodyTooLargeError(
                f"body: got more than {self.max_parts} parts, which are allowed; send more requests, or raise "
                "http.max_parts in the plan"
            )
        self._headers, self._content = {}, []

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name.clear()
        self._value.clear()

    def content(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def end(self) -> None:
        _, told = parse_options_header(self._headers.get("content-disposition", "").encode())
        texts = {key.decode("latin-1"): value.decode("utf-8", "replace") for key, value in told.items()}
        self.parts.append(
            Part(
                texts.get("name", ""),
                texts.get("filename", ""),
                self._headers.get("content-type", ""),
                self._headers,
                b"".join(self._content),
            )
        )

    def finish(self) -> None:
        self.is_whole = True


def boundary_of(content_type: str) -> bytes:
    """The boundary that a `Content-Type` announces. Raises `HttpError`."""
    _, told = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = told.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_CHARS:
        raise HttpError(
            f"content-type: got a boundary of {len(boundary)} characters, allowed are 1 to {MAX_BOUNDARY_CHARS}; let "
            "your HTTP library set it"
        )
    return boundary


def parts_of(body: bytes, content_type: str, max_parts: int) -> list[Part]:
    """The parts of a body, in their order.

    Raises:
        BodyTooLargeError: more of them than `max_parts`.
        HttpError: it does not begin or end as its boundary says.
    """
    found = _Parts(max_parts)
    parser = MultipartParser(
        boundary_of(content_type),
        {
            "on_part_begin": found.begin, "on_part_data": found.content, "on_part_end": found.end,
            "on_header_field": found.header_name, "on_header_value": found.header_value,
            "on_header_end": found.header_end, "on_end": found.finish,
        },
        max_header_size=MAX_HEADER_BYTES,
    )  # fmt: skip
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as err:
        raise HttpError(f"body: is no multipart ({str(err)[:120]}); let your HTTP library write it") from err
    if not found.is_whole:
        raise HttpError("body: its last boundary is missing; it was cut off, or is no multipart")
    return found.parts
