"""Training through DeepSpeed: batches, loss, schedule, checkpoints and the loop.

Modules are imported by name (`hpc_llm.training.loop`), since most of them need torch.
"""
