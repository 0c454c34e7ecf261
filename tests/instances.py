"""Managing instances of a running graph over HTTP, as its owner does."""

from typing import Any

import httpx

from tests.harness import Config, Server, application, default_config, eventually

MANAGEMENT = "sk-management-0123456789"
KEY = {"authorization": f"Bearer {MANAGEMENT}"}
SOON = {"health_check_period_s": 0.5, "graceful_shutdown_wait_loop_s": 0.1}
"""Serve's options with which a lost replica is noticed, and one that has nothing to do ends, without seconds' delay."""
MESSAGES = [{"role": "user", "content": "Tell me something long."}]


def managed_config(**instances: Any) -> Config:
    """Return the shipped config with a management key; keywords are settings of instances."""
    config = default_config()
    arguments = application(config, "gateway")["args"]
    arguments["auth"] = {"management_keys": MANAGEMENT}
    # A fake engine is back within a second, so a crash is looked for often.
    often = {"sync_interval_s": 0.1, "poll_interval_s": 0.1, "calm_interval_s": 0.3}
    arguments["instances"] |= often | instances
    arguments["instances"]["deployment"] |= SOON
    manager = next(each for each in application(config, "gateway")["deployments"] if each["name"] == "Instances")
    manager["health_check_period_s"] = SOON["health_check_period_s"]
    return config


class Owner:
    """Who has the management key of a server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def call(self, method: str, path: str, status: int = 200, **arguments: Any) -> httpx.Response:
        """Make a management call that is to be answered so."""
        response = self.server.http.request(method, f"/api/v1{path}", headers=KEY, **arguments)
        assert response.status_code == status, response.text
        return response

    def create(self, name: str, options: Config) -> Config:
        made: Config = self.call("POST", f"/instances/{name}", 201, json=options).json()
        return made

    def start(self, name: str) -> None:
        """Start an instance and wait until it is ready."""
        self.call("POST", f"/instances/{name}/start")
        self.until(name, "running", ready=True)

    def find(self, name: str) -> Config:
        found: Config = self.call("GET", f"/instances/{name}").json()
        return found

    def until(self, name: str, status: str, ready: bool | None = None) -> Config:
        """Wait until an instance is so; fails at once when it has failed."""

        def read() -> Config | None:
            found = self.find(name)
            assert found["status"] != "failed" or status == "failed", found
            return found if found["status"] == status and ready in (None, found["ready"]) else None

        return eventually(read, f"{name} {status}")

    def remove(self, *names: str) -> None:
        """Stop and delete instances."""
        for name in names:
            self.call("POST", f"/instances/{name}/stop")
        for name in names:
            eventually(lambda name=name: self.find(name)["status"] in ("stopped", "failed"), f"{name} stopped")  # type: ignore[misc]
            eventually(lambda name=name: self.delete(name), f"{name} deleted")  # type: ignore[misc]

    def delete(self, name: str) -> bool:
        """Delete an instance; False: its application is not gone yet."""
        response = self.server.http.delete(f"/api/v1/instances/{name}", headers=KEY)
        assert response.status_code in (204, 409), response.text
        return response.status_code == 204


def chat(server: Server, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 3, **fields}
    return server.http.post("/v1/chat/completions", json=body)
