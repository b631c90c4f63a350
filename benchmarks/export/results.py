"""One JSON for each agent, with what was measured and with what."""

import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.export.agents import described
from benchmarks.export.dense import measure_dense, measure_others
from benchmarks.export.sizes import measure, measure_reader
from sb3_rlx2.export import onnx, read
from sb3_rlx2.export.bin import pack
from sb3_rlx2.export.description import VALUE_TYPES, dense_bytes
from sb3_rlx2.export.formats import write_files

RESULTS = Path(__file__).parent / "results"


def run(agent: Path, folder: Path = RESULTS) -> dict[str, Any]:
    """Measure an agent in every type, and what is dense beside it."""
    policy = read(agent.read_bytes())
    about, sizes = policy.about, {}
    for dtype in VALUE_TYPES:
        other = described(policy).policy(dtype)
        sizes[dtype] = {
            **measure(other)._asdict(),
            "links": other.about["links"],
            "units": sum(layer.outputs for layer in other.layers),
            "file": len(pack(other)),
        }
    result = {
        "agent": {name: about[name] for name in ("algorithm", "env", "note", "widths", "weights_of_dense", "links_before")},
        "sizes": sizes,
        "reader": {**measure_reader(policy)._asdict(), "links": about["links"]},
        "dense": {**measure_dense(about["widths"])._asdict(), "bytes": dense_bytes(about["widths"])},
        "others": measure_others(about["widths"]),
        "onnx": len(onnx.pack(policy)),
        "versions": {"gcc": _gcc(), "unicorn": version("unicorn"), "sb3_rlx2": version("sb3_rlx2")},
    }
    folder.mkdir(exist_ok=True)
    write_files(folder, {f"{agent.stem}.json": (json.dumps(result, indent=1) + "\n").encode()})
    return result


def _gcc() -> str:
    text = subprocess.run(["arm-none-eabi-gcc", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\b\d+\.\d+\.\d+\b", text)
    assert found is not None
    return found[0]


def stored(folder: Path = RESULTS) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
