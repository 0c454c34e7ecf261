"""Every bad request, against real vLLM."""

import pytest

from tests.bad_requests import CORPUS, BadRequest
from tests.harness import PLANES, Server
from tests.hostile import HttpCases, assert_refused_and_well

planes = PLANES


class TestHttp(HttpCases):
    pass


@pytest.mark.parametrize("bad", CORPUS, ids=[bad.name for bad in CORPUS])
def test_bad_request_is_refused_and_the_next_one_passes(server: Server, model: str, bad: BadRequest) -> None:
    assert_refused_and_well(server, model, bad)
