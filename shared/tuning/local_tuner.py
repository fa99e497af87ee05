"""Fine-tuning on this machine, of the smallest thing that can be: a weight for each word.

It stands where week 7 puts a language model. Files, steps, losses, checkpoints and restarts are
real; what is tuned is a sum of weights of hashed words, which corrects the log of a first price.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from shared.data import Product
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.storage import replacing
from shared.evaluation import Estimates
from shared.pricers.words import TOKEN
from shared.prompting.techniques import MOST_CHARS
from shared.prompts import checked, question
from shared.tuning.jsonl import check_epochs, digest, text_of, validate
from shared.tuning.protocol import OVER, Notes, Step, TunerError

BUCKETS = 2**16
"""Places for the hashed words of a field (title, text)."""

SAVED_EVERY = 10
"""Steps between two checkpoints: what a killed process has to do again at most."""

RATE = 0.3
BEND = 0.3
"""Log price: larger errors pull no harder, so that a few odd prices do not decide."""


class LocalTuner:
    """Tunes on this machine. The base is a price: a number of dollars, or "median" of the examples.

    Losses are mean absolute errors of the log price: 0.5 is off by a factor of 1.65. The same
    files, settings and seed give the same weights, killed on the way or not.
    """

    name = "local"

    def __init__(self, folder: Path) -> None:
        self.folder, self._notes = Path(folder), Notes(folder)
        self._checkpoint = self.folder / "checkpoint.safetensors"
        self._model = self.folder / "model"

    def upload(self, train_path: Path, validation_path: Path | None = None) -> None:
        """Check the files and copy them into the folder."""
        for use, path in self._notes.take_files(train_path, validation_path).items():
            with replacing(self.folder / f"{use}.jsonl") as temporary:
                temporary.write_bytes(path.read_bytes())

    def create(
        self, *, base: str | float = "median", epochs: int = 5, seed: int = 42, suffix: str = "",
        cap: float = 0.0,
    ) -> str:  # fmt: skip
        """Note the job and return its id; the training is done while it is followed. No cost."""
        _first_log(base, np.ones(1))
        check_epochs(epochs)
        request = {"base": str(base), "epochs": epochs, "seed": seed, "suffix": suffix}
        if job := self._notes.same_job(request):
            return job
        hashes = self._notes.need("hashes", "upload files first")
        job = f"local-{digest(json.dumps([hashes, request], sort_keys=True).encode())}"
        self._notes.write(job=job, request=request, status="queued")
        return job

    def follow(self, *, progress: bool = True) -> Iterator[Step]:
        """Train, and yield every step from the first; goes on behind the last checkpoint."""
        job = self._notes.need("job", "there is no job; create one first")
        if self._status() in OVER:
            yield from (Step(**step) for step in self._notes.read().get("steps", ()))
            return
        self._notes.write(status="running")
        training = _Training(self._notes, self._checkpoint)
        for place in tqdm(range(training.total), desc=job, unit="step", disable=not progress):
            if place == len(training.steps):
                if self._status() == "cancelled":
                    self._notes.write(steps=training.steps)
                    return
                training.go_on()
            if place + 1 == training.total:
                self._finish(training)
            yield Step(**training.steps[place])

    def result(self) -> str:
        """Return the folder of the tuned model, for ``local_tuned_pricer``."""
        self._notes.refuse_deleted()
        if not self._model.exists():
            raise TunerError(f"{self.folder}: no model; the job is {self._status()}")
        return str(self._model)

    def cancel(self) -> None:
        """Stop the job; whoever follows it, in this process or another, ends at the next step."""
        if self._status() not in OVER:
            self._notes.write(status="cancelled")

    def clean_up(self, *, model: bool = False) -> None:
        """Delete the copied files and the checkpoint, and with ``model`` the tuned model."""
        if self._status() in ("queued", "running"):
            raise TunerError(f"{self.folder}: the job is not over: follow it, or cancel it first")
        for name in ("training.jsonl", "validation.jsonl", self._checkpoint.name):
            (self.folder / name).unlink(missing_ok=True)
        if model and self._model.exists():
            self._notes.write(deleted=True)
            shutil.rmtree(self._model, ignore_errors=True)

    def _status(self) -> str:
        return self._notes.read().get("status", "not created")

    def _finish(self, training: _Training) -> None:
        """Write the model before the note that says it is there."""
        settings = self._notes.read()["request"] | {"first": training.first}
        _save(self._model / WEIGHTS, {"weights": training.weights}, settings)
        self._notes.write(status="succeeded", steps=training.steps)


WEIGHTS = "weights.safetensors"


class _Training:
    """The state of training: weights, AdaGrad's sums of squares, and the steps so far."""

    def __init__(self, notes: Notes, checkpoint: Path) -> None:
        request, self.checkpoint = notes.read()["request"], checkpoint
        self.seed, self.job = request["seed"], notes.read()["job"]
        self.inputs, prices = self._read(notes, "training")
        self.held_out = self._read(notes, "validation")
        self.first = _first_log(request["base"], prices)
        self.targets = (np.log(prices) - self.first).astype(np.float32)
        self.batch = min(max(len(prices) // 40, 4), 64)
        self.epoch_steps = -(-len(prices) // self.batch)
        self.total = request["epochs"] * self.epoch_steps
        self.weights = np.zeros(self.inputs.shape[1], np.float32)
        self.squares = np.full(self.inputs.shape[1], 1e-4, np.float32)
        self.steps: list[dict[str, Any]] = []
        if checkpoint.exists():
            tensors, about = _load(checkpoint)
            if about["job"] != self.job:
                raise TunerError(f"{checkpoint} belongs to another job: delete it")
            self.weights, self.squares = tensors["weights"], tensors["squares"]
            self.steps = about["steps"]

    @staticmethod
    def _read(notes: Notes, use: str) -> tuple[Any, np.ndarray] | None:
        """Return the features and prices of a file's examples, None if it was not handed over."""
        path, hashes = notes.folder / f"{use}.jsonl", notes.read()["hashes"]
        if use not in hashes:
            return None
        if not path.exists() or digest(path.read_bytes()) != hashes[use]:
            raise TunerError(f"{path} is missing or was changed: upload the file again")
        found = validate(path).examples
        return features([e.text for e in found]), np.array([e.price for e in found])

    def go_on(self) -> None:
        """Do the next step; its train loss is of the batch before the weights moved."""
        epoch, place = divmod(len(self.steps), self.epoch_steps)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.targets))
        rows = order[place * self.batch : (place + 1) * self.batch]
        inputs = self.inputs[rows]
        miss = inputs @ self.weights - self.targets[rows]
        gradient = inputs.T @ np.clip(miss / BEND, -1, 1) / len(rows)
        self.squares += gradient**2
        rate = RATE * (1 - len(self.steps) / self.total)
        self.weights -= np.float32(rate) * gradient / np.sqrt(self.squares)
        step = Step(len(self.steps) + 1, float(np.abs(miss).mean()), self._held_out_loss())
        self.steps.append(asdict(step))
        if step.step % SAVED_EVERY == 0 or step.step == self.total:
            tensors = {"weights": self.weights, "squares": self.squares}
            _save(self.checkpoint, tensors, {"job": self.job, "steps": self.steps})

    def _held_out_loss(self) -> float | None:
        if self.held_out is None:
            return None
        inputs, prices = self.held_out
        return float(np.abs(self.first + inputs @ self.weights - np.log(prices)).mean())


class LocalTunedPricer:
    """Prices with the weights that a LocalTuner learnt; reads nothing but a product's text."""

    name = "locally tuned"

    def __init__(self, weights: np.ndarray, settings: dict[str, Any]) -> None:
        self._weights = weights
        self.settings = settings | {"weights": digest(weights.tobytes())}

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product, in dollars."""
        if not products:
            return Estimates(np.empty(0))
        # Through the question, as a language model would: what the examples lost, this loses too.
        asked = [text_of(question(product.text[:MOST_CHARS])) or "" for product in products]
        logs = self.settings["first"] + features(asked) @ self._weights
        return Estimates(np.exp(logs).clip(MIN_PRICE, MAX_PRICE))


def local_tuned_pricer(folder: Path | str) -> LocalTunedPricer:
    """Open the folder that ``LocalTuner.result`` named; raise TunerError if it is damaged."""
    tensors, settings = _load(Path(folder) / WEIGHTS)
    return LocalTunedPricer(tensors["weights"], settings)


def features(texts: Sequence[str]) -> Any:
    """Return hashed words and pairs of n texts and their titles, sparse, (n, 2 * BUCKETS + 1).

    The last column is 1: it learns what all prices have in common.
    """
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=BUCKETS, ngram_range=(1, 2), token_pattern=TOKEN, alternate_sign=False,
        binary=True, dtype=np.float32,
    )  # fmt: skip
    titles = [text.partition("\n")[0] for text in texts]
    ones = np.ones((len(texts), 1), np.float32)
    return csr_array(hstack([words.transform(texts), words.transform(titles), ones]))


def _first_log(base: str | float, prices: np.ndarray) -> float:
    """Return the log of the price that a base names, in dollars."""
    try:
        return math.log(checked(float(np.median(prices) if base == "median" else base)))
    except (ValueError, TypeError):
        raise TunerError(f"base={base!r}: a number of dollars above 0, or 'median'") from None


def _save(path: Path, tensors: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write weights and what belongs to them as one file, so that they never disagree."""
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as found:
            about = json.loads((found.metadata() or {})["about"])
            return {name: found.get_tensor(name) for name in found.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TunerError(f"{path}: missing or damaged ({error!r}); delete it, tune again") from None
