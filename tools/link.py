"""Fill `.typeroot/hqc` with links so that type checkers see the package as users import it."""

from __future__ import annotations

import shutil
from pathlib import Path


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    package = root / ".typeroot" / "hqc"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for file in sorted((root / "compiler").iterdir()):
        if file.suffix in {".py", ".typed"}:
            (package / file.name).symlink_to(file)
    (package / "page").symlink_to(root / "compiler" / "page", target_is_directory=True)
    for folder in ("passes", "frontends"):
        (package / folder).symlink_to(root / folder, target_is_directory=True)
    integrations = root / "backends" / "integrations"
    (package / "integrations").symlink_to(integrations, target_is_directory=True)
    (package / "backends").mkdir()
    for file in sorted((root / "backends").iterdir()):
        if file != integrations:
            (package / "backends" / file.name).symlink_to(file)


if __name__ == "__main__":
    main()
