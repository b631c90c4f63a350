"""Warnings point at the user's line; what an agent says of itself."""

import re

import pytest
from stable_baselines3.common.callbacks import EvalCallback

from sb3_rlx2 import RLx2TD3
from tests.checks import sparse_mlps
from tests.envs import TinyEnv
from tests.every import ALGORITHMS, env_for, small


def test_warnings_point_at_the_line_of_the_script():
    model = RLx2TD3("MlpPolicy", TinyEnv(), learning_starts=50, buffer_size=100, policy_kwargs={"net_arch": [4]})
    with pytest.warns(UserWarning, match="nothing is trained") as caught:
        model.learn(20, callback=EvalCallback(TinyEnv(), eval_freq=100))
    assert {warning.filename for warning in caught if "nothing is trained" in str(warning.message)} == {__file__}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_agent_says_what_it_is(algorithm):
    policy_kwargs = small(algorithm, net_arch=[8])
    model = algorithm("MlpPolicy", env_for(algorithm, TinyEnv)(), buffer_size=10, policy_kwargs=policy_kwargs)
    said = repr(model)
    assert re.fullmatch(
        rf"{algorithm.__name__}\(Sparse\w+Policy(, \w+ [\d,]+ of [\d,]+ links)+, topology='rigl', 0 steps\)", said
    )
    page = model._repr_html_()
    layers = sum(len(mlp.layers) for name in model.policy.networks for mlp in sparse_mlps(getattr(model.policy, name)))
    assert page.count("<tr>") == page.count("</tr>") == 1 + layers
