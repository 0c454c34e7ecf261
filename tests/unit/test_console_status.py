"""The table of `vllm-graph status`."""

import pytest

from deployments.console_status import COLUMNS, fetch, print_status, row, table
from deployments.launch import LaunchError
from deployments.ports import free_port


def test_replicas_are_added_up_and_the_fullest_cache_is_shown() -> None:
    replicas = [
        {"num_running": 2, "num_waiting": 1, "kv_cache_usage": 0.5},
        {"num_running": 3, "num_waiting": 0, "kv_cache_usage": 0.125},
    ]
    found = row({"name": "demo", "status": "running", "message": "a\nb", "replicas": replicas})
    assert found == ("demo", "running", "2", "5", "1", "50%", "a b")


def test_a_stopped_model_has_no_load() -> None:
    assert row({"name": "x", "status": "stopped", "message": "", "replicas": []})[2:6] == ("0", "0", "0", "-")


def test_columns_line_up() -> None:
    lines = table([COLUMNS, ("a" * 20, "running", "1", "0", "0", "0%", "")]).splitlines()
    assert lines[0].index("STATUS") == lines[1].index("running")


def test_without_a_key_it_says_where_to_put_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_GRAPH_MANAGEMENT_KEYS", raising=False)
    with pytest.raises(LaunchError, match="VLLM_GRAPH_MANAGEMENT_KEYS"):
        print_status("http://127.0.0.1:8000", None)


def test_nobody_there() -> None:
    with pytest.raises(LaunchError, match="Is the server running"):
        fetch(f"http://127.0.0.1:{free_port()}", "k" * 16)
