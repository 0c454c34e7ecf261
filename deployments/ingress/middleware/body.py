"""Read a request's body whole, within a limit and a deadline."""

import asyncio

from starlette.types import Receive, Scope

from deployments.errors import InvalidRequestError, PayloadTooLargeError, SlowBodyError

MAX_DIGITS = 18
"""Of a length; Python refuses to convert thousands of them."""


async def read_body(scope: Scope, receive: Receive, max_bytes: int, deadline_s: float) -> bytes:
    """Return the body; raises PayloadTooLargeError as soon as it is known to be over the limit.

    Raises SlowBodyError when it is not complete after `deadline_s`, InvalidRequestError when the client leaves.
    """
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if declared.isdigit() and (len(declared) > MAX_DIGITS or int(declared) > max_bytes):
        raise too_large(max_bytes)
    try:
        async with asyncio.timeout(deadline_s):
            return await _read(receive, max_bytes)
    except TimeoutError:
        raise SlowBodyError(f"The request body was not complete after {deadline_s:g} s.") from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequestError("The client left before the request was complete.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The request body is larger than {max_bytes} bytes.")
