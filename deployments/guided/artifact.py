"""Compiled constraints as bytes: written by the pool, read by engine cores, refused when anything is odd.

    magic (4 bytes) | length of the header (4 bytes, little endian) | header (JSON) | body (zlib)

The body is UTF-8: xgrammar's own JSON of a compiled grammar, or the grammar that llguidance builds in the engine core.
"""

import functools
import hashlib
import importlib.metadata
import zlib
from dataclasses import dataclass
from typing import get_args

import msgspec

from deployments.guided_types import Compiler, GrammarSpec, Vocabulary

MAGIC = b"VGA1"
LENGTH_BYTES = 4
MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 2**31
"""The most that a setting allows."""
ZLIB_LEVEL = 1


class BadArtifact(ValueError):
    """These bytes are no artifact, or not one that can be used here."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a body before it is inflated."""

    compiler: Compiler
    versions: str
    body_bytes: int
    body_sha256: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an artifact holds."""

    compiler: Compiler
    text: str


@functools.cache
def versions_tag() -> str:
    """Name the installed compilers: what one version wrote is not for another.

    xgrammar also refuses another version of its format when it reads a grammar; importing it takes PyTorch and
    seconds, which those who only need keys are spared.
    """
    return " ".join(f"{name}-{importlib.metadata.version(name)}" for name in get_args(Compiler))


def spec_key(spec: GrammarSpec, fingerprint: str) -> str:
    """Return the key of a constraint for one vocabulary: SHA-256 of everything its artifact depends on."""
    flags = f"whitespace={spec.any_whitespace} strict={spec.strict}"
    return _digest(versions_tag(), fingerprint, spec.kind, flags, spec.text)


def vocabulary_of(tokenizer_info_json: str, tokenizer_json: str, vocab_size: int, eos_token_id: int) -> Vocabulary:
    """Make a vocabulary of what an engine tells about its tokens."""
    fingerprint = _digest(tokenizer_info_json, tokenizer_json, str(vocab_size), str(eos_token_id))
    return Vocabulary(fingerprint, tokenizer_info_json, tokenizer_json, vocab_size, eos_token_id)


def pack(compiler: Compiler, text: str) -> bytes:
    """Write an artifact."""
    body = text.encode()
    header = msgspec.json.encode(Header(compiler, versions_tag(), len(body), hashlib.sha256(body).hexdigest()))
    return b"".join([MAGIC, len(header).to_bytes(LENGTH_BYTES, "little"), header, zlib.compress(body, ZLIB_LEVEL)])


def unpack(artifact: bytes, max_body_bytes: int = MAX_BODY_BYTES) -> Unpacked:
    """Read an artifact; takes no more memory than its header says, and that is at most `max_body_bytes`.

    Raises BadArtifact.
    """
    start = len(MAGIC) + LENGTH_BYTES
    if artifact[: len(MAGIC)] != MAGIC:
        raise BadArtifact("not a compiled constraint")
    end = start + int.from_bytes(artifact[len(MAGIC) : start], "little")
    if not start < end <= min(len(artifact), start + MAX_HEADER_BYTES):
        raise BadArtifact("the header of a compiled constraint is cut off, or too long")
    header = _header(artifact[start:end])
    if header.versions != versions_tag():
        raise BadArtifact(f"compiled by {header.versions}, but installed is {versions_tag()}")
    if not 0 <= header.body_bytes <= max_body_bytes:
        raise BadArtifact(f"a compiled constraint of {header.body_bytes} bytes, more than {max_body_bytes}")
    body = _inflated(memoryview(artifact)[end:], header.body_bytes)
    if hashlib.sha256(body).hexdigest() != header.body_sha256:
        raise BadArtifact("the checksum of a compiled constraint is wrong")
    try:
        return Unpacked(header.compiler, body.decode())
    except UnicodeDecodeError as error:
        raise BadArtifact("a compiled constraint is not text") from error


def _header(text: bytes) -> Header:
    try:
        return msgspec.json.decode(text, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadArtifact(f"the header of a compiled constraint is wrong: {error}") from error


def _inflated(compressed: memoryview, body_bytes: int) -> bytes:
    inflating = zlib.decompressobj()
    try:
        # One byte more than there should be: 0 would mean no limit, and what is too long is found.
        body = inflating.decompress(compressed, body_bytes + 1)
    except zlib.error as error:
        raise BadArtifact(f"the body of a compiled constraint is damaged: {error}") from error
    if len(body) != body_bytes or not inflating.eof or inflating.unused_data:
        raise BadArtifact("the body of a compiled constraint is not as long as its header says")
    return body


def prune(serialized: str) -> str:
    """Leave out of xgrammar's JSON the edges that no rule can reach.

    xgrammar 0.2.8 writes the complete automaton once for each rule: hundreds of megabytes for what takes a few. States
    keep their numbers, and rules refer to each other by rule. Copies are never parsed, only the automaton itself.
    Raises ValueError when the format is another one.
    """
    try:
        return _pruned(serialized)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"xgrammar writes compiled grammars in another form: {error}") from error


def _pruned(serialized: str) -> str:
    document = msgspec.json.decode(serialized, type=dict[str, msgspec.Raw])
    grammar = msgspec.json.decode(document["grammar"], type=dict[str, msgspec.Raw])
    complete = msgspec.json.decode(grammar["complete_fsm"], type=_Automaton)
    rules = msgspec.json.decode(grammar["per_rule_fsms"], type=list[list[msgspec.Raw]])
    for rule in rules:
        if rule:
            rule[0] = _pruned_rule(rule[0], complete.edges)
    grammar["per_rule_fsms"] = msgspec.Raw(msgspec.json.encode(rules))
    document["grammar"] = msgspec.Raw(msgspec.json.encode(grammar))
    return msgspec.json.encode(document).decode()


Edge = tuple[int, int, int]
"""First and last byte, or a negative kind and its value; then the number of the state behind it."""


class _Edges(msgspec.Struct, forbid_unknown_fields=True):
    """The edges of state `i` are `data_[indptr_[i]:indptr_[i + 1]]`."""

    data_: list[Edge]
    indptr_: list[int]


class _Automaton(msgspec.Struct, forbid_unknown_fields=True):
    edges: _Edges
    edge_aux_data: msgspec.Raw
    edge_num: int


def _pruned_rule(rule: msgspec.Raw, complete: _Edges) -> msgspec.Raw:
    """Make a rule's automaton anew, of the edges that its start leads to."""
    parts = msgspec.json.decode(rule, type=list[msgspec.Raw])
    automaton = msgspec.json.decode(parts[0], type=dict[str, msgspec.Raw])
    start = msgspec.json.decode(parts[1], type=int)
    ends = msgspec.json.decode(parts[2], type=list[int])
    reached = _reached(start, complete)
    edges = _Edges([], [0] * (min(reached) + 1))
    for state in range(min(reached), max(*reached, *ends) + 1):
        if state in reached:
            edges.data_ += complete.data_[complete.indptr_[state] : complete.indptr_[state + 1]]
        edges.indptr_.append(len(edges.data_))
    automaton |= {"edges": _raw(edges), "edge_num": _raw(len(edges.data_))}
    return _raw([_raw(automaton), *parts[1:]])


def _reached(start: int, complete: _Edges) -> set[int]:
    reached, left = {start}, [start]
    while left:
        state = left.pop()
        for _, _, target in complete.data_[complete.indptr_[state] : complete.indptr_[state + 1]]:
            if target not in reached:
                reached.add(target)
                left.append(target)
    return reached


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _digest(*parts: str) -> str:
    """Return the SHA-256 of texts, each after its length: no two lists of texts are written alike."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
