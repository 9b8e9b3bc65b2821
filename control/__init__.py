"""Passages and a question in, an answer out, with a dial between passages and memory."""
