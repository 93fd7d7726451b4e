"""The stages of a run: one module each, with `run(context, name)`."""
