"""Settings of the vocabulary transplant (`conf/transplant/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, count, fraction, number, positive, require_choice
from hpc_llm.settings.vocabulary import ExtendSettings, OptimiseSettings, SwapSettings

__all__ = [
    "AnchorSettings",
    "DistilledSettings",
    "DonorSettings",
    "FocusSettings",
    "OmpSettings",
    "ProjectionSettings",
    "TransplantSettings",
    "WeightedMeanSettings",
]

NORMS = ("keep", "frequency", "anchors")


@dataclass(kw_only=True)
class AnchorSettings:
    """The tokens of both vocabularies to which fits are made; all of them keep their rows."""

    drop_norm_quantile: float = number(0, 0.5)
    """Exclude anchors from fits if the norm of their old embedding is below this quantile: such
    embeddings are barely trained."""


@dataclass(kw_only=True)
class WeightedMeanSettings:
    """`weighted_mean`: weights of the old tokens that spell a new one."""

    decay: float = number(0, 100)
    """The piece at position k = 0, 1, ... has weight exp(-decay k): 0 weighs all alike."""
    space_weight: float = fraction()
    """Factor for pieces of nothing but spaces, if there are other pieces."""


@dataclass(kw_only=True)
class DonorSettings:
    """Vectors of the new tokens that `projection`, `focus` and `omp` start from."""

    kind: str
    """A file in `hpc_llm/vocabulary/donors/`: cooccurrence; word2vec and fasttext, which need the
    extra `donors`; model."""
    dimensions: int | None = count(4096)
    """Length of the vectors; null: 300, or a fifth of the anchors if that is less."""
    window: int = count(20)
    """Tokens on either side that count as neighbours."""
    min_count: int = count(10**9)
    """Tokens that are rarer in the training text have no vector."""
    max_tokens: int = count(10**12)
    """Tokens of the training text to read, from documents spread evenly over it."""
    epochs: int = count(1000)
    """`word2vec`, `fasttext`: passes over the text."""
    negatives: int = count(100)
    """`word2vec`, `fasttext`: negative samples for each pair of neighbours."""
    path: str | None
    """`model`: folder or hub id of the sibling."""


@dataclass(kw_only=True)
class ProjectionSettings:
    """`projection`: a ridge regression from donor vectors to embeddings."""

    ridge: float | None = positive(1e12)
    """The penalty; null: the power of ten from 1e-3 to 1e5 with the best held-out R2."""
    holdout: float = number(0, 0.5, above=True)
    """Share of the anchors that is held out to choose and report the fit."""


@dataclass(kw_only=True)
class FocusSettings:
    """`focus`: weights of the most similar anchors (Dobler and de Melo 2023)."""

    temperature: float = positive(1e3)
    """Divides the cosines before sparsemax: a higher one spreads the weight over more anchors."""


@dataclass(kw_only=True)
class OmpSettings:
    """`omp`: a few anchors that add up to the token's vector."""

    atoms: int | None = count(4096)
    """Largest number of anchors; null: 64, or half the dimensions of the vectors if that is less.
    """


@dataclass(kw_only=True)
class DistilledSettings:
    """`distilled`: rows learnt from the base model's hidden states (Dobler et al. 2025)."""

    start: str
    """Initialisation from which the input embeddings are trained."""
    output: str
    """Initialisation of the LM head of a model whose embeddings are not tied."""
    steps: int = count(10**7)
    """Largest number of updates."""
    batch: int = count(10**5)
    """Contexts of an update."""
    context: int = count(10**4, low=2)
    """New tokens of a context."""
    contexts: int = count(10**4)
    """Contexts that are sampled for each new token, where the text has so many."""
    layer: int | None = count(10**4)
    """Compare hidden states behind this layer; null: behind the last one and its norm."""
    learning_rate: float = positive(10)
    """Peak of Adam's learning rate, in units of the root mean square of the old embeddings; it
    falls linearly to 0."""
    save_steps: int = count(10**7)
    """Save the state after so many updates; a killed stage resumes from there."""


@dataclass(kw_only=True)
class TransplantSettings:
    """The vocabulary of the adapted model, and the initialisation of its new embeddings.

    The modes are the files in `hpc_llm/vocabulary/modes/`, the initialisations those in
    `hpc_llm/vocabulary/initial/`: their names are checked when the configuration is composed.
    """

    mode: str
    """replace: a new vocabulary replaces the old one; keep: that of the base, unchanged; extend:
    new tokens are added to it; optimise: after rare ones are removed; swap: in their places."""
    input: str
    """Initialisation of the input embeddings of tokens missing in the old vocabulary."""
    output: str
    """The same for the LM head; with tied embeddings it must equal `input`."""
    norms: str
    """Lengths of the new rows: keep, as the initialisation gives them; frequency, fitted to the
    anchors' lengths and counts; anchors, the median of the anchors."""
    anchors: AnchorSettings
    weighted_mean: WeightedMeanSettings
    donor: DonorSettings
    projection: ProjectionSettings
    focus: FocusSettings
    omp: OmpSettings
    distilled: DistilledSettings
    extend: ExtendSettings
    optimise: OptimiseSettings
    swap: SwapSettings

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "transplant")
        require_choice("transplant.norms", self.norms, NORMS)
