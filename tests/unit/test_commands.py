"""The process of vLLM's parser: vLLM is imported in it several times, about five seconds each."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from config.instances import InstanceSettings
from config.models import PROJECT_ROOT
from deployments.errors import (
    CommandError,
    EmptyCommandError,
    EngineUnavailableError,
    InternalError,
    InvalidOptionsError,
)
from deployments.instance_types import ParsedCommand
from deployments.instances.commands import MODULE, ParserProcess, VllmCommands
from deployments.instances.services import Commands

HANGS_AFTER_S = 120


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def is_there(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def environment_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def run_with(
    main: Callable[[VllmCommands], Coroutine[Any, Any, None]], settings: InstanceSettings | None = None
) -> None:
    """Run a test; its process is ended while its loop still runs."""

    async def with_commands() -> None:
        commands = VllmCommands(settings or InstanceSettings())
        try:
            await main(commands)
        finally:
            commands.close()

    asyncio.run(asyncio.wait_for(with_commands(), HANGS_AFTER_S))


def test_one_process_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_GRAPH_INFERENCE_KEYS", "secret-of-the-parent")

    async def main(commands: VllmCommands) -> None:
        asked: Commands = commands
        assert commands.pid is None
        parsed = ParsedCommand({"model": "org/m", "seed": -1}, {"A": "b"}, ("port",), ("--x", "1"))
        assert await asked.parse("A=b vllm serve org/m --seed -1 --port 1 --x 1") == parsed
        pid = commands.pid
        assert await asked.command_of({"model": "org/m", "max-model-len": "8k"}) == (
            "vllm serve org/m --max-model-len 8000"
        )
        version = await asked.version()
        assert version[0].isdigit()
        for error, question in (
            (EmptyCommandError, asked.parse(" ")),
            (CommandError, asked.parse("vllm serve '")),
            (InvalidOptionsError, asked.command_of({"model": "x", "port": 1})),
        ):
            with pytest.raises(error) as caught:
                await question
            assert type(caught.value) is error
            assert caught.value.message
        answers = await asyncio.gather(*(asked.parse(f"vllm serve org/m --seed {seed}") for seed in range(20)))
        assert [answer.backend_options["seed"] for answer in answers] == list(range(20))
        text = "x" * 2**21
        assert (await asked.parse(f"vllm serve {text}")).backend_options == {"model": text}
        assert commands.pid == pid
        assert b"secret-of-the-parent" not in environment_of(pid)
        with pytest.raises(InternalError):
            await commands._ask("read", 5)
        await answers_of_cancelled_questions_are_passed_over(commands)
        assert commands.pid == pid
        commands.close()
        assert not is_there(pid)
        assert await asked.version() == version
        assert commands.pid is None

    run_with(main)


async def answers_of_cancelled_questions_are_passed_over(commands: VllmCommands) -> None:
    first = asyncio.ensure_future(commands.parse("vllm serve org/m --revision " + "x" * 2**21))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
    assert (await commands.parse("vllm serve org/m")).backend_options == {"model": "org/m"}


def test_a_process_that_has_died_is_replaced() -> None:
    async def main(commands: VllmCommands) -> None:
        await commands.version()
        killed = commands.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert (await commands.parse("vllm serve org/m")).backend_options == {"model": "org/m"}
        assert commands.pid != killed
        assert not is_there(killed)

    run_with(main)


def test_a_late_answer_is_an_error_and_the_process_is_ended() -> None:
    async def main(commands: VllmCommands) -> None:
        asking = asyncio.gather(*(commands.version() for _ in range(3)), return_exceptions=True)
        await until(lambda: commands.pid is not None or asking.done())
        pid = commands.pid
        errors = await asking
        assert [str(error) for error in errors] == ["vLLM's parser did not answer within 0.01 s"] * 3
        assert all(isinstance(error, EngineUnavailableError) for error in errors)
        assert commands.pid is None
        assert not is_there(pid)

    run_with(main, InstanceSettings(command_timeout_s=0.01))


def test_nobody_asks_and_it_ends() -> None:
    async def main(commands: VllmCommands) -> None:
        await commands.version()
        pid = commands.pid
        await until(lambda: commands.pid is None)
        assert not is_there(pid)

    run_with(main, InstanceSettings(command_idle_s=0.05))


def test_it_ends_with_its_parent() -> None:
    """Also while it imports vLLM, and works."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", MODULE], cwd=PROJECT_ROOT, stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        process.stdin.write(b'{"number": 0, "do": "version", "about": null}\n')
        process.stdin.close()
        assert process.wait(HANGS_AFTER_S) == 0
    finally:
        process.kill()


def test_what_vllm_prints_does_not_come_between() -> None:
    program = (
        "import os, sys\n"
        "from deployments.engine import serve_command_process as process\n"
        "process._value = lambda what, about: (print('noise'), os.write(1, b'more noise'), about)[-1]\n"
        "process.main()"
    )
    question = {"number": 7, "do": "x", "about": ["é"]}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"number": 7, "value": ["é"]}
        process.stdin.close()
        assert process.stdout.read() == b""


def test_a_program_that_only_ends_is_not_started_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    start = ParserProcess.start

    async def start_and_kill() -> ParserProcess:
        process = await start()
        starts.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(ParserProcess, "start", start_and_kill)

    async def main(commands: VllmCommands) -> None:
        with pytest.raises(EngineUnavailableError, match="twice"):
            await commands.version()
        assert len(starts) == 2
        assert commands.pid is None

    run_with(main)
