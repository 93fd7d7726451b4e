"""What is done to a model's weights outside training: load, transplant, choose what learns, merge.

Modules are imported by name (`hpc_llm.vocabulary.transplant`), since each needs torch.
"""
