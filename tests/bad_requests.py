"""Malformed and hostile requests, as data: what is sent, and the status that API.md promises for it.

`MODEL` in a body stands for the name of the model under test.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
ASK: list[Any] = [{"role": "user", "content": "Tell me a story about a fox."}]
MEGABYTE = 2**20


@dataclass(frozen=True)
class BadRequest:
    name: str
    path: str
    body: bytes
    status: int = 400
    method: str = "POST"
    headers: dict[str, bytes] = field(default_factory=dict)


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "MODEL", "messages": ASK, "max_tokens": 1, **fields}).encode()


def text(**fields: Any) -> bytes:
    return json.dumps({"model": "MODEL", "prompt": "A fox", "max_tokens": 1, **fields}).encode()


def with_model(**fields: Any) -> bytes:
    return json.dumps({"model": "MODEL", **fields}).encode()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NOT_JSON: dict[str, bytes] = {
    "empty body": b"",
    "blank body": b" \n\t ",
    "null": b"null",
    "list": b"[]",
    "number": b"42",
    "text": b'"chat"',
    "open brace": b"{",
    "cut in a string": chat()[:-30],
    "text after the object": chat() + b"{}",
    "trailing comma": b'{"model": "MODEL", "messages": [],}',
    "single quotes": b"{'model': 'MODEL'}",
    "comment": b'{"model": "MODEL" /* mine */}',
    "no quotes": b"{model: MODEL}",
    "NaN": chat()[:-1] + b', "temperature": NaN}',
    "Infinity": chat()[:-1] + b', "temperature": Infinity}',
    "minus Infinity": chat()[:-1] + b', "temperature": -Infinity}',
    "number over a double": chat()[:-1] + b', "temperature": 1e999}',
    "integer of 5,000 digits": chat()[:-1] + b', "seed": ' + b"9" * 5000 + b"}",
    "leading zero": chat()[:-1] + b', "n": 01}',
    "hexadecimal": chat()[:-1] + b', "n": 0x1}',
    "byte order mark": b"\xef\xbb\xbf" + chat(),
    "UTF-16": chat().decode().encode("utf-16"),
    "UTF-32": chat().decode().encode("utf-32"),
    "Latin-1": '{"model": "MODEL", "messages": "é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"model": "MODEL", "messages": "\xc0\xaf"}',
    "surrogate as UTF-8": b'{"model": "MODEL", "messages": "\xed\xa0\x80"}',
    "lone high surrogate": b'{"model": "MODEL", "prompt": "\\ud800"}',
    "lone low surrogate": b'{"model": "MODEL", "prompt": "\\udc00 fox"}',
    "surrogates in the wrong order": b'{"model": "MODEL", "prompt": "\\udc00\\ud800"}',
    "short escape": b'{"model": "MODEL", "prompt": "\\u12"}',
    "unknown escape": b'{"model": "MODEL", "prompt": "\\x41"}',
    "raw NUL": b'{"model": "MODEL", "prompt": "a\x00b"}',
    "raw control character": b'{"model": "MODEL", "prompt": "a\x07b"}',
    "raw line break": b'{"model": "MODEL", "prompt": "a\nb"}',
    "only NULs": b"\x00" * 100,
    "random bytes": bytes(range(256)),
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "form": b"model=MODEL&prompt=fox",
    "YAML": b"model: MODEL\nprompt: fox\n",
    "pickle": b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV\xcaMMQ\xb2RP*.)\xca\xccKW\xaa\x05\x00",
    "bomb of lists": b"[" * 100_000,
    "bomb of closed lists": b"[" * 100_000 + b"]" * 100_000,
    "bomb of objects": b'{"a":' * 100_000,
    "bomb of objects in a field": b'{"model": "MODEL", "messages": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    "three million values": b'{"model": "MODEL", "prompt": [' + b"1," * 3_000_000 + b"1]}",
    "three million lists": b'{"model": "MODEL", "prompt": [' + b"[]," * 3_000_000 + b"1]}",
}

BAD_CHATS: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "null as messages": {"messages": None},
    "text as messages": {"messages": "Hello"},
    "number as messages": {"messages": 5},
    "object as messages": {"messages": {}},
    "number as message": {"messages": [1]},
    "text as message": {"messages": ["Hello"]},
    "null as message": {"messages": [None]},
    "list as message": {"messages": [[]]},
    "empty message": {"messages": [{}]},
    "message without role": {"messages": [{"content": "Hello"}]},
    "number as role": {"messages": [{"role": 1, "content": "Hello"}]},
    "number as content": {"messages": [{"role": "user", "content": 5}]},
    "object as content": {"messages": [{"role": "user", "content": {"text": "Hello"}}]},
    "list of numbers as content": {"messages": [{"role": "user", "content": [1, 2]}]},
    "unknown content part": {"messages": [{"role": "user", "content": [{"type": "hologram", "hologram": "x"}]}]},
    "image for a text model": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
        ]
    },
    "5,000 messages": {"messages": ASK * 5000},
    "content nested 70 deep": {"messages": [{"role": "user", "content": nested(70)}]},
    "number as model": {"model": 5},
    "list as model": {"model": ["MODEL"]},
    "n as text": {"n": "5"},
    "n as float": {"n": 5.0},
    "n as true": {"n": True},
    "n as list": {"n": [1]},
    "n negative": {"n": -1},
    "n over the limit": {"n": 65},
    "n of 30 digits": {"n": 10**30},
    "max_tokens as text": {"max_tokens": "many"},
    "max_tokens negative": {"max_tokens": -1},
    "max_tokens as float": {"max_tokens": 1.5},
    "max_tokens as true": {"max_tokens": True},
    "max_tokens over the window": {"max_tokens": 4097},
    "max_tokens of 30 digits": {"max_tokens": 10**30},
    "max_completion_tokens over the window": {"max_completion_tokens": 10**9},
    "min_tokens negative": {"min_tokens": -1},
    "min_tokens over the window": {"min_tokens": 10**9},
    "temperature as text": {"temperature": "hot"},
    "temperature negative": {"temperature": -1},
    "temperature as list": {"temperature": [1]},
    "top_p over 1": {"top_p": 2},
    "top_p negative": {"top_p": -0.1},
    "top_k of -2": {"top_k": -2},
    "min_p over 1": {"min_p": 2},
    "presence_penalty over 2": {"presence_penalty": 3},
    "frequency_penalty under -2": {"frequency_penalty": -3},
    "repetition_penalty of 0": {"repetition_penalty": 0},
    "seed as text": {"seed": "x"},
    "seed as float": {"seed": 1.5},
    "seed over 64 bits": {"seed": 2**70},
    "stop as number": {"stop": 5},
    "stop with a number": {"stop": [5]},
    "stop with an empty text": {"stop": [""]},
    "17 texts in stop": {"stop": ["x"] * 17},
    "stop of 2,000 characters": {"stop": "x" * 2000},
    "stream as text": {"stream": "maybe"},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "stream_options as text": {"stream": True, "stream_options": "usage"},
    "logprobs as text": {"logprobs": "some"},
    "top_logprobs over the limit": {"logprobs": True, "top_logprobs": 21},
    "top_logprobs negative": {"logprobs": True, "top_logprobs": -1},
    "top_logprobs as text": {"logprobs": True, "top_logprobs": "5"},
    "top_logprobs without logprobs": {"top_logprobs": 3},
    "prompt_logprobs over the limit": {"prompt_logprobs": 21},
    "prompt_logprobs of -1": {"prompt_logprobs": -1},
    "logit_bias as list": {"logit_bias": [1]},
    "logit_bias outside the vocabulary": {"logit_bias": {"99999999": 1}},
    "logit_bias of a negative id": {"logit_bias": {"-1": 1}},
    "logit_bias of a word": {"logit_bias": {"fox": 1}},
    "logit_bias with text": {"logit_bias": {"5": "much"}},
    "2,000 entries in logit_bias": {"logit_bias": {str(i): 1 for i in range(2000)}},
    "bad_words with an empty text": {"bad_words": [""]},
    "bad_words with a number": {"bad_words": [5]},
    "2,000 bad_words": {"bad_words": ["x"] * 2000},
    "allowed_token_ids outside the vocabulary": {"allowed_token_ids": [99999999]},
    "allowed_token_ids negative": {"allowed_token_ids": [-1]},
    "allowed_token_ids as texts": {"allowed_token_ids": ["x"]},
    "no allowed_token_ids": {"allowed_token_ids": []},
    "stop_token_ids outside the vocabulary": {"stop_token_ids": [99999999]},
    "stop_token_ids as texts": {"stop_token_ids": ["x"]},
    "stop_token_ids of 30 digits": {"stop_token_ids": [10**30]},
    "tools as text": {"tools": "all"},
    "number as tool": {"tools": [1]},
    "empty tool": {"tools": [{}]},
    "tool without name": {"tools": [{"type": "function", "function": {}}]},
    "300 tools": {"tools": [{"type": "function", "function": {"name": "f"}}] * 300},
    "unknown tool_choice": {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "sometimes"},
    "tool_choice of a tool that is not there": {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
    },
    "tool_choice without tools": {"tool_choice": "required"},
    "response_format as text": {"response_format": "json"},
    "unknown response_format": {"response_format": {"type": "yaml"}},
    "json_schema without schema": {"response_format": {"type": "json_schema"}},
    "schema nested 80 deep in a text": {"structured_outputs": {"json": json.dumps({"enum": nested(80)})}},
    "schema of 300 kB": {"structured_outputs": {"json": {"title": "x" * 300_000}}},
    "structured_outputs as text": {"structured_outputs": "json"},
    "two structured_outputs": {"structured_outputs": {"regex": "a", "choice": ["a"]}},
    "two constraints": {"guided_json": {"type": "object"}, "guided_regex": "a+"},
    "guided_decoding_backend, which vLLM no longer knows": {"guided_decoding_backend": "outlines"},
    "functions, which vLLM does not know": {"functions": [{"name": "f"}]},
    "a misspelt field": {"max_token": 5},
    "a field with NUL in its name": {"max_tokens\x00": 5},
    "chat_template": {"chat_template": "{{ messages }}"},
    "chat_template that leaves the sandbox": {"chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
    "unknown chat_template_kwargs": {"chat_template_kwargs": {"colour": "red"}},
    "chat_template_kwargs as text": {"chat_template_kwargs": "red"},
    "kv_transfer_params": {"kv_transfer_params": {"do_remote_prefill": True}},
    "vllm_xargs": {"vllm_xargs": {"skip_reading_prefix_cache": 0}},
    "mm_processor_kwargs": {"mm_processor_kwargs": {"num_crops": 4}},
    "request_id": {"request_id": "../../etc/passwd"},
    "both ends of a turn": {"add_generation_prompt": True, "continue_final_message": True},
    "truncate_prompt_tokens of -5": {"truncate_prompt_tokens": -5},
    "unknown reasoning_effort": {"reasoning_effort": "extreme"},
    "documents as text": {"documents": "all"},
    "10 MB question": {"messages": [{"role": "user", "content": "fox " * (10 * MEGABYTE // 4)}]},
}

MEDIA_URLS = (
    "http://example.com/a.png",
    "https://example.com/a.png",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "http://127.0.0.1/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/a.png",
    "http://[::ffff:127.0.0.1]/a.png",
    "http://10.0.0.1/a.png",
    "http://localhost:8265/api/jobs/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://example.com@127.0.0.1/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp://127.0.0.1/a.png",
    "http://[/",
    "\\\\server\\share",
    "",
)

BAD_COMPLETIONS: dict[str, dict[str, Any]] = {
    "null as prompt": {"prompt": None},
    "object as prompt": {"prompt": {}},
    "number as prompt": {"prompt": 5},
    "empty prompt list": {"prompt": []},
    "empty list as prompt of a batch": {"prompt": [[]]},
    "ids and texts in one prompt": {"prompt": [1, "a"]},
    "texts and ids in one prompt": {"prompt": ["a", 1]},
    "negative id": {"prompt": [-1]},
    "id outside the vocabulary": {"prompt": [1, 2, 99999999]},
    "id outside the vocabulary in a batch": {"prompt": [[1], [2, 99999999]]},
    "id of 30 digits": {"prompt": [10**30]},
    "true as id": {"prompt": [True]},
    "float as id": {"prompt": [1.5]},
    "prompt nested thrice": {"prompt": [[[1]]]},
    "prompt over the window": {"prompt": [65] * 5000},
    "3,000 prompts": {"prompt": ["a"] * 3000},
    "200 prompts with 64 answers": {"prompt": ["a"] * 200, "n": 64},
    "a wide beam search": {"use_beam_search": True, "n": 11},
    "best_of, which would have no effect": {"best_of": 2},
    "audio, which would have no effect": {"modalities": ["text", "audio"]},
    "logprobs over the limit": {"logprobs": 21},
    "logprobs negative": {"logprobs": -1},
    "logprobs as text": {"logprobs": "5"},
    "max_tokens over the window": {"max_tokens": 5000},
    "prompt_embeds": {"prompt_embeds": "AAAA"},
    "echo as text": {"echo": "maybe"},
    "10 MB prompt": {"prompt": "fox " * (10 * MEGABYTE // 4)},
    "10 MB model name": {"model": "m" * (10 * MEGABYTE)},
    "unknown fields of a megabyte": {"x" * MEGABYTE: 1},
}

ELSEWHERE: list[BadRequest] = [
    BadRequest("unknown model", CHAT, json.dumps({"model": "nobody", "messages": ASK}).encode(), 404),
    BadRequest("model name with a path", CHAT, json.dumps({"model": "../MODEL", "messages": ASK}).encode(), 404),
    BadRequest("model name of NULs", CHAT, json.dumps({"model": "\0\0", "messages": ASK}).encode(), 404),
    BadRequest("embeddings of a chat model", "/v1/embeddings", with_model(input="x"), 404),
    BadRequest("nothing to tokenize", "/tokenize", with_model()),
    BadRequest("number to tokenize", "/tokenize", with_model(prompt=5)),
    BadRequest("bad messages to tokenize", "/tokenize", with_model(messages="x")),
    BadRequest("nothing to detokenize", "/detokenize", with_model()),
    BadRequest("text to detokenize", "/detokenize", with_model(tokens="x")),
    BadRequest("negative id to detokenize", "/detokenize", with_model(tokens=[-1])),
    BadRequest("large id to detokenize", "/detokenize", with_model(tokens=[99999999])),
    BadRequest("float to detokenize", "/detokenize", with_model(tokens=[1.5])),
    BadRequest("lists to detokenize", "/detokenize", with_model(tokens=[[1]])),
    BadRequest("response to nothing", RESPONSES, with_model()),
    BadRequest("response to a number", RESPONSES, with_model(input=5)),
    BadRequest("response over the window", RESPONSES, with_model(input="fox", max_output_tokens=10**9)),
    BadRequest("message without max_tokens", MESSAGES, with_model(messages=ASK)),
    BadRequest("message to nobody", MESSAGES, with_model(max_tokens=1)),
    BadRequest("message over the window", MESSAGES, with_model(messages=ASK, max_tokens=10**9)),
    BadRequest("count of nothing", MESSAGES + "/count_tokens", with_model()),
    BadRequest("render of nothing", CHAT + "/render", with_model()),
    BadRequest("plain text", CHAT, chat(), 400, headers={"content-type": b"text/plain"}),
    BadRequest("form as type", CHAT, chat(), 400, headers={"content-type": b"application/x-www-form-urlencoded"}),
    BadRequest("33 MB", CHAT, b" " * (33 * MEGABYTE), 413),
    BadRequest("page of another origin", CHAT, chat(), 403, headers={"origin": b"https://evil.example"}),
    BadRequest("page of no origin", CHAT, chat(), 403, headers={"origin": b"null"}),
    BadRequest("page with a malformed origin", CHAT, chat(), 403, headers={"origin": b"http://[::1"}),
    BadRequest("management without key", "/api/v1/instances", b"", 401, "GET"),
]

WRONG_METHODS = (
    ("GET", CHAT),
    ("PUT", CHAT),
    ("DELETE", CHAT),
    ("PATCH", TEXT),
    ("TRACE", CHAT),
    ("POST", "/v1/models"),
    ("POST", "/health"),
    ("DELETE", "/v1/models/MODEL"),
    ("POST", "/openapi.json"),
    ("GET", "/tokenize"),
    ("POST", "/v1/models/../chat/completions"),
)

NO_ROUTES = (
    "/collective_rpc /sleep /wake_up /is_sleeping /invocations /inference/v1/generate /scale_elastic_ep"
    " /is_scaling_elastic_ep /reset_prefix_cache /metrics /server_info /load /ping /docs /redoc"
    " /start_profile /stop_profile /tokenizer_info"
    " /v1/load_lora_adapter /v1/unload_lora_adapter /v1/nothing /api/v1 /api /.env /v1/chat/completions/"
    " //v1/chat/completions /v1//chat/completions /V1/CHAT/COMPLETIONS /v1/chat/completions%00 /v1/chat/completions%2f"
    " /%2e%2e/%2e%2e/etc/passwd /v1/chat/completions;a=b /%ff%fe"
).split()


def bad_requests() -> Iterator[BadRequest]:
    """Give every request of the corpus; names are unique."""
    for name, body in NOT_JSON.items():
        yield BadRequest(f"body: {name}", CHAT if b'"prompt"' not in body else TEXT, body)
    for name, fields in BAD_CHATS.items():
        yield BadRequest(f"chat: {name}", CHAT, chat(**fields))
    for url in MEDIA_URLS:
        parts = [{"type": "image_url", "image_url": {"url": url}}]
        yield BadRequest(f"media: {url}", CHAT, chat(messages=[{"role": "user", "content": parts}]))
    for name, fields in BAD_COMPLETIONS.items():
        status = 404 if "model" in fields else 400
        yield BadRequest(f"completion: {name}", TEXT, text(**fields), status)
    yield from ELSEWHERE
    for method, path in WRONG_METHODS:
        yield BadRequest(f"method: {method} {path}", path, b"", 405, method)
    for path in NO_ROUTES:
        yield BadRequest(f"route: {path}", path, b"{}", 404)


CORPUS = list(bad_requests())
BY_THE_GATEWAY = [request for request in CORPUS if request.name.startswith(("body:", "media:", "method:", "route:"))]
"""Those that no engine is asked about."""
