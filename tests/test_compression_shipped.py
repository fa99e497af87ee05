"""An ensemble in one folder, the recorded run, and every student that is shipped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from shared.compression import Opening, StudentPricer, measure, size_chart, to_markdown
from shared.compression.bundle import ENSEMBLE, MEMBERS, bundle, open_bundle
from shared.compression.exported import ExportError
from shared.compression.exporting import INT8_TOLERANCE
from shared.compression.recorded import (
    EXPECTED,
    SHIPPED,
    recorded,
    recorded_pruning,
    recorded_rows,
    shipped,
)
from shared.data import Product, products
from shared.ensembles import EnsemblePricer, fit_ensemble
from shared.evaluation import evaluate
from shared.pipeline import prepare as curated
from shared.pricers import make_pricer
from shared.pricers.saving import ModelError, save_pricer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An ensemble of two fitted pricers, the pricers, and the folder it was bundled in."""
    work = tmp_path_factory.mktemp("bundle")
    items = curated("embedded", work / "items", size=2000, progress=False)
    train, validation = items.table("train"), items.table("validation")
    pricers = [make_pricer(name).fit(train) for name in ("tfidf-ridge", "linear")]
    runs = [evaluate(one, validation, progress=False) for one in pricers]
    ensemble = fit_ensemble(runs, items=validation, least=0.1)
    members = {
        one.name: Opening("fitted", save_pricer(one, work / f"saved {n}"))
        for n, one in enumerate(pricers)
    }
    return ensemble, pricers, members, bundle(ensemble, members, work / "both"), validation


def test_a_bundled_ensemble_says_what_its_members_said(made):
    ensemble, pricers, _, folder, validation = made
    asked = products(validation.slice(0, 30))
    before = EnsemblePricer(ensemble, pricers, time_limit=None).price(asked)
    after = open_bundle(folder).price(asked)
    for name in ("price", "low", "high"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-6)


def test_a_bundle_is_measured_as_one_thing(made):
    _, _, members, folder, validation = made
    openings = [Opening("compression.bundle:open_bundle", folder), members["linear"]]
    teacher, one = measure(openings, validation.slice(0, 60), single=3, progress=False)
    assert teacher.name == "ensemble"
    assert one.smaller > 1, "a member alone is smaller than all of them"


def test_a_bundle_is_whole_or_refused(made, tmp_path):
    ensemble, _, members, folder, _ = made
    with pytest.raises(ValueError, match="no folder is given for linear"):
        bundle(ensemble, {"tfidf-ridge": members["tfidf-ridge"]}, tmp_path / "half")
    assert not (tmp_path / "half").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="no ensemble"):
        bundle(ensemble, members, tmp_path / "mine")
    with pytest.raises(ExportError, match="bundle it again"):
        open_bundle(tmp_path / "nowhere")
    copy = shutil.copytree(folder, tmp_path / "copy")
    kinds = json.loads((copy / MEMBERS).read_text())
    (copy / MEMBERS).write_text(json.dumps(kinds | {"x": {"kind": "fitted", "folder": "../.."}}))
    with pytest.raises(ExportError, match="outside of this folder"):
        open_bundle(copy)
    (copy / MEMBERS).write_text("[]")
    with pytest.raises(ExportError, match="no list of members"):
        open_bundle(copy)


def test_a_changed_member_or_weight_is_refused(made, tmp_path):
    folder = shutil.copytree(made[3], tmp_path / "copy")
    text = (folder / ENSEMBLE).read_text()
    (folder / ENSEMBLE).write_text(text.replace('"coverage": 0.9', '"coverage": 0.5'))
    with pytest.raises(ValueError, match="changed since it was saved"):
        open_bundle(folder)
    (folder / ENSEMBLE).write_text(text)
    part = next((folder / "member-1").glob("*.skops"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ModelError, match="missing or changed"):
        open_bundle(folder)


RELEASED = ("small", "smallest")


def test_nothing_else_is_released():
    assert sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) == sorted(RELEASED)
    with pytest.raises(ValueError, match="no shipped student 'large', only: small"):
        shipped("large")


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_student_prices_as_its_original_did(name):
    expected = json.loads((SHIPPED / EXPECTED).read_text(encoding="utf-8"))
    asked = [Product(**row) for row in expected["products"]]
    found = StudentPricer(shipped(name)).price(asked).price
    np.testing.assert_allclose(found, expected["prices"][name], rtol=INT8_TOLERANCE)
    assert np.median(np.abs(found / expected["prices"][name] - 1)) < INT8_TOLERANCE / 5


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_student_with_one_flipped_bit_is_refused(name, tmp_path):
    folder = shutil.copytree(shipped(name), tmp_path / name)
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="changed since the export"):
        StudentPricer(folder)


def test_a_released_student_is_opened_without_torch():
    code = (
        "import sys\n"
        "from shared.compression import StudentPricer\n"
        "from shared.compression.recorded import shipped\n"
        "StudentPricer(shipped())\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("teacher", ["tuned", "ensemble"])
def test_the_recorded_run_reaches_what_was_asked_for(teacher):
    """Ten times smaller and faster at 5 % more error, and one student at a hundred times."""
    first, *others = rows = recorded_rows(teacher)
    assert first.against is None
    assert all(row.against is not None for row in others)
    good = [r for r in others if r.smaller >= 10 and r.faster >= 10 and r.mae <= 1.05 * first.mae]
    assert good, "no student is ten times smaller and faster at 5 % more error"
    assert max(row.smaller for row in others) >= 100
    assert all(name in to_markdown(rows) for name in (first.name, good[0].name))
    assert good[0].name.split(",")[0] in size_chart(rows).alt


def test_the_recorded_run_says_of_what_it_is():
    run = recorded()
    assert {"date", "versions", "items", "adapter", "seconds", "tried"} <= set(run)
    pruning = recorded_pruning()
    assert {row.method for row in pruning} == {"none", "rows", "weights", "rank"}
    assert run["tested_on"] == recorded_rows("tuned")[1].against.n
