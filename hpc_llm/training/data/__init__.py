"""From token shards to batches: packing, readers, mixtures, batch plan, prefetch."""
