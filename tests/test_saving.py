"""Fitted pricers on disk: the same prices after a restart, and nothing foreign is executed."""

import functools
import json
import pickle

import numpy as np
import pytest

from shared.data import products
from shared.pipeline import prepare
from shared.pricers import PRICERS, load_pricer, make_pricer, save_pricer
from shared.pricers.saving import CARD, ModelError


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=1200, progress=False)


@pytest.fixture(scope="module")
def saved(items, tmp_path_factory):
    """A fitted pricer and the folder it was saved to, by name."""
    folder = tmp_path_factory.mktemp("models")

    def fit(name):
        pricer = make_pricer(name, seed=7).fit(items.table("train"))
        return pricer, save_pricer(pricer, folder / name)

    return functools.cache(fit)


@pytest.mark.parametrize("name", PRICERS)
def test_a_saved_pricer_gives_the_same_prices(items, saved, name):
    pricer, folder = saved(name)
    test = products(items.table("test"))
    loaded = load_pricer(folder)
    assert np.array_equal(loaded.price(test).price, pricer.price(test).price)
    assert loaded.settings == pricer.settings
    assert loaded.seed == 7


def test_nothing_is_pickled(saved):
    for name in PRICERS:
        for path in saved(name)[1].rglob("*"):
            if path.is_file():
                with pytest.raises(Exception):  # noqa: B017, PT011  any: it must not load
                    pickle.loads(path.read_bytes())


def test_a_skops_file_with_foreign_types_is_refused(saved, tmp_path):
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    pricer, _ = saved("tfidf-ridge")
    folder = save_pricer(pricer, tmp_path / "model")
    skops.io.dump(FunctionTransformer(func=print), folder / "model.skops")
    card = json.loads((folder / CARD).read_text())
    from shared.data.storage import file_hash

    card["files"]["model.skops"] = file_hash(folder / "model.skops")  # as an attacker would
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="refuses to make"):
        load_pricer(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / CARD).unlink(), "holds no pricer.json"),
        (lambda f: (f / CARD).write_text("{"), "damaged"),
        (lambda f: (f / CARD).write_text('{"name": "linear"}'), "damaged"),
        (lambda f: (f / "model.skops").write_bytes(b"x"), "missing or changed"),
        (lambda f: (f / "model.skops").unlink(), "missing or changed"),
        (lambda f: _rename(f, "oracle"), "'oracle' is not one of"),
    ],
)
def test_a_damaged_model_says_what_to_do(saved, tmp_path, damage, message):
    folder = save_pricer(saved("linear")[0], tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load_pricer(folder)


def _rename(folder, name):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"name": name}))


def test_saving_replaces_a_model_and_nothing_else(saved, tmp_path):
    pricer, _ = saved("linear")
    folder = save_pricer(pricer, tmp_path / "model")
    save_pricer(saved("constant-median")[0], folder)
    assert load_pricer(folder).name == "constant-median"
    assert not (folder / "model.skops").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no saved pricer"):
        save_pricer(pricer, tmp_path / "thesis")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]


def test_an_unfitted_pricer_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="has not been fitted"):
        save_pricer(make_pricer("linear"), tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_a_lazy_pricer_learns_before_it_is_saved(items, tmp_path):
    lazy = make_pricer("constant-median").fit(items.table("train"), lazily=True)
    assert lazy.fit_seconds is None
    loaded = load_pricer(save_pricer(lazy, tmp_path / "model"))
    assert loaded.price(products(items.table("test"))).price[0] > 0
