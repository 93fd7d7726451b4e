"""Attention, losses and products of a training step, and what is compiled."""
