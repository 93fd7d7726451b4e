"""transplant.input=mean: initialise a new row with the mean of the old tokens that spell it.

WECHSEL and FOCUS use it as a baseline (Minixhofer et al. 2022, arXiv 2112.06598; Dobler and de Melo
2023, arXiv 2305.14481); a token that the old vocabulary cannot spell gets the mean of all rows.
"""

from hpc_llm.vocabulary.rows import mean_of_pieces as rows

__all__ = ["rows"]
