"""compose=uniform: the mean of the adapters' changes, w_i = 1 / N, the baseline of all ensembles.

The products B_i A_i are averaged, not the factors (see `hpc_llm.ensembles._algebra`), so the result
has the sum of the ranks. Averaged weights: Wortsman et al. 2022, arXiv 2203.05482.
"""

from dataclasses import dataclass

from hpc_llm.ensembles import Adapters, Combined, Loss
from hpc_llm.settings.compose import ComposeSettings

__all__ = ["Settings", "combine"]


@dataclass(kw_only=True)
class Settings(ComposeSettings):
    """Settings of the uniform average; there are none but its name."""


def combine(adapters: Adapters, settings: Settings, loss: Loss | None = None) -> Combined:
    """Return (1 / N) sum_i s_i B_i A_i of N adapters, exactly; `loss` is not called.

    Raises `UserError` without adapters and for layers of different sizes.
    """
    from hpc_llm.ensembles._algebra import weighted_sum

    weights = {name: 1 / len(adapters) for name in adapters}
    return Combined(layers=weighted_sum(adapters, weights), weights=weights)
