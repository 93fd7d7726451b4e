"""Training through DeepSpeed: batches, loss, schedule, checkpoints and the loop.

Import modules by name (`hpc_llm.training.loop`): most of them need torch.
"""
