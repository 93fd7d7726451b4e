"""A new vocabulary for a model: which rows are kept, and how new rows start."""
