"""The model over Serve's handle, from a driver inside the cluster: ways_handle.py RAY_ADDRESS MODEL.

The flags of Serve that the YAML sets must be in the environment: they say how a handle calls.
"""

import json
import sys

import ray
import uvloop

from config.models import MODEL_APP_PREFIX
from deployments.engine.client import EngineClient
from deployments.types import HttpRequest
from loadtests.layers.streams import PATH, Source, chat_body, note_tokens
from loadtests.layers.ways_table import HANDLE
from loadtests.layers.ways_worker import answer_loads


def handle_source(model: str) -> Source:
    """Call the model's engines as the ingress does. Made in the event loop: handles belong to one."""
    client = EngineClient(MODEL_APP_PREFIX + model)

    async def ask(number: int, tokens: int, times_s: list[float]) -> None:
        body = json.dumps(chat_body(model, number, tokens)).encode()
        headers = ((b"content-type", b"application/json"),)
        response = await client.open(HttpRequest("POST", PATH, b"", headers, body))
        await note_tokens(response, times_s)

    return ask


async def main(model: str) -> None:
    await answer_loads({HANDLE: handle_source(model)})


if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error", namespace="serve")
    uvloop.run(main(sys.argv[2]))
