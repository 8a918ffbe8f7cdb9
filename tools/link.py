"""Fill `.typeroot/hqc` with links so that type checkers see the package as users import it."""

from __future__ import annotations

import shutil
from pathlib import Path

#: Folders of the tree that are packages inside `hqc`, by their name there.
INNER = ("passes", "frontends", "backends")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    package = root / ".typeroot" / "hqc"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for entry in sorted((root / "compiler").iterdir()):
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    for folder in INNER:
        (package / folder).mkdir()
        for entry in sorted((root / folder).iterdir()):
            if entry.name not in {"__pycache__", "integrations"}:
                target = package / folder / entry.name
                target.symlink_to(entry, target_is_directory=entry.is_dir())
    integrations = root / "backends" / "integrations"
    (package / "integrations").symlink_to(integrations, target_is_directory=True)


if __name__ == "__main__":
    main()
