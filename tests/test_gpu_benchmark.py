"""The GPU benchmark, run in small on a CPU: every recipe, every figure, every way to fail."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
bnb = pytest.importorskip("bitsandbytes")

from shared.open_models.memory import SHAPES, adapter_parameters, weight_bytes  # noqa: E402


@pytest.fixture(scope="module")
def gpu(root):
    """The benchmark; it is a script, not part of a package."""
    path = root / "tests" / "benchmarks" / "gpu_training.py"
    spec = importlib.util.spec_from_file_location("gpu_training", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def model(gpu):
    return gpu.quantised_model(gpu.SMALL, "cpu")


@pytest.fixture(scope="module")
def rows(gpu):
    return gpu.items(64, gpu.SMALL.vocabulary, 24)


@pytest.fixture(scope="module")
def figures(gpu, tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("figures") / "figures.json"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert gpu.main(["--dry", "--steps", "4", "--to", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    return json.loads(path.read_text())


def test_every_recipe_is_a_row(gpu, figures) -> None:
    rows = {row["name"]: row for row in figures["rows"]}
    assert list(rows) == [recipe.name for recipe in gpu.recipes()]
    assert len(rows) == len(gpu.recipes())
    missing = {name: row["error"] for name, row in rows.items() if "error" in row}
    assert all("is not installed" in error for error in missing.values()), missing
    assert {"plain", "ours", "as fine_tune does it"} <= rows.keys() - missing.keys()
    for name in rows.keys() - missing.keys():
        assert rows[name]["tokens_per_second"] > 0
        assert rows[name]["real_tokens"] == rows["plain"]["real_tokens"], "the same items"
    assert rows["plain"]["computed_tokens"] == 64 * 24
    assert rows["ours"]["computed_tokens"] == rows["ours"]["real_tokens"]


def test_the_figures_say_what_they_depend_on(figures) -> None:
    assert {"date", "seed", "device", "versions", "shape", "rank", "targets"} <= figures.keys()
    assert {"torch", "transformers", "peft", "bitsandbytes", "liger-kernel"} <= figures[
        "versions"
    ].keys()
    assert figures["verdict"] == {"reached_by": [], "best": None}, "no memory is counted on a CPU"
    reading = {row["name"]: row for row in figures["reading"]}
    assert (
        reading["batches of 32"]["items_per_second"] > reading["one at a time"]["items_per_second"]
    )
    assert 0 < reading["adapter"]["header_bytes"] < 10_000


def test_the_adapter_of_the_real_shape_has_109_megabytes() -> None:
    size = 4 * adapter_parameters(SHAPES["Llama 3.1 8B"], 32, "q_proj,k_proj,v_proj,o_proj")
    assert size == 109_051_904


def test_all_recipes_compute_the_same_loss(gpu, model, rows) -> None:
    """Else one would be faster because it does something else."""
    found = []
    for padding in ("full", "longest", "packed"):
        for head in ("all", "labels"):
            recipe = gpu.Recipe("x", padding=padding, head=head)
            gpu.prepare(model, recipe)
            batch = gpu.batches(rows[:16], recipe, 24)[0]
            loss = gpu.loss_of(model, batch, head)
            model.zero_grad()
            loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
            found.append((float(loss.detach()), gradient))
    for loss, gradient in found:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-7)


def test_checkpointing_keeps_less(gpu, model, rows) -> None:
    kept = {}
    for checkpointing in ("none", "half", "all"):
        recipe = replace(gpu.PLAIN, checkpointing=checkpointing)
        gpu.prepare(model, recipe)
        sizes: list[int] = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gpu.loss_of(model, gpu.batches(rows[:16], recipe, 24)[0], "labels")
        kept[checkpointing] = sum(sizes)
    assert kept["none"] > kept["half"] > kept["all"]


def test_the_base_has_four_bits_twice_quantised(gpu, model) -> None:
    found = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(found) == 7 * gpu.SMALL.layers
    assert all(m.weight.quant_state.nested for m in found)
    assert {m.weight.quant_state.quant_type for m in found} == {"nf4"}
    codes = sum(m.weight.numel() for m in found)
    assert 2 * codes == gpu.SMALL.parts["attention"] + gpu.SMALL.parts["feed-forward"]
    assert codes < weight_bytes(gpu.SMALL, 4)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == adapter_parameters(gpu.SMALL, gpu.RANK, gpu.TARGETS)


def test_lengths_are_what_the_docstring_says(gpu) -> None:
    lengths = np.array([len(row) for row in gpu.items(4_000, 100)])
    assert 0.63 < lengths.mean() / gpu.LENGTH < 0.67
    assert lengths.min() == 24
    assert lengths.max() == gpu.LENGTH
    again = gpu.items(4_000, 100)
    assert all(torch.equal(a, b) for a, b in zip(gpu.items(4_000, 100), again, strict=True))


def test_without_a_gpu_it_says_so_and_leaves_with_2(gpu, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "needs a GPU" in said[0]


def test_dry_figures_are_not_stored_as_results(gpu) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--dry", "--write"])


def test_a_recipe_that_does_not_fit_is_a_row_and_nothing_is_lost(gpu, tmp_path) -> None:
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")

    def fits():
        return {"tokens_per_second": 10.0, "peak_gib": 5.0}

    path = tmp_path / "figures.json"
    report = gpu.Report(path, {}, budget=60)
    report.measure("rows", "plain", too_large)
    assert "20.00 GiB" in json.loads(path.read_text())["rows"][0]["error"], "stored at once"
    report.measure("rows", "ours", fits)
    assert "speed_to_plain" not in report.found["rows"][1], "nothing to compare with"
    late = gpu.Report(None, {}, budget=0)
    late.measure("rows", "plain", fits)
    assert "not measured" in late.found["rows"][0]["error"]


def test_the_verdict_names_who_is_twice_as_fast_in_less_memory(gpu) -> None:
    report = gpu.Report(None, {}, budget=60)
    for name, speed, memory in (("plain", 100, 20), ("a", 250, 15), ("b", 210, 13), ("c", 90, 5)):
        report.measure(
            "rows", name, lambda s=speed, m=memory: {"tokens_per_second": s, "peak_gib": m}
        )
    assert gpu.verdict(report.found["rows"]) == {"reached_by": ["b"], "best": "b"}
    assert gpu.verdict(report.found["rows"][:2]) == {"reached_by": [], "best": "a"}


def test_memory_is_predicted_for_what_is_run(gpu, rows) -> None:
    shape = SHAPES["Llama 3.1 8B"]
    real = gpu.items(64, shape.vocabulary)

    def predicted(recipe):
        return gpu.prediction(shape, recipe, gpu.batches(real, recipe, gpu.LENGTH), True)

    plain, ours, used = map(predicted, (gpu.PLAIN, gpu.OURS, gpu.USED))
    assert plain > ours > used > weight_bytes(shape, 4)
    half = predicted(replace(gpu.OURS, checkpointing="half"))
    assert used < half < ours
