from collections.abc import Callable
from typing import Any

import pytest

from hpc_llm.settings import CorpusSettings


@pytest.fixture
def settings() -> Callable[..., CorpusSettings]:
    """Corpus settings with small numbers; keywords replace them."""

    def build(**changes: Any) -> CorpusSettings:
        values: dict[str, Any] = {
            "target": [],
            "source": [],
            "texts": {},
            "text_field": "text",
            "text_fields": {},
            "hub_split": "train",
            "min_characters": 3,
            "max_documents": None,
            "test_documents": 6,
            "tune_documents": 3,
            "max_heldout_share": 0.5,
        }
        return CorpusSettings(**values | changes)

    return build
