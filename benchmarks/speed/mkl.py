"""
Lets Intel's MKL, with which torch multiplies matrices, use on an AMD processor the vector code that it uses on an Intel one.

MKL asks for the processor's maker, and takes code of its own for others even if they have AVX2 and AVX-512. A library that is
loaded first answers in its place (https://danieldk.eu/Intel-MKL-on-AMD-Zen). Nobody trains like that, but whoever has a
processor of Intel's has this speed, and a comparison that left it out would flatter us.
"""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import cpu_model
from benchmarks.speed.measure import Job

SAYS_INTEL = "int mkl_serv_intel_cpu_true(void) { return 1; }\nint mkl_serv_intel_cpu(void) { return 1; }\n"
PRODUCT = "import torch as th; th.ones(64, 64) @ th.ones(64, 64)"
AS_ON_INTEL = ", MKL as on Intel"  # ends the names of jobs that are measured so
VECTOR_CODE = "Advanced Vector Extensions"  # in what MKL says of itself if it uses them


@functools.cache
def as_on_intel() -> dict[str, str] | None:
    """
    Give the environment variables that make MKL use its vector code.

    :return: None where it already does, and where there is no MKL, no C compiler or no way to make it
    """
    compiler = shutil.which("cc")
    if VECTOR_CODE in _what_mkl_says({}) or compiler is None or "AVX" not in cpu_model():
        return None
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    library = folder / "says_intel.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=SAYS_INTEL, text=True, check=True)
    variables = {"LD_PRELOAD": str(library)}
    return variables if VECTOR_CODE in _what_mkl_says(variables) else None


def _what_mkl_says(variables: dict[str, str]) -> str:
    """Let MKL describe itself and its calls."""
    environment = os.environ | variables | {"MKL_VERBOSE": "1"}
    return subprocess.run([sys.executable, "-c", PRODUCT], env=environment, capture_output=True, text=True, check=True).stdout


def both_ways(jobs: dict[str, Job], name: str) -> dict[str, Job]:
    """Add to jobs the one of that name with MKL as on Intel, if that is something else than what MKL does by itself."""
    variables = as_on_intel()
    return jobs if variables is None else jobs | {name + AS_ON_INTEL: replace(jobs[name], variables=variables)}
