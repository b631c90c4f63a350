"""Writes a policy as ONNX: dense arithmetic, for tools of the desktop. Needs the extra ``onnx``."""

from typing import Any

import numpy as np

from sb3_rlx2.export.rlx2_reader import Layer, Policy

OPSET = 17
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "elu": "Elu", "leaky_relu": "LeakyRelu"}  # ONNX's own slopes are torch's


def pack(policy: Policy) -> bytes:
    """
    Write a policy as an ONNX model: input ``observation``, ``[batch, observations]``, output ``action``,
    ``[batch, actions]``, float32; for discrete actions ``[batch]``, the number of the action as a 64-bit integer.

    :param policy: the policy
    :return: the file
    :raises ValueError: if the package onnx is missing
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError("format='onnx' needs the package onnx: pip install 'sb3_rlx2[onnx]'") from error
    helper, graph = onnx.helper, _Graph(onnx)
    graph.add_policy(policy)
    graph.nodes[-1].output[0] = "action"
    discrete = policy.output == "argmax"
    kind = onnx.TensorProto.INT64 if discrete else onnx.TensorProto.FLOAT
    shape = ["batch"] if discrete else ["batch", policy.actions]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [helper.make_tensor_value_info("observation", onnx.TensorProto.FLOAT, ["batch", policy.inputs])],
            [helper.make_tensor_value_info("action", kind, shape)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="sb3_rlx2",
        producer_version=str(policy.about.get("version", "")),
    )
    helper.set_model_props(model, {name: str(value) for name, value in policy.about.items()})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Store an array, and give its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and give its output's name."""
        name = f"value_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def add_policy(self, policy: Policy) -> str:
        """Add all of a policy; its last node gives the action."""
        x = "observation"
        if policy.normaliser is not None:
            mean, rest, inverse_std = map(self.constant, policy.normaliser)
            x = self.node("Mul", self.node("Sub", self.node("Sub", x, mean), rest), inverse_std)
            x = self.node("Clip", x, self.constant(-policy.clip), self.constant(policy.clip))
        for layer in policy.layers:
            x = self.layer(x, layer)
        if policy.output == "argmax":
            return self.node("ArgMax", x, axis=1, keepdims=0)
        low, high = self.constant(policy.low), self.constant(policy.high)
        if policy.output == "unscale":
            span = self.node("Sub", high, low)
            half = self.node("Mul", self.constant(0.5), self.node("Add", x, self.constant(1.0)))
            x = self.node("Add", low, self.node("Mul", half, span))
        else:
            x = self.node("Max", self.node("Min", x, high), low)
        return self.node("Where", self.no_number(), self.constant(np.nan), x)

    def no_number(self) -> str:
        """Add whether an observation holds a NaN, which ONNX's Clip, Relu, Max and Min need not let through."""
        flags = self.node("Cast", self.node("IsNaN", "observation"), to=self.onnx.TensorProto.FLOAT)
        return self.node("Greater", self.node("ReduceMax", flags, axes=[1], keepdims=1), self.constant(0.0))

    def layer(self, x: str, layer: Layer) -> str:
        """Add a layer; int8 and float16 stay so in the file."""
        weight = self.single(np.ascontiguousarray(layer.dense().T))
        x = self.node("MatMul", x, weight)
        if layer.scales is not None:
            x = self.node("Mul", x, self.single(layer.scales))
        x = self.node("Add", x, self.single(layer.bias))
        return self.node(ACTIVATIONS[layer.activation], x) if layer.activation in ACTIVATIONS else x

    def single(self, array: np.ndarray) -> str:
        """Store an array in its own type, and make it float32."""
        name = self.constant(array, array.dtype)
        return name if array.dtype == np.float32 else self.node("Cast", name, to=self.onnx.TensorProto.FLOAT)


def act_of_model(data: bytes) -> Any:
    """
    Load an ONNX model into onnxruntime.

    :param data: the file
    :return: a function of observations, ``[n, observations]``, like the policy itself
    :raises ImportError: if the package onnxruntime is missing
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def act(observation: np.ndarray) -> np.ndarray:
        flat = np.atleast_2d(np.asarray(observation, np.float32))
        actions = np.asarray(session.run(["action"], {"observation": flat})[0], np.float32).reshape(len(flat), -1)
        return actions.reshape(*np.shape(observation)[:-1], actions.shape[1])

    return act
