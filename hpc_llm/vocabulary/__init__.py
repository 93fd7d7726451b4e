"""A new vocabulary for a model: which rows are kept (anchors), how new rows start (initial)."""
