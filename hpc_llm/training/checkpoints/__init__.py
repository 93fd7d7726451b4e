"""Checkpoints: folder, saver, resume, the whole and the sharded layout, checksums."""
