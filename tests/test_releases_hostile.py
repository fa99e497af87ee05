"""Hostile folders, kills, full disks, two at once: the registry stays usable, and says what is."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from shared.compression.exported import MODEL as ONNX
from shared.compression.recorded import shipped
from shared.data.storage import write_parquet
from shared.releases import Registry, ReleaseError
from shared.releases.history import read_lines
from shared.releases.release import DIGEST, write_record
from tests.test_releases import ITEMS

PATIENCE = 120
"""Seconds, only against hanging."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A registry with v1 and v2, v2 current, to be copied; and the items as files."""
    folder = tmp_path_factory.mktemp("made")
    registry = Registry(folder / "registry")
    for name in ("smallest", "small"):
        version = registry.add("student", shipped(name), items=ITEMS).version
        registry.promote(version, "made")
    for split, table in ITEMS.items():
        write_parquet(table, folder / f"{split}.parquet")
    return folder


@pytest.fixture
def registry(made, tmp_path):
    shutil.copytree(made / "registry", tmp_path / "registry")
    return Registry(tmp_path / "registry")


def python(code: str, *arguments: object) -> subprocess.Popen:
    """Start a process; ``code`` finds ``registry`` and, as ``items()``, the items."""
    head = """
    import sys, pyarrow.parquet as pq
    from shared.compression.recorded import shipped
    from shared.releases import Registry, ReleaseError
    registry, made = Registry(sys.argv[1]), sys.argv[2]
    def items():
        return {s: pq.read_table(f"{made}/{s}.parquet") for s in ("validation", "test")}
    """
    text = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def killed_when_it_says(process: subprocess.Popen, word: str) -> None:
    assert process.stdout.readline().strip() == word, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("content", [{"mine.txt": "a"}, {"v1/release.json": "{}"}])
def test_a_folder_of_something_else_is_left_alone(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ReleaseError, match="no registry"):
        Registry(tmp_path)
    with pytest.raises(ReleaseError, match="is a file"):
        Registry(tmp_path / next(iter(content)))


@pytest.mark.parametrize("mark", ["", "[]", '{"format": 99}', "null"])
def test_a_registry_of_another_format_is_refused(registry, mark):
    (registry.folder / "registry.json").write_text(mark)
    with pytest.raises(ReleaseError, match=r"registry\.json"):
        Registry(registry.folder)


@pytest.mark.parametrize(
    "name", ["../x", "", ".", "v0", "v01", "v1/", "V1", "v1\n", "v1/../v2", "\0", "v" + "9" * 99, 1]
)
def test_names_outside_of_the_folder_are_refused(registry, name):
    with pytest.raises(ReleaseError, match="no name of a version"):
        registry.release(name)
    with pytest.raises(ReleaseError, match="no name of a version"):
        registry.promote(name, "why not")


def test_links_are_refused_on_the_way_in_and_on_the_way_out(registry, tmp_path):
    """A link would let a file outside be read, or a model be changed without its registry."""
    linked = tmp_path / "linked"
    linked.symlink_to(shipped("small"))
    with pytest.raises(ReleaseError, match="is a link"):
        registry.add("student", linked, items=ITEMS)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "manifest.json").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match=r"manifest\.json: is a link"):
        registry.add("student", inside, items=ITEMS)
    (registry.folder / "v9").symlink_to(registry.folder / "v1")
    with pytest.raises(ReleaseError, match="is a link"):
        registry.release("v9")
    model = registry.folder / "v1" / "model"
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match="link"):
        registry.release("v1")


def test_a_pipe_in_a_model_does_not_hang(registry, tmp_path):
    shutil.copytree(shipped("small"), tmp_path / "model")
    os.mkfifo(tmp_path / "model" / "pipe")
    with pytest.raises(ReleaseError, match="no plain file"):
        registry.add("student", tmp_path / "model", items=ITEMS)


def test_a_folder_around_the_registry_is_not_copied_into_it(registry):
    with pytest.raises(ReleaseError, match="contains the registry"):
        registry.add("student", registry.folder.parent, items=ITEMS)


@pytest.mark.parametrize(
    "kind", ["os:system", "compression.bundle:open_bundle", "", None, "pickle"]
)
def test_kinds_are_a_closed_list(registry, kind):
    with pytest.raises(ReleaseError, match="is not one of: student"):
        registry.add(kind, shipped("small"), items=ITEMS)


def test_a_record_cannot_choose_code_either(registry):
    path = registry.folder / "v1" / "release.json"
    record = json.loads(path.read_text())
    del record[DIGEST]
    write_record(record | {"kind": "compression.bundle:open_bundle"}, path)
    with pytest.raises(ReleaseError, match="is not one of"):
        registry.release("v1")


def damage(registry: Registry, how: str) -> None:
    folder = registry.folder / "v1"
    onnx = folder / "model" / ONNX
    match how:
        case "a byte":
            content = bytearray(onnx.read_bytes())
            content[len(content) // 2] ^= 1
            onnx.write_bytes(content)
        case "a file missing":
            onnx.unlink()
        case "a file more":
            (folder / "model" / "evil.py").write_text("print()")
        case "no model":
            shutil.rmtree(folder / "model")
        case "a metric":
            text = (folder / "release.json").read_text()
            (folder / "release.json").write_text(text.replace('"coverage": 0.9', '"coverage": 1'))
        case "half a record":
            text = (folder / "release.json").read_text()
            (folder / "release.json").write_text(text[: len(text) // 2])
        case "another version's record":
            shutil.copy(registry.folder / "v2" / "release.json", folder / "release.json")


@pytest.mark.parametrize(
    "how", ["a byte", "a file missing", "a file more", "no model", "a metric", "half a record",
            "another version's record"],
)  # fmt: skip
def test_what_was_tampered_with_is_neither_opened_nor_promoted(registry, how):
    damage(registry, how)
    for attempt in (lambda: registry.release("v1").open(), lambda: registry.promote("v1", "x"),
                    lambda: registry.rollback("x")):  # fmt: skip
        with pytest.raises(ReleaseError):
            attempt()
    assert registry.current().open().version == "v2"
    assert "v2" in [release.version for release in registry.versions()]


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"null", b"\xff", b'{"digest": "x"}', b"[" * 100_000, b'{"kind": NaN}']
)
def test_a_damaged_record_is_told_and_hides_no_other_version(registry, record):
    (registry.folder / "v1" / "release.json").write_bytes(record)
    assert [release.version for release in registry.versions()] == ["v2"]
    assert list(registry.damaged()) == ["v1"]
    with pytest.raises(ReleaseError, match=r"release\.json"):
        registry.release("v1")


@pytest.mark.parametrize("change", [{"factor": 0.5}, {"factor": "2"}, {"factor": None},
                                    {"metrics": []}, {"more": 1}])  # fmt: skip
def test_a_record_that_makes_no_sense_is_refused(registry, change):
    path = registry.folder / "v1" / "release.json"
    record = json.loads(path.read_text())
    del record[DIGEST]
    write_record(record | change, path)
    with pytest.raises(ReleaseError):
        registry.release("v1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 3}', '{"version": "../x"}', "null"])
def test_a_damaged_pointer_is_told_and_can_be_set_again(registry, text):
    path = registry.folder / "current.json"
    path.write_text(text)
    with pytest.raises(ReleaseError, match=r"current\.json: damaged"):
        registry.current()
    path.unlink()
    registry.promote("v1", "the pointer was damaged")
    assert registry.current().version == "v1"
    assert [e["why"] for e in registry.history()].count("the pointer was damaged") == 1


def test_a_pointer_to_nowhere_is_told(registry):
    shutil.rmtree(registry.folder / "v2")
    with pytest.raises(ReleaseError, match="there is no v2"):
        registry.current()
    assert registry.rollback("v2 was deleted").version == "v1"


def test_half_a_line_in_the_history_is_read_over(registry):
    with (registry.folder / "history.jsonl").open("ab") as file:
        file.write(b'{"what": "promo')
    before = len(registry.history())
    registry.promote("v1", "after the kill")
    assert [e["why"] for e in registry.history()][before:] == ["after the kill"]


def test_a_clock_that_is_set_back_changes_no_order(registry, monkeypatch):
    monkeypatch.setattr("shared.releases.history.now", lambda: "1970-01-01T00:00:00+00:00")
    monkeypatch.setattr("shared.releases.registry.now", lambda: "1970-01-01T00:00:00+00:00")
    assert registry.add("student", shipped("small"), items=ITEMS).version == "v3"
    registry.promote("v3", "in 1970")
    assert registry.history()[-1]["why"] == "in 1970"
    assert registry.rollback("back").version == "v2"


def test_a_number_that_is_none_stops_a_promotion_before_it_happens(registry):
    with pytest.raises(ValueError, match="JSON"):
        registry.promote("v1", "x", error=float("nan"))
    assert registry.current_version == "v2"


def test_a_kill_while_a_version_is_added_leaves_none_and_no_rest(registry, made):
    stuck = """
    import shared.releases.registry as module
    def calibrate(*_):
        print("measuring", flush=True)
        sys.stdin.read()
    module.calibrate = calibrate
    registry.add("student", shipped("small"), items=items())
    """
    killed_when_it_says(python(stuck, registry.folder, made), "measuring")
    assert list(registry.folder.glob(".adding-*"))  # it was in the middle
    assert [release.version for release in registry.versions()] == ["v1", "v2"]
    assert registry.add("student", shipped("small"), items=ITEMS).version == "v3"
    assert not list(registry.folder.glob(".adding-*"))


def test_a_kill_between_pointer_and_history_loses_neither(registry, made):
    stuck = """
    import shared.releases.pointer as module
    write_json = module.write_json
    def slow(value, path):
        write_json(value, path)
        print("written", flush=True)
        sys.stdin.read()
    module.write_json = slow
    registry.promote("v1", "then killed")
    """
    killed_when_it_says(python(stuck, registry.folder, made), "written")
    assert registry.current().version == "v1"
    assert registry.history()[-1]["why"] == "then killed"
    registry.rollback("next")
    assert [e["why"] for e in registry.history()][-2:] == ["then killed", "next"]


def test_kills_at_any_moment_leave_a_pointer_that_agrees_with_the_history(registry, made):
    loop = """
    print("begun", flush=True)
    while True:
        for version in ("v1", "v2"):
            registry.promote(version, "loop")
    """
    dice = random.Random(1)
    for _ in range(3):
        process = python(loop, registry.folder, made)
        assert process.stdout.readline().strip() == "begun", process.communicate()[1]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.05, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        assert registry.current().open().version == registry.history()[-1]["version"]
    changes = [e["change"] for e in registry.history() if e["what"] == "promoted"]
    assert changes == list(range(1, len(changes) + 1))


def test_two_that_add_and_promote_at_once_disturb_each_other_not(registry, made):
    both = """
    sys.stdin.readline()
    for _ in range(2):
        added = registry.add("student", shipped("smallest"), items=items())
        registry.promote(added.version, added.version)
    """
    processes = [python(both, registry.folder, made) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
    assert [release.version for release in registry.versions()] == [f"v{n}" for n in range(1, 7)]
    promoted = [e for e in registry.history() if e["what"] == "promoted"]
    assert [e["change"] for e in promoted] == list(range(1, 7))
    assert registry.current().version == promoted[-1]["version"]


def test_of_two_promotions_from_the_same_version_one_wins(registry, made):
    registry.add("student", shipped("smallest"), items=ITEMS)
    race = """
    sys.stdin.readline()
    try:
        registry.promote(sys.argv[3], "race", expected="v2")
        print("won")
    except ReleaseError as error:
        print("lost" if "by now" in str(error) else error)
    """
    processes = [python(race, registry.folder, made, version) for version in ("v1", "v3")]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=PATIENCE)[0].strip() for process in processes]
    assert sorted(said) == ["lost", "won"]
    assert registry.rollback("x").version == "v2"


def test_a_full_disk_leaves_the_registry_as_it_was(registry, made):
    """Files may have 60 kB here: half of the model is written when the room is gone."""
    full = """
    import resource
    loaded = items()
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        registry.add("student", shipped("small"), items=loaded)
    except OSError as error:
        print("OSError")
    """
    out, error = python(full, registry.folder, made).communicate(timeout=PATIENCE)
    assert out.strip() == "OSError", error
    assert not list(registry.folder.glob(".adding-*"))
    assert [release.version for release in registry.versions()] == ["v1", "v2"]
    assert registry.add("student", shipped("small"), items=ITEMS).version == "v3"


def test_too_few_items_make_no_interval_and_no_version(tmp_path):
    registry = Registry(tmp_path / "registry")
    few = {"validation": ITEMS["validation"].slice(0, 5)}
    with pytest.raises(ReleaseError, match=r"too few|finite"):
        registry.add("student", shipped("small"), items=few)
    with pytest.raises(ReleaseError, match="validation"):
        registry.add("student", shipped("small"), items={"test": ITEMS["test"]})
    assert registry.versions() == []


def test_a_registry_can_be_read_where_nothing_can_be_written(registry):
    """A service reads it from a volume that is mounted read-only."""
    code = """
    import os
    real = os.open
    def refuse(path, flags, *more, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(sys.argv[1]):
            raise PermissionError(path)
        return real(path, flags, *more, **named)
    os.open = refuse
    sys.addaudithook(lambda name, told: (_ for _ in ()).throw(PermissionError(told[0]))
        if name == "open" and str(told[0]).startswith(sys.argv[1]) and told[1] in ("w", "a", "x")
        else None)
    print(registry.current().open().version, len(registry.history()))
    """
    out, error = python(code, registry.folder, "none").communicate(timeout=PATIENCE)
    assert out.split() == ["v2", str(len(registry.history()))], error


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[1]\n7\nnull\n", b"\xff\xfe\n", b"x" * 9])
def test_lines_that_are_no_events_are_left_out(tmp_path, content):
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    assert read_lines(path)[0] == []
