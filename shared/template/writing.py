"""``python -m shared new PATH``: a small project, whole or not at all, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from string import Template

from shared.data.storage import replacing_folder
from shared.settings import repository_root
from shared.template import rents
from shared.template.looking import Proposal, look
from shared.template.project import BASELINES, FILE, TODO, ProjectError

FILES = Path(__file__).with_name("files")
WRITTEN = {
    "README.md": "README.md", "run.py": "run.py", "test_mapping.py": "tests/test_mapping.py",
    "requirements.txt": "requirements.txt", "gitignore": ".gitignore",
}  # fmt: skip
"""File here -> its place in a project."""

EXAMPLES = ("rents",)
PACKAGES = (
    "numpy pyarrow polars datasets orjson isal filelock datasketch xxhash scipy scikit-learn "
    "threadpoolctl lightgbm safetensors skops torch tokenizers transformers accelerate peft "
    "bitsandbytes trl onnxruntime onnx psutil fastapi uvicorn prometheus-client pydantic typer "
    "rich tqdm pytest"
).split()
"""What a project needs of the course's requirements; pinned to what is installed here."""

_DATA = ("file", "encoding", "delimiter", "title", "text", "details", "category", "id", "group",
         "english", "same_title")  # fmt: skip
_NUMBER = ("column", "unit", "low", "high", "scale", "decimal")
_COMMENTS = {
    "file": "your rows: .csv, .jsonl, .jsonl.gz or .parquet; from this folder on",
    "english": "true: rows in other languages are dropped",
    "same_title": "true: rows with the same title, of five words or more, are the same thing",
    "title": "one column; \"\" for none",
    "text": "columns of prose, first to last",
    "details": "columns of facts, shown to the models as name: value",
    "category": "one column; \"\" for none",
    "id": "one column that differs in each row; \"\" numbers the rows",
    "group": "rows of one group never lie on both sides of a split; \"\" for none",
    "encoding": "of a CSV file", "delimiter": "of a CSV file",
    "column": "the number to estimate",
    "unit": "of that number, as people say it", "low": "what is below is an error",
    "high": "what is above is an error",
    "scale": "inside, numbers are divided by it, and high / scale must be at most 999.49",
    "decimal": "\".\" for 1,250.50 and \",\" for 1.250,50",
}  # fmt: skip


def new_project(path: Path, *, source: Path | None = None, example: str | None = None) -> Proposal:
    """Write a project to ``path``, a new or empty folder; return what was guessed of its columns.

    ``source``: a file of rows to look at, which stays where it is. ``example``: "rents", adverts
    of flats made by a generator. Raises ProjectError, and then writes nothing.
    """
    folder = Path(path)
    if source is not None and example is not None:
        raise ProjectError("--from or --example: a project has one table")
    if example is not None and example not in EXAMPLES:
        raise ProjectError(f"there is no example {example!r}, only: {', '.join(EXAMPLES)}")
    _refuse_place(folder)
    found = look(source) if source is not None else Proposal()
    with replacing_folder(folder, FILE, "project") as building:
        if example:
            table = building / "data" / f"{example}.csv"
            table.parent.mkdir()
            table.write_text(rents.to_csv(rents.rents()), encoding="utf-8")
            found = look(table)
            found.say("unit", "EUR a month", "the generator says so")
            found.check = [said for said in found.check if not said.startswith("unit")]
        found = found if found.values else _unknown()
        found.say("file", _place(folder, source, example), "")
        _write(building, folder.resolve().name, found)
    return found


def toml(found: Proposal) -> str:
    """Return ``project.toml``: each setting with what it is, and why it was guessed so."""
    found.values.setdefault("english", True)  # of no table
    found.values.setdefault("same_title", False)
    lines = [
        "# What your table is. Guesses come with their reasons: read each, mend what is wrong."
    ]
    lines += ["", "[data]"]
    lines += [_line(name, found) for name in _DATA if name in found.values]
    lines += ["", "[number]", *(_line(name, found) for name in _NUMBER if name in found.values)]
    lines += ["", "[run]", "seed = 42", f"baselines = {_value(BASELINES)}"]
    lines += ["# the language model learns from so many; 0 leaves it out", "tune_items = 1500"]
    lines += ["# how often it sees each", "tune_epochs = 2.0"]
    if found.check:
        lines += ["", "# To check:", *(f"# - {_one_line(said)}" for said in found.check)]
    return "\n".join(lines) + "\n"


def repository() -> str:
    """Return the address of the course, from the checkout or from what is installed."""
    path = repository_root() / "pyproject.toml"
    if path.is_file() and (repository_root() / "shared").is_dir():
        return tomllib.loads(path.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    urls = metadata.metadata("price-course").get_all("Project-URL") or [""]
    return urls[0].partition(", ")[2]


def pins() -> str:
    """Return the versions that are installed here, a line each."""
    found = []
    for name in PACKAGES:
        try:  # "+cpu" names a build that an index need not have
            found.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            found.append(name)
    return "\n".join(found)


def _refuse_place(folder: Path) -> None:
    if folder.resolve() == Path.cwd():
        raise ProjectError(f"{folder}: is the folder you are in; name a new one")
    if folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir())):
        raise ProjectError(f"{folder}: is there already and not empty; name a new folder")


def _unknown() -> Proposal:
    found = Proposal(check=["replace each TODO; or start from your table, with --from FILE"])
    for name in ("title", "text", "details", "column"):
        found.say(name, TODO if name in ("title", "column") else [], "")
    for name, value in (("low", 1.0), ("high", 999.0), ("unit", "dollars"), ("scale", 1.0)):
        found.say(name, value, "")
    return found


def _place(folder: Path, source: Path | None, example: str | None) -> str:
    """Return the path of the table as seen from the project; another drive has none."""
    if source is None:
        return f"data/{example}.csv" if example else TODO
    try:
        return Path(os.path.relpath(Path(source).resolve(), folder.resolve())).as_posix()
    except ValueError:
        return Path(source).resolve().as_posix()


def _write(folder: Path, name: str, found: Proposal) -> None:
    words = {"name": name, "repository": repository(), "pins": pins()}
    for here, there in WRITTEN.items():
        text = (FILES / here).read_text(encoding="utf-8")
        target = folder / there
        target.parent.mkdir(exist_ok=True)
        target.write_text(Template(text).substitute(words), encoding="utf-8")
    (folder / FILE).write_text(toml(found), encoding="utf-8")


def _line(name: str, found: Proposal) -> str:
    why = f" (guessed: {_one_line(found.why[name])})" if found.why.get(name) else ""
    return f"# {_COMMENTS[name]}{why}\n{name} = {_value(found.values[name])}"


def _value(value: object) -> str:
    """Return a value as TOML, whose texts, lists and numbers are written as in JSON."""
    if isinstance(value, float):
        return f"{value:.10g}" if value % 1 or abs(value) >= 1e10 else f"{value:.1f}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\s]+", " ", text)
