"""The index of products: embeddings, exact and approximate search, changes, versions, crashes."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.data.schema import ITEM, Product
from shared.retrieval import (
    Changes,
    HybridSearch,
    IndexUnusable,
    ProductIndex,
    SentenceEmbedding,
    StaticEmbedding,
    TfidfEmbedding,
    building,
    clusters_of,
    reciprocal_rank_fusion,
)
from shared.retrieval.embeddings import EmbeddingError, load_embedding, unit
from shared.retrieval.table import Table

ROOT = Path(__file__).resolve().parent.parent
KINDS = ["kettle", "drill", "lamp", "chair", "guitar", "blender", "tent", "printer"]
STUFF = ["steel", "oak", "red", "blue", "small", "large", "quiet", "fast", "cordless", "folding"]


def items(count: int = 240, split: str = "train") -> pa.Table:
    """Products of eight kinds; three in a row are near-duplicates of each other."""
    draw = np.random.default_rng(7)
    rows = []
    for i in range(count):
        kind = KINDS[(i // 3) % len(KINDS)]
        if i % 3 == 0:
            words = " ".join(draw.choice(STUFF, 4, replace=False))
        text = f"{words} {kind}, {split} m{i}\nA {kind} for every home. Part p{i} included."
        rows.append(
            {"id": f"{split}-{i}", "title": f"{kind} m{i}", "text": text, "category": "Home",
             "details": "{}", "price": 10.0 + i, "cluster": f"{split}-c{i // 3}", "split": split}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, ITEM)


class Hashed:
    """Sums of a random vector a word: an embedding of somebody else, which counts its work."""

    name = "hashed"

    def __init__(self, size: int = 16, fingerprint: str = "hashed-1"):
        self.size, self.fingerprint, self.embedded, self.words = size, fingerprint, [], {}

    def embed(self, texts, progress=False):
        self.embedded += texts
        return unit(np.array([sum(map(self._word, text.split())) for text in texts]))

    def _word(self, word: str) -> np.ndarray:
        if word not in self.words:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
            self.words[word] = np.random.default_rng(seed).normal(size=self.size)
        return self.words[word]


@pytest.fixture(scope="module")
def embedding() -> TfidfEmbedding:
    return TfidfEmbedding(32).fit(items())


@pytest.fixture(scope="module")
def index(tmp_path_factory, embedding) -> ProductIndex:
    """One index for all tests that only read."""
    return ProductIndex.build(items(), embedding, tmp_path_factory.mktemp("i"), progress=False)


@pytest.fixture
def own(tmp_path) -> ProductIndex:
    """An index to change, with an embedding that counts."""
    return ProductIndex.build(items(60), Hashed(), tmp_path / "own", progress=False)


def changed(table: pa.Table, **columns) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, ITEM.field(name).type))
    return table


def assert_alike(found, true) -> None:
    """Of equally similar products any may come: the similarities are the same."""
    for near, limits in zip(found, true, strict=True):
        similar = [n.similarity for n in near], [n.similarity for n in limits]
        np.testing.assert_allclose(*similar, atol=3e-5)


def ids(found) -> list[list[str]]:
    return [[near.id for near in row] for row in found]


# Embeddings


def test_texts_are_rows_of_length_one_and_like_texts_are_near(embedding):
    texts = ["a steel kettle", "kettle of steel", "an oak guitar", "", "zzz unknown qqq"]
    found = embedding.embed(texts)
    assert found.shape == (5, embedding.size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    similar = found @ found.T
    assert similar[0, 1] > 0.9 > similar[0, 2]
    assert similar[3, 4] == 1, "two texts without a known word are alike"
    np.testing.assert_allclose(similar[:3, 3], 0, atol=1e-6)


def test_an_embedding_is_fitted_on_training_items_alone():
    with pytest.raises(ValueError, match=r"fitted on training items, not on \['test'\]"):
        TfidfEmbedding().fit(pa.concat_tables([items(), items(9, "test")]))
    with pytest.raises(ValueError, match="too few"):
        TfidfEmbedding().fit(items(2))
    with pytest.raises(ValueError, match="has not been fitted"):
        TfidfEmbedding().embed(["x"])


def test_of_many_texts_some_are_drawn_to_fit_on(monkeypatch):
    monkeypatch.setattr("shared.retrieval.embeddings.MOST_FITTED", 120)
    one, other = TfidfEmbedding(16).fit(items()), TfidfEmbedding(16, seed=1).fit(items())
    texts = items(9, "test")["text"].to_pylist()
    assert not np.allclose(one.embed(texts), other.embed(texts))
    again = TfidfEmbedding(16).fit(items())
    np.testing.assert_array_equal(one.embed(texts), again.embed(texts))


def test_the_same_texts_and_seed_give_the_same_space(embedding):
    again = TfidfEmbedding(32).fit(items())
    texts = items(9, "test")["text"].to_pylist()
    np.testing.assert_array_equal(again.embed(texts), embedding.embed(texts))
    assert again.fingerprint == embedding.fingerprint
    assert TfidfEmbedding(32, seed=1).fit(items()).fingerprint != embedding.fingerprint
    assert TfidfEmbedding(32).fit(items(90)).fingerprint != embedding.fingerprint


def test_a_saved_embedding_places_texts_as_before(embedding, tmp_path):
    embedding.save(tmp_path)
    found = load_embedding(tmp_path)
    texts = [*items(9, "test")["text"].to_pylist(), ""]
    np.testing.assert_array_equal(found.embed(texts), embedding.embed(texts))
    assert (found.fingerprint, found.size) == (embedding.fingerprint, embedding.size)
    kinds = {path.suffix for path in tmp_path.iterdir()}
    assert kinds == {".json", ".safetensors"}, "no pickle"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "embedding.json").unlink(), r"holds no embedding\.json"),
        (lambda f: (f / "embedding.json").write_text("{"), "damaged"),
        (lambda f: (f / "words.json").write_text("[]"), r"words\.json: missing or changed"),
        (lambda f: (f / "numbers.safetensors").unlink(), r"numbers\.safetensors: missing"),
        (
            lambda f: (f / "embedding.json").write_text(
                (f / "embedding.json").read_text().replace('"seed": 42', '"seed": 43')
            ),
            "not what the vectors were made with",
        ),
    ],
)
def test_a_damaged_embedding_is_refused(embedding, tmp_path, damage, message):
    embedding.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(EmbeddingError, match=message):
        load_embedding(tmp_path)


@pytest.mark.parametrize(
    ("kind", "library"),
    [(StaticEmbedding, "model2vec"), (SentenceEmbedding, "sentence-transformers")],
)
def test_what_is_not_installed_says_how_to_get_it(kind, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library.replace("-", "_"), None)  # as if it were not there
    with pytest.raises(ModuleNotFoundError, match=f"pip install {library}"):
        kind("some/model")


def test_a_trained_model_is_normalised_and_kept_by_its_name(monkeypatch, tmp_path):
    class StaticModel:
        """The two calls of model2vec that are used."""

        @classmethod
        def from_pretrained(cls, path):
            assert path == "some/model"
            return cls()

        def encode(self, texts):
            return np.array([[3.0, 4.0, len(text) == 0] for text in texts])

    fake = type(sys)("model2vec")
    fake.StaticModel = StaticModel
    monkeypatch.setitem(sys.modules, "model2vec", fake)
    found = StaticEmbedding("some/model")
    np.testing.assert_allclose(found.embed(["a"]), [[0.6, 0.8, 0]], atol=1e-6)
    found.save(tmp_path)
    assert load_embedding(tmp_path).fingerprint == found.fingerprint


def test_a_model_that_gives_no_numbers_is_found_out():
    with pytest.raises(ValueError, match="not finite"):
        unit(np.array([[1.0, np.nan]]))


# Searching


def test_the_most_similar_come_first_with_all_that_is_known_of_them(index):
    (found,) = index.search(["a guitar of oak"], 6)
    assert {near.title.split()[0] for near in found} == {"guitar"}
    assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)
    rows = {row["id"]: row for row in items().to_pylist()}
    for near in found:
        row = rows[near.id]
        assert (near.title, near.text, near.price, near.cluster) == (
            row["title"], row["text"], row["price"], row["cluster"],
        )  # fmt: skip


def test_texts_products_and_vectors_are_the_same_question(index, embedding, monkeypatch):
    monkeypatch.setattr("shared.retrieval.table.QUERIES", 4)  # sent in three batches
    rows = items(9, "test").to_pylist()
    texts = [row["text"] for row in rows]
    found = index.search(texts)
    assert index.search([Product.from_item(row) for row in rows]) == found
    assert ids(index.search(embedding.embed(texts))) == ids(found)
    assert ids(index.search(3 * embedding.embed(texts))) == ids(found), "of any length"
    assert_alike(index.exact(3 * embedding.embed(texts)), found)
    assert [index.search([text])[0] for text in texts] == found, "alone as in a batch"
    assert index.search([]) == []


def test_bad_questions_are_refused(index):
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        index.search(np.ones((2, 3)))
    with pytest.raises(TypeError, match="a list of texts"):
        index.search("kettle")
    with pytest.raises(ValueError, match="k=0"):
        index.search(["kettle"], 0)
    with pytest.raises(ValueError, match="one value a query"):
        index.search(["kettle"], exclude_clusters=["a", "b"])
    with pytest.raises(ValueError, match="one value a query"):
        index.search(["kettle"], exclude_ids="train-1")


def test_search_and_exact_search_agree(index):
    texts = items(60, "test")["text"].to_pylist()
    clusters = [f"train-c{i}" for i in range(60)]
    for out in ({}, {"exclude_clusters": clusters}):
        assert_alike(index.search(texts, 5, **out), index.exact(texts, 5, **out))
    assert index.recall(texts) == 1.0
    assert index.ann is None, "a few hundred rows need no approximate index"


def test_more_neighbours_than_there_are_gives_all(own):
    (found,) = own.search(["kettle"], 1_000)
    assert len(found) == len(own) == 60
    assert len(own.exact(["kettle"], 1_000)[0]) == 60


# Leakage


def test_near_duplicates_are_left_out_if_asked(index):
    table = items()
    texts, clusters = (table[n].to_pylist() for n in ("text", "cluster"))
    known = clusters_of(table)
    leaky = index.search(texts, 3)
    assert all(near[0].cluster == c for near, c in zip(leaky, clusters, strict=True))
    honest = index.search(texts, 3, exclude_clusters=[known[i] for i in table["id"].to_pylist()])
    for near, cluster in zip(honest, clusters, strict=True):
        assert len(near) == 3
        assert cluster not in {n.cluster for n in near}
    assert_alike(honest, index.exact(texts, 3, exclude_clusters=clusters))


def test_one_product_can_be_left_out_alone(index):
    table = items(12)
    own = table["id"].to_pylist()
    found = index.search(table["text"].to_pylist(), 3, exclude_ids=own)
    for near, key, cluster in zip(found, own, table["cluster"].to_pylist(), strict=True):
        assert key not in {n.id for n in near}
        assert near[0].cluster == cluster


def test_a_large_cluster_is_left_out_as_a_whole(tmp_path):
    """Then the few rows fetched beyond k are not enough, and the query is asked once more."""
    table = changed(items(60), cluster=["it's one"] * 50 + [None] * 10)
    index = ProductIndex.build(table, Hashed(), tmp_path / "x", progress=False)
    text = table["text"][0].as_py()
    (found,) = index.search([text], 5, exclude_clusters=["it's one"])
    assert_alike([found], index.exact([text], 5, exclude_clusters=["it's one"]))
    assert len(found) == 5
    assert {n.cluster for n in found} <= {f"train-{i}" for i in range(50, 60)}, "its own id"
    (words,) = index.lexical([text], 5, exclude_clusters=["it's one"], exclude_ids=["train-55"])
    assert set(ids([words])[0]) <= {f"train-{i}" for i in range(50, 60)} - {"train-55"}


# Words

PART = "something with part p77"


def test_words_find_what_vectors_blur(index):
    (by_words,) = index.lexical([PART], 3)
    assert by_words[0].id == "train-77"
    everything = {n.id: n for n in index.exact([PART], 240)[0]}
    assert by_words[0].similarity == pytest.approx(everything["train-77"].similarity, abs=3e-5)
    (by_vector,) = index.search([PART], 3)
    assert "train-77" not in {n.id for n in by_vector}
    (joined,) = HybridSearch(index, depth=3).search([PART], 6)
    fused = reciprocal_rank_fusion([[n.id for n in near] for near in (by_vector, by_words)])
    assert [n.id for n in joined] == [key for key, _ in fused]
    assert "train-77" in {n.id for n in joined}


@pytest.mark.parametrize(
    "text", ["", "  ", "!!!", 'a AND (b OR "', "x:y^2~", "\x00", "🎸", "w " * 9_000]
)
def test_odd_texts_find_something_or_nothing_but_do_not_fail(index, text):
    assert len(index.search([text], 3)[0]) == 3
    assert len(index.lexical([text], 3)[0]) <= 3
    assert len(HybridSearch(index).search([text], 3)[0]) == 3


def test_ranks_are_fused_by_hand():
    found = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a", "d"]], constant=1)
    assert [key for key, _ in found] == ["a", "c", "b", "d"]
    assert dict(found)["a"] == pytest.approx(1 / 2 + 1 / 3)
    assert dict(found)["d"] == pytest.approx(1 / 4)
    assert reciprocal_rank_fusion([["b"], ["a"]]) == [("a", 1 / 61), ("b", 1 / 61)]
    assert reciprocal_rank_fusion([]) == []


# Building


def test_an_index_is_opened_again_with_nothing_but_its_folder(index):
    found = ProductIndex.open(index.folder)
    texts = items(9, "test")["text"].to_pylist()
    assert found.search(texts) == index.search(texts)
    assert repr(found) == repr(index)
    assert "240 products" in repr(found)
    assert found.items().column_names == ITEM.names


def test_building_the_same_again_embeds_nothing_and_another_replaces_it(tmp_path):
    first, again, other = Hashed(), Hashed(), Hashed()
    built = ProductIndex.build(items(60), first, tmp_path / "x", progress=False)
    same = ProductIndex.build(items(60), again, tmp_path / "x", progress=False)
    assert (len(first.embedded), again.embedded) == (60, [])
    assert (same.version, same.fingerprint) == (built.version, built.fingerprint)
    fewer = ProductIndex.build(items(30), other, tmp_path / "x", progress=False)
    assert (len(fewer), len(other.embedded)) == (30, 30)
    assert len(fewer.versions()) == 1


def test_an_index_that_was_changed_is_built_anew(own):
    before = own.fingerprint
    own.upsert(changed(items(60), price=[1.0] * 60))
    assert own.fingerprint != before
    found = ProductIndex.build(items(60), Hashed(), own.folder, progress=False)
    assert found.fingerprint == before
    assert len(found.versions()) == 1


def test_bad_items_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"2 items have no price above 0, the first is 'train-0'"):
        ProductIndex.build(changed(items(3), price=[None, 1.0, 0.0]), Hashed(), tmp_path / "x")
    with pytest.raises(ValueError, match="id of its own"):
        ProductIndex.build(pa.concat_tables([items(3)] * 2), Hashed(), tmp_path / "x")
    with pytest.raises(ValueError, match="no items"):
        ProductIndex.build(items(0), Hashed(), tmp_path / "x")
    with pytest.raises(ValueError, match="hnsw"):
        ProductIndex.build(items(3), Hashed(), tmp_path / "x", ann="hnsw")
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        ProductIndex.build(items(3), Hashed(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_opened_says_why(own, tmp_path):
    with pytest.raises(IndexUnusable, match="holds no index; make one with"):
        ProductIndex.open(tmp_path / "nowhere")
    with pytest.raises(EmbeddingError, match=r"holds no embedding\.json"):
        ProductIndex.open(own.folder)  # this embedding cannot be saved: it has to be given
    with pytest.raises(IndexUnusable, match="another hashed"):
        ProductIndex.open(own.folder, Hashed(fingerprint="hashed-2"))
    manifest = own.folder / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:50])
    with pytest.raises(IndexUnusable, match=r"manifest\.json: damaged"):
        ProductIndex.open(own.folder, Hashed())
    other = json.loads(whole)
    other["versions"][-1]["rows"] = 59
    manifest.write_text(json.dumps(other))
    with pytest.raises(IndexUnusable, match="60 rows, not 59"):
        ProductIndex.open(own.folder, Hashed())
    manifest.write_text(whole)
    assert len(ProductIndex.open(own.folder, Hashed())) == 60


# Changing


def test_only_what_changed_is_embedded(own):
    table = items(60)
    own.embedding.embedded.clear()
    texts, prices = table["text"].to_pylist(), table["price"].to_pylist()
    texts[3], texts[4], prices[4], prices[5] = "a violin", "a cello", 7.0, 8.0
    mixed = pa.concat_tables([changed(table, text=texts, price=prices), items(2, "new")])
    changes = own.upsert(mixed)
    assert changes == Changes(new=2, changed=2, updated=1, unchanged=57)
    assert changes.embedded == 4
    assert sorted(own.embedding.embedded) == sorted(
        ["a violin", "a cello", *items(2, "new")["text"].to_pylist()]
    )
    stored = {row["id"]: row for row in own.items().to_pylist()}
    assert len(stored) == len(own) == 62
    assert (stored["train-4"]["text"], stored["train-4"]["price"]) == ("a cello", 7.0)
    assert stored["train-5"]["price"] == 8.0
    assert ids(own.search(["a cello", items(2, "new")["text"][1].as_py()], 1)) == [
        ["train-4"], ["new-1"],
    ]  # fmt: skip
    assert texts[0] in {n.text for n in own.search([items(60)["text"][3].as_py()], 60)[0]}


def test_a_price_alone_embeds_nothing_and_an_upsert_of_the_same_makes_no_version(own):
    own.embedding.embedded.clear()
    version = own.version
    assert own.upsert(items(60)) == Changes(unchanged=60)
    assert own.version == version
    dearer = changed(items(60), price=[99.0] * 60)
    assert own.upsert(dearer) == Changes(updated=60)
    assert own.embedding.embedded == []
    assert {n.price for n in own.search(np.eye(1, 16), 60)[0]} == {99.0}


def test_bad_items_change_nothing(own):
    version = own.version
    with pytest.raises(ValueError, match="no price above 0"):
        own.upsert(changed(items(2), price=[5.0, None]))
    with pytest.raises(ValueError, match="id of its own"):
        own.upsert(pa.concat_tables([items(2), items(2)]))
    assert ProductIndex.open(own.folder, Hashed()).version == own.version == version


def test_products_are_forgotten(own):
    text = items(60)["text"][10].as_py()
    assert ids(own.search([text], 1)) == [["train-10"]]
    assert own.delete(["train-10", "o'neill", "train-11"]) == 2
    assert "train-10" not in ids(own.search([text], 60))[0]
    assert "train-10" not in ids(own.lexical([text], 60))[0]
    assert len(own) == 58
    assert own.delete(["train-10"]) == 0
    with pytest.raises(TypeError, match="ids are a list"):
        own.delete("train-12")
    assert own.delete([f"train-{i}" for i in range(60)]) == 58
    assert own.search([text]) == own.exact([text]) == own.lexical([text]) == [[]]
    assert own.recall([text]) == 1.0


def test_every_state_can_be_asked_and_brought_back(own):
    text = items(60)["text"][0].as_py()
    built = own.version
    own.upsert(changed(items(60), price=[1.0] * 60))
    own.delete(["train-1"])
    assert [v.note for v in own.versions()] == [
        "built of 60 items", "upsert: 0 new, 0 changed, 60 updated, 0 unchanged", "delete: 1 gone",
    ]  # fmt: skip
    assert [v.rows for v in own.versions()] == [60, 60, 59]
    old = own.at(built)
    assert old.search([text], 1)[0][0].price == 10.0
    assert own.search([text], 1)[0][0].price == 1.0
    with pytest.raises(ValueError, match=f"version {built} is for reading"):
        old.upsert(items(60))
    with pytest.raises(ValueError, match=r"no version 999; there are \["):
        own.at(999)
    own.restore(built)
    assert own.search([text], 1)[0][0].price == 10.0
    assert own.fingerprint == old.fingerprint
    assert own.version > built
    assert ProductIndex.open(own.folder, Hashed()).fingerprint == old.fingerprint


def test_a_reader_keeps_its_state_until_it_opens_the_index_again(own):
    reader = ProductIndex.open(own.folder, Hashed())
    own.upsert(changed(items(60), price=[1.0] * 60))
    assert reader.search(["kettle"], 1)[0][0].price > 1.0
    assert ProductIndex.open(own.folder, Hashed()).search(["kettle"], 1)[0][0].price == 1.0
    assert reader.upsert(changed(items(60), price=[2.0] * 60)) == Changes(updated=60)
    assert len(reader.versions()) == 3, "it writes on top of what the other wrote"


def test_two_do_not_write_at_once(own):
    with (
        building.alone(own.folder),
        pytest.raises(IndexUnusable, match="another process writes"),
    ):
        own.upsert(changed(items(60), price=[1.0] * 60))


# The approximate index


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the items, and the folder of an index that is large enough to be approximate."""
    draw = np.random.default_rng(1)
    kinds = [" ".join(f"w{n}" for n in draw.integers(0, 200, 6)) for _ in range(60)]
    texts = [f"{kinds[i % 60]} x{draw.integers(0, 300)} y{i}" for i in range(1_600)]
    table = pa.table({"id": [f"l{i}" for i in range(1_600)], "title": texts, "text": texts,
                      "price": [5.0 + i for i in range(1_600)]})  # fmt: skip
    return table, tmp_path_factory.mktemp("large")


@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_an_approximate_index_is_tuned_until_it_finds_what_is_there(large, kind, monkeypatch):
    monkeypatch.setattr(building, "PER_PARTITION", 200)
    table, folder = large
    index = ProductIndex.build(
        table, Hashed(), folder / kind, ann=kind, ann_from=1_000, progress=False
    )
    queries = [text.replace(" y", " z") for text in table["text"].to_pylist()[::20]]
    assert index.ann.partitions == 8
    assert index.ann.recall >= 0.95
    assert index.recall(queries, 5) > 0.8
    assert index.tune(queries) == pytest.approx(index.recall(queries), abs=0.01)
    assert index.recall(queries) >= 0.95
    assert ProductIndex.open(index.folder, Hashed()).ann == index.ann
    assert kind in repr(index)
    out = [f"l{i}" for i in range(0, 1_600, 20)]
    assert ids(index.search(queries, 3, exclude_clusters=out)) == ids(
        index.search(queries, 3, exclude_ids=out)
    )


def test_compressed_vectors_alone_find_far_less(large, monkeypatch):
    """What a default costs that nobody measured."""
    monkeypatch.setattr(building, "PER_PARTITION", 200)
    table, folder = large
    index = ProductIndex.build(
        table, Hashed(), folder / "pq", ann="pq", ann_from=1_000, progress=False
    )
    queries = index.embedding.embed(table["text"].to_pylist()[::20])
    ann = index.ann
    assert ann.refine
    poor = Table(index.folder, index.version).nearest(
        queries, 5, type(ann)("pq", ann.partitions, ann.nprobes)
    )
    true = index.exact(queries, 5)
    hits = [len({r["id"] for r in a} & {n.id for n in b}) for a, b in zip(poor, true, strict=True)]
    assert np.mean(hits) / 5 < index.recall(queries) - 0.1


def test_rows_that_come_after_the_index_are_found(large, monkeypatch):
    monkeypatch.setattr(building, "PER_PARTITION", 200)
    table, folder = large
    index = ProductIndex.build(table, Hashed(), folder / "late", ann_from=1_000, progress=False)
    few = pa.table({"id": ["n1", "n2"], "text": ["alpha beta", "gamma delta"], "price": [1.0, 2.0]})
    index.upsert(few)
    assert Table(index.folder, index.version).unindexed() == 2
    assert ids(index.search(["alpha beta", "gamma delta"], 1)) == [["n1"], ["n2"]]
    assert ids(index.lexical(["alpha"], 1)) == [["n1"]]
    many = pa.table({"id": [f"m{i}" for i in range(1_200)], "price": [3.0] * 1_200,
                     "text": [f"omega{i} psi{i}" for i in range(1_200)]})  # fmt: skip
    index.upsert(many)
    assert Table(index.folder, index.version).unindexed() == 0, "so many are indexed, too"
    built = index.at(index.versions()[0].number)
    assert len(built) == 1_600, "and what was known before can still be read"
    assert "m7" not in ids(built.search(["omega7 psi7"], 5))[0]
    assert ids(index.search(["omega7 psi7", "alpha beta"], 1)) == [["m7"], ["n1"]]
    index.upsert(changed_text(many, 7, "sigma tau"))
    assert ids(index.search(["sigma tau"], 1)) == [["m7"]]
    assert "m7" not in ids(index.search(["omega7 psi7"], 5))[0], "nothing of the old text is left"
    assert index.recall(table["text"].to_pylist()[::40]) >= 0.95


def changed_text(table: pa.Table, row: int, text: str) -> pa.Table:
    texts = table["text"].to_pylist()
    texts[row] = text
    return table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts))


def test_new_prices_leave_the_vectors_indexed(large, monkeypatch):
    """Incident: an update of prices took every row out of the index; each search read them all."""
    monkeypatch.setattr(building, "PER_PARTITION", 200)
    table, folder = large
    index = ProductIndex.build(table, Hashed(), folder / "prices", ann_from=1_000, progress=False)
    dearer = table.set_column(3, "price", pa.array([1.0] * len(table))).slice(0, 500)
    assert index.upsert(dearer) == Changes(updated=500)
    state = Table(index.folder, index.version)._table
    assert state.index_stats("vector_idx").num_unindexed_rows == 0
    (found,) = index.search([table["text"][5].as_py()], 40)
    assert found[0].id == "l5"
    assert len({n.id for n in found}) == 40
    assert all((n.price == 1.0) == (int(n.id[1:]) < 500) for n in found)


def test_where_little_is_left_to_find_the_nearest_of_it_are_found(large, monkeypatch, tmp_path):
    monkeypatch.setattr(building, "PER_PARTITION", 50)
    table, _ = large
    clusters = pa.array(["one"] * 1_590 + [None] * 10)
    index = ProductIndex.build(
        table.append_column("cluster", clusters), Hashed(), tmp_path / "x", ann_from=1_000,
        progress=False,
    )  # fmt: skip
    assert index.ann.nprobes < index.ann.partitions == 32
    texts = table["text"].to_pylist()[:20]
    found = index.search(texts, 5, exclude_clusters=["one"] * 20)
    assert_alike(found, index.exact(texts, 5, exclude_clusters=["one"] * 20))
    assert {len(near) for near in found} == {5}


def test_an_index_that_grows_large_becomes_approximate(large, monkeypatch, tmp_path):
    monkeypatch.setattr(building, "PER_PARTITION", 200)
    table, _ = large
    index = ProductIndex.build(
        table.slice(0, 900), Hashed(), tmp_path / "x", ann_from=1_000, progress=False
    )
    small = index.version
    assert index.ann is None
    index.upsert(table.slice(0, 1_500))
    assert index.ann is not None
    assert index.recall(table["text"].to_pylist()[::20]) >= 0.95
    assert index.at(small).ann is None
    index.restore(small)
    assert (len(index), index.ann) == (900, None)


# Crashes


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_retrieval import Hashed, items
from shared.retrieval import ProductIndex, building
building.BATCH = 20
folder = Path({folder!r})
"""
BUILD = """
class Slow(Hashed):
    def embed(self, texts, progress=False):
        if len(self.embedded) >= 60:
            print("three batches", flush=True)
            time.sleep(60)
        return super().embed(texts)
ProductIndex.build(items(240), Slow(), folder, progress=False)
"""
UPSERT = """
def publish(*_):
    print("merged, not published", flush=True)
    time.sleep(60)
index = ProductIndex.open(folder, Hashed())
building.publish = publish
rows = items(60).to_pylist()
for row in rows:
    row["price"] = 1.0
rows[0]["text"] = "something else"
index.upsert(rows)
"""


def kill_at_its_line(code: str, folder: Path) -> None:
    """Run code in a process of its own, and kill -9 it when it prints a line."""
    code = KILLED.format(tests=str(ROOT / "tests"), folder=str(folder)) + textwrap.dedent(code)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        assert line, "it died before it was killed"


def test_a_build_that_was_killed_is_not_opened_and_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "x"
    kill_at_its_line(BUILD, folder)
    with pytest.raises(IndexUnusable, match="cut off after 60 items; run the same"):
        ProductIndex.open(folder, Hashed())
    monkeypatch.setattr(building, "BATCH", 20)
    embedding = Hashed()
    index = ProductIndex.build(items(240), embedding, folder, progress=False)
    assert embedding.embedded == items(240)["text"].to_pylist()[60:], "and embeds nothing twice"
    whole = ProductIndex.build(items(240), Hashed(), tmp_path / "whole", progress=False)
    assert index.fingerprint == whole.fingerprint
    texts = items(9, "test")["text"].to_pylist()
    assert index.search(texts) == whole.search(texts)
    assert not (folder / "building.json").exists()


def test_a_half_filled_index_of_other_items_is_begun_anew(tmp_path):
    folder = tmp_path / "x"
    kill_at_its_line(BUILD, folder)
    embedding = Hashed()
    index = ProductIndex.build(items(90), embedding, folder, progress=False)
    assert len(embedding.embedded) == len(index) == 90


def test_an_upsert_that_was_killed_changed_nothing(own):
    kill_at_its_line(UPSERT, own.folder)
    found = ProductIndex.open(own.folder, Hashed())
    assert found.fingerprint == own.fingerprint
    assert found.search(["kettle"], 1)[0][0].price > 1.0
    assert found.upsert(items(1, "new")) == Changes(new=1)
    stored = {row["id"]: row for row in found.items().to_pylist()}
    assert len(stored) == 61
    assert stored["train-0"]["text"] == items(1)["text"][0].as_py()
    assert stored["train-9"]["price"] == 19.0


def test_what_happens_in_a_failing_embedding_stays_undone(own):
    class Failing(Hashed):
        def embed(self, texts, progress=False):
            raise RuntimeError("out of memory")

    found = ProductIndex.open(own.folder, Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        found.upsert(items(1, "new"))
    assert ProductIndex.open(own.folder, Hashed()).fingerprint == own.fingerprint


def test_importing_the_room_loads_no_database():
    heavy = {"lancedb", "sklearn", "torch", "model2vec", "sentence_transformers"}
    code = f"import sys, shared.retrieval; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
