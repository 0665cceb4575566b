"""Checks: what a plugin promises, and whether a data file can be used."""
