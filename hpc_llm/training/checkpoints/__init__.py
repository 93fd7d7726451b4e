"""Checkpoints: folder, saver, resume, whole and sharded layouts."""
