import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.models import PROJECT_ROOT
from deployments.errors import EngineUnavailableError, InvalidRequestError, ServingError
from deployments.tokenizer.loading import LoadedTokenizer, Tokenizers, load_tokenizer
from deployments.types import TokenizerSource
from tests.aio import run, settle, until
from tests.demo import DEMO, demo_tokenizer

A, B, C = (TokenizerSource(name) for name in "abc")
HANGS_AFTER_S = 30


class Loads:
    """Stands for loading: remembers what was asked for, and waits at the gate."""

    def __init__(self) -> None:
        self.sources: list[TokenizerSource] = []
        self.errors: list[Exception] = []
        """What the next loads raise."""
        self.gate = threading.Event()

    def __call__(self, source: TokenizerSource) -> LoadedTokenizer:
        self.sources.append(source)
        assert self.gate.wait(HANGS_AFTER_S)
        if self.errors:
            raise self.errors.pop(0)
        return LoadedTokenizer(source, None, demo_tokenizer().exact, demo_tokenizer().texts)

    def names(self) -> str:
        return "".join(source.path for source in self.sources)


@pytest.fixture
def loads() -> Iterator[Loads]:
    made = Loads()
    yield made
    made.gate.set()


@pytest.fixture
def quick(loads: Loads) -> Loads:
    loads.gate.set()
    return loads


def test_many_who_ask_at_once_wait_for_one_load(loads: Loads) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(2, loads)
        asking = [asyncio.ensure_future(tokenizers.get(A)) for _ in range(20)]
        await until(lambda: bool(loads.sources))
        loads.gate.set()
        found = [await each for each in asking]
        assert all(each is found[0] for each in [*found, await tokenizers.get(A)])

    run(main())
    assert loads.sources == [A]


def test_others_are_served_while_one_is_loaded(loads: Loads) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(2, lambda source: loads(source) if source == A else demo_tokenizer())
        slow = asyncio.ensure_future(tokenizers.get(A))
        assert await tokenizers.get(B) is demo_tokenizer()
        assert not slow.done()
        loads.gate.set()
        assert (await slow).source == A

    run(main())


@pytest.mark.parametrize("error", [EngineUnavailableError("no hub"), InvalidRequestError("slow one"), OSError("disk")])
def test_a_load_that_failed_is_told_to_all_who_wait_and_tried_again(quick: Loads, error: Exception) -> None:
    quick.errors = [error]

    async def main() -> None:
        tokenizers = Tokenizers(2, quick)
        assert await asyncio.gather(*(tokenizers.get(A) for _ in range(3)), return_exceptions=True) == [error] * 3
        assert (await tokenizers.get(A)).source == A

    run(main())
    assert quick.sources == [A, A]


@pytest.mark.parametrize(
    ("most", "asked", "loaded"),
    [
        (2, "aabba", "ab"),
        (2, "abcb", "abc"),
        (2, "abca", "abca"),
        (2, "abacab", "abcb"),
        (1, "aabba", "aba"),
        (3, "abcabc", "abc"),
    ],
)
def test_what_was_unused_for_longest_is_dropped(quick: Loads, most: int, asked: str, loaded: str) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(most, quick)
        for name in asked:
            assert (await tokenizers.get(TokenizerSource(name))).source.path == name

    run(main())
    assert quick.names() == loaded


def test_a_model_with_another_template_has_a_tokenizer_of_its_own(quick: Loads) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(2, quick)
        for source in (A, TokenizerSource("a", chat_template="x"), TokenizerSource("a"), TokenizerSource("a", "main")):
            assert (await tokenizers.get(source)).source == source

    run(main())
    assert quick.names() == "aaa"


def test_who_waits_for_what_is_dropped_gets_it(loads: Loads) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(1, loads)
        asking = [asyncio.ensure_future(tokenizers.get(source)) for source in (A, B, C)]
        await until(lambda: len(loads.sources) == 3)
        loads.gate.set()
        assert [(await each).source for each in asking] == [A, B, C]

    run(main())


def test_one_who_leaves_does_not_end_the_load_for_the_others(loads: Loads) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(2, loads)
        leaving, staying = (asyncio.ensure_future(tokenizers.get(A)) for _ in range(2))
        await until(lambda: bool(loads.sources))
        leaving.cancel()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
        await settle()
        assert not staying.done()
        loads.gate.set()
        assert (await staying).source == A

    run(main())
    assert loads.sources == [A]


def test_when_all_have_left_the_load_is_there_for_the_next(loads: Loads) -> None:
    async def main() -> None:
        tokenizers = Tokenizers(2, loads)
        leaving = asyncio.ensure_future(tokenizers.get(A))
        await until(lambda: bool(loads.sources))
        leaving.cancel()
        await asyncio.wait({leaving})
        loads.gate.set()
        assert (await tokenizers.get(A)).source == A

    run(main())
    assert loads.sources == [A]


def test_a_load_that_fails_when_all_have_left_is_forgotten(loads: Loads) -> None:
    loads.errors = [EngineUnavailableError("no hub")]

    async def main() -> None:
        tokenizers = Tokenizers(2, loads)
        leaving = asyncio.ensure_future(tokenizers.get(A))
        await until(lambda: bool(loads.sources))
        leaving.cancel()
        await asyncio.wait({leaving})
        loads.gate.set()
        await until(lambda: not tokenizers._loads)
        assert (await tokenizers.get(A)).source == A

    run(main())
    assert loads.sources == [A, A]


def load(folder: Path, described: dict[str, str]) -> LoadedTokenizer:
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return load_tokenizer(TokenizerSource(str(folder)))


def test_what_is_loaded_counts_every_character() -> None:
    loaded = demo_tokenizer()
    assert loaded.source == DEMO
    assert loaded.exact.encode(" the fox").offsets[0] == (0, 4)
    assert loaded.texts.text(loaded.exact.encode(" the").ids[0]) == " the"


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% if %}"])
def test_a_template_that_fails_does_not_keep_a_tokenizer_from_being_loaded(template: str) -> None:
    demo_tokenizer()
    source = TokenizerSource(DEMO.path, chat_template=template)
    assert load_tokenizer(source).source == source


def test_a_tokenizer_that_is_not_there_is_unavailable() -> None:
    demo_tokenizer()
    with pytest.raises(EngineUnavailableError, match="cannot be loaded") as caught:
        load_tokenizer(TokenizerSource("/no/such/folder"))
    assert caught.value.retry_after_s


def test_a_tokenizer_without_offsets_is_refused(tmp_path: Path) -> None:
    demo_tokenizer()
    with pytest.raises(ServingError, match="which characters") as caught:
        load(tmp_path, {"tokenizer_class": "ByT5Tokenizer"})
    assert caught.value.status == 400


LOAD_DEMO = """
import sys
from deployments.tokenizer.loading import load_tokenizer
from deployments.types import TokenizerSource

loaded = load_tokenizer(TokenizerSource("config/demo_model"))
print(loaded.texts.text(loaded.exact.encode(" the").ids[0]), sorted({"torch", "vllm", "ray"} & set(sys.modules)))
"""


def test_loading_a_tokenizer_imports_no_torch_and_says_nothing() -> None:
    """A quarter of a gigabyte of memory, and seconds, that no tokenizer needs."""
    result = subprocess.run(
        [sys.executable, "-c", LOAD_DEMO], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == " the []\n"
    assert result.stderr == ""
