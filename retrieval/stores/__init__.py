"""Stores of passages and their vectors."""
