"""What algorithms share that weigh the entropy of their policy, by a coefficient that is given or learned."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.updater import check_gradients


class EntropyAlgorithm(RLx2Algorithm):
    """Goes before SB3's SAC, or an algorithm like it."""

    own_defaults: ClassVar[Mapping[str, Any]] = {"soft_n_step": True}

    ent_coef: str | float
    target_entropy: str | float
    ent_coef_tensor: th.Tensor
    ent_coef_optimizer: th.optim.Adam | None

    def _setup_model(self) -> None:
        super()._setup_model()
        optimizer = self.ent_coef_optimizer
        if optimizer is not None:
            optimizer.register_step_pre_hook(lambda *_: check_gradients("entropy coefficient", optimizer))

    def _check_built(self) -> None:
        super()._check_built()
        reason = self._why_not_coefficient(self.ent_coef_optimizer is not None)
        if reason is not None:
            raise ValueError(reason)

    def _why_not_coefficient(self, learned: bool) -> str | None:
        if self._wants_to_learn() == learned:
            return None
        allowed = "'auto', because it was learned" if learned else "a number, because it was not learned"
        return f"ent_coef={self.ent_coef!r} must be {allowed}: for the other make a new agent"

    def _wants_to_learn(self) -> bool:
        return isinstance(self.ent_coef, str) and self.ent_coef.startswith("auto")

    def _follow(self) -> None:
        super()._follow()
        if not self._wants_to_learn():
            self.ent_coef_tensor.fill_(float(self.ent_coef))
        if isinstance(self.target_entropy, str):
            self.target_entropy = float(-np.prod(self.action_space.shape))  # type: ignore[arg-type]

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: Any = "auto") -> None:
        """
        Take parameters, see SB3's ``set_parameters``.

        :param load_path_or_dict: file of an agent, or its parameters
        :param exact_match: whether all must be there
        :param device: device of the networks
        :raises RuntimeError: if they are of an agent that learned its entropy coefficient and this one does not, or the other
            way round
        """
        if not isinstance(load_path_or_dict, dict):
            _, load_path_or_dict, _ = load_from_zip_file(load_path_or_dict, device=device, load_data=False)
        if exact_match:
            reason = self._why_not_coefficient("ent_coef_optimizer" in load_path_or_dict)
            if reason is not None:
                raise RuntimeError(reason)  # of a ValueError SB3's `load` thinks that it is an old agent's
        super().set_parameters(load_path_or_dict, exact_match, device)
