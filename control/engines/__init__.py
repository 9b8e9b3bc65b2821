"""Where tokens come from: models, their caches, batches and adapters."""
