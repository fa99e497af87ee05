"""Language models and classifiers as ONNX: the same answers as PyTorch's, in a fraction of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shared.compression import (
    ExportedClassifier,
    OnnxLanguagePricer,
    export_classifier,
    export_language_model,
    hub_classifier,
    new_classifier,
    teach_classifier,
    without_neurons,
)
from shared.compression import classifying as c
from shared.compression import language_model as lm
from shared.compression.classifying import STUDENT, TEACHER, categories_of, examples
from shared.compression.exported import MANIFEST, MODEL, ExportError, size_of
from shared.compression.gold import gold_of, grow, share_of, study
from shared.data import ITEM, Product, products
from shared.frontier.connection import connect
from shared.open_models.pricer import base_pricer, tuned_pricer
from shared.pipeline import prepare as curated
from shared.pretraining.making import BaseModelError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return curated("embedded", tmp_path_factory.mktemp("items"), size=3_000, progress=False)


@pytest.fixture(scope="module")
def listed(made):
    return products(made.table("test").slice(0, 60))


# A language model


@pytest.fixture(scope="module")
def tuned():
    return tuned_pricer()


@pytest.fixture(scope="module")
def exported(tuned, tmp_path_factory):
    """Precision -> folder."""
    work = tmp_path_factory.mktemp("language")
    return {p: export_language_model(tuned, work / p, p) for p in ("fp32", "int8")}


def test_its_distribution_is_that_of_pytorch(tuned, exported, listed):
    odd = [
        Product("a", "", "", "", ""), Product("b", "x", "x", "", ""),
        Product("c", "long", "word 12 " * 400, "", ""), Product("d", "é", "Café – 1½ l\n", "", ""),
    ]  # fmt: skip
    asked = [*listed[:30], *odd]
    pricer = OnnxLanguagePricer(exported["fp32"], batch=8)
    wanted, found = tuned.distribution(asked), pricer.distribution(asked)
    assert np.abs(found.probabilities - wanted.probabilities).max() < lm.TOLERANCE
    assert np.abs(found.mass - wanted.mass).max() < lm.TOLERANCE
    assert wanted.probabilities.max() > 100 * lm.TOLERANCE, "so flat that anything would be near"
    assert np.array_equal(pricer.price(asked).price, tuned.price(asked).price)
    assert len(pricer.price([]).price) == 0


def test_eight_bits_change_its_prices_a_little(tuned, exported, listed):
    wanted = tuned.distribution(listed).mean
    found = OnnxLanguagePricer(exported["int8"]).distribution(listed).mean
    assert 0 < np.abs(found / wanted - 1).mean() < lm.INT8_TOLERANCE
    sizes = {name: (folder / MODEL).stat().st_size for name, folder in exported.items()}
    assert sizes["int8"] < 0.4 * sizes["fp32"]


def test_it_prices_without_pytorch(exported):
    code = (
        "import sys\nfrom pathlib import Path\nfrom shared.compression import OnnxLanguagePricer\n"
        "from shared.data import Product\n"
        "pricer = OnnxLanguagePricer(Path(sys.argv[1]))\n"
        "price = pricer.price([Product('a', 'Kettle', 'Steel kettle', '', '')]).price[0]\n"
        "print(price > 0, {'torch', 'transformers', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported["fp32"])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "True set()"


def test_a_folder_without_its_tokenizer_is_refused(exported, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (MODEL, MANIFEST):
        (folder / name).write_bytes((exported["int8"] / name).read_bytes())
    with pytest.raises(ExportError, match=r"tokenizer\.json: missing or changed"):
        OnnxLanguagePricer(folder)


def test_models_that_cannot_be_written_are_refused(tuned, tmp_path):
    whole = base_pricer(bits=16)
    whole.model.config.model_type = "qwen3"
    with pytest.raises(ValueError, match="qwen3: only models of Llama's kind"):
        export_language_model(whole, tmp_path / "a")
    whole.model.config.model_type = "llama"
    whole.model.peft_config = {}
    with pytest.raises(ValueError, match="adapter is not merged"):
        export_language_model(whole, tmp_path / "b")
    assert not list(tmp_path.iterdir())


# A classifier


@pytest.fixture(scope="module")
def categories(made):
    """Two that are easy to tell apart: the tests are about compression."""
    found = ("Automotive", "Musical Instruments")
    assert set(found) < set(categories_of(made.table("train")))
    return found


@pytest.fixture(scope="module")
def taught(made, categories):
    recipe = replace(TEACHER, layers=1, tokens=32, epochs=4)
    return teach_classifier(
        new_classifier(categories, recipe), *examples(made.table("train"), categories),
        progress=False,
    )  # fmt: skip


def test_it_learns_and_so_does_its_student(made, categories, taught):
    train, test = made.table("train"), made.table("test")
    assert taught.accuracy(test) > 0.8
    texts, labels = examples(train, categories)
    small = replace(STUDENT, tokens=32, epochs=8)
    student = new_classifier(categories, small)
    untaught = student.accuracy(test)
    # The teacher alone says what the texts are.
    teach_classifier(student, texts, np.full(len(labels), -1), teacher=taught, progress=False)
    assert student.accuracy(test) > max(0.7, untaught)


def test_the_same_seed_gives_the_same_classifier(made, categories):
    texts, labels = examples(made.table("train").slice(0, 200), categories)
    recipe = replace(STUDENT, tokens=16, epochs=1)
    one, two = (
        teach_classifier(new_classifier(categories, recipe), texts, labels, progress=False)
        for _ in range(2)
    )
    assert np.array_equal(one.logits(texts), two.logits(texts))


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", c.FP32_TOLERANCE), ("int8", c.INT8_TOLERANCE)]
)
def test_an_exported_classifier_says_the_same(made, taught, tmp_path, precision, tolerance):
    texts, labels = examples(made.table("test"), taught.categories)
    texts = [*texts, "", "long words " * 300]
    folder = export_classifier(taught, tmp_path / precision, precision)
    exported = ExportedClassifier(folder)
    logits = taught.logits(texts)
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = exported.probabilities(texts)
    assert found == pytest.approx(likely / likely.sum(axis=1, keepdims=True), abs=tolerance)
    right = [name == taught.categories[at] for name, at in
             zip(exported.classify(texts), labels, strict=False)]  # fmt: skip
    assert np.mean(right) > 0.8
    assert exported.probabilities([]).shape == (0, 2)


def test_neurons_are_taken_out_as_a_whole(made, taught, tmp_path):
    texts, _ = examples(made.table("test"), taught.categories)
    same = without_neurons(taught, 0.0)
    assert np.array_equal(same.logits(texts), taught.logits(texts))
    half = without_neurons(taught, 0.5)
    assert half.model.layers[0].linear1.out_features == taught.recipe.inner // 2
    assert 0 < np.abs(half.logits(texts) - taught.logits(texts)).mean() < 1
    whole, small = (
        export_classifier(one, tmp_path / name) for one, name in ((taught, "a"), (half, "b"))
    )
    assert size_of(small) < size_of(whole)
    assert ExportedClassifier(small).probabilities(texts).shape == (len(texts), 2)
    with pytest.raises(ValueError, match="share 1"):
        without_neurons(taught, 1.0)


def test_an_encoder_of_the_hub_can_teach(made, categories, tmp_path):
    """A folder in the hub's format, with a model of another kind and a tokenizer of its own."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from shared.pretraining.making import open_base

    _, tokenizer = open_base()
    config = DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=2,
                              hidden_dim=64, num_labels=5)  # fmt: skip
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "hub")
    tokenizer.save_pretrained(tmp_path / "hub")
    recipe = replace(TEACHER, tokens=16, epochs=1)
    teacher = hub_classifier(str(tmp_path / "hub"), categories, recipe)
    texts, labels = examples(made.table("train").slice(0, 200), categories)
    teach_classifier(teacher, texts, labels, progress=False)
    assert teacher.logits(texts).shape == (len(texts), 2)
    student = new_classifier(categories, replace(STUDENT, tokens=16, epochs=1))
    teach_classifier(student, texts, labels, teacher=teacher, progress=False)
    for refused in (export_classifier, lambda one, _: without_neurons(one, 0.5)):
        with pytest.raises(ValueError, match="distil this one"):
            refused(teacher, tmp_path / "out")
    with pytest.raises(BaseModelError, match="none: cannot be opened"):
        hub_classifier(str(tmp_path / "none"), categories)


def test_labels_that_make_no_sense_are_refused(made, categories, taught):
    with pytest.raises(ValueError, match="without a label need a teacher"):
        teach_classifier(taught, ["a"], np.array([-1]), progress=False)
    other = new_classifier(("Toys", "Tools"), STUDENT)
    with pytest.raises(ValueError, match="other categories"):
        teach_classifier(other, ["a"], np.array([0]), teacher=taught, progress=False)
    with pytest.raises(ValueError, match=r"none of .* items is of: Cars"):
        examples(made.table("test"), ("Cars",))


def test_the_unknown_category_is_none(made):
    everything = set(made.table("train")["category"].to_pylist())
    assert "Unknown" in everything
    assert set(categories_of(made.table("train"), 1)) == everything - {"Unknown"}


# Few labels, grown labels, all labels


def test_gold_is_ten_of_each_category(made, categories):
    train = made.table("train")
    gold = gold_of(train, categories, 10, seed=1)
    assert gold["category"].value_counts().to_pylist() == [
        {"values": name, "counts": 10} for name in categories
    ]
    assert len(set(gold["id"].to_pylist())) == 20
    assert gold_of(train, categories, 10, seed=2) != gold
    with pytest.raises(ValueError, match=r"Automotive: .* are needed"):
        gold_of(train, categories, 5_000)


def test_grown_items_have_the_category_that_was_asked_for(made, categories):
    gold, test = gold_of(made.table("train"), categories, 5, seed=1), made.table("test")
    with connect("gpt-6-luna", stand_in=True) as connection:
        found = grow(gold, connection, 10, test, progress=False)
    assert found.items.schema == ITEM
    assert found.asked == 20 == len(found.items) + sum(found.dropped.values())
    assert set(found.items["category"].to_pylist()) == set(categories)
    known = {*gold["title"].to_pylist(), *test["title"].to_pylist()}
    assert not known & set(found.items["title"].to_pylist())


def test_the_study_tests_on_real_items_and_says_who_wrote(made, categories):
    kept = pc.is_in(made.table()["category"], pa.array(categories))
    items = made.table().filter(kept)
    train, test = (items.filter(pc.equal(items["split"], name)) for name in ("train", "test"))
    recipe = replace(STUDENT, tokens=24, epochs=5)
    with connect("gpt-6-luna", stand_in=True) as connection:
        rows = study(train, test, connection, seeds=(1,), recipe=recipe, each=5, asked=8,
                     progress=False)  # fmt: skip
    assert [row.setting for row in rows] == ["5 gold each", "grown", "all labels"]
    assert [row.written_by for row in rows] == ["", "stand-in", ""]
    assert rows[0].examples == 10 < rows[1].examples <= 26 < rows[2].examples == len(train)
    assert all(row.low <= row.accuracy <= row.high for row in rows)
    assert rows[2].accuracy > 0.7


def test_a_share_has_an_interval():
    share, low, high = share_of(np.array([True] * 80 + [False] * 20))
    assert share == 0.8
    assert 0.68 < low < 0.76
    assert 0.84 < high < 0.9
    assert json.dumps([share, low, high])
