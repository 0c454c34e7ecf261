"""Images, audio and video of a request: from where an engine may fetch them."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any
from urllib.parse import urlsplit

from deployments.errors import InvalidRequestError

DATA = frozenset("tools tool_choice response_format structured_outputs text output_config metadata".split())
"""Fields that hold no media: a property of a tool or a schema may be called `image_url`."""
MEDIA_KEYS = frozenset({"image_url", "video_url", "audio_url", "file_url", "input_image"})
SCHEMES = ("http", "https")
MAX_URL_CHARS = 8192
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
"""What parsers of URLs drop, or read each in its own way."""


def check(body: Mapping[str, Any], domains: Set[str]) -> None:
    """Refuse media that an engine would have to fetch, but from `domains`. Inline data (`data:`) is always allowed.

    Raises InvalidRequestError for another host, any address inside a network (also when it is listed), or a scheme
    other than http and https. Redirects are refused by the engine.
    """
    for name, value in body.items():
        if name not in DATA and type(value) in (dict, list):
            for url in urls(value):
                check_url(name, url, domains)


def urls(value: Any) -> Iterator[str]:
    """Find the URLs of content parts, in whatever form an API writes them."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            if not MEDIA_KEYS.isdisjoint(item) or item.get("type") == "url":
                yield from own_urls(item)
            inner = [item[key] for key in item if not is_data(item, key)]
        else:
            inner = item
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
    scheme, host = split(name, url)
    if scheme not in SCHEMES:
        raise InvalidRequestError(f"`{name}` has a media URL that is not http, https or data.", name)
    if is_inside(host):
        raise InvalidRequestError(f"`{name}` has a media URL of an address that is not public.", name)
    if host not in domains:
        allowed = ", ".join(sorted(domains)) or "none; send the media inline as a data: URL"
        raise InvalidRequestError(f"`{name}` has a media URL of a host that is not allowed. Allowed: {allowed}.", name)


def split(name: str, url: str) -> tuple[str, str]:
    """Return scheme and host; raises InvalidRequestError when another parser could read them differently."""
    try:
        parts = urlsplit(url[: MAX_URL_CHARS + 1])
        if len(url) <= MAX_URL_CHARS and not _AMBIGUOUS.search(url) and "@" not in parts.netloc:
            return parts.scheme, parts.hostname or ""
    except ValueError:
        pass
    raise InvalidRequestError(f"`{name}` has a malformed media URL.", name)


def is_inside(host: str) -> bool:
    """Say whether a host is written as an address that is not public: loopback, private, link-local, reserved."""
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
