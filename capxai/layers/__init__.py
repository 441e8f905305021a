"""Arithmetic that needs a rule, as small named modules."""
