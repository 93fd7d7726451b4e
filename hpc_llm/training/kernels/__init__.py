"""Kernels of a training step: attention, losses, matrix products, compilation."""
