"""Studies: the same training many times over, one setting changed at a time, several seeds each.

One run proves nothing, since the next seed may turn it round. What is chosen by these is measured
on the part of the validation split that no checkpoint was chosen on; the test split stays closed.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from shared.data import products
from shared.data.storage import file_hash, fingerprint, versions, write_json
from shared.open_models.opening import fingerprint_of
from shared.open_models.pricer import tuned_pricer
from shared.pretraining.making import TINY
from shared.training.fine_tuning import Plan, fine_tune

RECORDED = Path(__file__).with_name("recorded")
"""Results that are shipped: what takes hours is run once, and shown with its date."""

SEEDS = (1, 2, 3)

SIZE = 3_000
"""Items to learn from, where size is not what is studied."""


@dataclass(frozen=True)
class Trial:
    """A training within a study. ``noise``: share of the prices that are exchanged with others'."""

    study: str
    setting: str
    plan: Plan
    noise: float = 0.0


def trials(seeds: Iterable[int] = SEEDS) -> list[Trial]:
    """Return all trials of the course: what each choice in a plan is worth, one at a time."""
    default = Plan(limit=SIZE, epochs=1.0, evaluations=4)
    studies: dict[str, dict[str, dict[str, Any]]] = {
        "rank": {f"rank {r}": {"rank": r, "alpha": 2 * r} for r in (2, 8, 32, 128)},
        "targets": {
            "q, v": {"targets": "q_proj,v_proj"},
            "q, k, v, o": {"targets": "q_proj,k_proj,v_proj,o_proj"},
            "all linear": {},
        },
        "bits": {"4 bits": {}, "8 bits": {"bits": 8}, "not quantised": {"bits": 16}},
        "loss": {
            "price only": {},
            "whole text": {"completion_only": False},
            "soft prices": {"width": 0.15},
        },
        "rate": {f"rate {rate:g}": {"rate": rate} for rate in (1e-4, 3e-4, 1e-3, 3e-3)},
        "size": {f"{n:,}": {"limit": n} for n in (100, 300, 1_000, 3_000, 10_000)},
    }
    found = []
    for seed in seeds:  # outermost, so that a study that was cut off has all settings
        seeded = replace(default, seed=seed)
        found += [
            Trial(study, setting, replace(seeded, **changes))
            for study, settings in studies.items()
            for setting, changes in settings.items()
        ]
        found += [
            Trial("noise", f"{share:.0%} wrong", seeded, share) for share in (0.0, 0.1, 0.3, 0.6)
        ]
    return found


def run(
    chosen: Iterable[Trial], train: pa.Table, validation: pa.Table, folder: Path, *,
    progress: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """Run trials on items (ITEM schema) and return a row each; what is in ``folder`` is not redone.

    Equal trainings are run once, whatever studies they are in. A row has the error in dollars on
    the validation items that no checkpoint was chosen on, by each way of reading.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "rows.jsonl"
    done = read_rows(journal)
    rows = []
    for trial in tqdm(list(chosen), desc="trials", unit="trial", disable=not progress):
        key = _key(trial, train, validation)
        if key not in done:
            done[key] = _one(trial, train, validation, folder / "work")
            with journal.open("a", encoding="utf-8") as file:
                # A line of its own, even behind one that a kill cut short.
                file.write("\n" * (file.tell() > 0) + json.dumps({"key": key, "row": done[key]}))
        rows.append({"study": trial.study, "setting": trial.setting, **done[key]})
    return rows


def _one(trial: Trial, train: pa.Table, validation: pa.Table, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    taught = with_noise(train, trial.noise, trial.plan.seed) if trial.noise else train
    manifest = fine_tune(taught, validation, work, trial.plan, progress=False)
    judged = validation.slice(trial.plan.validation)
    found = tuned_pricer(work).distribution(products(judged))
    wanted = np.asarray(judged["price"])
    readings = {"dollars": found.median, "greedy": found.mode, "mean": found.mean}
    errors = {name: float(np.abs(guess - wanted).mean()) for name, guess in readings.items()}
    return {
        "seed": trial.plan.seed, **{name: round(value, 3) for name, value in errors.items()},
        "judged_on": len(judged), "seconds": manifest["seconds"],
        "trainable_parameters": manifest["trainable_parameters"],
        "adapter_bytes": (work / "adapter_model.safetensors").stat().st_size,
        "best_step": manifest["best_step"], "curve": manifest["curve"],
    }  # fmt: skip


def with_noise(items: pa.Table, share: float, seed: int) -> pa.Table:
    """Return items of which a share has the price of another one: labels as careless people write.

    The prices as a whole stay the same, so it is the link from text to price that suffers.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"noise {share} is not between 0 and 1")
    prices = np.asarray(items["price"]).copy()
    # Not the numbers that a plan of the same seed chooses its items by: all it took were wrong.
    draw = np.random.default_rng([seed, len(prices)])
    wrong = draw.permutation(len(prices))[: round(share * len(prices))]
    prices[wrong] = prices[np.roll(wrong, 1)]
    place = items.schema.get_field_index("price")
    return items.set_column(place, items.schema.field(place), pa.array(prices))


def record(
    rows: list[dict[str, Any]], train: pa.Table, validation: pa.Table, name: str
) -> dict[str, Any]:
    """Store rows with all they depend on, as data that lessons show; return what was stored."""
    found = {
        "rows": rows,
        "train": fingerprint(train), "validation": fingerprint(validation),
        "base": file_hash(TINY / "model.safetensors"),
        "date": datetime.date.today().isoformat(), "versions": versions(),
    }  # fmt: skip
    write_json(found, RECORDED / f"{name}.json")
    return found


def recorded(name: str) -> dict[str, Any]:
    """Return a recorded study: ``rows``, and what they depend on."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def _key(trial: Trial, train: pa.Table, validation: pa.Table) -> str:
    base = fingerprint_of(trial.plan.base)
    value = [asdict(trial.plan), trial.noise, base, fingerprint(train), fingerprint(validation)]
    return json.dumps(value, sort_keys=True)


def read_rows(journal: Path) -> dict[str, dict[str, Any]]:
    """Return the rows that were finished; a last line that a kill cut short is not one."""
    found = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["key"]] = entry["row"]
    return found


def controls(
    train: pa.Table, validation: pa.Table, test: pa.Table, folder: Path, *,
    seeds: Iterable[int] = SEEDS, progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Measure on the test split what the base's reading is worth to others, and return the rows.

    Two ridges on words: on the training items alone, and with what a ridge on all the priced
    documents of the base's corpus thinks of them as one more feature. And the plan of the course,
    once for each seed. ``folder`` keeps what is done.
    """
    from shared.pretraining.corpus import documents, other_products
    from shared.pretraining.making import evaluation_items

    read = other_products(200_000, folder / "other", evaluation_items(), progress=progress)
    priced = [one for one in documents(read) if one[1] is not None]
    wanted = np.asarray(test["price"])
    alone, informed = _ridges(priced, train, test)
    rows = [
        {"name": name, "dollars": round(float(np.abs(guess - wanted).mean()), 3)}
        for name, guess in (
            ("ridge, training items", alone),
            (f"ridge, and {len(priced):,} documents of the base", informed),
        )
    ]
    for seed in seeds:
        out = folder / f"seed-{seed}"
        manifest = fine_tune(train, validation, out, Plan(seed=seed), progress=progress)
        found = tuned_pricer(out).distribution(products(test))
        rows.append(
            {
                "name": f"QLoRA, seed {seed}", "seed": seed, "seconds": manifest["seconds"],
                "dollars": round(float(np.abs(found.median - wanted).mean()), 3),
                "greedy": round(float(np.abs(found.mode - wanted).mean()), 3),
            }
        )  # fmt: skip
    return {"rows": rows, "test": fingerprint(test)}


def _ridges(
    priced: list[tuple[str, int | None]], train: pa.Table, test: pa.Table
) -> tuple[np.ndarray, np.ndarray]:
    """Return prices of the test items by a ridge without and with the documents' knowledge."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    def words() -> TfidfVectorizer:
        return TfidfVectorizer(
            ngram_range=(1, 2), min_df=2, max_features=120_000, sublinear_tf=True
        )

    texts = [table["text"].to_pylist() for table in (train, test)]
    logs = np.log(np.asarray(train["price"]))
    read = words().fit([text for text, _ in priced])
    old = Ridge(alpha=1.0, solver="sparse_cg").fit(
        read.transform([text for text, _ in priced]), np.log([price for _, price in priced])
    )
    seen = words().fit(texts[0])
    plain = [seen.transform(part) for part in texts]
    hints = [old.predict(read.transform(part)) for part in texts]
    # Ten times as large as a word, so that the penalty does not keep it from being believed.
    more = [
        hstack([x, csr_matrix(10 * (hint - hints[0].mean())[:, None])]).tocsr()
        for x, hint in zip(plain, hints, strict=True)
    ]
    return tuple(
        np.exp(Ridge(alpha=1.0, solver="sparse_cg").fit(x, logs).predict(y)).clip(0.5, 999.49)
        for x, y in (plain, more)
    )
