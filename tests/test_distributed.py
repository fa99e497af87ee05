"""Several devices: two processes on CPUs (gloo) train as one would with all their examples.

FSDP2 is real here: sharded weights, gathered layer by layer, over gloo. One thing is not.
accelerate offers FSDP on accelerators only, so the worker below tells it that it may, on CPUs.
Everything after that is the libraries' own code, as it runs on GPUs. What this cannot test: NCCL,
mixed precision, and eight-bit optimizers (not used under FSDP).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from safetensors.torch import load_file  # noqa: E402
from test_fine_tuning import (  # noqa: E402
    THINGS,
    TRAIN,
    VALIDATION,
    make_small_base,
    products,
)

from shared.open_models.adapters import ADAPTER  # noqa: E402
from shared.open_models.pricer import tuned_pricer  # noqa: E402
from shared.training.fine_tuning import Plan, fine_tune  # noqa: E402

CONFIG = Path(__file__).parents[1] / "shared" / "training" / "fsdp2.yaml"
SECONDS = 150
"""For a launch: a process that waits for another for ever is an error, not a slow test."""

WORKER = '''
import json, os, shutil, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from accelerate import state
from accelerate.utils import DistributedType

opened = state.AcceleratorState.__init__

def allowed_on_cpus(self, *args, fsdp_plugin=None, **more):
    opened(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

state.AcceleratorState.__init__ = allowed_on_cpus

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from test_fine_tuning import TRAIN, VALIDATION
from shared.training import trainer
from shared.training.fine_tuning import Plan, fine_tune

rank = int(os.environ["RANK"])
written = trainer.PriceTrainer.save_model

def and_by_another_way(self, output_dir=None, _internal_call=False):
    """Save, and tell what torch itself gathers, and which weights are spread."""
    written(self, output_dir, _internal_call)
    if not self.is_fsdp_enabled or "first" not in output_dir:
        return
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    whole = get_model_state_dict(self.model, options=options)
    if rank == 0:
        torch.save(whole, Path(output_dir).parents[1] / "gathered.pt")
    weights = dict(self.model.named_parameters())
    spread = {{name: isinstance(weight, DTensor) for name, weight in weights.items()}}
    (Path(output_dir).parents[1] / f"spread-{{rank}}.json").write_text(json.dumps(spread))

trainer.PriceTrainer.save_model = and_by_another_way
for name, plan in {runs!r}:
    out = Path({out!r}) / name
    if name == "resumed" and rank == 0:  # the first run, had it been killed writing its last one
        shutil.copytree(out.with_name("first"), out)
        for path in (out / "manifest.json", out / "adapter_model.safetensors",
                     out / "checkpoints/checkpoint-16/files.json"):
            path.unlink()
    if name == "plain":  # as if launched without the file
        del os.environ["ACCELERATE_USE_FSDP"]
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    manifest = fine_tune(TRAIN, VALIDATION, out, Plan(**plan), progress=False, keep_all=True)
    (out / f"returned-{{rank}}.json").write_text(json.dumps(manifest))
'''


def launch(folder: Path, runs: list[tuple[str, Plan]]) -> Path:
    """Train in two processes; all runs in one launch, since starting is what takes time."""
    code = WORKER.format(
        tests=str(Path(__file__).parent), root=str(CONFIG.parents[2]), out=str(folder),
        runs=[(name, asdict(plan)) for name, plan in runs],
    )  # fmt: skip
    script = folder / "worker.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)),
            *("--num_processes", "2", "--main_process_port", "0", str(script)),
        ],
        capture_output=True, text=True, timeout=SECONDS, cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def plan(base) -> Plan:
    return Plan(
        base=str(base), bits=16, rank=8, alpha=16, rate=2e-2, batch=8, epochs=0.5, text_tokens=12,
        evaluations=2, validation=40,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two(plan, tmp_path_factory) -> Path:
    """The folder of what two processes with FSDP2 trained."""
    quantised = replace(plan, bits=4, epochs=0.25, checkpointing=True)
    return launch(
        tmp_path_factory.mktemp("two"),
        [("first", plan), ("resumed", plan), ("four", quantised), ("plain", plan)],
    )


@pytest.fixture(scope="module")
def one(plan, tmp_path_factory) -> Path:
    """What one process trains with all the examples of a step."""
    out, threads = tmp_path_factory.mktemp("one"), torch.get_num_threads()
    torch.set_num_threads(1)  # as many as each of the two has
    try:
        fine_tune(TRAIN, VALIDATION, out, replace(plan, batch=16), progress=False)
    finally:
        torch.set_num_threads(threads)
    return out


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_two_processes_leave_one_adapter_one_manifest_and_one_log(two) -> None:
    out = two / "first"
    manifest = read(out / "manifest.json")
    curve = {entry["step"]: entry["eval_dollars"] for entry in manifest["curve"]}
    assert sorted(curve) == [0, 8, 16]
    assert curve[manifest["best_step"]] < 0.7 * curve[0]
    assert [e["step"] for e in log_of(out) if "loss" in e] == list(range(1, 17))
    assert [e["step"] for e in log_of(out) if "eval_dollars" in e] == [0, 8, 16]
    assert all(read(out / f"returned-{rank}.json") == manifest for rank in (0, 1))
    assert len(list(out.glob("*.safetensors"))) == 1


def test_the_weights_were_spread_over_both(two) -> None:
    for rank in (0, 1):
        spread = read(two / "first" / f"spread-{rank}.json")
        assert all(spread.values()), [name for name, is_spread in spread.items() if not is_spread]


def test_it_is_what_one_process_learns_from_the_same_examples(two, one) -> None:
    """Each step sees the same 16 examples, split or not; only the order of adding differs."""
    for entry, alone in zip(log_of(two / "first"), log_of(one), strict=True):
        for name in {"loss", "grad_norm", "eval_price_loss"} & set(alone):
            assert entry[name] == pytest.approx(alone[name], rel=1e-4), (name, alone["step"])
    together, alone = load_file(two / "first" / ADAPTER), load_file(one / ADAPTER)
    assert together.keys() == alone.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-3, atol=1e-5)


def test_the_adapter_is_gathered_whole(two) -> None:
    saved = load_file(two / "first/checkpoints/checkpoint-16" / ADAPTER)
    gathered = torch.load(two / "first/gathered.pt", weights_only=True)
    gathered = {  # torch counts a tied output layer as no frozen weight
        name.replace(".default.", "."): weight
        for name, weight in gathered.items()
        if "lora_" in name
    }
    assert saved.keys() == gathered.keys()
    for name, weight in saved.items():
        assert weight.dtype == torch.float32
        assert 8 in weight.shape, f"{name} has the rank in neither direction: {weight.shape}"
        assert torch.equal(weight, gathered[name]), name
    total = read(two / "first/manifest.json")["trainable_parameters"]
    assert sum(weight.numel() for weight in saved.values()) == total


def test_the_adapter_prices_in_one_process(two) -> None:
    found = tuned_pricer(two / "first").price(products()).price
    wanted = np.array([THINGS[product.title.split()[0]] for product in products()])
    assert np.abs(found - wanted).mean() < 300
    curve = read(two / "first/manifest.json")["curve"]
    everything = tuned_pricer(two / "first").distribution(_validation()).median
    off = np.abs(everything - np.asarray(VALIDATION["price"])).mean()
    assert off == pytest.approx(min(entry["eval_dollars"] for entry in curve), abs=1e-3)


def test_interrupted_training_goes_on_to_the_identical_adapter(two) -> None:
    first, resumed = (read(two / name / "manifest.json") for name in ("first", "resumed"))
    assert resumed["sha256"] == first["sha256"]
    steps = [entry["step"] for entry in log_of(two / "resumed") if "loss" in entry]
    assert steps == [*range(1, 17), *range(9, 17)], "it went on behind step 8"


def test_four_bits_are_not_spread_but_train(two) -> None:
    """accelerate leaves them out, since packed weights lose their scales when they are cut up."""
    manifest = read(two / "four/manifest.json")
    curve = [entry["eval_dollars"] for entry in manifest["curve"]]
    assert min(curve[1:]) < curve[0]
    assert np.isfinite(tuned_pricer(two / "four").price(products()).price).all()


def test_without_sharding_it_is_the_same_training(two, one) -> None:
    """What accelerate makes of two processes by itself: DDP, a whole model in each."""
    out = two / "plain"
    assert (out / "checkpoints/checkpoint-8/optimizer.pt").exists(), "it was sharded"
    together, alone = load_file(out / ADAPTER), load_file(one / ADAPTER)
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-3, atol=1e-5)
    assert [e["step"] for e in log_of(out) if "loss" in e] == list(range(1, 17))


def _validation() -> list:
    from shared.data import Product

    return [
        Product.from_item(row) for row in VALIDATION.select(list(Product.__slots__)).to_pylist()
    ]
