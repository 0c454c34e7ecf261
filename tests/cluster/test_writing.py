import os
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.harness import PLANES, Server, eventually
from tests.writing_cases import CHAT, LONG, WritingCases

# The Tokenizer calls engines over their handles on both planes.
planes = PLANES[:1]


class TestFakeEngine(WritingCases):
    pass


def ask(server: Server, model: str, doc: str = "The fox runs.") -> int:
    return server.http.post("/api/highlights", json={"model": model, "doc": doc, "window": True}).status_code


def test_without_a_tokenizer_chats_are_answered_and_it_comes_back(server: Server, model: str) -> None:
    (replica,) = eventually(lambda: server.running("gateway", "Tokenizer"), "the Tokenizer runs")
    os.kill(replica["pid"], signal.SIGKILL)
    body = {"model": model, "messages": CHAT, "max_tokens": 2}
    assert server.http.post("/v1/chat/completions", json=body).status_code == 200
    eventually(lambda: ask(server, model) == 200, "another Tokenizer answers")


def test_what_it_is_asked_while_it_is_lost_is_asked_again(server: Server, slow_writer: str) -> None:
    """No byte has been sent: the question goes to the Tokenizer that comes next."""
    (replica,) = eventually(lambda: server.running("gateway", "Tokenizer"), "the Tokenizer runs")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, slow_writer, LONG[:60_000])  # busy for seconds
        eventually(lambda: server.stats(f"model-{slow_writer}").num_running > 0, "the engine scores")
        os.kill(replica["pid"], signal.SIGKILL)
        assert answer.result() == 200
