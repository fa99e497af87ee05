"""What fine-tuning is, whoever does it: files up, a job, its losses, a model, and a clean desk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from shared.data.storage import write_json
from shared.frontier.secrets import redact
from shared.tuning.jsonl import LEAST, digest, same_text, validate

if TYPE_CHECKING:
    from filelock import FileLock

OVER = ("succeeded", "failed", "cancelled")
"""The statuses of a job that will not change any more."""


class TunerError(RuntimeError):
    """A job that cannot be started, followed or finished; the message says why, and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(redact(reason))


@dataclass(frozen=True)
class Step:
    """One step of training. Losses are the trainer's own; compare them within a job only."""

    step: int
    train_loss: float
    validation_loss: float | None = None
    status: str = "running"


@runtime_checkable
class Tuner(Protocol):
    """Whoever fine-tunes. State lies in a folder: a new object on it goes on with the same job."""

    name: str

    def upload(self, train_path: Path, validation_path: Path | None = None) -> None:
        """Hand over the examples; raise TunerError for bad ones. What is there is not sent again.

        Another file than the one handed over before is refused: a folder is one job.
        """
        ...

    def create(
        self, *, base: str, epochs: int = 3, seed: int = 42, suffix: str = "", cap: float = 0.0
    ) -> str:
        """Start the job on a base model and return its id; a second call returns the first's job.

        Raises TunerError if it would cost more than ``cap`` dollars.
        """
        ...

    def follow(self, *, progress: bool = True) -> Iterator[Step]:
        """Yield every step from the first: those seen before a restart at once, then the others.

        Ends with the job. Raises TunerError if the job fails.
        """
        ...

    def result(self) -> str:
        """Return the name of the tuned model; raise TunerError if there is none."""
        ...

    def cancel(self) -> None:
        """Stop the job; one that is over stays as it is."""
        ...

    def clean_up(self, *, model: bool = False) -> None:
        """Delete the files that were handed over, and with ``model`` the tuned model, too."""
        ...


class Notes:
    """What a tuner has to remember over a restart, as a JSON file that is always whole."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = Path(folder), Path(folder) / "tuner.json"

    def read(self) -> dict[str, Any]:
        """Return what was written last."""
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError):
            why = f"{self.path} is damaged: look for the job at the vendor, then delete the file"
            raise TunerError(why) from None

    def write(self, **values: Any) -> None:
        """Change some values; None forgets one."""
        found = self.read() | values
        write_json({name: v for name, v in found.items() if v is not None}, self.path)

    def alone(self) -> FileLock:
        """Return a lock on the folder: of two processes that start one job, the second one waits.

        It is gone with the process that holds it.
        """
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "tuner.lock")

    def need(self, name: str, remedy: str) -> Any:
        """Return a value that must be there, or raise TunerError with the remedy."""
        if (found := self.read().get(name)) is None:
            raise TunerError(f"{self.folder}: {remedy}")
        return found

    def refuse_deleted(self) -> None:
        """Raise TunerError if the tuned model was deleted: this folder's work is done."""
        if self.read().get("deleted"):
            raise TunerError(f"{self.folder}: the tuned model was deleted; use another folder")

    def same_job(self, request: dict[str, Any]) -> str | None:
        """Return the job if it was created with this request; raise TunerError for another."""
        self.refuse_deleted()
        found = self.read()
        if found.get("job") and found["request"] != request:
            raise TunerError(f"{self.folder} holds {found['request']}: use another folder")
        return found.get("job")

    def take_files(self, train: Path, validation: Path | None) -> dict[str, Path]:
        """Check the files and note their hashes; return the files by what they are for.

        Raises TunerError for what cannot be taught, and for other files than those noted before;
        JsonlError for what cannot be read.
        """
        self.refuse_deleted()
        files = {"training": Path(train)}
        files |= {"validation": Path(validation)} if validation else {}
        taught, tokens = set(), 0
        for path in files.values():
            check = validate(path, least=1 if taught else LEAST)
            for example in check.examples:
                if same_text(example.text) in taught:
                    check.complain(example.line, f": in {train} too; use different splits")
            if not check.ok:
                raise TunerError(str(check))
            taught = {same_text(e.text) for e in check.examples}
            tokens = tokens or check.tokens
        hashes = {use: digest(path.read_bytes()) for use, path in files.items()}
        if self.read().get("hashes", hashes) != hashes:
            raise TunerError(f"{self.folder} holds a job on other files: use another folder")
        self.write(hashes=hashes, tokens=tokens)
        return files
