"""The ways into one workload, without any of them: counting, timing and tables."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from loadtests.layers.streams import HttpSource, Load, Timings, TokenCounter, chat_body, measure, note_tokens
from loadtests.layers.ways_table import API, CALLER, HANDLE, HTTP, INGRESS, REPLICA, WAYS, Run, report
from loadtests.layers.ways_worker import PREFIX, answer_loads
from loadtests.second_opinion import read_guidellm, table

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"Hi \\"you\\""}}]}\n\n'
EMPTY = b'data: {"choices":[{"index":0,"delta":{"content":""}}]}\n\n'
SPACED = b'data: {"choices": [{"index": 0, "delta": {"content": " a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
BODY = ROLE + TOKEN + SPACED + EMPTY + TOKEN + DONE


@pytest.mark.parametrize("size", [1, 2, 7, 40, 10_000])
def test_tokens_are_counted_however_the_stream_is_cut(size: int) -> None:
    counter = TokenCounter()
    pieces = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    assert sum(counter.feed(piece) for piece in pieces) == 4


def test_an_error_event_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="engine_unavailable"):
        TokenCounter().feed(TOKEN + b'data: {"error": {"code": "engine_unavailable"}}\n\n')


async def pieces() -> AsyncIterator[bytes]:
    yield ROLE + TOKEN
    yield SPACED + TOKEN + DONE


def test_tokens_that_come_together_have_one_time() -> None:
    times_s: list[float] = []
    asyncio.run(note_tokens(pieces(), times_s))
    assert len(times_s) == 3
    assert times_s[0] < times_s[1] == times_s[2]


def test_timings_add_up() -> None:
    timings = Timings()
    timings.add(1.0, [1.5, 1.75, 1.75], 4)
    timings.add(2.0, [2.25], 4)
    assert (timings.num_tokens, timings.ttft_s, timings.gaps_s) == (8, [0.5, 0.25], [0.25, 0.0])


async def two_tokens(number: int, tokens: int, times_s: list[float]) -> None:
    times_s += [float(number), number + 1.0]


async def no_token(number: int, tokens: int, times_s: list[float]) -> None:
    pass


def test_each_request_of_a_load_is_sent_once() -> None:
    found = asyncio.run(measure(two_tokens, Load(streams=3, requests=7, tokens=2)))
    assert (found.num_tokens, found.gaps_s) == (14, [1.0] * 7)


def test_a_request_that_brings_nothing_fails_the_load() -> None:
    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        asyncio.run(measure(no_token, Load(1, 1, 2)))


def test_a_worker_answers_each_load(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(answer_loads({"way": two_tokens}, io.StringIO('["way", 1, 2, 2]\n["way", 1, 1, 2]\n')))
    ready, *answers = capsys.readouterr().out.splitlines()
    assert ready == PREFIX + '"ready"'
    assert [json.loads(answer.removeprefix(PREFIX))["num_tokens"] for answer in answers] == [4, 2]


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answer_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer two requests of a connection as HAProxy does while it is replaced: the second one is the last."""
    for closes in (b"", b"Connection: close\r\n"):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length)) == chat_body("demo", 1, 4)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + closes + b"\r\n")
        writer.write(f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n")


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n")


async def asked(handler: Handler, times: int) -> list[int]:
    """Send requests to a server and return how many tokens each had."""
    handling: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(lambda *ends: handling.append(asyncio.create_task(handle(*ends))), "127.0.0.1")
    source = HttpSource("127.0.0.1", server.sockets[0].getsockname()[1], "demo")
    counts = []
    async with server:
        try:
            for _ in range(times):
                times_s: list[float] = []
                await source(1, 4, times_s)
                counts.append(len(times_s))
        finally:
            source.close()
            await asyncio.gather(*handling)
    return counts


def test_connections_are_kept_until_the_server_says_that_it_closes_them() -> None:
    assert asyncio.run(asked(answer_twice, 3)) == [4, 4, 4]


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="429"):
        asyncio.run(asked(refuse, 1))


def run_of(way: str, repetition: int, us: float) -> Run:
    cpu_us = {HTTP: {INGRESS: us, REPLICA: 1.0}, HANDLE: {CALLER: us, REPLICA: 1.0}}.get(way, {REPLICA: us})
    return Run(way, 8, repetition, 1000.0, 0.01, 0.002, 0.003, cpu_us, dict.fromkeys(cpu_us, 0.05))


def test_a_layer_costs_the_difference_of_two_ways_within_a_repetition() -> None:
    costs = dict(zip(WAYS, (300.0, 200.0, 120.0, 50.0), strict=True))
    # A machine twice as slow in one repetition must not look like a cost.
    runs = [run_of(way, repetition, us * repetition) for repetition in (1, 2, 3) for way, us in costs.items()]
    text = report(runs)
    assert "| ingress, HAProxy, HTTP | 200 (100 to 300) |" in text
    assert f"| {API} | 1,000 | 10.0 | 2.0 / 3.0 | 100 |" in text
    assert f"| {HTTP} | - | 5.0% | - | 5.0% | - |" in text


def test_guidellms_report_is_read() -> None:
    times = {"successful": {"percentiles": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}}
    names = ("time_to_first_token_ms", "inter_token_latency_ms")
    metrics = {**dict.fromkeys(names, times), "output_tokens_per_second": {"successful": {"mean": 424.0}}}
    found = read_guidellm({"benchmarks": [{"metrics": metrics}]})
    assert "| GuideLLM | 424 | 1.0 / 2.0 | 1.0 / 3.0 |" in table([found])
