"""Instances outlive their cluster."""

from pathlib import Path

from tests.harness import application, serving
from tests.instances import Owner, chat, managed_config


def test_after_the_whole_cluster_was_lost(tmp_path: Path) -> None:
    config = managed_config(defaults={"num_cpus": 0.01})
    config["applications"] = [application(config, "gateway")]
    with serving(config, data_dir=tmp_path) as server:
        owner = Owner(server)
        owner.create("runs", {"backend_type": "fake"})
        owner.start("runs")
        owner.create("rests", {"backend_type": "fake"})
        made = owner.call("POST", "/auth/keys", 201, json={"name": "guest"}).json()
    with serving(config, data_dir=tmp_path) as server:
        owner = Owner(server)
        owner.until("runs", "running", ready=True)
        assert owner.find("rests")["status"] == "stopped"
        assert [key["id"] for key in owner.call("GET", "/auth/keys").json()] == [made["id"]]
        assert chat(server, "runs").status_code == 200
