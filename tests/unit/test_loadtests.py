"""What load tests do with what they read, without a server."""

import random
from itertools import islice

import pytest

from loadtests.events import Outcome, read_events, text_of
from loadtests.metrics import Limits, verdict
from loadtests.scenarios import SCENARIOS, parse_mix
from loadtests.shapes import arrivals, users_at

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi \\"you\\""}}]}\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}\n'
DONE = b"data: [DONE]\n"


class Script:
    def __init__(self, *lines: bytes) -> None:
        self._lines = iter(lines)

    def readline(self, sep: bytes) -> bytes:
        return next(self._lines, b"")


def read(*lines: bytes) -> Outcome:
    outcome = Outcome()
    outcome.text = text_of(read_events(Script(*lines), outcome, 0.0))
    return outcome


def test_the_first_text_counts_and_the_servers_number_of_tokens() -> None:
    found = read(ROLE, b"\n", CHUNK, b"\n", b": waiting\n", CHUNK, USAGE, DONE)
    assert (found.error, found.num_tokens, len(found.gaps_s)) == ("", 7, 1)
    assert found.ttft_s is not None
    assert found.text == 'Hi "you"' * 2


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ((CHUNK,), "stream: cut short"),
        (
            (CHUNK, b'data: {"error":{"message":"m","type":"server_error","code":"engine_unavailable"}}\n', DONE),
            "event",
        ),
        ((b'data: {"choices":[{"delta":{"content":"the \\"error\\": none"}}]}\n', DONE), ""),
        ((b'data: {"type":"message_stop"}\n',), ""),
    ],
)
def test_what_is_an_error_of_a_stream(lines: tuple[bytes, ...], error: str) -> None:
    found = read(*lines).error
    assert found.startswith(error)
    assert bool(found) == bool(error)


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("constant", [20, 20, 20, 20, 20]),
        ("soak", [20, 20, 20, 20, 20]),
        ("ramp", [1, 4, 9, 14, 19]),
        ("step", [4, 8, 12, 16, 20]),
        ("spike", [5, 5, 20, 5, 5]),
    ],
)
def test_shapes(shape: str, users: list[int]) -> None:
    assert [users_at(shape, at_s, 100, 20) for at_s in (0, 21, 45, 69, 95)] == users  # type: ignore[arg-type]
    assert users_at(shape, 100, 100, 20) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("is_poisson", [True, False])
def test_arrivals_have_their_rate(is_poisson: bool) -> None:
    times = list(islice(arrivals(50, is_poisson, random.Random(1)), 5000))
    assert times == sorted(times)
    assert times[-1] == pytest.approx(100, rel=0.05)


def test_a_mix_is_read_and_its_mistakes_are_named() -> None:
    assert parse_mix("chat:8, highlights") == {"chat": 8.0, "highlights": 1.0}
    for bad in ("chad:1", "", "chat:0", "chat:x"):
        with pytest.raises(ValueError, match=r"scenario|float"):
            parse_mix(bad)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_names_its_model(name: str) -> None:
    ask = SCENARIOS[name]("demo", 8)
    assert ask.body["model"] == "demo"
    assert ask.path.startswith("/")


def test_thresholds() -> None:
    limits = Limits(ttft_s=1, min_goodput=0.9, max_error_rate=0.01)
    assert verdict({"error_rate": 0.0, "goodput": 1.0, "errors": {}}, limits) == ""
    assert "goodput" in verdict({"error_rate": 0.0, "goodput": 0.5, "errors": {}}, limits)
    assert "error rate" in verdict({"error_rate": 0.5, "goodput": 1.0, "errors": {"HTTP 500": 1}}, limits)
