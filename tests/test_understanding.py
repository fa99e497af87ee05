"""Classifiers: encoders that read, learn and teach, students of another kind, and their exports."""

from __future__ import annotations

import io
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.compression.exported import MANIFEST, MODEL, ExportError, size_of, write_exported
from shared.compression.features import Reading
from shared.compression.network import Plan
from shared.data.storage import write_json
from shared.pipeline import prepare as curated
from shared.pretraining.making import BaseModelError
from shared.understanding import (
    NARROW,
    TEACHER,
    BagOfWords,
    ExportedClassifier,
    ExportedHashed,
    categories_of,
    examples,
    export_classifier,
    hub_classifier,
    new_classifier,
    new_hashed,
    open_classifier,
    pretrain,
    save_classifier,
    teach_classifier,
    teach_hashed,
    without_neurons,
)
from shared.understanding.classifying import padded, tokens_of
from shared.understanding.contrastive import Pairs
from shared.understanding.exported import WORDS, as_products
from shared.understanding.exporting import FP32_TOLERANCE, INT8_TOLERANCE, WEIGHTS
from shared.understanding.labels import likely, with_unlabelled

ODD = ["", "x", "Café – 1½ l\n", "long words " * 300]
PLAN = Plan(Reading(buckets=2**12), width=8, hidden=16, epochs=30, batch=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return curated("embedded", tmp_path_factory.mktemp("items"), size=3_000, progress=False)


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


@pytest.fixture(scope="module")
def asked(made, categories):
    return [*examples(made.table("test"), categories)[0], *ODD]


def test_it_learns_and_so_does_its_student(made, categories, taught):
    train, test = made.table("train"), made.table("test")
    assert taught.accuracy(test) > 0.8
    texts, labels = examples(train, categories)
    student = new_classifier(categories, replace(NARROW, tokens=32, epochs=8))
    untaught = student.accuracy(test)
    # The teacher alone says what the texts are.
    teach_classifier(student, texts, np.full(len(labels), -1), teacher=taught, progress=False)
    assert student.accuracy(test) > max(0.7, untaught)


def test_the_same_seed_gives_the_same_classifier(made, categories):
    texts, labels = examples(made.table("train").slice(0, 200), categories)
    recipe, pairs = replace(NARROW, tokens=16, epochs=1), Pairs(steps=3, batch=8)
    one, two = (
        teach_classifier(
            pretrain(new_classifier(categories, recipe), texts, pairs, progress=False),
            texts, labels, progress=False,
        )
        for _ in range(2)
    )  # fmt: skip
    assert np.array_equal(one.logits(texts), two.logits(texts))


def test_an_encoder_at_first_is_the_mean_of_its_words(categories):
    """Incident: random layers hid what the base knew of words, and few labels taught nothing."""
    model = new_classifier(categories, replace(TEACHER, tokens=16)).model.eval()
    model.places.weight.data.zero_()
    ids = torch.tensor([[5, 6, 7, 0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    with torch.no_grad():
        mean = model.norm(model.words(ids[:, :3])).mean(dim=1)
        assert torch.allclose(model.pooled(ids, mask), mean, atol=1e-5)
    # As wide as the base: the words of the base, which is no pattern of chance.
    other = new_classifier(categories, replace(TEACHER, tokens=16, seed=1)).model
    assert torch.equal(other.words.weight, model.words.weight)


# Reading without labels


def test_reading_tells_which_description_belongs_to_a_title(made, categories):
    texts = made.table("train")["text"].to_pylist()[:40]
    new = new_classifier(categories, replace(NARROW, tokens=24))
    pairs = Pairs(steps=60, batch=40, rate=5e-3, temperature=0.1, dropped=0.0)
    read = pretrain(deepcopy(new), texts, pairs, progress=False)

    def found(one) -> float:
        sides = []
        for part in (0, 2):
            rows = tokens_of(one.tokenizer, [t.partition("\n")[part] for t in texts], 24)
            with torch.no_grad():
                value = one.model.pooled(**padded(rows, one.tokenizer.pad_token_id))
            sides.append(torch.nn.functional.normalize(value, dim=1))
        return float(((sides[0] @ sides[1].T).argmax(dim=1) == torch.arange(len(texts))).float()
                     .mean())  # fmt: skip

    assert found(read) > max(2 * found(new), 0.35)
    assert (read.model.out.weight - new.model.out.weight).abs().max() < 0.01


def test_texts_of_one_line_cannot_be_read_in_pairs(categories):
    with pytest.raises(ValueError, match="1 of 3 texts have a title and a description"):
        pretrain(new_classifier(categories, NARROW), ["a", "b\nc", "d"], progress=False)


# Exported, saved, opened


@pytest.fixture(scope="module")
def hashed(made, categories, taught):
    texts, labels = examples(made.table("train"), categories)
    labels[::2] = -1  # of these the teacher alone says what they are
    return teach_hashed(new_hashed(categories, PLAN), texts, labels, teacher=taught, progress=False)


@pytest.mark.parametrize(("precision", "tolerance"),
                         [("fp32", FP32_TOLERANCE), ("int8", INT8_TOLERANCE)])  # fmt: skip
@pytest.mark.parametrize("kind", ["taught", "hashed"])
def test_an_exported_classifier_says_the_same(
    made, asked, request, tmp_path, kind, precision, tolerance
):
    original = request.getfixturevalue(kind)
    exported = open_classifier(export_classifier(original, tmp_path / kind, precision))
    assert isinstance(exported, ExportedClassifier if kind == "taught" else ExportedHashed)
    wanted, found = original.probabilities(asked), exported.probabilities(asked)
    assert found == pytest.approx(wanted, abs=tolerance)
    assert np.abs(found - wanted).mean() < tolerance / 5
    assert np.ptp(wanted) > 0.5, "so even that anything would be near"
    assert exported.accuracy(made.table("test")) == pytest.approx(
        original.accuracy(made.table("test")), abs=0.03
    )
    assert exported.name.endswith(f", {precision}")
    assert exported.probabilities([]).shape == (0, 2)
    assert exported.classify([]) == []


def test_an_encoder_is_saved_and_opened_as_it_is(taught, asked, tmp_path):
    for one in (taught, without_neurons(taught, 0.5)):
        found = open_classifier(save_classifier(one, tmp_path / "encoder"))
        assert np.array_equal(found.logits(asked), one.logits(asked))
        assert (found.categories, found.recipe, found.name) == (
            one.categories, one.recipe, one.name,
        )  # fmt: skip


def test_words_are_saved_without_pickle(made, categories, asked, tmp_path):
    train, test = made.table("train"), made.table("test")
    words = BagOfWords.fit(*examples(train, categories), categories)
    assert words.accuracy(test) > 0.8
    folder = words.save(tmp_path / "words")
    assert np.array_equal(open_classifier(folder).logits(asked), words.logits(asked))
    assert words.probabilities(asked).sum(axis=1) == pytest.approx(1)
    assert words.probabilities([]).shape == (0, 2)
    texts, labels = examples(train, categories)
    with pytest.raises(ValueError, match="no text is of Musical Instruments"):
        BagOfWords.fit([t for t, n in zip(texts, labels, strict=True) if n == 0],
                       labels[labels == 0], categories)  # fmt: skip


def test_an_array_of_objects_is_refused(tmp_path):
    """Incident: a model file that somebody sent ran a command when it was opened."""
    ran = tmp_path / "ran"

    class Command:
        def __reduce__(self):
            return Path.touch, (ran,)

    content = io.BytesIO()
    np.save(content, np.array([[Command()]], dtype=object), allow_pickle=True)
    facts = {"kind": WORDS, "name": "x", "categories": ["a", "b"]}
    files = {"words.json": b"[]", "weights.npy": content.getvalue()}
    folder = write_exported(tmp_path / "words", files, facts)
    with pytest.raises(ExportError, match="Object arrays cannot be loaded"):
        open_classifier(folder)
    assert not ran.exists()


def test_words_are_weighed_as_scikit_learn_does(made):
    """Of two categories it keeps the weights of one alone."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train = made.table("train").slice(0, 300)
    for names in (categories_of(train)[:2], categories_of(train)[:3]):
        texts, labels = examples(train, names)
        theirs = make_pipeline(CountVectorizer(binary=True), LogisticRegression(max_iter=1_000))
        wanted = theirs.fit(texts, labels).predict_proba(texts)
        found = BagOfWords.fit(texts, labels, names).probabilities(texts)
        assert found == pytest.approx(wanted, abs=1e-3)


def test_damaged_folders_are_refused(taught, hashed, tmp_path):
    folders = {
        WEIGHTS: save_classifier(taught, tmp_path / "a"),
        MODEL: export_classifier(hashed, tmp_path / "b"),
    }
    for name, folder in folders.items():
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))
        with pytest.raises(ExportError, match=f"{name}: missing or changed"):
            open_classifier(folder)
    write_json({"kind": "student", "sha256": {}}, tmp_path / "c" / MANIFEST)
    with pytest.raises(ExportError, match="holds a student, and a classifier or hashed"):
        open_classifier(tmp_path / "c")
    write_json({"kind": "classifier", "sha256": {}}, tmp_path / "c" / MANIFEST)
    with pytest.raises(ExportError, match="changed since the export"):
        open_classifier(tmp_path / "c")


def test_exported_classifiers_need_no_pytorch(taught, hashed, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom shared.understanding import open_classifier\n"
        "for folder in sys.argv[1:]:\n"
        "    print(open_classifier(Path(folder)).classify(['Guitar strings']))\n"
        "print({'torch', 'transformers', 'onnx', 'sklearn'} & set(sys.modules))"
    )
    folders = [str(export_classifier(one, tmp_path / name)) for one, name in
               ((taught, "a"), (hashed, "b"))]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['Musical Instruments']"] * 2 + ["set()"]


# Distilled into hashed n-grams, pruned


def test_a_hashed_student_learns_from_its_teacher_alone(made, taught, hashed, categories, asked):
    test = made.table("test")
    assert hashed.accuracy(test) > taught.accuracy(test) - 0.1
    texts, labels = examples(made.table("train"), categories)
    nobody = np.full(len(labels), -1)
    alone = new_hashed(categories, PLAN)
    assert np.ptp(alone.probabilities(asked)) == 0
    assert teach_hashed(alone, texts, nobody, teacher=taught, progress=False) is alone
    agree = alone.logits(asked).argmax(axis=1) == taught.logits(asked).argmax(axis=1)
    assert agree.mean() > 0.7
    again = teach_hashed(new_hashed(categories, PLAN), texts, nobody, teacher=taught,
                         progress=False)  # fmt: skip
    assert np.array_equal(again.logits(asked), alone.logits(asked))
    with pytest.raises(ValueError, match="3 texts to learn from: at least 10"):
        teach_hashed(alone, ["a", "b", "c"], np.full(3, -1), teacher=taught)


def test_labels_alone_teach_a_hashed_student(made, categories):
    texts, labels = examples(made.table("train"), categories)
    found = teach_hashed(new_hashed(categories, PLAN), texts, labels, progress=False)
    assert found.accuracy(made.table("test")) > 0.8
    with pytest.raises(ValueError, match="without a label need a teacher"):
        teach_hashed(found, texts, np.full(len(labels), -1))


def test_a_student_never_reads_the_category(hashed):
    """Incident: n-grams of a product begin with its category, which is the answer here."""
    (product,) = as_products(["Steel kettle\nBrand: Vela"])
    assert product.category == ""
    assert product.title == "Steel kettle"
    assert product.text == "Steel kettle\nBrand: Vela"


def test_neurons_are_taken_out_as_a_whole(taught, asked, tmp_path):
    same = without_neurons(taught, 0.0)
    assert np.array_equal(same.logits(asked), taught.logits(asked))
    half = without_neurons(taught, 0.5)
    assert half.model.layers[0].linear1.out_features == taught.recipe.inner // 2
    assert half.recipe.inner == taught.recipe.inner // 2
    assert half.name == "pruned encoder"
    assert 0 < np.abs(half.logits(asked) - taught.logits(asked)).mean() < 1
    whole, small = (
        export_classifier(one, tmp_path / name) for one, name in ((taught, "a"), (half, "b"))
    )
    assert size_of(small) < size_of(whole)
    assert open_classifier(small).probabilities(asked).shape == (len(asked), 2)
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
    for student in (
        teach_classifier(new_classifier(categories, replace(NARROW, tokens=16, epochs=1)), texts,
                         labels, teacher=teacher, progress=False),
        teach_hashed(new_hashed(categories, PLAN), texts, labels, teacher=teacher, progress=False),
    ):  # fmt: skip
        assert open_classifier(export_classifier(student, tmp_path / "out")).classify(["Guitar"])
    for refused in (
        lambda: export_classifier(teacher, tmp_path / "none"),
        lambda: save_classifier(teacher, tmp_path / "none"),
        lambda: without_neurons(teacher, 0.5),
        lambda: pretrain(teacher, texts),
    ):
        with pytest.raises(ValueError, match="distil this one"):
            refused()
    with pytest.raises(BaseModelError, match="none: cannot be opened"):
        hub_classifier(str(tmp_path / "none"), categories)


def test_labels_that_make_no_sense_are_refused(made, categories, taught):
    with pytest.raises(ValueError, match="without a label need a teacher"):
        teach_classifier(taught, ["a"], np.array([-1]), progress=False)
    other = new_classifier(("Toys", "Tools"), NARROW)
    with pytest.raises(ValueError, match="other categories"):
        teach_classifier(other, ["a"], np.array([0]), teacher=taught, progress=False)
    with pytest.raises(ValueError, match=r"none of .* items is of: Cars"):
        examples(made.table("test"), ("Cars",))


def test_the_unknown_category_is_none(made, categories):
    train = made.table("train")
    everything = set(train["category"].to_pylist())
    assert "Unknown" in everything
    assert set(categories_of(train, 1)) == everything - {"Unknown"}
    texts, labels = with_unlabelled(train, categories)
    assert len(texts) == len(train)
    assert {categories[at] for at in labels[labels >= 0]} == set(categories)
    assert (labels < 0).sum() == len(train) - len(examples(train, categories)[0])


def test_outputs_become_probabilities():
    found = likely(np.array([[0.0, np.log(3.0)], [1_000.0, 0.0]]))
    assert found == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0]]))
