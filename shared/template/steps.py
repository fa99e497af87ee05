"""The steps of a project, each a call: prepare, baselines, tune, distil.

All of them keep what they finished in ``runs/``: a second call opens it, and after a kill the same
call goes on. Change rows, mapping or settings, and what depends on them is made anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from shared.data import Items
from shared.data.storage import fingerprint, write_text
from shared.evaluation import Evaluation, evaluate
from shared.reports.tables import escaped
from shared.template.door import Entry, enter
from shared.template.project import Project, ProjectError
from shared.template.tables import write_records

if TYPE_CHECKING:
    from shared.compression import Opening

SPLITS = ("validation", "test")
LUMP = 0.05
"""Share of the items in one cluster from which a warning is given."""
FEW = 60
"""Items below which nothing can be told from a test split of a tenth."""


@dataclass(frozen=True)
class Model:
    """A pricer, how it did on "validation" and "test", and its folder, if it has one."""

    pricer: Any
    found: dict[str, Evaluation]
    opening: Opening | None = None

    @property
    def name(self) -> str:
        """The name in the table."""
        return self.pricer.name

    def error(self, split: str) -> float:
        """Mean absolute error on a split, in inside numbers; infinite if nothing was estimated."""
        mae = self.found[split].scores["mae"]
        return float("inf") if mae is None else mae


def prepare(project: Project) -> Items:
    """Turn the project's rows into items with splits, and write what became of every row.

    ``runs/items/card.md`` is the data card (inside numbers), ``runs/rows.md`` the account of rows.
    Raises ProjectError for a table that is not as ``project.toml`` says.
    """
    from shared import pipeline

    entry = enter(project)
    records = project.runs / "records.jsonl"
    write_records(entry.records, records)
    title("1. Prepare", f"{entry.rows:,} rows of {project.source.name}")
    items = pipeline.prepare(
        str(records), project.runs / "items", seed=project.run.seed, progress=seen(),
        needs=project.needs, groups=entry.groups,
    )  # fmt: skip
    account = rows_account(entry, items)
    write_text(_account_page(project, entry, account), project.runs / "rows.md")
    for what, count in account.items():
        print(f"  {what.replace('_', ' ')}: {count:,}")
    _warn_of_a_lump(items)
    lacking = [name for name in ("train", *SPLITS) if not items.manifest["splits"][name]]
    if lacking or items.manifest["kept"] < FEW:
        raise ProjectError(
            f"{items.manifest['kept']} items are left, {lacking or 'few'} in a split: at least "
            f"{FEW} in a few dozen groups are needed. See {project.runs / 'rows.md'}"
        )
    return items


def _warn_of_a_lump(items: Items) -> None:
    """Say so if much of the data lies in one cluster, and splits are chance."""
    facts = json.loads((items.folder / "card.json").read_text(encoding="utf-8"))
    largest, kept = facts["duplicates"]["largest_cluster"], items.manifest["kept"]
    if largest > LUMP * kept:
        print(
            f"  Note: {largest:,} of {kept:,} items are one cluster of near-duplicates and groups, "
            "which lies in one split as a whole. Are texts made from a form, or is the group too "
            "coarse? Then validation and test may be unlike each other."
        )


def rows_account(entry: Entry, items: Items) -> dict[str, int]:
    """Return what became of the rows; dropped ones and items add up to the rows of the file."""
    lost = Counter(entry.dropped) + Counter(items.manifest["dropped"])
    account = {f"dropped, {reason}": count for reason, count in lost.items()}
    account |= {f"items to {use}": items.manifest["splits"][split] for split, use in (
        ("train", "learn from"), ("validation", "choose with"), ("test", "judge by")
    )}  # fmt: skip
    if sum(account.values()) != entry.rows:
        raise AssertionError(f"{entry.rows} rows, and {account}: rows went missing")
    return account


def baselines(project: Project, items: Items) -> list[Model]:
    """Fit the baselines of [run] on the training items, and score them on validation and test."""
    from shared.pricers import make_pricer
    from shared.template.columns import Columns

    title("2. Baselines", ", ".join(project.run.baselines))
    found, seed = [], project.run.seed
    for name in project.run.baselines:
        pricer = Columns(seed) if name == Columns.name else make_pricer(name, seed)
        pricer.fit(items.table("train"), lazily=True)  # a stored result needs no fit
        found.append(scored(project, items, pricer))
    return found


def tune(project: Project, items: Items) -> list[Model]:
    """Tune the tiny language model on ``tune_items`` training items, by QLoRA; none if that is 0.

    For larger bases see week 7: ``shared.training.plan_for``.
    """
    if not project.run.tune_items:
        return []
    from shared.compression import Opening
    from shared.training import fine_tune, plan_for, tuned_pricer

    plan = plan_for(
        "tiny", limit=project.run.tune_items, epochs=project.run.tune_epochs, evaluations=4,
        validation=200, seed=project.run.seed,
    )  # fmt: skip
    train, validation = items.table("train"), items.table("validation")
    count = min(len(train), project.run.tune_items)
    title("3. Tune", f"the tiny language model on {count:,} items, {plan.epochs:g} times each")
    folder = project.runs / "models" / f"tuned-{_key(plan, train, validation)}"
    fine_tune(train, validation, folder, plan, progress=seen())
    return [scored(project, items, tuned_pricer(folder), Opening("tuned", folder))]


def distil(project: Project, items: Items, models: Sequence[Model]) -> list[Model]:
    """Teach a small, fast student what the best of the models says, best on validation.

    It also learns from rows without a number, for which the teacher answers. It takes some 140 kB
    and no PyTorch to open.
    """
    from shared.compression import Opening, StudentPricer, export_student
    from shared.compression import distil as taught

    train, validation = items.table("train"), items.table("validation")
    teacher = best_of(models).pricer
    title("4. Distil", f"a student of {teacher.name}")
    folder = project.runs / "models" / f"student-{_key(teacher.name, teacher.settings, train)}"
    if not (folder / "manifest.json").is_file():
        student = taught(
            teacher, train, validation, texts=_unanswered(project, items), progress=seen(),
            cache=project.runs / "teacher",
        )  # fmt: skip
        export_student(student, folder)
    return [scored(project, items, StudentPricer(folder), Opening("student", folder))]


def best_of(models: Sequence[Model]) -> Model:
    """Return the model with the least error on validation: test is for the table alone."""
    return min(models, key=lambda model: model.error("validation"))


def scored(project: Project, items: Items, pricer: Any, opening: Opening | None = None) -> Model:
    """Score a pricer on validation and test, into ``runs/results``, and say how it did."""
    found = {
        split: evaluate(
            pricer, items.table(split), store=project.runs / "results" / split,
            seed=project.run.seed, progress=seen(),
        )
        for split in SPLITS
    }  # fmt: skip
    model = Model(pricer, found, opening)
    print(f"  {pricer.name}: off by {project.shown(model.error('validation'))} on validation")
    return model


def title(step: str, what: str) -> None:
    """Print which step begins."""
    print(f"\n{step}: {what}", flush=True)


def seen() -> bool:
    """Say whether somebody watches progress bars."""
    return sys.stderr.isatty()


def _unanswered(project: Project, items: Items) -> pa.Table | None:
    """Return the rows without a number as items that are near none of validation and test."""
    from shared.compression import unpriced
    from shared.settings import Settings

    held_out = pa.concat_tables([items.table(split) for split in SPLITS])
    texts = unpriced(Settings(source=str(project.runs / "records.jsonl")), held_out)
    return texts if len(texts) else None


def _key(*parts: Any) -> str:
    """Return a name for work with these settings and items, the same for the same."""
    said = [fingerprint(p) if isinstance(p, pa.Table) else p for p in parts]
    text = json.dumps(said, default=vars, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _account_page(project: Project, entry: Entry, account: dict[str, int]) -> str:
    lines = [f"# What became of the rows of {project.source.name}", "", "| rows | |", "|--:|:--|"]
    lines += [f"| {count:,} | {what.replace('_', ' ')} |" for what, count in account.items()]
    lines += [f"| {entry.rows:,} | in the file |", ""]
    lines += ["The first that could not be used:", ""] if entry.examples else []
    lines += [f"- {escaped(example)}" for example in entry.examples]
    return "\n".join(lines) + "\n"
