"""What single commands and options need beside the default installation, and an error that says how to get it."""

import importlib.util

MODULES = {  # of the extras in pyproject.toml, by the names under which they are imported
    "hub": ("huggingface_hub", "moviepy"),
    "minari": ("minari",),
    "minatar": ("minatar",),
    "onnx": ("onnx", "onnxruntime"),
    "plots": ("matplotlib", "pandas", "rliable", "scipy", "seaborn"),
    "postgres": ("psycopg",),
    "report": ("scipy",),
    "safetensors": ("safetensors",),
    "tensorboard": ("tensorboard",),
    "tuning": ("matplotlib", "optuna", "pandas", "plotly", "scipy", "sqlalchemy"),
    "video": ("imageio_ffmpeg", "moviepy"),
}


class MissingExtra(ImportError):
    """Something was asked for that the installation lacks the packages for."""


def require(extra: str, what: str) -> None:
    """
    Check that an extra is installed, before any work is done that would be lost without it. Nothing is imported.

    :param extra: its name, a key of ``MODULES``
    :param what: what needs it, as the user wrote it
    :raises MissingExtra: if it is not, with the first module that is missing and the command that installs it
    """
    for module in MODULES[extra]:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(f"{what} needs {module}: pip install 'sb3_rlx2[{extra}]'")
