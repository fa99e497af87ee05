"""Reading bodies: how long they are is checked before, how deeply they are nested after."""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import Any, BinaryIO

from shared.standin.wire import BadRequest

LARGEST = 256 * 2**20
"""Bytes of a body: Anthropic's limit for batches, the largest that a course might send."""

DEEPEST = 100
"""Levels of lists and objects in one another: Python's own limit differs from place to place."""

_TOO_LARGE = "Request exceeds the maximum size of {} bytes."
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(;.*)?\r?\n")


def read_body(headers: Message, stream: BinaryIO) -> bytes:
    """Return the body that follows the headers; raise BadRequest if nobody can say where it ends.

    What is too large is refused by its length, before any of it is read.
    """
    lengths = {length.strip() for length in headers.get_all("Content-Length", ())}
    codings = [coding.strip().lower() for coding in headers.get_all("Transfer-Encoding", ())]
    if codings:
        if codings != ["chunked"] or lengths:
            raise BadRequest("Transfer-Encoding has to be 'chunked', without a Content-Length.")
        return _chunks(stream)
    length = ", ".join(sorted(lengths)) if lengths else "0"
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(f"Invalid Content-Length: {length[:60]!r}.")
    return _exactly(stream, length)


def _exactly(stream: BinaryIO, length: str, before: int = 0, base: int = 10) -> bytes:
    # Python refuses to read numbers of thousands of digits
    if len(length) > 15 or before + int(length, base) > LARGEST:
        raise BadRequest(_TOO_LARGE.format(LARGEST), status=413)
    data = stream.read(int(length, base))
    if len(data) < int(length, base):
        raise BadRequest("The body ends before its length.")
    return data


def _chunks(stream: BinaryIO) -> bytes:
    data = bytearray()
    while True:
        size = _CHUNK.fullmatch(stream.readline(1000))
        if size is None:
            raise BadRequest("A chunk of the body has no size: it has to be hexadecimal digits.")
        chunk = _exactly(stream, size[1].decode(), len(data), 16)
        if not chunk:
            break
        data += chunk
        if stream.readline(2) not in (b"\r\n", b"\n"):
            raise BadRequest("A chunk of the body is longer than its size.")
    while stream.readline(1000).strip():
        pass  # headers may follow; none of them means anything here
    return bytes(data)


def read_object(data: bytes | str) -> dict:
    """Return the JSON object that was sent; raise BadRequest if it is none."""
    why = "We could not parse the JSON body of your request."
    try:
        body = json.loads(data)
    except ValueError as error:
        raise BadRequest(why) from error
    except RecursionError as error:
        raise BadRequest(f"{why} It is nested too deeply.") from error
    if not isinstance(body, dict):
        raise BadRequest(why)
    if _deeper(body, DEEPEST):
        raise BadRequest(f"{why} It is nested too deeply.")
    return body


def _deeper(value: Any, levels: int) -> bool:
    """Tell whether lists and objects lie in one another more than ``levels`` deep."""
    found = [value]
    for _ in range(levels):
        inner = [v.values() if isinstance(v, dict) else v for v in found]
        found = [v for values in inner for v in values if isinstance(v, (dict, list))]
        if not found:
            return False
    return True
