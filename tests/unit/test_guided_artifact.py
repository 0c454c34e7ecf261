"""Artifacts are read back as they were written, or refused; nothing else happens, whatever the bytes."""

import hashlib
import json
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import xgrammar
from hypothesis import given
from hypothesis import strategies as st

from deployments.guided import artifact
from deployments.guided.artifact import BadArtifact, Header, Unpacked, pack, prune, spec_key, unpack, vocabulary_of
from deployments.guided_types import Compiler, GrammarSpec
from tests.vocabularies import bytes_vocabulary, optional_properties

SPEC = GrammarSpec("json", "{}")
TEXT = "a compiled grammar, ünïcode too"
GOOD = pack("xgrammar", TEXT)
MANY_BYTES = 2**26


def made(body: bytes, compressed: bytes | None = None, **changes: Any) -> bytes:
    """Write an artifact by hand."""
    header = Header("xgrammar", artifact.versions_tag(), len(body), hashlib.sha256(body).hexdigest())
    encoded = msgspec.json.encode(msgspec.structs.replace(header, **changes))
    length = len(encoded).to_bytes(artifact.LENGTH_BYTES, "little")
    return artifact.MAGIC + length + encoded + (zlib.compress(body) if compressed is None else compressed)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["xgrammar", "llguidance"]))
def test_what_was_packed_is_unpacked(text: str, compiler: Compiler) -> None:
    assert unpack(pack(compiler, text)) == Unpacked(compiler, text)


@given(st.integers(0, len(GOOD) - 1))
def test_what_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(BadArtifact):
        unpack(GOOD[:length])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_where_it_changes_anything(position: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[position] ^= change
    try:
        unpacked = unpack(bytes(changed))
    except BadArtifact:
        return
    assert unpacked.text == TEXT


@given(st.binary(), st.binary())
def test_any_bytes_are_refused(start: bytes, rest: bytes) -> None:
    for data in (start + rest, artifact.MAGIC + start + rest, artifact.MAGIC + b"\x02\x00\x00\x00{}" + rest):
        with pytest.raises(BadArtifact):
            unpack(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GPX1" + GOOD[4:], "not a compiled constraint"),
        (GOOD[:20], "cut off"),
        (made(b"abc", versions="xgrammar-0.0.1 llguidance-0.0.1"), "compiled by xgrammar-0.0.1"),
        (made(b"abc", compiler="another"), "header"),
        (made(b"abc", body_bytes=2**40), "more than"),
        (made(b"abc", body_bytes=-1), "more than"),
        (made(b"abc", body_bytes=2), "not as long"),
        (made(b"abc", body_bytes=4), "not as long"),
        (made(b"abc", body_sha256="0" * 64), "checksum"),
        (made(b"abc", b"abc"), "damaged"),
        (made(b"abc", zlib.compress(b"abc") + b"more"), "not as long"),
        (made(b"\xff"), "not text"),
        (made(b""), ""),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    if not message:
        assert unpack(data).text == ""
        return
    with pytest.raises(BadArtifact, match=message):
        unpack(data)


def test_no_more_is_inflated_than_the_header_says() -> None:
    bomb = made(b"abc", zlib.compress(bytes(MANY_BYTES)))
    tracemalloc.start()
    with pytest.raises(BadArtifact, match="not as long"):
        unpack(bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < MANY_BYTES / 8


def test_no_more_is_inflated_than_is_allowed() -> None:
    assert unpack(GOOD, len(TEXT.encode())).text == TEXT
    with pytest.raises(BadArtifact, match="more than 3"):
        unpack(GOOD, 3)


def test_a_key_is_for_one_constraint_one_vocabulary_and_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [
        SPEC,
        replace(SPEC, kind="regex"),
        replace(SPEC, text="{} "),
        replace(SPEC, any_whitespace=False),
        replace(SPEC, strict=False),
    ]
    keys = [spec_key(spec, fingerprint) for spec in specs for fingerprint in ("a", "b")]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)
    assert spec_key(SPEC, "a") == keys[0]
    monkeypatch.setattr(artifact, "versions_tag", lambda: "another")
    assert spec_key(SPEC, "a") != keys[0]


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    assert spec_key(GrammarSpec("json", "bc"), "a") != spec_key(GrammarSpec("json", "c"), "ab")


def test_a_key_is_found_for_text_that_is_not_valid_unicode() -> None:
    assert spec_key(GrammarSpec("json", "\ud800"), "a") != spec_key(SPEC, "a")


def test_a_fingerprint_is_for_the_whole_vocabulary() -> None:
    made_of: list[tuple[str, str, int, int]] = [("i", "t", 9, 1), ("j", "t", 9, 1), ("i", "", 9, 1), ("i", "t", 8, 1)]
    fingerprints = {vocabulary_of(*parts).fingerprint for parts in [*made_of, ("i", "t", 9, 2)]}
    assert len(fingerprints) == 5
    assert vocabulary_of("i", "t", 9, 1) == vocabulary_of("i", "t", 9, 1)


def serialized(spec: GrammarSpec) -> str:
    info = xgrammar.TokenizerInfo.deserialize_json(bytes_vocabulary().tokenizer_info)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    text: str = compiler.compile_json_schema(spec.text).serialize_json()
    return text


def test_pruning_leaves_out_what_no_rule_can_reach() -> None:
    full = serialized(optional_properties(40))
    pruned = prune(full)
    assert len(pruned) < len(full) / 4
    assert prune(pruned) == pruned
    kept, whole = json.loads(pruned), json.loads(full)
    del kept["grammar"]["per_rule_fsms"], whole["grammar"]["per_rule_fsms"]
    assert kept == whole


@pytest.mark.parametrize("change", ["grammar", "per_rule_fsms", "complete_fsm", "data_", "indptr_"])
def test_another_format_is_not_pruned(change: str) -> None:
    with pytest.raises(ValueError, match="in another form"):
        prune(serialized(optional_properties(2)).replace(f'"{change}"', '"renamed"'))


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", "null"])
def test_what_is_no_grammar_is_not_pruned(text: str) -> None:
    with pytest.raises(ValueError, match="in another form"):
        prune(text)
