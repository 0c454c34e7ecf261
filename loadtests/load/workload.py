"""What one process sends: whom it asks what, and when."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
from gevent.pool import Group

from loadtests.load import scenarios
from loadtests.load.client import Client
from loadtests.load.events import Outcome
from loadtests.load.metrics import Tallies
from loadtests.load.scenarios import Ask, Body
from loadtests.load.shapes import Arrivals

TURNS = 6
"""Of a conversation, after which another one begins."""
LOOKAHEAD_S = 0.05
"""How far ahead requests are planned: the rate follows the number of users so closely."""
PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""After an error a user pauses, as long as the server says, or so; else a refused one would ask without a break."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked, and of whom."""

    base_url: str
    key: str
    model: str
    mix: dict[str, float]
    max_tokens: int
    request_timeout_s: float
    ttft_limit_s: float
    instances: tuple[str, ...]
    switch_every_s: float
    is_endless: bool
    """Answers do not end before `max_tokens`."""
    max_under_way: int


class Workload:
    """Connections and conversations are kept for whoever comes next.

    record: told of every answer, with the name of its scenario.
    """

    def __init__(self, settings: Settings, tallies: Tallies, record: Callable[[str, Outcome], None]) -> None:
        self.under_way = 0
        self._settings = settings
        self._tallies = tallies
        self._record = record
        self._idle: list[Client] = []
        self._histories: list[list[Body]] = []
        self._sending = Group()
        self._is_full = False

    def ask(self) -> Outcome:
        """Send a request and wait for its answer."""
        return self._send(self._choose(), time.perf_counter())

    def arrive(self, is_poisson: bool, rate_per_s: Callable[[float], float]) -> None:
        """Send requests when they are due, until the load is over, whatever becomes of those before.

        rate_per_s: by the seconds since the beginning.
        """
        begin_s = self._tallies.begin_s
        arrivals = Arrivals(is_poisson, random.Random(), begin_s)
        while not self._tallies.is_over(now_s := time.perf_counter()):
            for due_s in arrivals.until(now_s + LOOKAHEAD_S, rate_per_s(now_s - begin_s)):
                if not self._tallies.is_over(due_s):
                    self._sending.add(gevent.spawn_later(max(0.0, due_s - time.perf_counter()), self._ask_due, due_s))
            gevent.sleep(LOOKAHEAD_S / 2)

    def close(self) -> None:
        """Cut what is under way, and all connections."""
        self._sending.kill()
        for client in self._idle:
            client.close()

    def _ask_due(self, due_s: float) -> None:
        if self.under_way < self._settings.max_under_way:
            self._send(self._choose(), due_s)
            return
        self._tallies.add_due(self._choose(), due_s, is_sent=False)
        if not self._is_full:
            self._is_full = True
            logging.warning(
                f"{self.under_way} requests are under way, as many as --max-under-way allows in a process: "
                "more are not sent now, and count as not achieved"
            )

    def _choose(self) -> str:
        mix = self._settings.mix
        return random.choices(list(mix), list(mix.values()))[0]

    def _send(self, name: str, due_s: float) -> Outcome:
        """Send a request; its times count from when it was due, so that those of a late one do, too."""
        self._tallies.add_due(name, due_s)
        self.under_way += 1
        try:
            late_s = time.perf_counter() - due_s
            outcome = self._converse() if name == scenarios.CONVERSATION else self._exchange(self._make(name))
        finally:
            self.under_way -= 1
        outcome.e2e_s += late_s
        if outcome.ttft_s is not None:
            outcome.ttft_s += late_s
        self._tallies.add_outcome(name, outcome, due_s, self._settings.ttft_limit_s)
        self._record(name, outcome)
        return outcome

    def _make(self, name: str) -> Ask:
        settings = self._settings
        if name == scenarios.INSTANCES:
            model = scenarios.instance_of_the_moment(settings.instances, settings.switch_every_s)
            ask = scenarios.chat(model, settings.max_tokens)
        else:
            ask = scenarios.SCENARIOS[name](settings.model, settings.max_tokens)
        if not settings.is_endless:
            for field in scenarios.ENDLESS:
                ask.body.pop(field, None)
        return ask

    def _converse(self) -> Outcome:
        """Say the next thing in a conversation that waits for the user, or in a new one."""
        history = self._histories.pop() if self._histories else []
        history.append({"role": "user", "content": scenarios.question()})
        ask = scenarios.turn(self._settings.model, self._settings.max_tokens, history)
        outcome = self._exchange(ask, keeps_text=True)
        if not outcome.error and len(history) < 2 * TURNS - 1:
            self._histories.append([*history, {"role": "assistant", "content": outcome.text}])
        return outcome

    def _exchange(self, ask: Ask, keeps_text: bool = False) -> Outcome:
        client = self._idle.pop() if self._idle else self._connect()
        outcome = client.send("POST", ask.path, ask.body, keeps_text)
        self._idle.append(client)
        if ask.may_be_refused and 400 <= outcome.status < 500 and outcome.status != 429:
            outcome.error = ""
        return outcome

    def _connect(self) -> Client:
        settings = self._settings
        return Client(settings.base_url, settings.key, settings.request_timeout_s)


def pause_s(outcome: Outcome) -> float:
    """Return how long a user waits before asking again, in seconds."""
    if not outcome.error:
        return 0.0
    return min(outcome.retry_after_s or PAUSE_S, LONGEST_PAUSE_S)
