"""Constraints made to break an engine: each costs its sender a 400, and nobody else anything."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.cases import QUESTION, assert_openai_error
from tests.engine.test_guided import ASK, body_of, post, unique
from tests.harness import Server, eventually
from tests.hostile_constraints import CONSTRAINTS as HOSTILE
from tests.hostile_constraints import HostileConstraint, as_request_fields


def slow(number: int) -> dict[str, Any]:
    """Make a constraint that takes a compiler seconds, and is refused; each number's is another one."""
    return {"structured_outputs": {"regex": f"(.{{0,99}}){{0,{99 - number}}}"}}


def send(server: Server, row: HostileConstraint, **fields: Any) -> httpx.Response:
    body = {"model": "demo", "messages": ASK, "max_tokens": 16} | as_request_fields(row) | fields
    return server.http.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("row", HOSTILE, ids=[row.id for row in HOSTILE])
def test_it_is_answered_and_the_next_request_is_served(server: Server, row: HostileConstraint) -> None:
    for stream in (False, True):
        response = send(server, row, stream=stream)
        if row.accepted:
            assert response.status_code == 200, response.text
            assert '"error"' not in response.text
        else:
            assert_openai_error(response, 400)
            assert response.json()["error"]["message"]
    plain = {"model": "demo", "messages": QUESTION, "max_tokens": 2}
    assert post(server, "/v1/chat/completions", plain).json()["choices"]


def test_streams_go_on_while_they_are_sent_and_the_pool_is_whole_afterwards(server: Server) -> None:
    before = server.actors("CompileActor")
    assert before
    stop = threading.Event()

    def flood(number: int) -> None:
        while not stop.is_set():
            body = {"model": "demo", "messages": ASK} | slow(number % 40)
            assert server.http.post("/v1/chat/completions", json=body).status_code in (400, 429, 503)
            number += 4

    def story(seed: int) -> str:
        body = {"model": "demo", "messages": QUESTION, "stream": True, "max_tokens": 300, "ignore_eos": True}
        return str(post(server, "/v1/chat/completions", body | {"seed": seed}).text)

    with ThreadPoolExecutor(12) as pool:
        floods = [pool.submit(flood, number) for number in range(4)]
        try:
            stories = list(pool.map(story, range(8)))
        finally:
            stop.set()
        for one in floods:
            one.result()
    for text in stories:
        assert text.rstrip().endswith("data: [DONE]")
        assert '"error"' not in text
    eventually(lambda: len(server.actors("CompileActor")) == len(before), "as many actors as before")
    body = body_of("json", structured_outputs={"json": unique("after_the_storm")}, max_tokens=3)
    eventually(lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "a compilation")


def test_who_leaves_takes_the_compilation_along(server: Server) -> None:
    body = {"model": "demo", "messages": ASK} | slow(50)
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/chat/completions", json=body, timeout=1)
    eventually(lambda: server.compiler().num_under_way == 0, "the end of the compilation", timeout_s=3)


def test_what_was_refused_is_not_compiled_again(server: Server) -> None:
    body = {"model": "demo", "messages": ASK} | slow(51)
    before = server.compiler().num_compiled
    answers = [server.http.post("/v1/chat/completions", json=body) for _ in range(2)]
    for response in answers:
        assert_openai_error(response, 400)
        assert "max_mask_ms" in response.text or "timeout_s" in response.text
    assert server.compiler().num_compiled == before + 1
