"""Fine-tuning at OpenAI, or at any server that speaks its protocol of files and jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from shared.data import Product
from shared.frontier.clients import explained
from shared.frontier.connection import Connection
from shared.frontier.messages import Request
from shared.frontier.models import find_model
from shared.prompting.techniques import ZeroShot
from shared.tuning.jsonl import check_epochs, check_price
from shared.tuning.protocol import OVER, Notes, Step, TunerError

CLOSED = (
    "OpenAI takes no fine-tuning job from this organisation. It closed them on 2026-05-07 to "
    "organisations that had never fine-tuned, and closes them on 2027-01-06 to everyone. "
    "Instead: Gemini on Vertex AI, an open model at Fireworks or Together, LocalTuner here, or "
    "week 7, where you fine-tune an open model yourself."
)

_ENDED = re.compile(
    r"(?i)no longer|not (?:available|permitted|allowed|supported|accept\w*|open|enabled)|closed|"
    r"disabled|discontinued|deprecated|w(?:ou|i)nd(?:ing)? down|do(?:es)? not have access"
)
_ANOTHER_REASON = re.compile(r"(?i)scope|api key|ip address|country|quota|\bmodel\b")


class OpenAITuner:
    """Tunes over the official SDK (``connection.client.sdk``); a folder remembers the job.

    ``training_price``: dollars per million tokens trained on, from the vendor's price list (0 at a
    stand-in). ``poll``: seconds between two looks at a job.
    """

    name = "openai"

    def __init__(
        self, sdk: Any, folder: Path, *, training_price: float | None = None, poll: float = 10.0
    ) -> None:
        self._sdk, self._jobs, self._notes = sdk, sdk.fine_tuning.jobs, Notes(folder)
        check_price(training_price)
        self.training_price, self.poll = training_price, poll

    def upload(self, train_path: Path, validation_path: Path | None = None) -> None:
        """Check and upload the files; what the vendor has already is not sent again."""
        with self._notes.alone():
            for use, path in self._notes.take_files(train_path, validation_path).items():
                known = self._notes.read()
                if not known.get("job") and not self._is_there(known.get(use)):
                    data = (f"{use}.jsonl", path.read_bytes())
                    file = self._call(self._sdk.files.create, file=data, purpose="fine-tune")
                    self._notes.write(**{use: file.id})

    def _is_there(self, file: str | None) -> bool:
        """Whether the vendor still has a file: vendors delete them, too."""
        return bool(file and self._call(self._sdk.files.retrieve, file, missing_ok=True))

    def estimate(self, epochs: int = 3) -> float:
        """Return about how many dollars the job will cost; the vendor counts tokens exactly."""
        tokens = self._notes.need("tokens", "upload files first") * epochs
        if self.training_price is None:
            raise TunerError(f"give training_price, dollars per million tokens: about {tokens:,}")
        return tokens * self.training_price / 1e6

    def create(
        self, *, base: str, epochs: int = 3, seed: int = 42, suffix: str = "", cap: float = 0.0
    ) -> str:
        """Print an estimate, start the job if it is within ``cap`` dollars, and return its id.

        Called again, also after a crash in the middle, it returns the job that is there.
        """
        check_epochs(epochs)
        if not find_model(base).fine_tuning or len(suffix) > 64:
            raise TunerError(f"{base}, suffix {suffix!r}: cannot be tuned so")
        request = {"base": base, "epochs": epochs, "seed": seed, "suffix": suffix}
        with self._notes.alone():
            if job := self._notes.same_job(request):
                return job
            self._notes.need("training", "upload files first")
            dollars = self.estimate(epochs)
            print(f"Fine-tuning {base}: about ${dollars:.2f}, cap ${cap:.2f}")
            if not dollars <= cap:
                raise TunerError(f"the job may cost ${dollars:.2f}, more than cap={cap:g} dollars")
            job = self._found_job(request) or self._created(request)
            self._notes.write(job=job, request=request, creating=None)
        return job

    def follow(self, *, progress: bool = True) -> Iterator[Step]:
        """Yield every step from the first; ends with the job, TunerError if it fails."""
        job, status, shown = self._job(), "", 0
        with tqdm(desc=job.id, unit="step", disable=not progress) as bar:
            while True:
                for step in self._notes.read().get("steps", ())[shown:]:
                    yield Step(**step)
                    bar.update()
                    shown += 1
                if status in OVER:
                    break
                time.sleep(self.poll if status else 0)
                # First the job, then its events: what came in between is not missed at the end.
                job = self._job()
                status = job.status
                bar.set_postfix_str(status, refresh=False)
                self._fetch_steps(job)
        _refuse_failure(job)

    def result(self) -> str:
        """Return the name of the tuned model (``ft:…``), to be asked like any other."""
        self._notes.refuse_deleted()
        job = self._job()
        _refuse_failure(job)
        if not job.fine_tuned_model:
            raise TunerError(f"job {job.id} is {job.status}: it made no model, or not yet")
        return job.fine_tuned_model

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the models after single epochs, the first one first: step, model, losses."""
        job = self._job()
        found = self._call(lambda: list(self._jobs.checkpoints.list(job.id)))
        return [
            {"step": c.step_number, "model": c.fine_tuned_model_checkpoint, **c.metrics.to_dict()}
            for c in sorted(found, key=lambda c: c.step_number)
        ]

    def cancel(self) -> None:
        """Stop the job; what was trained until then is paid."""
        job = self._job()
        if job.status not in OVER:
            self._call(self._jobs.cancel, job.id)

    def clean_up(self, *, model: bool = False) -> None:
        """Delete the uploaded files, and with ``model`` the tuned model. Safe to repeat."""
        job = self._job() if self._notes.read().get("job") else None
        if job and job.status not in OVER:
            raise TunerError(f"job {job.id} is {job.status}: wait for it, or cancel it first")
        if model and job and job.status == "succeeded":
            self._call(self._sdk.models.delete, job.fine_tuned_model, missing_ok=True)
            self._notes.write(deleted=True)
        for use in ("training", "validation"):
            if file := self._notes.read().get(use):
                self._call(self._sdk.files.delete, file, missing_ok=True)
                self._notes.write(**{use: None})

    def _job(self) -> Any:
        job = self._notes.need("job", "there is no job; create one first")
        return self._call(self._jobs.retrieve, job)

    def _call(self, does: Callable, *args: Any, missing_ok: bool = False, **named: Any) -> Any:
        try:
            return does(*args, **named)
        except Exception as error:  # the SDK's family, which is not imported here
            if missing_ok and getattr(error, "status_code", None) == 404:
                return None
            raise TunerError(str(explained(error))) from None

    def _found_job(self, request: dict[str, Any]) -> str | None:
        """Look for a job whose creation was cut off: its training file is ours."""
        found = self._notes.read()
        if not (asked := found.get("creating")):
            return None
        living = (
            job.id for job in self._call(lambda: list(self._jobs.list()))
            if job.training_file == found["training"] and job.status not in ("failed", "cancelled")
        )  # fmt: skip
        job = next(living, None)
        if job and asked != request:
            raise TunerError(f"{self._notes.folder} has job {job} for {asked}: use another folder")
        return job

    def _created(self, request: dict[str, Any]) -> str:
        found = self._notes.read()
        self._notes.write(creating=request)
        settings = {"hyperparameters": {"n_epochs": request["epochs"]}}
        body = {
            "model": request["base"], "seed": request["seed"], "suffix": request["suffix"],
            "training_file": found["training"], "validation_file": found.get("validation"),
            "method": {"type": "supervised", "supervised": settings},
        }  # fmt: skip
        try:
            # No second try by the SDK: if only the answer got lost, it would be a second job.
            jobs = self._sdk.with_options(max_retries=0).fine_tuning.jobs
            return jobs.create(**{name: value for name, value in body.items() if value != ""}).id
        except Exception as error:
            if getattr(error, "status_code", None) in range(400, 500):
                self._notes.write(creating=None)  # refused for certain: there is nothing to find
            raise TunerError(_refusal(error)) from None

    def _fetch_steps(self, job: Any) -> None:
        """Fetch the events since the last look, by whatever process, and note the steps in them."""
        with self._notes.alone():
            found = self._notes.read()
            last, steps = found.get("last_event"), found.get("steps", [])
            pages = lambda: self._jobs.list_events(job.id, limit=100)  # noqa: E731  newest first
            events = self._call(lambda: list(takewhile(lambda event: event.id != last, pages())))
            rows = {e.data["step"]: e.data for e in events if "train_loss" in (e.data or ())}
            for step, row in sorted(rows.items()):
                # The loss over the whole validation file where it was computed, else over a batch.
                held_out = row.get("full_valid_loss", row.get("valid_loss"))
                steps.append(vars(Step(step, row["train_loss"], held_out, job.status)))
            self._notes.write(last_event=events[0].id if events else last, steps=steps)


def _refuse_failure(job: Any) -> None:
    if job.status == "failed":
        why = f"{job.error.code}: {job.error.message}" if job.error else "no reason given"
        raise TunerError(f"job {job.id} failed ({why}). Put that right in another folder")


def _refusal(error: Exception) -> str:
    """Say why a job was refused; fine-tuning itself being closed has an explanation of its own."""
    status, reason = getattr(error, "status_code", None), str(explained(error))
    says_so = re.search(r"(?i)fine[- ]?tun", reason) and _ENDED.search(reason)
    if (status == 403 or (status == 400 and says_so)) and not _ANOTHER_REASON.search(reason):
        return f"{CLOSED} ({reason})"
    return f"the job was refused: {reason}"


@dataclass
class AsTaught(ZeroShot):
    """The question exactly as in the examples, without a schema: the answer is ``$34.50`` alone."""

    name: str = "as taught"

    def first(self, model: str, product: Product) -> Request:
        """Return the question."""
        return replace(super().first(model, product), schema=None, max_tokens=50)


def tuned_connection(
    connection: Connection, model: str, *, cache: Path | None = None, cap: float = 1.0
) -> Connection:
    """Return a connection to a tuned model where its base is; the first one has to stay open."""
    card, options = find_model(model), {"cache": cache, "cap": cap, "label": connection.label}
    return Connection(card, connection.client, address=connection.address, **options)
