"""Raises when it is imported."""


def read_settings() -> dict[str, str]:
    raise RuntimeError("no settings file\nfor this machine")


SETTINGS = read_settings()
