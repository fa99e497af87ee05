"""Hostile folders, files and inputs: nothing is lost, nothing is run, nothing is silently wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest

from shared.compression import StudentPricer, distil, export_student
from shared.compression.bundle import MEMBERS, open_bundle
from shared.compression.exported import MANIFEST, MODEL, ExportError, session
from shared.compression.features import Reading, hashed
from shared.compression.network import Plan, new_network
from shared.compression.recorded import shipped
from shared.compression.student import Student
from shared.data import ITEM, Product
from shared.data.storage import replacing_folder
from shared.reports.likeness import LONGEST, short

TINY = Student(new_network(Plan(Reading(buckets=4), width=2, hidden=2)), {}, "s")


def test_an_export_does_not_replace_another_kind_of_folder_with_a_manifest(tmp_path):
    """Tuned models, indexes and curated items have a manifest.json, too."""
    (tmp_path / MANIFEST).write_text('{"sha256": {"adapter_model.safetensors": "0"}}')
    (tmp_path / "adapter_model.safetensors").write_text("hours of training")
    with pytest.raises(FileExistsError, match="no exported model"):
        export_student(TINY, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_text() == "hours of training"


def written(folder, text):
    with replacing_folder(folder, "mark", "thing") as building:
        for name in ("mark", "model"):
            (building / name).write_text(text)


def said_in(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_stop_while_the_old_folder_is_removed_leaves_the_new_one(tmp_path, monkeypatch):
    """Incident: the old one was half gone, and the new one was removed with the rest."""
    written(tmp_path / "made", "old")

    def half(path, **_):
        if path.exists():
            next(iter(path.iterdir())).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("shared.data.storage.shutil.rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "made", "new")
    assert said_in(tmp_path / "made") == {"mark": "new", "model": "new"}


def test_a_stop_between_the_two_renames_brings_the_old_folder_back(tmp_path, monkeypatch):
    written(tmp_path / "made", "old")
    rename = Path.rename

    def interrupted(path, target):
        if target.name == "made" and not path.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "made", "new")
    assert said_in(tmp_path / "made") == {"mark": "old", "model": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_link_and_the_current_folder_can_be_replaced(tmp_path, monkeypatch):
    real = tmp_path / "real"
    export_student(TINY, real, "fp32")
    (tmp_path / "link").symlink_to(real)
    export_student(TINY, tmp_path / "link", "int8")
    assert StudentPricer(real).name.endswith("int8")
    monkeypatch.chdir(real)
    export_student(TINY, ".", "fp32")
    assert StudentPricer(real).name.endswith("fp32")


def test_a_model_reads_no_file_of_the_current_folder(tmp_path, monkeypatch):
    model = onnx.load(shipped("smallest") / MODEL)
    onnx.save(
        model,
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="elsewhere",
        size_threshold=0,
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="refuses"):
        session((tmp_path / "split.onnx").read_bytes(), tmp_path)


@pytest.mark.parametrize("place", ["..", "", "../x"])
def test_a_bundle_opens_nothing_outside_of_it(tmp_path, place):
    (tmp_path / MEMBERS).write_text(json.dumps({"a": {"kind": "student", "folder": place}}))
    with pytest.raises(ExportError, match="outside of this folder"):
        open_bundle(tmp_path)


def test_a_bundle_calls_only_what_opens_pricers(tmp_path):
    says = {"a": {"kind": "compression.bundle:open_bundle", "folder": "member-1"}}
    (tmp_path / MEMBERS).write_text(json.dumps(says))
    with pytest.raises(ExportError, match="is not one of: student"):
        open_bundle(tmp_path)


def test_no_more_of_a_title_is_read_than_of_a_text():
    reading = Reading(characters=20)
    long, brief = (Product("1", "word " * n, "text", "Home", "{}") for n in (50_000, 4))
    assert np.array_equal(hashed([long], reading)[0], hashed([brief], reading)[0])


@pytest.mark.parametrize("price", [float("nan"), None, 0.0])
def test_a_student_is_judged_by_known_prices_only(price):
    row = {name: "a" for name in ITEM.names} | {"price": price}
    items = pa.Table.from_pylist([row], schema=ITEM)
    with pytest.raises(ValueError, match="1 of 1 items to judge by have no price over 0"):
        distil(None, items, items, progress=False)
    with pytest.raises(ValueError, match="no items to judge by"):
        distil(None, items, items.slice(0, 0), progress=False)
    with pytest.raises(ValueError, match="is not one of: small, smallest"):
        distil(None, items, items, "tiny", progress=False)


@pytest.mark.parametrize("name", ["長い" * 40, "a" * 61])
def test_a_long_name_without_spaces_is_cut_and_not_dropped(name):
    assert short(name) == f"{name[: LONGEST - 2]} …"
