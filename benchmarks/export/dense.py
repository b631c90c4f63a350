"""What the dense network of the same widths takes: exported by this package, and by others, where they are installed."""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export.sizes import Size, measure, measure_source
from sb3_rlx2.export import onnx
from sb3_rlx2.export.description import Description, Stage


def dense_description(widths: list[int]) -> Description:
    """Describe a dense policy, of any weights: neither bytes nor instructions depend on them."""
    generator = np.random.default_rng(0)
    stages = [
        Stage(generator.normal(0, inputs**-0.5, (outputs, inputs)), generator.normal(0, 0.1, outputs), "relu")
        for inputs, outputs in pairwise(widths)
    ]
    stages[-1] = Stage(stages[-1].weight, stages[-1].bias, "tanh")
    low, high, mean, std = -np.ones(widths[-1]), np.ones(widths[-1]), np.full(widths[0], 0.1), np.full(widths[0], 2.0)
    size = sum(stage.links for stage in stages)
    return Description(tuple(stages), "unscale", low, high, mean, std, 10.0, size, size, {})


def measure_dense(widths: list[int]) -> Size:
    """Measure what this package makes of it."""
    return measure(dense_description(widths).policy())


def measure_others(widths: list[int]) -> dict[str, dict[str, Any]]:
    """Measure what others make of it, those that are installed."""
    there = {name: measure for name, (module, measure) in OTHERS.items() if find_spec(module) is not None}
    return {name: {**measure(widths)._asdict(), "version": version(name)} for name, measure in there.items()}


def measure_emlearn(widths: list[int]) -> Size:
    """
    Measure what emlearn makes of it, which takes networks of scikit-learn: no normalisation, no rescaling, and weights with
    six decimals.
    """
    import emlearn
    from sklearn.neural_network import MLPClassifier

    generator = np.random.default_rng(0)
    classes = max(3, widths[-1])  # with two, scikit-learn has one output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not to converge
        net = MLPClassifier(hidden_layer_sizes=widths[1:-1], max_iter=1)
        net.fit(generator.normal(size=(10 * classes, widths[0])), np.arange(10 * classes) % classes)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it leaves files
        try:
            source = emlearn.convert(net, method="inline").save(name="net")
        finally:
            os.chdir(here)
    call = f"void policy_act(const float *x, float *y) {{ net_regress(x, {widths[0]}, y, {classes}); }}\n"
    return measure_source(source + call, generator.normal(size=(8, widths[0])), classes, f"-I{emlearn.includedir}")


def measure_emx(widths: list[int]) -> Size:
    """Measure what emx-onnx-cgen makes of our ONNX model, in which all is that our own C has, for batches of one."""
    policy = dense_description(widths).policy()
    with tempfile.TemporaryDirectory() as name:
        model, source = Path(name, "net.onnx"), Path(name, "net.c")
        model.write_bytes(onnx.pack(policy))
        # All weights in the source, and nothing on a heap.
        options = ["--input-dim", "batch=1", "--large-weight-threshold", "0", "--large-temp-threshold", "0"]
        command = [sys.executable, "-m", "emx_onnx_cgen", "compile", *options, "--model-name", "net", str(model), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        text = source.read_text()
    call = (
        f"void policy_act(const float *x, float *y) {{ net((const float (*)[{widths[0]}])x, (float (*)[{widths[-1]}])y); }}\n"
    )
    return measure_source(text + call, policy.test_observations, policy.actions)


OTHERS: dict[str, tuple[str, Callable[[list[int]], Size]]] = {  # by their names in pip, which module says that they are there
    "emlearn": ("emlearn", measure_emlearn),
    "emx-onnx-cgen": ("emx_onnx_cgen", measure_emx),
}
