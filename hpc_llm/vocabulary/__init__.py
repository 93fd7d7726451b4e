"""Vocabulary transplant: shared tokens (anchors) and initialisation of new embeddings (initial)."""
