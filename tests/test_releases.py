"""Releases: versions that stay what they were, one of them current, and a way back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from shared.compression import StudentPricer
from shared.compression.bundle import bundle
from shared.compression.measuring import Opening
from shared.compression.recorded import shipped
from shared.data import ITEM, Product, products
from shared.data.storage import fingerprint
from shared.ensembles import fit_ensemble
from shared.evaluation import evaluate
from shared.pricers import make_pricer, save_pricer
from shared.releases import KINDS, Registry, ReleaseError, shipped_release
from shared.releases.shipped import RECORD, record_shipped, reference_path

WORDS = "lamp chair cable speaker guitar drill camera kettle helmet tent router blender".split()


def items(split: str, n: int = 120, seed: int = 1, dearer: float = 1.0) -> pa.Table:
    """Return items whose prices the shipped student knows to a factor of about 1.3."""
    random = np.random.default_rng([seed, len(split)])
    texts = [" ".join(random.choice(WORDS, 4)) + f" {split} {i}" for i in range(n)]
    rows = [
        {"id": f"{split}-{i}", "title": t, "text": t, "category": "Home", "details": "{}",
         "cluster": f"{split}-{i}", "split": split}
        for i, t in enumerate(texts)
    ]  # fmt: skip
    table = pa.Table.from_pylist([row | {"price": 1.0} for row in rows], ITEM)
    known = StudentPricer(shipped("small")).price(products(table)).price
    prices = known * np.exp(random.normal(0, 0.3, n)) * dearer
    return table.set_column(ITEM.get_field_index("price"), ITEM.field("price"), pa.array(prices))


def splits(**more) -> dict[str, pa.Table]:
    return {split: items(split, **more) for split in ("train", "validation", "test")}


ITEMS = splits()


@pytest.fixture
def registry(tmp_path) -> Registry:
    """A registry with v1, which answers, and v2."""
    made = Registry(tmp_path / "registry")
    made.add("student", shipped("smallest"), items=ITEMS, note="the first one")
    made.add("student", shipped("small"), items=ITEMS)
    made.promote("v1", "to begin with")
    return made


def test_a_version_prices_as_its_model_did_with_an_interval_around_it(registry):
    release = registry.release("v2")
    opened, asked = release.open(), products(ITEMS["test"])
    found = opened.price(asked)
    assert found.price == pytest.approx(StudentPricer(shipped("small")).price(asked).price)
    assert found.low == pytest.approx(found.price / release.factor)
    assert found.high == pytest.approx(found.price * release.factor)
    assert (opened.version, opened.name, opened.label) == ("v2", release.name, "")
    assert not len(opened.price([]).price)


def test_a_record_says_what_was_measured_and_on_what(registry):
    release = registry.release("v1")
    true = ITEMS["test"]["price"].to_numpy()
    found = release.open().price(products(ITEMS["test"]))
    scores = release.metrics["test"]
    assert scores["mae"] == pytest.approx(np.abs(found.price - true).mean())
    assert scores["mae_low"] < scores["mae"] < scores["mae_high"]
    assert scores["coverage"] == pytest.approx(((found.low <= true) & (true <= found.high)).mean())
    assert 0.85 <= release.metrics["validation"]["coverage"] <= 0.95
    assert release.items["test"] == fingerprint(ITEMS["test"])
    assert release.note == "the first one"
    assert release.versions["numpy"]
    assert release.seed == 42


def test_a_version_keeps_what_drift_is_told_from(registry):
    reference = registry.release("v2").reference()
    assert len(reference) == ITEMS["validation"].num_rows
    assert reference.error_mean == pytest.approx(0, abs=0.1)  # made by this very student


def test_the_model_may_be_deleted_where_it_came_from(tmp_path):
    """Incident: a registry of paths, and the folder of one model was tidied up."""
    source = tmp_path / "model"
    shutil.copytree(shipped("small"), source)
    registry = Registry(tmp_path / "registry")
    registry.add("student", source, items=ITEMS)
    shutil.rmtree(source)
    assert registry.release("v1").open().price(products(ITEMS["test"])).price[0] > 0


def test_going_back_goes_back_one_by_one(registry):
    registry.promote("v2", "better")
    registry.promote("v1", "was better after all")
    assert registry.before() == ["v1", "v2"]
    assert registry.rollback("slow").version == "v2"
    assert registry.rollback("slow, too").version == "v1"
    with pytest.raises(ReleaseError, match="no version to go back to"):
        registry.rollback("and on")
    assert registry.current().version == "v1"


def test_the_history_says_who_did_what_and_why(registry):
    registry.promote("v2", "better", by="ada", error=1.5)
    registry.rollback("complaints", by="bob")
    told = [(e["what"], e["version"], e["why"]) for e in registry.history()]
    assert told == [
        ("added", "v1", "the first one"), ("added", "v2", ""), ("promoted", "v1", "to begin with"),
        ("promoted", "v2", "better"), ("rolled back", "v1", "complaints"),
    ]  # fmt: skip
    assert [e["by"] for e in registry.history()][-2:] == ["ada", "bob"]
    assert registry.history()[3]["error"] == 1.5


def test_promoting_what_is_current_changes_nothing(registry):
    """Incident: promoted twice by a nervous hand, it was also the version to go back to."""
    registry.promote("v1", "once more")
    assert registry.before() == []
    assert len(registry.history()) == 3


def test_nothing_promoted_yet_is_said_with_the_remedy(tmp_path):
    with pytest.raises(ReleaseError, match="release promote"):
        Registry(tmp_path).current()
    assert Registry(tmp_path).versions() == []
    assert Registry(tmp_path).current_version is None


def test_whoever_expects_another_version_is_stopped(registry):
    registry.promote("v2", "better")
    registry.rollback("trouble", expected="v2")
    with pytest.raises(ReleaseError, match="v1 is current by now"):  # who saw the same trouble
        registry.rollback("trouble", expected="v2")
    with pytest.raises(ReleaseError, match="v1 is current by now"):
        registry.promote("v2", "x", expected="v2")
    assert registry.current_version == "v1"


def test_pruning_keeps_what_answers_and_what_to_go_back_to(registry):
    registry.promote("v2", "better")
    for _ in range(2):
        registry.add("student", shipped("smallest"), items=ITEMS)
    assert registry.prune(0, spare="v4") == ["v3"]
    assert [r.version for r in registry.versions()] == ["v1", "v2", "v4"]
    with pytest.raises(ReleaseError, match="pruned"):
        registry.promote("v3", "back")
    assert registry.release("v3").metrics["test"]["mae"] > 0  # the record stays
    assert registry.rollback("x").version == "v1"


def test_a_name_is_never_given_twice(registry):
    """Incident: v2 was deleted, another v2 was added, and two models had the same history."""
    shutil.rmtree(registry.folder / "v2")
    assert registry.add("student", shipped("small"), items=ITEMS).version == "v3"
    registry.prune(0)
    assert registry.add("student", shipped("small"), items=ITEMS).version == "v4"


def test_fitted_pricers_and_ensembles_are_released_too(tmp_path):
    fitted = make_pricer("tfidf-ridge").fit(ITEMS["train"])
    save_pricer(fitted, tmp_path / "ridge")
    student = StudentPricer(shipped("small"))
    runs = [evaluate(p, ITEMS["validation"], progress=False) for p in (fitted, student)]
    ensemble = fit_ensemble(runs, items=ITEMS["validation"])
    places = {"tfidf-ridge": Opening("fitted", tmp_path / "ridge"),
              student.name: Opening("student", shipped("small"))}  # fmt: skip
    bundle(ensemble, places, tmp_path / "bundle")
    registry = Registry(tmp_path / "registry")
    registry.add("fitted", tmp_path / "ridge", items=ITEMS)
    registry.add("ensemble", tmp_path / "bundle", items=ITEMS)
    assert set(KINDS) >= {"fitted", "ensemble"}
    for release in registry.versions():
        found = release.open().price(products(ITEMS["test"]))
        assert found.high == pytest.approx(found.price * release.factor)


def test_the_shipped_release_prices_without_pytorch():
    code = """
import sys
from shared.releases import shipped_release
from shared.data import Product
release = shipped_release()
found = release.open().price([Product("1", "Kettle", "Electric kettle, 1.7 litres", "Home", "{}")])
assert 1 < found.low[0] < found.price[0] < found.high[0] < 999, found
assert release.reference() is not None
heavy = {"torch", "transformers", "sklearn", "datasets", "matplotlib.pyplot"} & set(sys.modules)
assert not heavy, heavy
print(release.version)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "shipped", done.stderr


def test_the_shipped_release_says_what_was_measured():
    release = shipped_release()
    test = release.metrics["test"]
    assert test["mae"] == pytest.approx(49.36, abs=0.01)
    assert test["coverage_low"] < release.coverage < test["coverage_high"]
    release.check()
    assert reference_path(RECORD).is_file()


def test_another_shipped_student_needs_a_record_of_its_own(tmp_path, monkeypatch):
    """Incident to be: the student is recorded again, and keeps the interval of the old one."""
    monkeypatch.setattr("shared.releases.shipped.STUDENT", "smallest")
    with pytest.raises(ReleaseError, match="changed"):
        shipped_release().open()


def test_the_shipped_record_can_be_made_again(tmp_path):
    made = record_shipped(ITEMS, tmp_path / "shipped.json")
    assert made.open().price([Product("1", "Lamp", "lamp", "Home", "{}")]).price[0] > 0
    assert json.loads((tmp_path / "shipped.json").read_text())["items"] == made.items
