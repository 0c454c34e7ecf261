"""`GET /api/v1/status`: how each model is."""

from config.models import GatewaySettings
from deployments.errors import EngineUnavailableError
from deployments.types import EngineStats
from tests.fakes import FixedModel, ScriptedEngine, ask, get, make_api

KEY = "management-key-0123"
SETTINGS = GatewaySettings.model_validate({"auth": {"management_keys": KEY}})


class Unreachable(ScriptedEngine):
    async def loads(self) -> tuple[EngineStats, ...]:
        raise EngineUnavailableError("No replica is there.")


def test_each_replica_of_a_running_model_tells_its_load() -> None:
    models = FixedModel("a"), FixedModel("b", status="stopped"), FixedModel("c", Unreachable())
    answer = ask(make_api(*models, settings=SETTINGS), get("/api/v1/status", authorization=f"Bearer {KEY}"))
    assert answer.status_code == 200
    a, b, c = answer.json()["models"]
    assert [replica["num_running"] for replica in a["replicas"]] == [2, 1]
    assert (b["status"], b["replicas"]) == ("stopped", [])
    assert (c["replicas"], c["message"]) == ([], "No replica is there.")


def test_it_needs_a_management_key() -> None:
    assert ask(make_api(FixedModel("a"), settings=SETTINGS), get("/api/v1/status")).status_code == 401
