"""Changes of a model's weights outside training: load, set trainable parameters, merge, save.

Import modules by name (`hpc_llm.surgery.merge`): all need torch.
"""
