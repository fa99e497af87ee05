"""From source to folder: duplicates, splits, whole files or none, the same bytes twice."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from shared.data import ITEM, SourceError, open_items, price_mix, products
from shared.data.duplicates import (
    THRESHOLD,
    cluster,
    jaccard,
    near_duplicate_pairs,
    same_title_pairs,
    signatures,
)
from shared.data.splits import SHARES, assign_splits, split_of
from shared.data.storage import fingerprint, replacing, write_json, write_parquet
from shared.pipeline import prepare
from tests.test_sources import lines, record

WORDS = [f"word{i}" for i in range(400)]


def text_of(rng: random.Random, n: int = 60) -> str:
    return " ".join(rng.choices(WORDS, k=n))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    out = tmp_path_factory.mktemp("embedded")
    return prepare("embedded", out, size=3000, progress=False)


def test_rows_in_are_kept_plus_dropped(embedded):
    manifest = embedded.manifest
    assert manifest["rows_in"] == 3000
    assert manifest["rows_in"] == manifest["kept"] + sum(manifest["dropped"].values())
    assert manifest["kept"] == embedded.table().num_rows == sum(manifest["splits"].values())
    assert {"no_price", "unreadable_price", "price_out_of_range", "duplicate"} <= set(
        manifest["dropped"]
    )


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_splits(embedded, tmp_path):
    again = prepare("embedded", tmp_path / "again", size=3000, progress=False)
    for name in ("items.parquet", "manifest.json"):
        assert (again.folder / name).read_bytes() == (embedded.folder / name).read_bytes()
    other = prepare("embedded", tmp_path / "other", size=3000, seed=7, progress=False)
    assert other.manifest["fingerprint"] != embedded.manifest["fingerprint"]


def test_no_cluster_is_in_two_splits(embedded):
    splits = collections.defaultdict(set)
    for row in embedded.table().select(["cluster", "split"]).to_pylist():
        splits[row["cluster"]].add(row["split"])
    assert max(len(s) for s in splits.values()) == 1
    sizes = collections.Counter(embedded.table()["cluster"].to_pylist())
    assert max(sizes.values()) > 1  # else this test has seen no cluster at all


def test_no_text_of_the_test_split_is_nearly_one_of_the_training_split(embedded):
    train, test = embedded.table("train")["text"], embedded.table("test")["text"]
    texts = train.to_pylist() + test.to_pylist()
    pairs = near_duplicate_pairs(signatures(texts), threshold=0.8)
    across = [p for p in pairs if (p[0] < len(train)) != (p[1] < len(train))]
    assert across == []


def test_order_of_loading_does_not_matter(tmp_path):
    rows = [record(i, title=f"Kettle of model {i % 30} in steel or copper") for i in range(90)]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    random.Random(3).shuffle(rows)
    (tmp_path / "b.jsonl").write_bytes(lines(rows))
    tables = [
        prepare(str(tmp_path / f"{n}.jsonl"), tmp_path / n, progress=False).table() for n in "ab"
    ]
    assert tables[0].equals(tables[1])


def test_exact_duplicates_are_dropped_once_and_counted(tmp_path):
    same_id = record(1)
    other_id = record(1, parent_asin="ID9999")
    (tmp_path / "d.jsonl").write_bytes(lines([record(1), same_id, other_id, record(2)]))
    items = prepare(str(tmp_path / "d.jsonl"), tmp_path / "out", progress=False)
    assert items.manifest["dropped"] == {"duplicate": 2}
    assert items.table()["id"].to_pylist() == ["ID0001", "ID0002"]


def test_minhash_finds_what_exact_jaccard_finds():
    rng = random.Random(5)
    texts = []
    for _ in range(60):
        words = text_of(rng).split()
        texts.append(" ".join(words))
        for changed in (1, 3, 30):  # similarity of about 0.95, 0.86 and 0.2
            variant = list(words)
            for place in rng.sample(range(60), changed):
                variant[place] = rng.choice(WORDS)
            texts.append(" ".join(variant))
    found = {tuple(p) for p in near_duplicate_pairs(signatures(texts))}
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            similarity = jaccard(texts[i], texts[j])
            if similarity >= THRESHOLD + 0.15 and i // 4 == j // 4 and i % 4 == 0:
                assert (i, j) in found
            if similarity <= THRESHOLD - 0.2:
                assert (i, j) not in found


def test_clusters_join_chains_and_do_not_depend_on_order():
    rng = random.Random(1)
    base = text_of(rng).split()
    chain = []
    for step in range(5):  # each is near the next, the first is far from the last
        base[step * 2 : step * 2 + 2] = rng.choices(WORDS, k=2)
        chain.append(" ".join(base))
    texts = [*chain, text_of(rng), text_of(rng)]
    ids = [f"id{i}" for i in range(7)]
    titles = [f"Title {i}" for i in range(7)]
    keys = cluster(ids, titles, texts)
    assert keys == ["id0"] * 5 + ["id5", "id6"]
    assert cluster(ids[::-1], titles[::-1], texts[::-1]) == keys[::-1]


def test_equal_titles_cluster_unless_they_are_short():
    titles = [
        "Brass kettle with a wooden handle",
        "Kettle",
        "Kettle",
        "brass KETTLE with a wooden handle",
    ]
    assert same_title_pairs(titles).tolist() == [[0, 3]]


def test_nothing_to_cluster_is_no_error():
    assert cluster([], [], []) == []
    assert cluster(["a"], ["t"], ["x"]) == ["a"]


def test_splits_depend_on_key_and_seed_alone_and_have_their_shares():
    keys = [f"key{i}" for i in range(20_000)]
    found = collections.Counter(assign_splits(keys))
    for split, share in SHARES.items():
        assert found[split] / len(keys) == pytest.approx(share, abs=0.01)
    assert split_of("B07XYZ", 42) == "train"  # a fixed point: a new version must not reshuffle
    assert [split_of(k, 1) for k in keys] != [split_of(k, 2) for k in keys]


def test_products_do_not_carry_the_price(embedded):
    product = products(embedded.table("test"))[0]
    assert not hasattr(product, "price")
    assert products(embedded.test)[0] == product


def test_finished_work_is_opened_and_other_work_replaces_it(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(lines(record(i) for i in range(30)))
    first = prepare(str(path), tmp_path / "out", progress=False)
    stamp = (tmp_path / "out" / "items.parquet").stat().st_mtime_ns
    prepare(str(path), tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "items.parquet").stat().st_mtime_ns == stamp
    path.write_bytes(lines(record(i) for i in range(31)))
    second = prepare(str(path), tmp_path / "out", progress=False)
    assert second.manifest["fingerprint"] != first.manifest["fingerprint"]


def test_a_source_of_which_nothing_survives_says_why(tmp_path):
    path = tmp_path / "free.jsonl"
    path.write_bytes(lines(record(i, price=None) for i in range(30)))
    with pytest.raises(SourceError, match="'no_price': 30"):
        prepare(str(path), tmp_path / "out", progress=False)


def test_opening_what_is_no_folder_of_items_tells_the_remedy(tmp_path):
    with pytest.raises(SourceError, match=r"python -m shared curate"):
        open_items(tmp_path)
    (tmp_path / "manifest.json").write_text("{broken")
    with pytest.raises(SourceError, match="curate again"):
        open_items(tmp_path)
    with pytest.raises(SourceError, match=r"is a file.*curate .*manifest\.json --out DIR"):
        open_items(tmp_path / "manifest.json")


def test_kill_9_leaves_no_manifest_and_the_next_run_finishes(tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys; from shared.pipeline import prepare; print('started', flush=True);"
        "prepare('embedded', sys.argv[1], size=30_000, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(SourceError):
        open_items(out)
    assert prepare("embedded", out, size=500, progress=False).manifest["rows_in"] == 500


def test_fingerprints_ignore_chunks_and_tell_null_from_empty():
    table = pa.table({"a": ["x", None, ""], "b": [1.0, None, 3.0]})
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert fingerprint(parts) == fingerprint(table)
    assert fingerprint(table) != fingerprint(
        pa.table({"a": ["x", "", None], "b": [1.0, None, 3.0]})
    )
    assert fingerprint(table) != fingerprint(table.rename_columns(["a", "c"]))
    assert fingerprint(pa.table({"a": ["ab", "c"]})) != fingerprint(pa.table({"a": ["a", "bc"]}))


def test_files_are_whole_or_absent(tmp_path):
    target = tmp_path / "value.json"
    write_json({"a": 1}, target)
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert json.loads(target.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        write_json({"a": float("nan")}, target)
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_equal_tables_are_equal_files_however_chunked(tmp_path):
    table = pa.table({"a": [str(i) for i in range(100)]})
    write_parquet(table, tmp_path / "1")
    write_parquet(pa.concat_tables([table.slice(0, 7), table.slice(7)]), tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_price_mix_adds_up_to_one():
    mix = price_mix(np.array([1.0, 30.0, 30.0, 999.0]))
    assert sum(mix.values()) == 1
    assert mix["25-50"] == 0.5


def test_items_are_in_the_declared_schema(embedded):
    table = embedded.table()
    assert table.schema.equals(ITEM)
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
