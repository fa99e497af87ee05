"""Fine-tuning jobs: from an uploaded file to a model of its own, by the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.mind.tuning import Learnt, LessonError, Lessons, learn, read_lessons
from shared.standin.batches import DURATION, Files, page
from shared.standin.wire import BadRequest, need, new_id, shape

RATE = 0.1
"""Step size of learning at a learning rate multiplier of 1."""

RUNS_FROM = 0.3
"""Share of a job's time that passes before it learns."""


OVER = ("succeeded", "failed", "cancelled")


@dataclass
class Job:
    """One job: what was asked, the examples or what is wrong with them, and what was learnt."""

    id: str
    request: dict
    settings: dict
    created: float
    lessons: Lessons | None = None
    valid: Lessons | None = None
    error: LessonError | None = None
    cancelled: float | None = None
    learnt: Learnt | None = None
    deleted: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> str:
        """The name of the model it makes."""
        base, suffix = self.request["model"], self.request.get("suffix") or ""
        return f"ft:{base}:course:{suffix}:{self.id[-8:]}"


class Jobs:
    """The fine-tuning jobs of an account, and the models they made."""

    def __init__(self, files: Files, speed: float, seed: int) -> None:
        self._files, self._speed, self._seed = files, speed, seed
        self.held: dict[str, Job] = {}

    def create(self, body: dict) -> dict:
        """Start a job; raise BadRequest for files that are not there or a method not known."""
        need(body, "model", str)
        method = body.get("method") or {"type": "supervised"}
        if method.get("type") != "supervised":
            raise BadRequest("Only the method 'supervised' is supported.", param="method")
        _, data = self._files.get(need(body, "training_file", str), "training_file")
        asked = {
            **(body.get("hyperparameters") or {}),
            **((method.get("supervised") or {}).get("hyperparameters") or {}),
        }
        job = Job(new_id("ftjob"), body, {}, time.time())
        try:
            job.lessons = read_lessons(data)
            if body.get("validation_file"):
                _, data = self._files.get(body["validation_file"], "validation_file")
                job.valid = read_lessons(data, least=1)
        except LessonError as error:
            job.error = error
        except RecursionError:
            job.error = LessonError("Invalid file format. A line is nested too deeply.")
        count = len(job.lessons.products) if job.lessons else 0
        own = {"n_epochs": 3, "batch_size": min(max(count // 200, 4), 64)}
        own["learning_rate_multiplier"] = 1.0
        job.settings = own | {n: v for n, v in asked.items() if v != "auto"}
        for name, value in job.settings.items():
            if not isinstance(value, (int, float)) or not 0 < value <= 1000:
                raise BadRequest(f"Invalid value for '{name}': {value!r}.", param=name)
        self.held[job.id] = job
        return self.view(job)

    def get(self, name: str) -> Job:
        """Return a job; raise BadRequest (404) if there is none of that id."""
        if name not in self.held:
            raise BadRequest(f"Could not find fine tune: {name}", status=404)
        return self.held[name]

    def cancel(self, name: str) -> dict:
        """Stop a job where it is, if it is not over."""
        job = self.get(name)
        if self._status(job) in OVER:
            raise BadRequest(f"Job {name} is over and cannot be cancelled.")
        job.cancelled = time.time()
        return self.view(job)

    def _progress(self, job: Job) -> float:
        now = job.cancelled or time.time()
        return min((now - job.created) * self._speed / DURATION, 1.0)

    def _status(self, job: Job) -> str:
        at = self._progress(job)
        if job.error is not None and at >= 0.15:
            return "failed"
        if job.cancelled is not None:
            return "cancelled"
        early = "validating_files" if at < 0.15 else "queued"
        return "succeeded" if at >= 1 else "running" if at >= RUNS_FROM else early

    def _learnt(self, job: Job) -> Learnt:
        """Learn when somebody first looks: it takes a second, and is the same whenever it is."""
        with job.lock:
            if job.learnt is None:
                chosen = job.settings
                job.learnt = learn(
                    job.lessons,
                    job.valid,
                    int(chosen["n_epochs"]),
                    int(chosen["batch_size"]),
                    RATE * float(chosen["learning_rate_multiplier"]),
                    _seed_of(job, self._seed),
                )
        return job.learnt

    def view(self, job: Job) -> dict:
        """Return what the API shows of a job now."""
        status, end = self._status(job), job.created + DURATION / self._speed
        names = ("model", "training_file", "validation_file", "metadata")
        shown = shape(
            "fine_tuning.job",
            id=job.id,
            created_at=int(job.created),
            hyperparameters=job.settings,
            method={"type": "supervised", "supervised": {"hyperparameters": job.settings}},
            seed=_seed_of(job, self._seed),
            status=status,
            **{name: job.request.get(name) for name in names},
        )
        if status == "succeeded":
            shown["trained_tokens"] = job.lessons.tokens * int(job.settings["n_epochs"])
            shown["fine_tuned_model"] = job.model
        if status == "failed":
            why = {"code": job.error.code, "message": job.error.message}
            shown["error"] = {**why, "param": "training_file"}
        over = status in OVER
        shown["finished_at"] = int(job.cancelled or min(end, time.time())) if over else None
        shown["estimated_finish"] = None if over else int(end)
        return shown

    def events(self, name: str, query: dict) -> dict:
        """Return what has happened so far, the newest first, as a page."""
        job = self.get(name)
        status, rows = self._status(job), [(0.0, "Created fine-tuning job", None)]
        if status == "failed":
            rows.append((0.15, job.error.message, None))
        for due, step in self._steps(job):
            rows.append((due, f"Step {step['step']}: training loss={step['train_loss']}", step))
        if status == "succeeded":
            rows.append((1.0, "The job has successfully completed", None))
        events = []
        for number, (due, message, data) in enumerate(rows):
            said = {"message": message, "data": data or {}}
            said |= {"type": "metrics"} if data else {}
            said |= {"level": "error"} if status == "failed" and number else {}
            at = int(job.created + due / self._speed)
            name = f"ftevent-{job.id[-8:]}-{number}"
            events.append(shape("fine_tuning.job.event", id=name, created_at=at, **said))
        return page(events[::-1], query)

    def checkpoints(self, name: str, query: dict) -> dict:
        """Return the model after each epoch, the newest first, as a page."""
        job = self.get(name)
        due = {step["step"]: (at, step) for at, step in self._steps(job)}
        rows = [
            shape(
                "fine_tuning.job.checkpoint",
                id=f"ftckpt-{job.id[-8:]}-{end}",
                created_at=int(job.created + due[end][0] / self._speed),
                fine_tuned_model_checkpoint=f"{job.model}:ckpt-step-{end}",
                fine_tuning_job_id=job.id,
                metrics=due[end][1],
                step_number=end,
            )
            for end in (job.learnt.ends if due else ())
            if end in due
        ]
        return page(rows[::-1], query, limit=10)

    def _steps(self, job: Job) -> list[tuple[float, dict]]:
        """Return the steps of learning that have been by now, and when (share of the job)."""
        at = self._progress(job)
        if job.error is not None or at < RUNS_FROM:
            return []
        steps = self._learnt(job).steps
        share = (1 - RUNS_FROM) / len(steps)
        dues = [RUNS_FROM + share * (number + 1) for number in range(len(steps))]
        return [pair for pair in zip(dues, steps, strict=True) if pair[0] <= at + 1e-9]

    def models(self) -> list[Job]:
        """Return the jobs whose model can be asked."""
        return [j for j in self.held.values() if self._status(j) == "succeeded" and not j.deleted]

    def tuned(self, model: str) -> Callable[[str], float] | None:
        """Return the correction that a model of this name has learnt, None if there is none."""
        name, _, step = model.partition(":ckpt-step-")
        job = next((j for j in self.models() if j.model == name), None)
        if job is None:
            return None
        learnt = self._learnt(job)
        if step and (not step.isdigit() or int(step) not in learnt.ends):
            return None
        epoch = learnt.ends.index(int(step)) if step else -1
        return lambda product: learnt.correction(product, epoch)

    def delete_model(self, model: str) -> dict:
        """Forget a tuned model; raise BadRequest (404) if there is none of that name."""
        job = next((j for j in self.models() if j.model == model), None)
        if job is None:
            raise BadRequest(f"The model '{model}' does not exist.", status=404, param="model")
        job.deleted = True
        return {"id": model, "object": "model", "deleted": True}


def _seed_of(job: Job, otherwise: int) -> int:
    seed = job.request.get("seed")
    return otherwise if seed is None else seed
