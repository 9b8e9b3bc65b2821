"""Retrieval: documents, the passage index, and ERM4's modules around it.

Import from the modules: this package imports none of them, so that commands start fast and the
process that parses an uploaded file stays small.
"""
