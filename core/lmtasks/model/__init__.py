"""Models: catalogue and store, names to folders, and loading (`lmtasks.model.loading`, the part that needs torch)."""

from lmtasks.model.catalogue import CATALOGUE, DEFAULT, CatalogueEntry
from lmtasks.model.store import fetch_terms, find_stored, home, pull

__all__ = ["CATALOGUE", "DEFAULT", "CatalogueEntry", "fetch_terms", "find_stored", "home", "pull"]
