"""The pool goes and comes back; two replicas share it; an engine without our plugin serves as vLLM does."""

import copy
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tests.cases import assert_openai_error
from tests.engine.test_guided import body_of, fits_person, post, unique
from tests.harness import Config, Server, application, default_config, eventually, serving

BARE = "model-bare"


def config_of() -> Config:
    config = default_config()
    demo = application(config, "model-demo")
    demo["args"] |= {"num_cpus": 0.1}
    bare = copy.deepcopy(demo)
    bare["name"] = BARE
    bare["args"] |= {"name": "bare", "environment": {"VLLM_PLUGINS": "none"}}
    demo["deployments"][0]["autoscaling_config"]["min_replicas"] = 2
    config["applications"].append(bare)
    return config


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(config_of()) as server:
        eventually(lambda: len(server.running("model-demo")) == 2, "two replicas of model-demo")
        yield server


def test_two_replicas_have_one_compilation(server: Server) -> None:
    before = server.compiler().num_compiled
    held = [core.num_held for core in server.grammars("model-demo")]
    body = body_of("json", structured_outputs={"json": unique("two_replicas")}, max_tokens=20)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda seed: post(server, "/v1/chat/completions", body | {"seed": seed}), range(48)))
    assert [core.num_held for core in server.grammars("model-demo")] == [count + 1 for count in held]
    assert server.compiler().num_compiled == before + 1


def test_an_engine_without_the_plugin_compiles_itself(server: Server) -> None:
    answer = post(server, "/v1/chat/completions", body_of("json", model="bare", temperature=0)).json()
    fits_person(answer["choices"][0]["message"]["content"])
    assert_openai_error(server.http.post("/v1/grammars", json={"model": "bare", "kind": "regex", "spec": "a"}), 404)


def test_without_the_pool_plain_chat_and_small_constraints_go_on(server: Server) -> None:
    config = copy.deepcopy(server.config)
    without = copy.deepcopy(config)
    without["applications"] = [app for app in config["applications"] if app["name"] != "guided"]
    (compiler,) = server.running("guided", "GuidedCompiler")
    server.deploy(without)
    # Not Serve's list: an application that is being deleted shows no replicas, though they still answer.
    eventually(lambda: not psutil.pid_exists(compiler["pid"]), "the end of the pool")
    for stream in (False, True):
        body = body_of("json", structured_outputs={"json": unique(f"away_{stream}")}, stream=stream)
        response = server.http.post("/v1/chat/completions", json=body)
        assert_openai_error(response, 503)
        assert response.headers["retry-after"]
        assert response.json()["error"]["code"] == "compiler_unavailable"
    small = post(server, "/v1/chat/completions", body_of("choice", structured_outputs={"choice": ["on", "off"]}))
    assert small.json()["choices"][0]["message"]["content"] in ("on", "off")
    plain = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    assert post(server, "/v1/chat/completions", plain).json()["choices"]
    server.deploy(config)
    body = body_of("json", structured_outputs={"json": unique("back")}, max_tokens=5)
    eventually(lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the pool is back")


def test_the_pool_is_whole_after_its_actors_were_killed(server: Server) -> None:
    numbers = itertools.count()

    def is_whole() -> bool:
        """Have two constraints compiled at once, and look at who is there."""
        bodies = [body_of("json", structured_outputs={"json": unique(f"killed_{next(numbers)}")}) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            for response in pool.map(lambda body: server.http.post("/v1/chat/completions", json=body), bodies):
                assert response.status_code == 200, response.text
        return len(server.actors("CompileActor") - before) == len(before)

    def all_of_them() -> Any:
        actors = server.actors("CompileActor")
        return actors if len(actors) == num_actors else None

    num_actors = application(server.config, "guided")["args"]["num_actors"]
    before = eventually(all_of_them, "actors of the pool")
    for pid in before:
        psutil.Process(pid).kill()
    eventually(is_whole, "as many actors as before")


def test_a_receipt_of_the_engines_own(server: Server) -> None:
    receipt = post(server, "/v1/chat/completions", body_of("json_object"), **{"x-guided-receipt": "1"}).headers
    assert json.loads(receipt["x-guided-receipt"])["kind"] == "json_object"
