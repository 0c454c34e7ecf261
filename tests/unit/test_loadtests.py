"""What load tests do with what they read, without a server."""

import random
from itertools import pairwise

import pytest

from loadtests.load.charts import Chart, Series, draw
from loadtests.load.events import Outcome, code_of, read_events, text_of
from loadtests.load.histogram import add_time, percentile_s
from loadtests.load.metrics import AFTER_THE_END, Tallies
from loadtests.load.page import page
from loadtests.load.scenarios import NAMES, SCENARIOS, parse_mix, turn
from loadtests.load.shapes import Arrivals, users_at
from loadtests.load.summary import Figures, Limits, missed, summary

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi \\"you\\""}}]}\n'
SPACED = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n'
THOUGHT = b'data: {"choices":[{"index":0,"delta":{"reasoning":"Hm"}}]}\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}\n'
DONE = b"data: [DONE]\n"
LIMITS = Limits(ttft_s=1, min_goodput=0.9, max_error_rate=0.01)


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


def test_every_chunk_with_text_is_a_gap_also_when_they_came_at_once() -> None:
    found = read(ROLE, THOUGHT, CHUNK, SPACED, CHUNK, DONE)
    assert (found.num_tokens, len(found.gaps_s)) == (4, 3)
    assert all(gap_s >= 0 for gap_s in found.gaps_s)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ((CHUNK,), "stream: cut short"),
        ((), "stream: cut short"),
        ((b'data: {"choices":[{"delta":{"content":"[DONE]"}}]}\n',), "stream: cut short"),
        (
            (CHUNK, b'data: {"error":{"message":"m","type":"server_error","code":"engine_unavailable"}}\n', DONE),
            "event: engine_unavailable",
        ),
        ((b'data: {"error":{"message":"m","type":"BadRequestError","code":400}}\n', DONE), "event: BadRequestError"),
        ((b'data: {"type":"error","code":"server_error","message":"m"}\n',), "event: server_error"),
        ((b'data: {"choices":[{"delta":{"content":"the \\"error\\": none"}}]}\n', DONE), ""),
        ((b'data: {"type":"message_stop"}\n',), ""),
        ((b'data: {"type":"response.completed","response":{"error":null}}\n',), ""),
    ],
)
def test_what_is_an_error_of_a_stream(lines: tuple[bytes, ...], error: str) -> None:
    assert read(*lines).error == error


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":{"type":"overloaded_error","code":null}}', "overloaded_error"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b"<html>", ""),
        (b"[]", ""),
    ],
)
def test_an_errors_body_says_its_kind(body: bytes, code: str) -> None:
    assert code_of(body) == code


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("constant", [20, 20, 20, 20, 20, 20]),
        ("soak", [20, 20, 20, 20, 20, 20]),
        ("ramp", [1, 4, 9, 14, 19, 20]),
        ("step", [4, 8, 12, 16, 20, 20]),
        ("spike", [5, 5, 20, 5, 5, 5]),
    ],
)
def test_shapes(shape: str, users: list[int]) -> None:
    assert [users_at(shape, at_s, 100, 20) for at_s in (0, 21, 45, 69, 95, 101)] == users  # type: ignore[arg-type]


@pytest.mark.parametrize("is_poisson", [True, False])
def test_arrivals_have_their_rate_however_often_they_are_asked(is_poisson: bool) -> None:
    arrivals = Arrivals(is_poisson, random.Random(1), begin_s=10.0)
    times = [at_s for step in range(1, 1001) for at_s in arrivals.until(10 + step * 0.1, 50.0)]
    assert times == sorted(times)
    assert len(times) == pytest.approx(5000, rel=0.05)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert (max(gaps) < 0.021) == (not is_poisson)


def test_arrivals_follow_a_rate_that_changes() -> None:
    arrivals = Arrivals(False, random.Random(1), begin_s=0.0)
    counts = [len(list(arrivals.until(step + 1.0, rate))) for step, rate in enumerate((10.0, 0.0, 40.0))]
    assert counts == pytest.approx([10, 0, 40], abs=1)


def test_a_mix_is_read_and_its_mistakes_are_named() -> None:
    assert parse_mix("chat:8, highlights") == {"chat": 8.0, "highlights": 1.0}
    assert set(parse_mix(",".join(NAMES))) == set(NAMES)
    for bad in ("chad:1", "", "chat:0", "chat:x", "chat:2,highlights:-1"):
        with pytest.raises(ValueError, match="scenario"):
            parse_mix(bad)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_names_its_model_and_differs_at_each_call(name: str) -> None:
    asks = [SCENARIOS[name]("demo", 8) for _ in range(2)]
    assert asks[0].body["model"] == "demo"
    assert asks[0].path.startswith("/")
    assert asks[0].body != asks[1].body


def test_a_turn_holds_what_was_said_and_not_what_will_be() -> None:
    history = [{"role": "user", "content": "Hi"}]
    ask = turn("demo", 8, history)
    history.append({"role": "assistant", "content": "Ho"})
    assert len(ask.body["messages"]) == 1


def test_percentiles_are_within_a_percent() -> None:
    histogram: dict[int, int] = {}
    for number in range(1, 1001):
        add_time(histogram, number / 1000)
    for share in (0.5, 0.95, 0.99):
        assert percentile_s(histogram, share) == pytest.approx(share, rel=0.011)
    assert percentile_s({}, 0.5) is None
    add_time(histogram, 0.0)


def counted() -> Tallies:
    """Make ten requests of a run of 10 s: one not sent, one failed, one late, one unfinished, one after the end."""
    tallies = Tallies(begin_s=100.0, run_s=10.0)
    for number in range(10):
        tallies.add_due("chat", 100.0 + number, is_sent=number != 0)
    for number in range(1, 9):
        outcome = Outcome(e2e_s=0.9, ttft_s=0.5, gaps_s=[0.1, 0.3], num_tokens=6)
        if number == 1:
            outcome = Outcome(e2e_s=0.001, error="HTTP 429 overloaded_error")
        elif number == 2:
            outcome.ttft_s, outcome.e2e_s = 1.5, 1.9
        elif number == 8:
            outcome.e2e_s = 2.9
        tallies.add_outcome("chat", outcome, 100.0 + number, ttft_limit_s=1.0)
    return tallies


def test_a_summary_counts_what_was_due_and_times_only_answers() -> None:
    found = summary(counted(), elapsed_s=10.0, is_cut=False)
    assert [found[name] for name in ("due", "answered", "failed", "not_sent", "unfinished")] == [10, 7, 1, 1, 1]
    assert (found["offered_per_s"], found["achieved_per_s"]) == (1.0, 0.6)
    assert (found["goodput"], found["error_rate"]) == (0.6, 0.125)
    assert found["tokens_per_s"] == pytest.approx(7 * 6 / 10)
    assert found["e2e_ms"]["p50"] == pytest.approx(900, rel=0.01)
    assert found["tpot_ms"]["p50"] == pytest.approx(80, rel=0.01)
    assert found["errors"] == {"HTTP 429 overloaded_error": 1}
    assert found["scenarios"]["chat"]["due"] == 10


def test_whoever_ends_a_run_does_not_make_the_server_worse() -> None:
    assert summary(counted(), elapsed_s=10.0, is_cut=True)["goodput"] == pytest.approx(6 / 9)


def test_over_time_each_token_is_where_it_came() -> None:
    tallies = Tallies(begin_s=0.0, run_s=10.0)
    tallies.add_due("chat", 0.5)
    tallies.add_outcome("chat", Outcome(e2e_s=4.0, ttft_s=1.0, gaps_s=[1.0, 1.0], num_tokens=3), 0.5, 10)
    found = summary(tallies, elapsed_s=10.0, is_cut=False)["over_time"]
    assert [moment["tokens_per_s"] for moment in found] == [0, 1, 1, 1, 0]
    assert [moment["offered_per_s"] for moment in found] == [1, 0, 0, 0, 0]
    assert [moment["achieved_per_s"] for moment in found] == [0, 0, 0, 0, 1]


def test_the_tallies_of_processes_add_up() -> None:
    both = Tallies(begin_s=5.0, run_s=10.0)
    for tallies in (counted(), counted()):
        both.put(tallies.take())
        both.put(tallies.take())
    whole, in_time = both.of_all()
    assert (whole.due, whole.answered, whole.errors) == (20, 14, {"HTTP 429 overloaded_error": 2})
    assert in_time.answered == 12
    assert (AFTER_THE_END, "chat") in both.cells


def figures(**changed: object) -> Figures:
    found = summary(counted(), elapsed_s=10.0, is_cut=False)
    return found | {"goodput": 1.0, "error_rate": 0.0, **changed}


@pytest.mark.parametrize(
    ("changed", "limits", "words"),
    [
        ({}, LIMITS, []),
        ({"goodput": 0.5}, LIMITS, ["goodput 50.00%", "wanted are 90.00%", "40.00% too few"]),
        ({"error_rate": 0.5}, LIMITS, ["error rate 50.00%", "allowed are 1.00%", "49.00% too many", "HTTP 429"]),
        ({}, Limits(1, 0, 1, max_ttft_p95_s=0.5), ["TTFT p95", "allowed are 500 ms", "times"]),
        ({}, Limits(1, 0, 1, max_itl_p99_s=0.1), ["inter-token p99", "allowed are 100 ms", "times"]),
        ({"answered": 0}, Limits(1, 0, 1), ["no request was answered, of 10"]),
    ],
)
def test_thresholds_say_which_and_by_how_much(changed: dict[str, object], limits: Limits, words: list[str]) -> None:
    lines = missed(figures(**changed), limits)
    assert len(lines) == bool(words)
    assert all(word in lines[0] for word in words)


def test_the_report_holds_its_plots_and_escapes_what_it_is_told() -> None:
    run = {"host": "http://<b>", "began": "now", "mix": "chat", "load_generator_was_busy": True, "users": 2}
    found = figures(run=run)
    for moment in found["over_time"]:
        moment["users"] = 2
    text = page(found, counted(), LIMITS)
    assert "<b>http" not in text
    assert "http://&lt;b&gt;" in text
    assert text.count("<svg") == 8
    assert "Passed" in text
    assert "src=" not in text
    assert "unfinished at the end" in text


def test_a_chart_of_nothing_is_nothing_and_a_line_has_gaps() -> None:
    assert draw(Chart("t", "x", [Series("a", [None])])) == ""
    svg = draw(Chart("t", "x", [Series("a", [(0, 1), None, (2, 1), (3, 0)])]))
    assert svg.count("M") == 2
    assert draw(Chart("t", "x", [Series("a", [(5.0, 0.0)])], has_log_x=True))
