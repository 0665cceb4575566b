"""Models: catalog and store, names to folders, and loading (`lmtasks.models.loading`, the part that needs torch)."""

from lmtasks.models.catalog import CATALOG, DEFAULT, CatalogEntry
from lmtasks.models.store import fetch_terms, find_stored, home, pull

__all__ = ["CATALOG", "DEFAULT", "CatalogEntry", "fetch_terms", "find_stored", "home", "pull"]
