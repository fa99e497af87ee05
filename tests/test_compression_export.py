"""Exported students: the same prices without PyTorch, files that are checked, and pruning."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from shared.compression import PRESETS, StudentPricer, distil, export_student, sweep
from shared.compression.exported import (
    FACTS,
    MANIFEST,
    MODEL,
    ExportError,
    size_of,
    write_exported,
)
from shared.compression.exporting import (
    FP32_TOLERANCE,
    INT8_TOLERANCE,
    PRECISIONS,
    as_bytes,
    bag_graph,
)
from shared.compression.lessons import prepare
from shared.compression.measuring import Opening, bytes_of
from shared.compression.network import inputs_of, new_network, outputs_of
from shared.compression.pruning import (
    lightest_rows,
    lightest_weights,
    narrowed,
    uses,
    without_rows,
)
from shared.compression.student import Student
from shared.data import products
from shared.data.storage import file_hash
from shared.open_models.adapters import TUNED
from shared.pipeline import prepare as curated
from shared.pricers import make_pricer

PLAN = replace(PRESETS["smallest"], width=8, epochs=12, batch=64, true_shares=(0.5,))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return curated("embedded", tmp_path_factory.mktemp("items"), size=1_500, progress=False)


@pytest.fixture(scope="module")
def lesson(made):
    train = made.table("train")
    return prepare(make_pricer("tfidf-ridge").fit(train), train, progress=False)


@pytest.fixture(scope="module")
def student(made) -> Student:
    train = made.table("train")
    teacher = make_pricer("tfidf-ridge").fit(train)
    return distil(teacher, train, made.table("validation"), PLAN, progress=False)


@pytest.fixture(scope="module")
def listed(made):
    return products(made.table("test"))


@pytest.fixture(scope="module")
def inputs(student, lesson):
    return inputs_of(lesson.products, student.network.reading)


@pytest.fixture
def folder(student, tmp_path):
    return export_student(student, tmp_path / "student")


# The same prices


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", FP32_TOLERANCE), ("int8", INT8_TOLERANCE)]
)
def test_exported_prices_are_those_of_pytorch(student, listed, tmp_path, precision, tolerance):
    exported = StudentPricer(export_student(student, tmp_path / precision, precision))
    wanted, found = student.price(listed).price, exported.price(listed).price
    assert np.ptp(wanted) > 100
    assert found == pytest.approx(wanted, rel=tolerance)
    one_by_one = [exported.price([product]).price[0] for product in listed[:20]]
    assert one_by_one == pytest.approx(found[:20], rel=1e-5)
    assert len(exported.price([]).price) == 0
    assert exported.name == f"student of tfidf-ridge, {precision}"


def test_eight_bits_are_a_quarter_and_not_the_same_numbers(student, listed, tmp_path):
    sizes, prices = {}, {}
    for precision in PRECISIONS:
        folder = export_student(student, tmp_path / precision, precision)
        sizes[precision] = (folder / MODEL).stat().st_size
        prices[precision] = StudentPricer(folder).price(listed).price
    assert sizes["int8"] < 0.35 * sizes["fp32"]
    assert not np.array_equal(prices["int8"], prices["fp32"])
    with pytest.raises(ValueError, match="int4"):
        export_student(student, tmp_path / "int4", "int4")
    assert not (tmp_path / "int4").exists()


def test_the_presets_are_a_tenth_and_a_hundredth_of_the_tuned_model(tmp_path):
    tuned = bytes_of(Opening("tuned", TUNED))
    sizes = {}
    for name, plan in PRESETS.items():
        untaught = Student(new_network(plan), {"plan": "x" * 1_000}, name)
        sizes[name] = size_of(export_student(untaught, tmp_path / name))
    assert tuned / 20 < sizes["small"] < tuned / 10
    assert tuned / 200 < sizes["smallest"] < tuned / 100


def test_the_same_student_gives_the_same_bytes(student, tmp_path):
    one, two = (export_student(student, tmp_path / name) for name in "ab")
    for name in (MODEL, MANIFEST):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_opening_and_pricing_load_no_pytorch(folder):
    """Incident: a student of 40 kB needed 600 MB of memory, for a library it did not use."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom shared.compression import StudentPricer\n"
        "from shared.data import Product\n"
        "pricer = StudentPricer(Path(sys.argv[1]))\n"
        "price = pricer.price([Product('a', 'Kettle', 'Steel kettle', '', '')]).price[0]\n"
        "print(price > 0, {'torch', 'transformers', 'onnx', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "True set()"


# Files that are checked


def test_the_manifest_vouches_for_all_files_and_nothing_is_pickled(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["sha256"] == {MODEL: file_hash(folder / MODEL)}
    assert {path.name for path in folder.iterdir()} == {MODEL, MANIFEST}
    assert manifest["settings"]["teacher"]["name"] == "tfidf-ridge"
    assert size_of(folder) == sum(path.stat().st_size for path in folder.iterdir())
    for path in folder.iterdir():
        with pytest.raises(Exception):  # noqa: B017, PT011  any: it must not load
            pickle.loads(path.read_bytes())


def changed(folder, signed=True, **facts) -> None:
    path = folder / MANIFEST
    found = json.loads(path.read_text()) | facts
    if signed:
        own = ("versions", "sha256", FACTS)
        said = json.dumps({k: v for k, v in found.items() if k not in own}, sort_keys=True)
        found[FACTS] = hashlib.sha256(said.encode()).hexdigest()
    path.write_text(json.dumps(found))


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / MANIFEST).unlink(), "holds no manifest.json"),
        (lambda f: (f / MANIFEST).write_text("{"), "manifest.json: damaged"),
        (lambda f: (f / MANIFEST).write_text("[1]"), "manifest.json: damaged"),
        (lambda f: (f / MODEL).unlink(), "model.onnx: missing or changed"),
        (lambda f: flip(f / MODEL), "model.onnx: missing or changed"),
        (lambda f: changed(f, kind="classifier"), "holds a classifier, and a student is needed"),
        (lambda f: changed(f, signed=False, reading={"buckets": 8}), "changed since the export"),
        (lambda f: changed(f, reading={"buckets": 3}), "manifest.json: damaged"),
        (lambda f: changed(f, reading={"characters": 600.5}), "manifest.json: damaged"),
        (lambda f: changed(f, reading={"words": 3}), "manifest.json: damaged"),
        (lambda f: changed(f, sha256={}), "manifest.json: damaged"),
        (lambda f: changed(f, sha256={"../secret": "0"}), "outside of this folder"),
    ],
)
def test_a_damaged_folder_says_what_to_do(folder, damage, message):
    damage(folder)
    with pytest.raises(ExportError, match=message):
        StudentPricer(folder)


def test_what_is_no_model_is_refused_although_its_hash_fits(folder):
    (folder / MODEL).write_bytes(b"no model")
    changed(folder, sha256={MODEL: file_hash(folder / MODEL)})
    with pytest.raises(ExportError, match=r"model\.onnx: ONNX Runtime refuses it"):
        StudentPricer(folder)


def test_an_export_replaces_an_export_and_nothing_else(student, folder, tmp_path):
    export_student(student, folder, "fp32")
    assert StudentPricer(folder).name.endswith("fp32")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no exported model"):
        export_student(student, tmp_path / "thesis")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student", "thesis"]


def test_a_failed_export_leaves_the_old_one(student, folder, monkeypatch):
    before = (folder / MODEL).read_bytes()

    def cut_off(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("shared.compression.exported.write_json", cut_off)
    with pytest.raises(OSError, match="no space"):
        write_exported(folder, {MODEL: b"half"}, {"kind": "student"})
    assert (folder / MODEL).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# Pruning


def test_rows_that_no_text_uses_change_nothing(student, inputs):
    used = uses(student.network, inputs)
    assert used[-1] == 0
    assert used.sum() == (inputs[0] < student.network.reading.buckets).sum()
    pruned = lightest_rows(student.network, inputs, 0.0)
    assert len(pruned.table.weight) - 1 == np.count_nonzero(used) < len(used) - 1
    assert np.array_equal(outputs_of(pruned, inputs), outputs_of(student.network, inputs))


def test_the_rows_that_weigh_least_go_first(student, inputs):
    wanted = outputs_of(student.network, inputs)[:, 0]
    used = uses(student.network, inputs)
    weigh = student.network.table.weight.detach().norm(dim=1).numpy() * np.sqrt(used)
    heaviest = without_rows(student.network, weigh <= np.median(weigh[used > 0]))
    lightest = lightest_rows(student.network, inputs, 0.5)
    off = [
        np.abs(outputs_of(pruned, inputs)[:, 0] - wanted).mean() for pruned in (lightest, heaviest)
    ]
    assert 0 < off[0] < 0.3 * off[1]


def test_pruned_students_can_be_exported_and_are_smaller(student, inputs, listed, tmp_path):
    pruned = Student(lightest_rows(student.network, inputs, 0.7), student.settings, "pruned")
    whole, small = (
        export_student(one, tmp_path / name) for one, name in ((student, "a"), (pruned, "b"))
    )
    assert size_of(small) < 0.75 * size_of(whole)
    found = StudentPricer(small).price(listed).price
    assert found == pytest.approx(pruned.price(listed).price, rel=INT8_TOLERANCE)


def test_zeros_take_as_many_bytes_as_other_numbers(student):
    zeroed = lightest_weights(student.network, 0.9)
    sizes = [len(as_bytes(bag_graph(n), "int8")) for n in (student.network, zeroed)]
    assert sizes[0] == sizes[1]
    share = (zeroed.table.weight[:-1] == 0).float().mean().item()
    assert share == pytest.approx(0.9, abs=0.01)
    assert student.network.table.weight[:-1].count_nonzero() > 0.9 * zeroed.table.weight.numel()


def test_a_narrower_table_says_nearly_the_same(student, inputs):
    wanted = outputs_of(student.network, inputs)
    same = outputs_of(narrowed(student.network, inputs, PLAN.width), inputs)
    assert same == pytest.approx(wanted, abs=1e-4)
    off = [
        np.abs(outputs_of(narrowed(student.network, inputs, rank), inputs) - wanted).mean()
        for rank in (1, 2, 4)
    ]
    assert off == sorted(off, reverse=True)
    assert narrowed(student.network, inputs, 2).table.weight.shape[1] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda n, i: lightest_rows(n, i, 1.0), "share 1.0"),
        (lambda n, i: lightest_weights(n, -0.1), "share -0.1"),
        (lambda n, i: narrowed(n, i, 0), "rank 0"),
        (lambda n, i: narrowed(n, i, 99), "rank 99"),
    ],
)
def test_pruning_that_makes_no_sense_is_refused(student, inputs, wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(student.network, inputs)


def test_the_sweep_says_what_each_way_costs(student, lesson, made):
    few = {"row_shares": (0.0, 0.9), "weight_shares": (0.9,), "ranks": (2,), "progress": False}
    rows = [row for row, _ in sweep(student, lesson, made.table("validation"), **few)]
    assert [row.method for row in rows] == ["none", "rows", "rows", "weights", "rank"]
    assert rows[0].dollars == student.settings["validation_dollars"]
    assert rows[2].bytes < rows[1].bytes
    assert rows[3].bytes == rows[0].bytes
    assert rows[2].dollars > rows[1].dollars
    again = replace(PLAN, epochs=2, rate=3e-3)
    taught = sweep(student, lesson, made.table("validation"), again, **few)
    assert [row.retrained for row, _ in taught] == [False, True, True, False, True]
    assert taught[2][0].dollars < rows[2].dollars, "learning on after pruning has to help"
    prices = made.table("validation")["price"].to_numpy()
    pruned = Student(taught[2][1], {}, "pruned").price(products(made.table("validation"))).price
    assert np.abs(pruned - prices).mean() == pytest.approx(taught[2][0].dollars, abs=0.01)
