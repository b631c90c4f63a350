"""RLx2's keyword arguments have one set of names and defaults, wherever they are written."""

import inspect
import typing

import pytest

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer
from sb3_rlx2.algorithms.keywords import GROUPS, BufferOptions, Evolution, NetworkOptions, RLx2Keywords, defaults
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.updater import TopologyUpdater

# None stands for the policy's own there, which serves algorithms of either kind of action.
EXCEPT = {"policy_distance_threshold"}
PLACES = {
    RLx2Callback.__init__: Evolution,
    RLx2ReplayBuffer.__init__: BufferOptions,
    TopologyUpdater.configure: Evolution,
    **{algorithm.sparse_policy_class.__init__: NetworkOptions for algorithm in ALGORITHMS.values()},
}


@pytest.mark.parametrize(("function", "group"), PLACES.items(), ids=lambda each: each.__qualname__)
def test_defaults_agree(function, group):
    written = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name in vars(group()) and name not in EXCEPT and parameter.default is not parameter.empty
    }
    assert written
    assert written == {name: value for name, value in vars(group()).items() if name in written}


def test_parts_take_all_of_their_group():
    for function, group in ((RLx2Callback.__init__, Evolution), (RLx2ReplayBuffer.__init__, BufferOptions)):
        assert vars(group()).keys() <= inspect.signature(function).parameters.keys()


def test_every_keyword_has_a_type_and_a_group():
    assert typing.get_type_hints(RLx2Keywords).keys() == defaults().keys()
    names = [name for group in GROUPS for name in vars(group())]
    assert len(names) == len({*names})


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=lambda each: each.__name__)
def test_signatures_show_them(algorithm):
    shown = inspect.signature(algorithm).parameters
    assert {name: shown[name].default for name in algorithm.rlx2_defaults()} == algorithm.rlx2_defaults()
