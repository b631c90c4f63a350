"""TQC's gradient step in arrays and kernels."""

from sb3_rlx2.algorithms.maximum_entropy import MaximumEntropySteps
from sb3_rlx2.kernels.maximum_entropy import MaximumEntropyArrays


class TQCSteps(MaximumEntropySteps):
    """
    Gradient steps of TQC.

    :param model: the algorithm
    """

    group, kernel = "sb3_rlx2.algorithms.tqc.kernels:TQC", "tqc"

    def _fits(self, size: int) -> bool:
        return super()._fits(size) and self.target.shape[1] == self._target_count()

    def _target_count(self) -> int:
        """Give the number of quantiles of all target critics that are kept."""
        critic = self.model.critic
        kept = critic.quantiles_total - self.model.top_quantiles_to_drop_per_net * critic.n_critics
        return len(range(critic.quantiles_total)[:kept])

    def _arrays(self, part: int) -> MaximumEntropyArrays:
        arrays = super()._arrays(part)
        # The loss lies between going forward with all tiles and going backward.
        pairs = zip(arrays.critics, arrays.critic_activations, strict=True)
        return arrays._replace(critics=tuple(critic._replace(activations=memory) for critic, memory in pairs))
