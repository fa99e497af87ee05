"""Curation on a real Ray cluster: two nodes on this machine, one of which is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from shared.data import SourceError
from shared.pipeline import prepare
from shared.pipeline.cluster_cost import cluster_plan
from tests.test_scale import OUTPUTS, outputs, varied

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
SHARDS = {"shard_records": 4096, "progress": False}


@pytest.fixture(scope="module")
def ray_cluster():
    """A head that does no work and two nodes of two cores; yields the cluster and its nodes."""
    pytest.importorskip("ray.data", reason="the extra [cluster] is not installed")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 200 * 2**20, "include_dashboard": False}
    head = {"num_cpus": 0, "dashboard_agent_listen_port": 0}  # or two clusters want one port
    cluster = Cluster(initialize_head=True, head_node_args=small | head)
    nodes = [cluster.add_node(num_cpus=2, **small) for _ in range(2)]
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster, nodes
    os.environ.pop("RAY_ADDRESS")
    cluster.shutdown()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    for name, count in (("a", 20_000), ("b", 6000)):
        (folder / f"{name}.jsonl").write_bytes(varied(count, priced=8) + b"not json\n")
    return folder


def kill_9(node) -> None:
    """Kill the processes of a node, as when its machine loses power."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [*raylet.children(recursive=True), raylet]:
        process.kill()


def test_the_cluster_gives_the_same_bytes_although_a_node_is_killed(ray_cluster, source, tmp_path):
    local = prepare(str(source), tmp_path / "local", **SHARDS)
    _, nodes = ray_cluster
    code = (
        "import sys; from shared.pipeline import prepare;"
        "prepare(sys.argv[1], sys.argv[2], engine='ray', shard_records=4096, progress=False)"
    )
    arguments = [sys.executable, "-c", code, str(source), str(tmp_path / "ray")]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(tmp_path.glob("ray/.work/*/*.json")):
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read().decode()
        kill_9(nodes[0])
        assert process.wait(100) == 0, process.stderr.read().decode()
    assert outputs(tmp_path / "ray") == outputs(local.folder)
    assert {p.name for p in (tmp_path / "ray").iterdir()} == set(OUTPUTS)


def test_a_bad_source_is_refused_on_the_cluster_as_it_is_here(ray_cluster, tmp_path):
    (tmp_path / "zip.jsonl").write_bytes(b"PK\x03\x04....")
    with pytest.raises(SourceError, match="zip archive; unpack"):
        prepare(str(tmp_path / "zip.jsonl"), tmp_path / "out", engine="ray", **SHARDS)
    assert not (tmp_path / "out").exists()


def test_without_ray_the_command_says_how_to_get_it(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray here')")
    (tmp_path / "r.jsonl").write_bytes(varied(30))
    command = [sys.executable, "-m", "shared", "curate", str(tmp_path / "r.jsonl")]
    command += ["--out", str(tmp_path / "out"), "--engine", "ray"]
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 1
    assert "pip install 'ray[data]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'spark' is not one of: local, ray"):
        prepare("embedded", tmp_path, engine="spark")


def test_ray_is_imported_only_when_asked_for():
    code = "import sys, shared.data; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_plan_is_arithmetic_that_a_reader_can_redo():
    rate = {"cores": 10, "records_per_core_second": 1000.0, "efficiency": 0.5}
    rows = cluster_plan(
        6_000_000, machines=(1, 4), **rate, start_minutes=0, dollars_per_hour=6.0,
        item_share=0.5, sketches_per_core_second=1000.0, items_per_second_alone=50_000.0,
        bytes_per_record=1000,
    )  # fmt: skip
    # 6e6 / (10 * 1000 * 0.5) = 1200 s; alone 3e6 / 10_000 + 3e6 / 50_000 = 360 s
    assert [row["minutes"] for row in rows] == [26.0, 11.0]
    assert [row["dollars"] for row in rows] == [2.6, 4.4]
    assert rows[0]["read_gb"] == 6.0
    json.dumps(rows, allow_nan=False)
    with pytest.raises(ValueError, match="above zero"):
        cluster_plan(0)
