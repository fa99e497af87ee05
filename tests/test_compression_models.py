"""Language models as ONNX: the same answers as PyTorch's, in a fraction of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.compression import OnnxLanguagePricer, export_language_model
from shared.compression import language_model as lm
from shared.compression.exported import MANIFEST, MODEL, ExportError, session
from shared.compression.four_bits import BLOCK, in_four_bits
from shared.compression.graph import Graph
from shared.data import Product, products
from shared.open_models.pricer import base_pricer, tuned_pricer
from shared.pipeline import prepare as curated


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return curated("embedded", tmp_path_factory.mktemp("items"), size=3_000, progress=False)


@pytest.fixture(scope="module")
def listed(made):
    return products(made.table("test").slice(0, 60))


# A language model


@pytest.fixture(scope="module")
def tuned():
    return tuned_pricer()


@pytest.fixture(scope="module")
def exported(tuned, tmp_path_factory):
    """Precision -> folder."""
    work = tmp_path_factory.mktemp("language")
    return {p: export_language_model(tuned, work / p, p) for p in ("fp32", "int8", "int4")}


def test_its_distribution_is_that_of_pytorch(tuned, exported, listed):
    odd = [
        Product("a", "", "", "", ""), Product("b", "x", "x", "", ""),
        Product("c", "long", "word 12 " * 400, "", ""), Product("d", "é", "Café – 1½ l\n", "", ""),
    ]  # fmt: skip
    asked = [*listed[:30], *odd]
    pricer = OnnxLanguagePricer(exported["fp32"], batch=8)
    wanted, found = tuned.distribution(asked), pricer.distribution(asked)
    assert np.abs(found.probabilities - wanted.probabilities).max() < lm.TOLERANCE
    assert np.abs(found.mass - wanted.mass).max() < lm.TOLERANCE
    assert wanted.probabilities.max() > 100 * lm.TOLERANCE, "so flat that anything would be near"
    assert np.array_equal(pricer.price(asked).price, tuned.price(asked).price)
    assert len(pricer.price([]).price) == 0


@pytest.mark.parametrize(
    ("bits", "tolerance", "smaller"),
    [("int8", lm.INT8_TOLERANCE, 0.4), ("int4", lm.INT4_TOLERANCE, 0.22)],
)
def test_fewer_bits_change_its_prices_a_little(tuned, exported, listed, bits, tolerance, smaller):
    wanted = tuned.distribution(listed).mean
    found = OnnxLanguagePricer(exported[bits]).distribution(listed).mean
    assert 0 < np.abs(found / wanted - 1).mean() < tolerance
    sizes = {name: (folder / MODEL).stat().st_size for name, folder in exported.items()}
    assert sizes[bits] < smaller * sizes["fp32"]


@pytest.mark.parametrize("k", [1, 31, 32, 33, 100])
def test_a_product_with_four_bits_is_that_of_the_rounded_matrix(k):
    """What the runtime makes of the steps is what was meant by them: order, halves, padding."""
    draw = np.random.default_rng(k)
    matrix = draw.normal(size=(k, 7)).astype(np.float32)
    matrix[:, 3] = 0  # a block without any number
    graph = Graph()
    value = graph.op("MatMul", graph.input("value", "float", ["n", k]), graph.weight(matrix))
    model = in_four_bits(graph.model(value, ["n", 7]))
    rounded = session(model.SerializeToString(), Path()).run(None, {"value": np.eye(k, dtype="f")})
    block = np.arange(k) // BLOCK
    for column in range(7):
        for one in np.unique(block):
            rows = block == one
            largest = np.abs(matrix[rows, column]).max()
            off = np.abs(rounded[0][rows, column] - matrix[rows, column])
            # Half a step, and a whole one at the end that has one step less.
            assert off.max() <= largest / 8 + 1e-6
            assert np.median(off) <= largest / 16 + 1e-6
            top = rows & (np.abs(matrix[:, column]) == largest)
            assert rounded[0][top, column] == pytest.approx(matrix[top, column], abs=1e-6)


def test_it_prices_without_pytorch(exported):
    code = (
        "import sys\nfrom pathlib import Path\nfrom shared.compression import OnnxLanguagePricer\n"
        "from shared.data import Product\n"
        "pricer = OnnxLanguagePricer(Path(sys.argv[1]))\n"
        "price = pricer.price([Product('a', 'Kettle', 'Steel kettle', '', '')]).price[0]\n"
        "print(price > 0, {'torch', 'transformers', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported["fp32"])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "True set()"


def test_a_folder_without_its_tokenizer_is_refused(exported, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (MODEL, MANIFEST):
        (folder / name).write_bytes((exported["int8"] / name).read_bytes())
    with pytest.raises(ExportError, match=r"tokenizer\.json: missing or changed"):
        OnnxLanguagePricer(folder)


def test_models_that_cannot_be_written_are_refused(tuned, tmp_path):
    whole = base_pricer(bits=16)
    whole.model.config.model_type = "qwen3"
    with pytest.raises(ValueError, match="qwen3: only models of Llama's kind"):
        export_language_model(whole, tmp_path / "a")
    whole.model.config.model_type = "llama"
    whole.model.peft_config = {}
    with pytest.raises(ValueError, match="adapter is not merged"):
        export_language_model(whole, tmp_path / "b")
    assert not list(tmp_path.iterdir())
