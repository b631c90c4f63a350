"""The policies, under the names that saved agents know, wherever their algorithms' folders are."""

from typing import TYPE_CHECKING, Any

from sb3_rlx2 import contrib
from sb3_rlx2.algorithms.dqn.policies import SparseDQNCnnPolicy, SparseDQNMultiInputPolicy, SparseDQNPolicy
from sb3_rlx2.algorithms.extractors import ConvExtractor
from sb3_rlx2.algorithms.sac.policies import SparseSACCnnPolicy, SparseSACMultiInputPolicy, SparseSACPolicy
from sb3_rlx2.algorithms.td3.policies import SparseTD3CnnPolicy, SparseTD3MultiInputPolicy, SparseTD3Policy

if TYPE_CHECKING:
    from sb3_rlx2.algorithms.crossq.policies import SparseCrossQPolicy
    from sb3_rlx2.algorithms.qrdqn.policies import SparseQRDQNCnnPolicy, SparseQRDQNMultiInputPolicy, SparseQRDQNPolicy
    from sb3_rlx2.algorithms.tqc.policies import SparseTQCCnnPolicy, SparseTQCMultiInputPolicy, SparseTQCPolicy
else:

    def __getattr__(name: str) -> Any:
        return contrib.find(__name__, name)


__all__ = [
    "ConvExtractor",
    "SparseCrossQPolicy",
    "SparseDQNCnnPolicy",
    "SparseDQNMultiInputPolicy",
    "SparseDQNPolicy",
    "SparseQRDQNCnnPolicy",
    "SparseQRDQNMultiInputPolicy",
    "SparseQRDQNPolicy",
    "SparseSACCnnPolicy",
    "SparseSACMultiInputPolicy",
    "SparseSACPolicy",
    "SparseTD3CnnPolicy",
    "SparseTD3MultiInputPolicy",
    "SparseTD3Policy",
    "SparseTQCCnnPolicy",
    "SparseTQCMultiInputPolicy",
    "SparseTQCPolicy",
]

ConvExtractor.__module__ = __name__  # what pickles refer to; policies see to themselves
