"""ONNX graphs written down operation by operation, so that no exporter has to guess them.

PyTorch's own exporter follows the Python code of a model, which takes a package more and, for large
models, luck; ours are small and known. What results is data: weights, and names of operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, FORMAT = 18, 10
"""Versions of operations and of the file, which ONNX Runtime reads from 1.20 on."""

KINDS = {"float": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}


class Graph:
    """A graph on its way: ``weight`` and ``op`` return the name of what they add."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []

    def input(self, name: str, kind: str, shape: list[int | str]) -> str:
        """Add an input; a size that is a name may be any."""
        self._inputs.append(helper.make_tensor_value_info(name, KINDS[kind], shape))
        return name

    def weight(self, values: Any, kind: Any = None) -> str:
        """Add an array, of its own type unless told otherwise."""
        name = f"w{len(self._weights)}"
        array = np.asarray(values, dtype=kind, order="C")
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def whole(self, *numbers: int) -> str:
        """Add a list of whole numbers: axes, a shape, the ends of a slice."""
        return self.weight(numbers, np.int64)

    def number(self, value: float) -> str:
        """Add a number."""
        return self.weight(value, np.float32)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation with one output."""
        name = f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def attention(self, queries: str, turned: str, values: str, size: int, hidden: str) -> str:
        """Attend: ``turned`` are the keys, (…, size, length); ``hidden`` is added to the scores."""
        scores = self.op("MatMul", queries, turned)
        scores = self.op("Add", self.op("Mul", scores, self.number(size**-0.5)), hidden)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), values)

    def linear(self, value: str, weight: np.ndarray, bias: np.ndarray | None = None) -> str:
        """Multiply (…, inputs) by a matrix (outputs, inputs), as torch stores it; add a bias."""
        found = self.op("MatMul", value, self.weight(np.asarray(weight).T, np.float32))
        return found if bias is None else self.op("Add", found, self.weight(bias, np.float32))

    def model(self, output: str, shape: list[int | str]) -> onnx.ModelProto:
        """Return the model with one output, named "outputs", after checking that it is sound."""
        self._nodes.append(helper.make_node("Identity", [output], ["outputs"], name="outputs"))
        told = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "graph", self._inputs, [told], self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT,
            producer_name="price-course",
        )  # fmt: skip
        onnx.checker.check_model(model, full_check=True)
        return model


def array(tensor: Any) -> np.ndarray:
    """Return a tensor of PyTorch in 32 bits."""
    return tensor.detach().float().cpu().numpy()
