import re
from pathlib import Path

import pytest

from deployments.instances.logs import LogFiles, last_lines, read_replicas, tail
from deployments.serve_details import Replica

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_entries_have_the_time_and_keep_their_lines(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path / "logs", 4096)
    logs.note("one", "started")
    logs.note("one", "failed: Traceback\n  File x\nError: no\n")
    assert re.fullmatch(f"{TIME} started\n{TIME} failed: Traceback\n  File x\nError: no\n", logs.read("one"))
    assert LogFiles(tmp_path / "logs", 4096).read("one") == logs.read("one")


def test_each_instance_has_its_own(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, 4096)
    logs.note("one", "started")
    assert logs.read("two") == ""
    logs.note("two", "ended")
    logs.forget("one")
    logs.forget("one")
    assert (logs.read("one"), logs.read("two")[-6:]) == ("", "ended\n")


def test_no_more_is_kept_than_allowed_and_the_newest_is(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, 4096)
    for number in range(1000):
        logs.note("one", f"entry {number} ünd")
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4096
    lines = logs.read("one").splitlines()
    assert lines[-1].endswith("entry 999 ünd")
    assert len(lines) > 40
    numbers = [int(line.split()[2]) for line in lines]
    assert numbers == list(range(numbers[0], 1000))


def test_of_a_long_text_the_end_is_kept(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, 4096)
    logs.note("one", "x" * 10**6 + "\nthe end")
    assert logs.read("one").endswith("x\nthe end\n")
    assert len(logs.read("one")) <= 2048


def test_a_disk_that_cannot_be_written_to_costs_entries_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    logs = LogFiles(tmp_path / "file", 4096)
    logs.note("one", "started")
    logs.forget("one")
    assert logs.read("one") == ""


def test_text_that_is_no_text(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, 4096)
    logs.note("one", "half a pair: \ud83d")
    assert "half a pair: ?" in logs.read("one")


@pytest.mark.parametrize(
    ("max_bytes", "text"), [(100, "one\ntwo\nthree\n"), (11, "two\nthree\n"), (7, "three\n"), (3, "")]
)
def test_ends_are_whole_lines(tmp_path: Path, max_bytes: int, text: str) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\nthree\n")
    assert tail(path, max_bytes) == text
    assert last_lines("one\ntwo\nthree\n", max_bytes) == text


def test_what_a_replica_has_printed(tmp_path: Path) -> None:
    (tmp_path / "worker-abc-01-7.out").write_text(":job_id:01\n:actor_name:x\nloading\n")
    (tmp_path / "worker-abc-01-7.err").write_text("Traceback")
    (tmp_path / "worker-abd-01-8.out").write_text("of another\n")
    (tmp_path / "serve").mkdir()
    (tmp_path / "serve/replica_x.log").write_text("GET\n")
    replica = Replica("r1", "RUNNING", "node", "abc", "/serve/replica_x.log")
    text = read_replicas(tmp_path, [replica], 1000)
    assert text == "--- replica r1 on node node\nTraceback\nloading\n"
    unknown = Replica("r2", "STARTING", "node", "", "/serve/replica_x.log")
    assert read_replicas(tmp_path, [unknown], 1000).endswith("GET\n")


def test_what_replicas_have_printed_is_bounded(tmp_path: Path) -> None:
    for worker in "ab":
        (tmp_path / f"worker-{worker}-1-1.out").write_text("line of text\n" * 1000)
        (tmp_path / f"worker-{worker}-1-1.err").write_text("")
    replicas = [Replica(worker, "RUNNING", "node", worker) for worker in "ab"]
    text = read_replicas(tmp_path, replicas, 2000)
    assert len(text) <= 2000
    assert text.count("--- replica") == 2
    assert text.endswith("line of text\n")


def test_a_replica_that_is_gone_with_its_files(tmp_path: Path) -> None:
    text = read_replicas(tmp_path, [Replica("r1", "STARTING")], 1000)
    assert text == "--- replica r1 on node \n"
