"""`lmtasks models list|pull`."""

from __future__ import annotations

import json

import click

from lmtasks.cli import options
from lmtasks.cli.terminal import FAILED, progress, say, table


@click.group("models")
def command() -> None:
    """List and download models."""


@command.command("list")
@options.json_option
@options.verbose_option
def list_models(as_json: bool) -> None:
    """List the models of the catalog and the folder they are stored in.

    --model also accepts a folder in transformers format, a .gguf file or a hub id.
    """
    from lmtasks.models import CATALOG, find_stored, home

    rows = []
    for entry in CATALOG.values():
        stored = find_stored(entry)
        rows.append(
            {
                "model": entry.name,
                "summary": entry.summary,
                "license": entry.license.name,
                "download_bytes": entry.download_bytes,
                "path": str(stored.path) if stored else None,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    cells = [
        (
            row["model"],
            row["summary"],
            row["license"],
            "yes" if row["path"] else f"no, {entry.download_bytes / 1e6:.0f} MB",
        )
        for row, entry in zip(rows, CATALOG.values(), strict=True)
    ]
    click.echo(table(("model", "summary", "license", "downloaded"), cells))
    click.echo(f"\nstored in {home() / 'models'}")


@command.command("pull")
@click.argument("name")
@click.option("--accept-license", is_flag=True, help="Accept the model's license terms, which you have read.")
@options.verbose_option
def pull_model(name: str, accept_license: bool) -> None:
    """Download a model of the catalog now instead of at its first use."""
    from lmtasks.errors import unknown_name
    from lmtasks.models import CATALOG, fetch_terms, find_stored, pull

    if name not in CATALOG:
        raise unknown_name("model of the catalog", name, CATALOG)
    entry = CATALOG[name]
    with progress() as on_progress:
        if entry.license.terms and not accept_license and not find_stored(entry):
            terms = fetch_terms(entry.license.terms, on_progress=on_progress)
        else:
            terms = None
            stored = pull(entry, accept_license=accept_license, on_progress=on_progress)
    if terms is not None:
        click.echo(_plain(terms))
        say(
            f"these are the {entry.license.name} ({entry.license.url}); to accept them:"
            f" lmtasks models pull {name} --accept-license"
        )
        raise click.exceptions.Exit(FAILED)
    click.echo(str(stored.path))


def _plain(page: str) -> str:
    """Return the text of the article in an HTML page."""
    from html.parser import HTMLParser

    class Text(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.parts: list[str] = []
            self.inside = False
            self.hidden = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.inside |= tag == "h1"  # menus and banners come before it
            self.hidden += tag in ("script", "style")
            if tag in ("p", "h1", "h2", "h3", "li", "br"):
                self.parts.append("\n")

        def handle_endtag(self, tag: str) -> None:
            self.inside &= tag != "article"
            self.hidden -= tag in ("script", "style")

        def handle_data(self, data: str) -> None:
            if self.inside and not self.hidden:
                self.parts.append(data)

    text = Text()
    text.feed(page)
    lines = (" ".join(line.split()) for line in "".join(text.parts).split("\n"))
    return "\n".join(line for line in lines if line)
