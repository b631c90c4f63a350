import pytest
import torch as th
from hypothesis import settings

from sb3_rlx2.algorithms.policies import SparsePolicy

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of several threads may round differently, and tests here compare bits."""
    th.set_num_threads(1)


# They begin first: at the end no worker is left alone with one of them.
LONGEST = [f"test_{name}.py" for name in ("packaging", "readme", "zoo", "returns_runner", "storage", "dense_first")]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


CHECK_CONNECTED = SparsePolicy.check_connected


@pytest.fixture(autouse=True, scope="session")
def agents_may_see_nothing():
    """Agents here are so small that links drawn by chance may lead nowhere; tests/test_effective.py asks for the check."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SparsePolicy, "check_connected", lambda _: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def log_folder(tmp_path_factory):
    """SB3 makes a folder under the temporary one for each call of `learn` unless it is told where."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("logs")))
        yield


@pytest.fixture
def rlx2(monkeypatch, capfd, tmp_path):
    """Give the command `rlx2`, in a folder of the test's own."""
    from tests.command import Command

    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capfd)
