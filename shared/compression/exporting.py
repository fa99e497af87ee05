"""Students as ONNX: the graph of a network on hashed n-grams, and eight bits instead of 32."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from torch import nn

from shared.compression.exported import MODEL, write_exported
from shared.compression.graph import Graph

if TYPE_CHECKING:
    from shared.compression.network import Network
    from shared.compression.student import Student

PRECISIONS = ("fp32", "int8")

FP32_TOLERANCE = 1e-4
"""By how much, as a share, an exported student's price may differ from the one of PyTorch."""
INT8_TOLERANCE = 0.05
"""The same with eight bits; most prices differ by less than a hundredth."""


def export_student(student: Student, folder: Path, precision: str = "int8") -> Path:
    """Write a student as a folder that ``StudentPricer`` opens; return the folder.

    ``precision``: "fp32" gives the prices of PyTorch within ``FP32_TOLERANCE``, "int8" within
    ``INT8_TOLERANCE`` and in a quarter of the size.
    """
    facts = {
        "kind": "student", "name": f"{student.name}, {precision}", "precision": precision,
        "reading": asdict(student.network.reading), "settings": student.settings,
    }  # fmt: skip
    return write_exported(folder, {MODEL: as_bytes(bag_graph(student.network), precision)}, facts)


def bag_graph(network: Network) -> onnx.ModelProto:
    """Return a network on hashed n-grams as an ONNX model: buckets and weights in, outputs out."""
    graph = Graph()
    buckets = graph.input("buckets", "int32", ["n", "grams"])
    weights = graph.input("weights", "float", ["n", 1])
    places, table = network.places.numpy(), network.table.weight.detach().numpy()
    if not np.array_equal(places, np.arange(len(places))):
        # Two bytes a bucket where they are enough; Gather itself takes no less than four.
        small = places.astype(np.uint16 if len(table) <= 2**16 else np.int32)
        buckets = graph.op("Cast", graph.op("Gather", graph.weight(small), buckets), to=6)
    rows = graph.op("Gather", graph.weight(table, np.float32), buckets)
    summed = graph.op("ReduceSum", rows, graph.whole(1), keepdims=0)
    value = graph.op("Mul", summed, weights)
    for layer in network.layers:
        if isinstance(layer, nn.Linear):
            value = graph.linear(value, *(p.detach().numpy() for p in layer.parameters()))
        else:
            value = graph.op("Relu", value)
    return graph.model(value, ["n", network.layers[-1].out_features])


def as_bytes(model: onnx.ModelProto, precision: str, kinds: tuple[str, ...] = ("Gather",)) -> bytes:
    """Return a model as the bytes of its file, its weights in 32 or 8 bits.

    ``kinds``: the operations whose weights get eight bits and one scale for each table. Those
    of a student's small layers keep 32: they are a hundredth of it, and decide the most.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    return model.SerializeToString() if precision == "fp32" else _quantised(model, kinds)


def _quantised(model: onnx.ModelProto, kinds: tuple[str, ...]) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    known = onnx.shape_inference.infer_shapes(model)
    # Says that shapes are inferred: else the library advises on its log to do so first.
    onnx.helper.set_model_props(known, {"onnx.quant.pre_process": "onnxruntime.quant"})
    products = "MatMul" in kinds
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / MODEL
        # Matrices use 7 of their 8 bits: processors without VNNI (AVX2, much of Colab) add pairs of
        # products up in 16 bits, which full weights overflow: prices then moved by 6 %, not by 2.
        quantize_dynamic(
            known, out, op_types_to_quantize=list(kinds), weight_type=QuantType.QInt8,
            per_channel=products, reduce_range=products,
        )  # fmt: skip
        return out.read_bytes()
