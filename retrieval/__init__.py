"""Question to passages: documents, their index, and search.

Import the modules themselves; the package loads none of them, so that commands start fast.
"""
