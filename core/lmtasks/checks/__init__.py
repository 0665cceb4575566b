"""Checks: whether plugins and their tasks work, and whether a data file can be used."""
