"""Files that are there as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what is to be at ``path`` once the block has ended well; till then, and else, nothing changes
    there."""
    partial = path.with_name(f"{path.name}.part")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Onto the disk before it has its name: a crash of the machine must not leave half of it."""
    with path.open("rb+") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
