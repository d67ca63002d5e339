"""From files to batches: sources, normalisers, tokenizers, token shards, layouts and conditioning masks."""
