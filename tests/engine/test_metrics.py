"""A real Prometheus, with the shipped configuration, finds everything that the dashboards show."""

import itertools
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from config.monitoring.dashboards import DASHBOARDS
from config.monitoring.queries import INTERVAL, series_in
from tests.cases import QUESTION
from tests.harness import Server, eventually
from tests.instances import Owner
from tests.prometheus import Prometheus

DEADLINE_S = 180
MADE, MADE_FOR_REQUESTS = "ray_vllm_generation_tokens_total", "ray_vllm_request_generation_tokens_sum"
MANY_TOKENS = 300
OF_PROBES_TOKENS = 15  # a probe every two seconds makes one, and the two are not reported at the same instant
NAMES = itertools.count()
QUERIES = {
    query.expression
    for board in DASHBOARDS
    for row in board.rows
    for panel in row.panels
    for query in panel.queries
}  # fmt: skip


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(server, tmp_path_factory.mktemp("prometheus")) as prometheus:
        yield prometheus


@pytest.fixture(scope="module")
def traffic(server: Server, model: str) -> "Traffic":
    return Traffic(server, model)


class Traffic:
    """One of each kind of request, so that each metric has something to show."""

    def __init__(self, server: Server, model: str) -> None:
        self.server = server
        self.model = model
        self.owner = Owner(server)
        self.random = random.Random(0)

    def send(self) -> None:
        """Send requests of all kinds."""
        self.ask(stream=True)
        self.ask(response_format=self.new_schema())
        self.writing()
        assert self.server.http.post("/v1/completions", json={"model": "nobody"}).status_code == 404

    def ask(self, **fields: Any) -> None:
        body = {"model": self.model, "messages": QUESTION, "max_tokens": 20, **fields}
        assert self.server.http.post("/v1/chat/completions", json=body).status_code == 200

    def new_schema(self) -> dict[str, Any]:
        """Make a schema that nobody has sent before, and that an engine does not compile itself."""
        name = f"field_{next(NAMES)}_{time.time_ns()}"
        fields = {name: {"type": "string", "format": "uuid"}, "code": {"type": "string", "pattern": "^[A-Z]{3}$"}}
        schema = {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}

    def writing(self) -> None:
        query = {"model": self.model, "k": "3", "doc": "The fox eats a brick for breakfast."}
        assert self.server.http.get("/api/highlights", params=query).status_code == 200

    def instance(self) -> None:
        """Make an instance, start it, and remove it."""
        name = f"metrics-{next(NAMES)}"
        self.owner.create(name, {"backend_type": "fake"})
        self.owner.start(name)
        self.owner.remove(name)

    def fill_the_cache(self) -> None:
        """Send more prompts at once than the KV cache holds while they are answered, so that some are put back."""
        with ThreadPoolExecutor(24) as pool:
            assert set(pool.map(lambda _: self.long_prompt(), range(24))) == {200}

    def long_prompt(self) -> int:
        prompt = [self.random.randrange(300, 900) for _ in range(2500)]
        body = {"model": self.model, "prompt": prompt, "max_tokens": 200, "ignore_eos": True}
        return self.server.http.post("/v1/completions", json=body).status_code


def test_every_target_is_scraped(prometheus: Prometheus) -> None:
    def are_up() -> bool:
        targets = prometheus.targets()
        return len(targets) >= 4 and set(targets.values()) == {"up"}  # Ray has three on the head node, HAProxy one

    eventually(are_up, "all of Ray's targets and HAProxy's are scraped")


def test_each_query_of_the_dashboards_has_an_answer(prometheus: Prometheus, traffic: Traffic) -> None:
    traffic.fill_the_cache()
    traffic.instance()
    open_queries, open_series = set(QUERIES), {name for query in QUERIES for name in series_in(query)}
    deadline = time.monotonic() + DEADLINE_S
    while (open_queries or open_series) and time.monotonic() < deadline:
        traffic.send()
        open_series = {name for name in open_series if not prometheus.has(name)}
        open_queries = {query for query in open_queries if not prometheus.values(filled_in(query))}
    assert (sorted(open_series), sorted(open_queries)) == ([], [])


def test_a_histogram_counts_what_a_counter_counts(prometheus: Prometheus, traffic: Traffic) -> None:
    def made(series: str) -> dict[str, float]:
        return prometheus.by_label("ReplicaId", f"sum by (ReplicaId) ({series})")

    def more(series: str, before: dict[str, float]) -> float:
        """Of the replicas that there are; the series of one that is gone ends some time after it."""
        return sum(value - before.get(replica, 0) for replica, value in made(series).items())

    # Growth, because tokens of requests that were given up are in the counter only.
    counted, in_requests = made(MADE), made(MADE_FOR_REQUESTS)

    def are_told() -> bool:
        return min(more(MADE, counted), more(MADE_FOR_REQUESTS, in_requests)) >= MANY_TOKENS

    traffic.ask(max_tokens=MANY_TOKENS, ignore_eos=True)
    eventually(are_told, "so is all that went before: the counter does not wait for the end of a request", DEADLINE_S)
    counted, in_requests = made(MADE), made(MADE_FOR_REQUESTS)
    # Several times: what is added up wrongly from one of Ray's reports to the next is right at the first.
    for asked in range(1, 4):
        traffic.ask(max_tokens=MANY_TOKENS, ignore_eos=True)

        def agree(enough: int = asked * MANY_TOKENS) -> bool:
            news = more(MADE, counted)
            return news >= enough and abs(news - more(MADE_FOR_REQUESTS, in_requests)) <= OF_PROBES_TOKENS

        eventually(agree, "the tokens are in both", DEADLINE_S)


def filled_in(expression: str) -> str:
    """Put in what Grafana would: all models, and some of Ray's reports."""
    return expression.replace(INTERVAL, "1m").replace("$model", ".*")
