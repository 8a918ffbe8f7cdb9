"""Replacing an output directory in one step: what was there stays until the new one is whole.

The new content is written to `.NAME.hqc-new` beside the target. Putting it in place is: rename the
old directory to `.NAME.hqc-old`, rename the new one in, delete the old. An advisory lock on the
new directory tells a compile that is running from the remains of one that was killed, so that
remains can be cleared, and an old directory put back, without guessing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from hqc.diagnostics import HqcError, reject

#: Says why a directory must not be replaced, or None when it may be.
Objection = Callable[[Path], str | None]


def absolute(path: Path) -> Path:
    """The absolute path with `..` removed and links kept, so that a link is seen as one."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the link


def _new(target: Path) -> Path:
    return target.with_name(f".{target.name}.hqc-new")


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.hqc-old")


@contextlib.contextmanager
def replacing(target: Path, objection: Objection) -> Iterator[Path]:
    """Give a fresh directory to fill; on success it becomes `target`, else nothing changes.

    Args:
        target: the directory to make or replace.
        objection: why an existing, non-empty directory may not be replaced, or None.

    Raises:
        HqcError: HQC004, the target must not be replaced; HQC007, it cannot be written or another
            process is writing it.
    """
    target = absolute(target)
    check_replaceable(target, objection)
    new = _new(target)
    with _writable(target), contextlib.ExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        stack.callback(os.close, _lock(new, target))
        _settle(target, objection)
        _clear(new)
        try:
            yield new
            check_replaceable(target, objection)  # it may have appeared meanwhile
            _swap(new, target)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise


def recover(target: Path, objection: Objection) -> None:
    """Put the old directory back if a compile was killed between its two renames.

    Raises:
        HqcError: HQC007, a compile of this directory is running.
    """
    target = absolute(target)
    if target.exists() or not _old(target).is_dir():
        return
    new = _new(target)
    with _writable(target), contextlib.ExitStack() as stack:
        if new.is_dir():
            stack.callback(os.close, _lock(new, target))
        _settle(target, objection)


def check_replaceable(target: Path, objection: Objection) -> None:
    """Refuse targets that are not hqc's to replace.

    Raises:
        HqcError: HQC004.
    """
    reason = _refusal(target, objection)
    if reason is not None:
        raise reject(
            "HQC004",
            f"{target} is not overwritten: {reason}",
            helps=("give another directory with -o", "or remove it yourself, if it is not needed"),
        )


def _refusal(target: Path, objection: Objection) -> str | None:
    if target.is_symlink():
        return "it is a symbolic link"
    if not target.name:
        return "it is the root of the file system"
    if not target.exists():
        return None
    if not target.is_dir():
        return "it is a file"
    here = Path.cwd()
    if target == here or target in here.parents:
        return "it is, or holds, the current directory"
    if not any(target.iterdir()):
        return None
    return objection(target)


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[None]:
    """Turn a refusal of the file system at our own paths into a diagnostic."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # these name no file
        if not full and not str(error.filename or "").startswith(str(target.parent)):
            raise
        raise _cannot_write(target, error.strerror or str(error)) from error


def _cannot_write(target: Path, reason: str) -> HqcError:
    return reject(
        "HQC007",
        f"cannot write {target}: {reason}",
        helps=("give another directory with -o",),
    )


def _lock(new: Path, target: Path) -> int:
    """Make the new directory and lock it; the lock goes with the process, whatever ends it."""
    while True:
        new.mkdir(exist_ok=True)
        handle = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise _cannot_write(target, "another hqc compile is writing it") from error
        # The directory may have been renamed into place between our open and our lock.
        try:
            same = new.stat().st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            same = False
        if same:
            return handle
        os.close(handle)


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _settle(target: Path, objection: Objection) -> None:
    """Finish what a killed compile left: put the old directory back, or delete it."""
    old = _old(target)
    if not old.is_dir() or old.is_symlink():
        return
    if not target.exists():
        old.rename(target)
        return
    if any(old.iterdir()) and (reason := objection(old)) is not None:
        raise reject("HQC004", f"{old} is in the way: {reason}")
    shutil.rmtree(old)


def _swap(new: Path, target: Path) -> None:
    old = _old(target)
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)  # what stays is removed by the next compile
