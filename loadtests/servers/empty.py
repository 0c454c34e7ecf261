"""The least that Ray Serve can run: what it uses for itself."""

from typing import Any

from ray import serve


@serve.deployment
class Empty:
    async def __call__(self, request: Any) -> str:
        return ""


app = Empty.bind()  # type: ignore[attr-defined]
