"""Helpers of tools/bench: standard library only, Python 3.11."""
