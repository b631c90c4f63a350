"""
Writes a policy as one flat little-endian file, which :mod:`sb3_rlx2.export.rlx2_reader` and ``rlx2_reader.c`` read.

The file is a header (``rlx2_reader.HEADER``), the normaliser (``mean``, ``mean_rest``, ``inverse_std``), ``low`` and ``high``
of the actions, the observations and the actions of the self-test, the layers, a JSON text of where it all comes from, and the
CRC-32 of everything before it. Each of these begins at a multiple of 4 bytes. A layer is a header (``LAYER_HEADER``), biases,
scales (int8 only), values, and, unless every weight is stored, the number of links of each row and the columns of all links.
"""

import json
import zlib
from pathlib import Path

import numpy as np

from sb3_rlx2.export.c import TEMPLATES
from sb3_rlx2.export.rlx2_reader import ACTIVATIONS, HEADER, LAYER_HEADER, MAGIC, OUTPUTS, VERSION, Layer, Policy


def pack(policy: Policy) -> bytes:
    """
    Write a policy as a ``.rlx2`` file.

    :param policy: the policy
    :return: the file
    """
    parts = [] if policy.normaliser is None else [_padded(policy.normaliser)]
    parts += [_padded(array) for array in (policy.low, policy.high, policy.test_observations, policy.test_actions)]
    parts += [part for layer in policy.layers for part in _layer(layer)]
    about = json.dumps(policy.about).encode()
    body = b"".join([*parts, about, b" " * (-len(about) % 4)])
    header = np.zeros(1, HEADER)
    header[0] = (
        *(MAGIC, VERSION, HEADER.itemsize + len(body) + 4, policy.inputs, policy.actions),
        max(policy.inputs, *(layer.outputs for layer in policy.layers)),
        *(len(policy.layers), policy.layers[0].values.itemsize, _index_bytes(policy)),
        *(OUTPUTS.index(policy.output), policy.normaliser is not None, policy.clip, len(policy.test_actions)),
    )
    data = header.tobytes() + body
    return data + zlib.crc32(data).to_bytes(4, "little")


def _layer(layer: Layer) -> list[bytes]:
    head = np.zeros(1, LAYER_HEADER)
    head[0] = layer.outputs, ACTIVATIONS.index(layer.activation), layer.columns is None, layer.values.size
    arrays = [head, layer.bias, *([] if layer.scales is None else [layer.scales]), layer.values]
    if layer.columns is not None and layer.counts is not None:
        arrays.append(np.concatenate([layer.counts, layer.columns]))
    return [_padded(array) for array in arrays]


def _padded(array: np.ndarray) -> bytes:
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return data + bytes(-len(data) % 4)


def _index_bytes(policy: Policy) -> int:
    return next((layer.columns.itemsize for layer in policy.layers if layer.columns is not None), 1)


def readers() -> dict[str, bytes]:
    """Give the readers in C and in Python, by their files' names; each needs nothing else."""
    files = {name: TEMPLATES.get_template(f"{name}.jinja").render().encode() for name in ("rlx2_reader.c", "rlx2_reader.h")}
    return files | {"rlx2_reader.py": Path(__file__).with_name("rlx2_reader.py").read_bytes()}
