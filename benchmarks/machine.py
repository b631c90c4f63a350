"""Says where and with what something was measured, and keeps it to its threads."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PACKAGES = ("sb3_rlx2", "stable_baselines3", "torch", "numpy", "numba", "gymnasium", "mujoco")


def thread_variables(threads: int) -> dict[str, str]:
    """Give the environment variables that keep a child process to some threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def machine() -> dict[str, Any]:
    """Describe the machine and what its programs load first, without its name or paths."""
    preloaded = [Path(library).name for library in os.environ.get("LD_PRELOAD", "").replace(":", " ").split()]
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.system(), "preloaded": preloaded}


def maker(cpu: str) -> str:
    """Give the first word of a CPU's name, which is its maker's."""
    return re.split(r"\W", cpu, maxsplit=1)[0]


def cpu_model() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    vector = "AVX-512" if "avx512f" in fields.get("flags", "") else "AVX2" if "avx2" in fields.get("flags", "") else "no AVX2"
    return f"{fields['model name']} ({vector})" if "model name" in fields else platform.machine()
