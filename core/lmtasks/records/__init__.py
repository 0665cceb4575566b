"""Typed records: what run.json, samples.jsonl, lmtasks.json and a training's files hold, and how they are read.

The modules import pydantic: import them inside functions where a quick start counts.
"""
