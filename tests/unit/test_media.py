from typing import Any

import pytest

from deployments.errors import InvalidRequestError
from deployments.ingress import media
from tests.bad_requests import MEDIA_URLS

DOMAINS = frozenset({"images.example.com", "127.0.0.1", "localhost"})


def part(url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


@pytest.mark.parametrize("url", ["https://images.example.com/a.png", "http://IMAGES.example.com:8080/a?b#c"])
def test_a_host_that_is_listed(url: str) -> None:
    media.check(part(url), DOMAINS)


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "DATA:image/png;base64,AAAA"])
def test_inline_data_needs_no_list(url: str) -> None:
    media.check(part(url), frozenset())


@pytest.mark.parametrize(
    "url",
    [
        *MEDIA_URLS,
        "http://127.0.0.1/",  # though it is listed
        "http://localhost/",
        "http://a.localhost/",
        "http://017700000001/",
        "http://0/",
        "http://127.1/",
        "http://[fe80::1%25eth0]/",
        "http://[fd00::1]/",
        "http://192.168.0.1/",
        "http://100.64.0.1/",
        "http://images.example.com.evil.com/",
        "http://images.example.com./",
        "http://images.example.com\\@evil.com/",
        "http://evil.com\\@images.example.com/",
        "http://images.example.com@evil.com/",
        "http:///images.example.com/",
        "//images.example.com/a.png",
        "images.example.com/a.png",
        " file:///etc/passwd",
        "http://169.254.169.254./",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://0177.0.0.1/",
        "http://0x7f.1/",
        "HTTP://LOCALHOST/",
        "http://user:password@images.example.com/",
        "http://@images.example.com/",
        "http://images.example.com:80@evil.com/",
        "http://evil.com#@images.example.com/",
        "http://images.exa\nmple.com/",
        "ht\ttp://images.example.com/",
        "http://images.example.com/ a",
        "http://images.example.com\x00.evil.com/",
        "http://\uff49mages.example.com/",
        "http://images.example.com/" + "a" * 9000,
        "http://" + "\u2100" * 9000,
        "\tdata:,a",
        "jar:http://images.example.com/!/",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        media.check(part(url), DOMAINS)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": "http://a/"}]}]},
        {"messages": [{"content": [{"image_url": {"url": "http://a/"}}]}]},
        {"messages": [{"content": [{"type": "audio_url", "audio_url": {"url": "http://a/"}}]}]},
        {"messages": [{"content": [{"type": "video_url", "video_url": {"url": "http://a/"}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "http://a/"}}]}]},
        {"messages": [{"content": [{"type": "tool_result", "content": [{"image_url": "http://a/"}]}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/"}]}]},
        {"input": [{"type": "input_file", "file_url": "http://a/"}]},
        {"data_1": {"content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}},
        {"documents": [{"content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}]},
        {"query": {"content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}},
        {"items": [{"content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}]},
        {"text_1": {"content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}},
        {"a_field_of_next_year": [[{"image_url": "http://a/"}]]},
        {"messages": [{"content": [1, {"image_url": {"url": "http://a/"}}]}]},
        {"messages": [{"content": [{"type": "text", "text": "a", "image_url": "http://a/"}]}]},
        {"messages": [{"content": [{"type": "image_url", "image_url": "data:,", "video_url": "http://a/"}]}]},
        {"messages": [{"type": "tool_use", "content": [{"image_url": "http://a/"}]}]},
    ],
)
def test_urls_are_found_in_every_form(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        media.check(body, frozenset())


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "see http://127.0.0.1/"}]},
        {"tools": [{"function": {"parameters": {"properties": {"image_url": {"default": "http://a/"}}}}}]},
        {"messages": [{"tool_calls": [{"function": {"arguments": {"image_url": "http://a/"}}}]}]},
        {"messages": [{"content": [{"type": "tool_use", "input": {"image_url": "http://a/"}}]}]},
        {"documents": [{"title": "t", "url": "http://a/"}]},
        {"response_format": {"json_schema": {"schema": {"properties": {"image_url": {"url": "http://a/"}}}}}},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": None}}]}]},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2, 3]]},
    ],
)
def test_what_is_no_media_is_left_alone(body: dict[str, Any]) -> None:
    media.check(body, frozenset())
