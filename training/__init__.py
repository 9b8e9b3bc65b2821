"""Training of the adapters: what is built from the corpus, and the runs that learn from it."""
