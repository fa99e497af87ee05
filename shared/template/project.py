"""``project.toml``: which column is what, read once and refused with the field that is wrong."""

from __future__ import annotations

import math
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from shared.data.curation import MAX_PRICE, MIN_CHARS, MIN_PRICE, Rules

FILE = "project.toml"
TODO = "TODO"
"""What stands where a column could not be guessed: nothing runs before it is replaced."""

BASELINES = ("constant-median", "linear", "columns", "bag-of-words", "tfidf-ridge", "lightgbm")


class ProjectError(ValueError):
    """A project cannot run; the message names the file, the field or line, and the remedy."""


@dataclass(frozen=True)
class Data:
    """Table [data]: the file, how it is written, and what its columns are; "" for none.

    ``text`` and ``details`` are lists of columns: prose, and facts that are shown as "name:
    value". Rows of one ``group`` never lie on both sides of a split. ``english``: drop rows in
    other languages. ``shortest``: characters that title, facts and text have together at least.
    ``same_title``: rows with the same title, of five words or more, are the same thing twice.
    """

    file: str
    title: str = ""
    text: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    category: str = ""
    id: str = ""
    group: str = ""
    encoding: str = "utf-8"
    delimiter: str = ","
    english: bool = True
    shortest: int = MIN_CHARS
    same_title: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns that are named, each once."""
        named = (self.title, *self.text, *self.details, self.category, self.id, self.group)
        return list(dict.fromkeys(filter(None, named)))


@dataclass(frozen=True)
class Number:
    """Table [number]: the column to estimate, its unit, what is plausible, how it is written.

    ``low`` to ``high`` is in the unit, and so is ``scale``: inside, everything is computed in
    multiples of it, which must lie between 0.5 and 999.49 (``curation.MIN_PRICE``).
    """

    column: str
    low: float
    high: float
    unit: str = "dollars"
    scale: float = 1.0
    decimal: str = "."


@dataclass(frozen=True)
class Run:
    """Table [run]: how much is done. ``tune_items``: the language model learns from so many, each
    ``tune_epochs`` times; 0 leaves it out."""

    seed: int = 42
    baselines: tuple[str, ...] = BASELINES
    tune_items: int = 1500
    tune_epochs: float = 2.0


@dataclass(frozen=True)
class Project:
    """A folder, and what its ``project.toml`` says."""

    folder: Path
    data: Data
    number: Number
    run: Run = field(default_factory=Run)

    @property
    def source(self) -> Path:
        """The file with your rows."""
        return self.folder / self.data.file

    @property
    def runs(self) -> Path:
        """The folder of all that is computed; it may be deleted."""
        return self.folder / "runs"

    @property
    def needs(self) -> Rules:
        """What curation asks of a row."""
        return Rules(self.data.shortest, self.data.english, self.data.same_title)

    def shown(self, inner: float | None, digits: int = 4) -> str:
        """Return a number as the models have it, in your unit and with so many digits."""
        if inner is None or not math.isfinite(inner):
            return "—"
        value = inner * self.number.scale
        places = max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
        return f"{value:,.{min(places, 2 if abs(value) >= 1 else 6)}f}"


def open_project(folder: str | Path = ".") -> Project:
    """Read the project in a folder. Raises ProjectError naming what is wrong in its file."""
    path = Path(folder) / FILE
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(
            f"{path}: no such file; make one with: python -m shared new PATH"
        ) from None
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path}: cannot be read ({error})") from error
    if unknown := sorted(set(said) - {"data", "number", "run"}):
        raise ProjectError(
            f"{path}: there is no table [{unknown[0]}], only [data], [number], [run]"
        )
    parts = {kind.__name__.lower(): _table(path, said, kind) for kind in (Data, Number, Run)}
    project = Project(Path(folder), **parts)
    _check(path, project)
    return project


def _table(path: Path, said: Mapping[str, Any], kind: type) -> Any:
    """Return a table of the file as its dataclass; refuse names and types that it does not have."""
    name = kind.__name__.lower()
    table = said.get(name, {})
    if not isinstance(table, dict):
        raise ProjectError(f"{path}: [{name}] is to be a table of settings")
    known = {f.name: f for f in fields(kind)}
    if unknown := [key for key in table if key not in known]:
        raise ProjectError(
            f"{path}, [{name}]: there is no setting {unknown[0]!r}, only {', '.join(known)}"
        )
    for key, one in known.items():
        if key not in table and one.default is MISSING:
            raise ProjectError(f"{path}, [{name}]: {key} is missing")
        value = table.get(key)
        if value == TODO or (isinstance(value, list) and TODO in value):
            raise ProjectError(f'{path}, [{name}]: {key} is still "{TODO}"; say which it is')
    return kind(**{key: _typed(path, name, known[key], value) for key, value in table.items()})


def _typed(path: Path, table: str, one: Any, value: Any) -> Any:
    kinds = {
        "str": (str, "a text"), "int": (int, "a whole number"), "bool": (bool, "true or false"),
        "float": ((int, float), "a number"), "tuple[str, ...]": (list, "a list of texts"),
    }  # fmt: skip
    kind, wanted = kinds[one.type]
    right = isinstance(value, kind) and (isinstance(value, bool) == (one.type == "bool"))
    if isinstance(value, list):
        right, value = right and all(isinstance(v, str) for v in value), tuple(value)
    if not right:
        raise ProjectError(f"{path}, [{table}]: {one.name} is {value!r}, and must be {wanted}")
    return value


def _check(path: Path, project: Project) -> None:
    """Refuse settings that contradict each other, or that nothing can be computed with."""
    data, number, run = project.data, project.number, project.run
    wrong = None
    if not data.title and not data.text:
        wrong = "[data]: name a title or a text, there is nothing to read otherwise"
    elif number.column in data.columns:
        wrong = f"[number]: {number.column!r} is in [data], too, and would give the answer away"
    elif number.decimal not in (".", ","):
        wrong = f'[number]: decimal is {number.decimal!r}, and must be "." or ","'
    elif len(data.delimiter) != 1:
        wrong = f"[data]: delimiter is {data.delimiter!r}, and must be one character"
    elif not (number.scale > 0 and number.low / number.scale >= MIN_PRICE):
        wrong = (
            f"[number]: low = {number.low:g} must be at least {MIN_PRICE * number.scale:g} with "
            f"scale = {number.scale:g}: take a smaller scale, or a narrower range"
        )
    elif not number.low < number.high <= MAX_PRICE * number.scale:
        wrong = (
            f"[number]: high = {number.high:g} must be above low, and at most "
            f"{MAX_PRICE * number.scale:g} with scale = {number.scale:g}: take a larger scale"
        )
    elif run.tune_items < 0 or not 0 < run.tune_epochs < 100 or run.seed < 0:
        wrong = "[run]: seed and tune_items must be 0 or more, tune_epochs above 0 and below 100"
    elif unknown := sorted(set(run.baselines) - set(known_baselines())):
        wrong = f"[run]: there is no baseline {unknown[0]!r}, only {', '.join(known_baselines())}"
    if wrong:
        raise ProjectError(f"{path}, {wrong}")


def known_baselines() -> list[str]:
    """Return the names of the baselines: those of the course, and ``columns``."""
    from shared.pricers.registry import PRICERS

    return [*PRICERS, "columns"]


def explained(main: Callable[[], Any]) -> int:
    """Run ``main`` and return an exit code; what you can mend is one line, and no traceback."""
    from shared.training.failures import TrainingError

    try:
        main()
    except (ProjectError, TrainingError, ValueError, OSError) as error:
        if os.environ.get("COURSE_DEBUG"):
            raise
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is done is kept: the same command goes on.", file=sys.stderr)
        return 130
    return 0
