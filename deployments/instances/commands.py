"""vLLM's own parser, asked in a process of its own."""

import asyncio
import itertools
import json
import subprocess
from collections.abc import Mapping
from typing import Any

from config.instances import InstanceSettings
from deployments.child_process import INHERITED, start_python
from deployments.errors import (
    CommandError,
    EmptyCommandError,
    EngineUnavailableError,
    InternalError,
    InvalidOptionsError,
    ServingError,
)
from deployments.instance_types import ParsedCommand

MODULE = "deployments.engine.serve_command_process"
ONLY_PARSE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}
"""It never needs the network, and says only what goes wrong."""
MAX_ANSWER_BYTES = 2**28
"""Far more than any answer has: questions have limits of their own."""
ERRORS: dict[str, type[InvalidOptionsError | CommandError | EmptyCommandError]] = {
    error.__name__: error for error in (InvalidOptionsError, CommandError, EmptyCommandError)
}


class ParserCrashedError(Exception):
    """The process of vLLM's parser has ended before it answered."""


class ParserProcess:
    """One such process; made by `start`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._numbers = itertools.count()
        self._answers = asyncio.StreamReader(MAX_ANSWER_BYTES)
        self._heard: asyncio.BaseTransport | None = None
        self._questions: asyncio.WriteTransport | None = None

    @classmethod
    async def start(cls) -> "ParserProcess":
        parser = cls(
            start_python("-W", "ignore", "-m", MODULE, environment=ONLY_PARSE, inherited=INHERITED | {"VLLM_PLUGINS"})
        )
        loop = asyncio.get_running_loop()
        try:
            protocol = asyncio.StreamReaderProtocol(parser._answers)
            parser._heard, _ = await loop.connect_read_pipe(lambda: protocol, parser._process.stdout)
            parser._questions, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, parser._process.stdin)
        except BaseException:
            parser.close()
            raise
        return parser

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, what: str, about: Any) -> dict[str, Any]:
        """Return the answer; raises ParserCrashedError. One question at a time.

        Answers that nobody waits for any more, because their asker was cancelled, are passed over.
        """
        assert self._questions is not None
        number = next(self._numbers)
        self._questions.write(json.dumps({"number": number, "do": what, "about": about}).encode() + b"\n")
        while line := await self._answers.readline():
            answer: dict[str, Any] = json.loads(line)
            if answer["number"] == number:
                return answer
        raise ParserCrashedError

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        for transport in (self._questions, self._heard):
            if transport is not None:
                transport.close()


class VllmCommands:
    """`Commands` by a process that is started when it is needed, and ended when nobody has asked for a while."""

    def __init__(self, settings: InstanceSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._parser: ParserProcess | None = None
        self._end: asyncio.TimerHandle | None = None
        self._version = ""

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._parser.pid if self._parser is not None else None

    async def parse(self, command: str) -> ParsedCommand:
        """Read a command line; raises EmptyCommandError, CommandError, EngineUnavailableError."""
        value = await self._ask("parse", command)
        lists = {name: tuple(value[name]) for name in ("ignored", "extra_args")}
        return ParsedCommand(**(value | lists))

    async def command_of(self, backend_options: Mapping[str, Any]) -> str:
        """Write the command that says these options; raises InvalidOptionsError, EngineUnavailableError."""
        return str(await self._ask("command_of", dict(backend_options)))

    async def version(self) -> str:
        """Return vLLM's version; raises EngineUnavailableError."""
        self._version = self._version or str(await self._ask("version", None))
        return self._version

    def close(self) -> None:
        """End the process; a later question starts another one."""
        if self._end is not None:
            self._end.cancel()
        if self._parser is not None:
            self._parser.close()
        self._parser = self._end = None

    async def _ask(self, what: str, about: Any) -> Any:
        timeout_s = self._settings.command_timeout_s
        is_turn = False
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                is_turn = True
                answer = await self._answer(what, about)
        except TimeoutError as error:
            if is_turn:
                self.close()
            raise EngineUnavailableError(f"vLLM's parser did not answer within {timeout_s:g} s") from error
        finally:
            self._end_later()
        if "value" in answer:
            return answer["value"]
        raise _to_error(answer)

    async def _answer(self, what: str, about: Any) -> dict[str, Any]:
        """Ask, and once more when the process has ended: it may have been killed while it was idle."""
        for _ in range(2):
            try:
                if self._parser is None:
                    self._parser = await ParserProcess.start()
                return await self._parser.ask(what, about)
            except ParserCrashedError:
                self.close()
        raise EngineUnavailableError("the process of vLLM's parser ended before it answered, twice")

    def _end_later(self) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._parser is None:
            return
        self._end = asyncio.get_running_loop().call_later(self._settings.command_idle_s, self._end_idle)

    def _end_idle(self) -> None:
        if self._turn.locked():
            self._end_later()
        else:
            self.close()


def _to_error(answer: Mapping[str, str]) -> ServingError:
    kind = ERRORS.get(answer["error"])
    return InternalError() if kind is None else kind(answer["message"])
