"""Token rules over two branches, and generation with them."""
