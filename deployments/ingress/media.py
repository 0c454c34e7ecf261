"""Images, audio and video of a request: from where an engine may fetch them."""

import ipaddress
from collections.abc import Iterator, Mapping, Set
from typing import Any
from urllib.parse import urlsplit

from deployments.errors import InvalidRequestError

CARRIERS = ("messages", "input", "prompt", "documents", "data_1", "data_2", "queries", "system")
"""Fields that may hold media. Tools and schemas are not among them: a property of theirs may be called `url`."""
MEDIA_KEYS = frozenset({"image_url", "video_url", "audio_url", "file_url", "input_image"})
SCHEMES = ("http", "https")


def check(body: Mapping[str, Any], domains: Set[str]) -> None:
    """Refuse media that an engine would have to fetch, but from `domains`. Inline data (`data:`) is always allowed.

    Raises InvalidRequestError for another host, any address inside a network (also when it is listed), or a scheme
    other than http and https. Redirects are refused by the engine.
    """
    for name in CARRIERS:
        value = body.get(name)
        if type(value) in (dict, list):
            for url in urls(value):
                check_url(name, url, domains)


def urls(value: Any) -> Iterator[str]:
    """Find the URLs of content parts, in whatever form an API writes them."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            yield from own_urls(item)
            inner = [item[key] for key in item if not is_data(item, key)]
        else:
            inner = [] if item and type(item[0]) is int else item  # token ids need no look
        waiting += [value for value in inner if type(value) in (dict, list)]


def own_urls(part: Mapping[str, Any]) -> Iterator[str]:
    """Find the URLs of one part: `{"image_url": URL or {"url": URL}}`, or `{"type": "url", "url": URL}`."""
    named = [part[key] for key in MEDIA_KEYS & part.keys()]
    named += [value.get("url") for value in named if type(value) is dict]
    if part.get("type") == "url":
        named.append(part.get("url"))
    yield from (url for url in named if isinstance(url, str))


def is_data(part: Mapping[str, Any], key: str) -> bool:
    """Say whether a field holds arguments of a tool call: data, whatever their names."""
    return key == "arguments" or (key == "input" and part.get("type") == "tool_use")


def check_url(name: str, url: str, domains: Set[str]) -> None:
    if url[:5].lower() == "data:":
        return
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise InvalidRequestError(f"`{name}` has a malformed media URL.", name) from None
    if parts.scheme not in SCHEMES:
        raise InvalidRequestError(f"`{name}` has a media URL that is not http, https or data.", name)
    if is_inside(host):
        raise InvalidRequestError(f"`{name}` has a media URL of an address that is not public.", name)
    if "\\" in url or host not in domains:
        allowed = ", ".join(sorted(domains)) or "none; send the media inline as a data: URL"
        raise InvalidRequestError(f"`{name}` has a media URL of a host that is not allowed. Allowed: {allowed}.", name)


def is_inside(host: str) -> bool:
    """Say whether a host is written as an address that is not public: loopback, private, link-local, reserved."""
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
