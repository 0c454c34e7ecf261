"""Bad input that the gateway itself refuses, whatever the engine."""

import pytest

from tests.bad_requests import BY_THE_GATEWAY, BadRequest
from tests.harness import Server
from tests.hostile import HttpCases, assert_refused_and_well


class TestHttp(HttpCases):
    pass


@pytest.mark.parametrize("bad", BY_THE_GATEWAY, ids=[bad.name for bad in BY_THE_GATEWAY])
def test_bad_request_is_refused_and_the_next_one_passes(server: Server, model: str, bad: BadRequest) -> None:
    assert_refused_and_well(server, model, bad)
