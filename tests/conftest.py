import pytest
import torch as th
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of several threads may round differently, and tests here compare bits."""
    th.set_num_threads(1)
