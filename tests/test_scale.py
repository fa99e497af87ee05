"""Curation of what does not fit into memory: shards, worker processes, going on after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data import SourceError
from shared.data.curation import curate
from shared.data.duplicates import Sketches, clusters, components, near_duplicate_pairs, signatures
from shared.data.parsing import RECORD, Block, SourceInterrupted, _column, parse_block, parse_lines
from shared.data.similarity import exact_pairs, pair_quality
from shared.data.sources import source_parts
from shared.data.storage import write_parquet
from shared.pipeline import merge, prepare
from shared.pipeline.shards import SHARD_RECORDS, Shard, curate_blocks, curate_shard, source_shards
from shared.pipeline.workers import WorkerError, run
from tests.test_pipeline import text_of
from tests.test_sources import lines, record

OUTPUTS = ("items.parquet", "card.json", "card.md", "manifest.json")


def varied(count: int, priced: int = 1) -> bytes:
    """Records of which every ``priced``-th has a price, some of them near-duplicates."""
    return lines(
        record(
            i,
            title=f"{'Copper' if i % 2 else 'Steel'} kettle of the series {i // 3} for the stove",
            description=[f"Model {i // 3} was drawn by hand in workshop {i * 7919 % 1000}."],
            price=5.0 + i % 300 if i % priced == 0 else None,
        )
        for i in range(count)
    )


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Enough for four shards, with few items, so that the test is quick."""
    path = tmp_path_factory.mktemp("large") / "large.jsonl"
    path.write_bytes(varied(3 * SHARD_RECORDS + 500, priced=25))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.jsonl"
    path.write_bytes(b"\n".join([varied(12_000, priced=6), b"not json", b""]))
    return path


def shards_of(path: Path, **options) -> list[Shard]:
    return list(source_shards(source_parts(str(path)), **options))


def test_shards_are_of_fixed_size_and_numbered(small):
    shards = shards_of(small, records=4096)
    assert [s.name for s in shards] == ["00000-000000", "00000-000001", "00000-000002"]
    assert [sum(map(len, s.blocks)) for s in shards] == [4096, 4096, 3810]  # one is blank
    limited = shards_of(small, records=4096, limit=5000)
    assert [sum(map(len, s.blocks)) for s in limited] == [4096, 904]


def test_every_part_of_a_source_starts_a_shard_and_a_limit_counts_them_all(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(varied(30))
    assert [s.name for s in shards_of(tmp_path)] == ["00000-000000", "00001-000000"]
    assert [s.blocks[0].file for s in shards_of(tmp_path, limit=30)] == ["a.jsonl"]
    assert len(shards_of(tmp_path, limit=31)[1].blocks[0]) == 1


def test_blank_lines_count_neither_for_a_limit_nor_as_malformed(tmp_path):
    gappy = varied(6).replace(b"\n", b"\n\n \t\r\n")
    (tmp_path / "a.jsonl").write_bytes(b"\n" + gappy)
    (tmp_path / "b.jsonl").write_bytes(gappy + b"\nnot json")
    for limit, ids in ((4, "0123"), (6, "012345"), (8, "01234501"), (None, "012345012345")):
        blocks = [b for shard in shards_of(tmp_path, limit=limit) for b in shard.blocks]
        found = [parse_lines(block) for block in blocks]
        records = [record for some, _ in found for record in some]
        assert [r["parent_asin"][-1] for r in records] == list(ids)
    assert [example for _, bad in found for example in bad.examples] == [
        "b.jsonl, line 20: not JSON (invalid literal, expected 'null')"
    ]


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 3}, {"shard_records": 4096}])
def test_items_depend_neither_on_workers_nor_on_shards(small, tmp_path, options):
    whole = prepare(str(small), tmp_path / "whole", progress=False)
    cut = prepare(str(small), tmp_path / "cut", progress=False, **{"shard_records": 1, **options})
    assert outputs(cut.folder)["items.parquet"] == outputs(whole.folder)["items.parquet"]
    assert cut.manifest["dropped"] == whole.manifest["dropped"]
    assert cut.manifest["origin"]["malformed"] == whole.manifest["origin"]["malformed"] != []


def test_the_streamed_file_is_the_one_that_is_written_at_once(small, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "ROW_GROUP", 700)
    items = prepare(str(small), tmp_path / "out", progress=False)
    assert pq.ParquetFile(items.folder / "items.parquet").num_row_groups == 3
    monkeypatch.setattr("shared.data.storage.ROW_GROUP", 700)
    write_parquet(items.table(), tmp_path / "at-once.parquet")
    written = (tmp_path / "at-once.parquet").read_bytes()
    assert written == (items.folder / "items.parquet").read_bytes()


def command(source: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "shared", "curate", str(source), "--out", str(out),
            "--workers", "2"]  # fmt: skip


def stop_at(pattern: str, signal_number: int, source: Path, out: Path) -> subprocess.Popen:
    """Run the real command until its work folder has a file of this pattern and it has workers,
    then send a signal. (The file may be there from the start: the run before got further.)"""
    process, workers = subprocess.Popen(command(source, out), stderr=subprocess.PIPE), []
    while process.poll() is None and not (workers and list(out.glob(f".work/*/{pattern}"))):
        time.sleep(0.002)
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(process.pid).children(recursive=True)
    assert process.poll() is None, "finished before it could be stopped"
    process.send_signal(signal_number)
    process.wait(20)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    return process


def test_kill_9_again_and_again_ends_in_the_same_bytes(large, tmp_path):
    subprocess.run(command(large, tmp_path / "once"), check=True, capture_output=True)
    out = tmp_path / "killed"
    for pattern in ("*-000000.json", "*-000002.json", "*.bands.npy"):
        process = stop_at(pattern, signal.SIGKILL, large, out)
        assert process.returncode == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
    subprocess.run(command(large, out), check=True, capture_output=True)
    assert outputs(out) == outputs(tmp_path / "once")
    assert sorted(p.name for p in out.iterdir()) == sorted(OUTPUTS)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_the_workers_and_keeps_what_is_finished(large, tmp_path):
    process = stop_at("*-000000.json", signal.SIGINT, large, tmp_path / "out")
    assert process.returncode == 130
    said = process.stderr.read().decode()
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert list((tmp_path / "out").glob(".work/*/*-000000.items.arrow"))


def stopped_before_writing(monkeypatch, source: Path, out: Path, **options) -> list[Path]:
    """Curate, but stop before the items are written; return the reports of the shards."""
    with monkeypatch.context() as patch:
        patch.setattr(merge, "write_items", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(str(source), out, progress=False, shard_records=4096, workers=1, **options)
    return sorted(out.glob(".work/*/*-00*.json"))


def mark(report: Path) -> None:
    """Make a stored report differ from what would be computed."""
    value = json.loads(report.read_text())
    report.write_text(json.dumps(value | {"report": value["report"] | {"notes": {"marked": 1}}}))


def test_finished_shards_are_not_done_again(small, tmp_path, monkeypatch):
    reports = stopped_before_writing(monkeypatch, small, tmp_path)
    assert len(reports) == 3
    mark(reports[0])
    reports[1].unlink()  # as if it had not been finished
    items = prepare(str(small), tmp_path, progress=False, shard_records=4096, workers=1)
    assert items.manifest["notes"]["marked"] == 1
    assert items.manifest["rows_in"] == 12_001


@pytest.mark.parametrize("change", ["source", "seed", "code"])
def test_shards_of_other_work_are_not_taken(small, tmp_path, monkeypatch, change):
    path = tmp_path / "copy.jsonl"
    path.write_bytes(small.read_bytes())
    for report in stopped_before_writing(monkeypatch, path, tmp_path / "out"):
        mark(report)
    if change == "source":
        os.utime(path, ns=(1, 1))
    if change == "code":
        monkeypatch.setattr("shared.pipeline.steps._code_hash", lambda: "other")
    seed = 7 if change == "seed" else 42
    options = {"progress": False, "shard_records": 4096, "workers": 1, "seed": seed}
    items = prepare(str(path), tmp_path / "out", **options)
    assert "marked" not in items.manifest["notes"]
    assert not (tmp_path / "out" / ".work").exists()


def test_a_refused_source_leaves_finished_items_alone(small, tmp_path):
    before = outputs(prepare(str(small), tmp_path / "out", progress=False).folder)
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(varied(9000) + b"<html>\n" * 3000)
    for options in ({"workers": 1}, {"workers": 2}):
        with pytest.raises(SourceError, match="3000 of 12000 lines are malformed"):
            prepare(str(bad), tmp_path / "out", progress=False, shard_records=4096, **options)
        assert outputs(tmp_path / "out") == before
        assert not (tmp_path / "out" / ".work").exists()


def test_a_stream_that_breaks_off_goes_on_where_it_was(tmp_path):
    template = str(tmp_path / "meta_{category}.jsonl")
    (tmp_path / "meta_Appliances.jsonl").write_bytes(varied(50))
    options = {"amazon": template, "progress": False}
    with pytest.raises(SourceInterrupted, match="Toys_and_Games"):
        prepare("amazon:Appliances,Toys_and_Games", tmp_path / "out", **options)
    (report,) = (tmp_path / "out").glob(".work/*/*.json")
    mark(report)
    (tmp_path / "meta_Toys_and_Games.jsonl").write_bytes(lines([record(9999)]))
    items = prepare("amazon:Appliances,Toys_and_Games", tmp_path / "out", **options)
    assert items.manifest["rows_in"] == 51
    assert items.manifest["notes"]["marked"] == 1


def test_a_shard_survives_the_way_to_another_process(small, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    shards = shards_of(small, records=4096)
    reports = [curate_shard(here, shard) for shard in shards]
    assert list(run(OneArgument(there), shards, workers=2)) == reports
    for shard in shards:
        name = f"{shard.name}.items.arrow"
        assert (here / name).read_bytes() == (there / name).read_bytes()


class OneArgument:
    """A step that can be pickled, as ``functools.partial`` is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        from functools import partial

        return partial, (curate_shard, self.folder)


def test_unpriced_records_are_counted_although_they_never_become_columns():
    bodies = [record(1), record(2, price=None), record(3, price=" "), record(4, price="—"), {}]
    block = Block("x.jsonl", 1, lines(bodies) + b"7")
    items, report, malformed = curate_blocks([block])
    whole, expected = curate(parse_block(block)[0])
    assert items.equals(whole)
    assert report.to_dict()["dropped"] == expected.to_dict()["dropped"] | {"malformed": 1}
    assert report.rows_in == 6 == report.kept + sum(report.dropped.values())
    assert malformed.count == 1


values = st.one_of(
    st.none(), st.booleans(), st.integers(0, 9), st.text(max_size=3), st.just({"a": 1}),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(0, 9)), max_size=3),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=4), st.sampled_from(RECORD.names))
def test_a_column_is_the_same_taken_whole_or_value_by_value(found, name):
    column = RECORD.field(name)
    whole = _column([{name: value} for value in found], column)
    # A number among them in another row forces the slow way, and does not change the others.
    mixed = _column([*({name: value} for value in found), {name: 1}], column)
    assert whole.equals(mixed[:-1])


def test_workers_answer_in_order_and_are_started_only_for_many_tasks():
    assert list(run(abs, range(-20, 0), workers=2)) == list(range(20, 0, -1))
    assert list(run(_pid, [0, 0])) == [os.getpid()] * 2
    pids = set(run(_pid, range(20), workers=2))
    assert os.getpid() not in pids
    assert len(pids) <= 2


def _pid(_: int) -> int:
    return os.getpid()


def test_what_a_step_raises_is_raised_here_and_the_workers_are_gone():
    before = set(psutil.Process().children())
    with pytest.raises(TypeError, match="bad operand"):
        list(run(abs, ["a", "b", "c", "d"], workers=2))
    assert set(psutil.Process().children()) <= before


def test_a_worker_that_is_killed_says_what_to_do():
    with pytest.raises(WorkerError, match=r"code -9.*what is finished is kept"):
        list(run(os._exit if os.name == "nt" else _kill, range(5), workers=2))


def _kill(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_tasks_are_taken_as_workers_get_free():
    taken = []
    tasks = (taken.append(i) or i for i in range(100))
    results = run(abs, tasks, workers=2)
    next(results)
    assert len(taken) <= 5  # three in work or waiting, and what it took to see that there are many
    results.close()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_duplicates_are_dropped_as_if_all_were_in_memory(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("order")
    drawn = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
    rows = data.draw(st.lists(drawn, min_size=1, max_size=12))
    names = []
    for number, (place, text, dollars) in enumerate(rows):  # the smallest shards there are
        body = record(place, title=f"Stainless kettle number {text} with a long enough title",
                      features=[f"Holds {text} quarts"], price=dollars)  # fmt: skip
        shard = Shard(0, number, [Block("x", 1, lines([body]))])
        names.append(curate_shard(folder, shard).name)
    order, dropped = merge.order_items(folder, names)
    backwards, _ = merge.order_items(folder, names[::-1])
    items = order.part(0, 100)
    assert items.equals(backwards.part(0, 100))
    assert order.frame.height + dropped == len(rows)
    ids, same = items["id"].to_pylist(), items["same"].to_pylist()
    assert ids == sorted(set(ids))
    assert len(set(same)) == len(same)
    assert {r[0] for r in rows} >= {int(i.removeprefix("ID")) for i in ids}


def test_clusters_are_the_components_of_all_pairs_and_alike_on_disk_and_in_memory(small, tmp_path):
    items = prepare(str(small), tmp_path / "out", progress=False, shard_records=4096)
    table = items.table()
    texts, titles = table["text"].to_pylist(), table["title"].to_pylist()
    in_memory = clusters(Sketches.of(titles, texts))
    assert table["cluster"].equals(table["id"].take(pa.array(in_memory)))
    no_titles = clusters(Sketches.of([""] * len(texts), texts))
    labels = components(len(texts), near_duplicate_pairs(signatures(texts)))
    assert len(set(zip(no_titles, labels, strict=True))) == len(set(labels)) == len(set(no_titles))


def test_exact_pairs_are_those_of_comparing_all_with_all():
    from shared.data.duplicates import jaccard

    texts = near_texts()
    pairs, similarity = exact_pairs(texts, 0.4)
    found = dict(zip(map(tuple, pairs.tolist()), similarity, strict=True))
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            exact = jaccard(texts[i], texts[j])
            assert ((i, j) in found) == (exact >= 0.4)
            if exact >= 0.4:
                assert found[i, j] == pytest.approx(exact)
    assert len(found) > 20


def near_texts(seed: int = 5) -> list[str]:
    import random

    rng, texts = random.Random(seed), []
    for _ in range(25):
        words = text_of(rng).split()
        for changed in (0, 0, 1, 2, 4, 8):
            variant = list(words)
            for place in rng.sample(range(60), changed):
                variant[place] = "other"
            texts.append(" ".join(variant))
    return texts


def test_quality_of_pairs_is_measured_and_would_show_a_bad_sketch(monkeypatch):
    rows = pair_quality(near_texts())
    assert [row["threshold"] for row in rows] == [0.5, 0.6, 0.7, 0.8, 0.9]
    for row in rows:
        assert row["recall_clear"] > 0.95
        assert row["precision_close"] > 0.9
    assert rows[0]["exact"] > rows[-1]["exact"] > 0
    monkeypatch.setattr("shared.data.similarity.signatures", blind)
    bad = pair_quality(near_texts())[2]
    assert bad["precision"] < 0.5
    assert bad["largest"] == 150


def blind(texts) -> np.ndarray:
    return np.ones((len(texts), 128), np.uint32)
