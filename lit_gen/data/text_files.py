"""Text files, compressed or not, beside the user or on the network."""

from __future__ import annotations

import gzip
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from lit_gen.core.errors import UsageError, first_line


def read_text(path: str | Path) -> str:
    """The contents of a UTF-8 file, ``.gz`` or not; ends of lines become ``\\n``.

    Raises:
        UsageError: the file cannot be read, naming it and the reason.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {first_line(error)}") from error


def split_lines(text: str) -> list[str]:
    """The lines of a text; only ``\\n`` ends one, as for ``wc -l`` (``str.splitlines`` knows eleven other separators)."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_lines(path: str | Path) -> list[str]:
    """The lines of a file; see :func:`read_text` and :func:`split_lines`."""
    return split_lines(read_text(path))


@dataclass(frozen=True)
class DataFile:
    """One file of a public data set: where it lies under the user's root, and where it comes from.

    Args:
        root: the user's folder.
        names: accepted paths below it, the usual one first.
        url: where to download it; saved under the name of the same ending.
    """

    root: str
    names: tuple[str, ...]
    url: str

    def path(self) -> Path | None:
        """The file on disk, or None."""
        return next((Path(self.root) / name for name in self.names if (Path(self.root) / name).is_file()), None)

    def download(self) -> None:
        """Fetches the file where it is missing; it appears under its name only when it is complete.

        Raises:
            UsageError: the download failed, with the reason.
        """
        if self.path() is not None:
            return
        compressed = self.url.endswith(".gz")
        name = next(name for name in self.names if name.endswith(".gz") == compressed)
        target = Path(self.root) / name
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self.url, timeout=30) as answer:
                partial.write_bytes(answer.read())
            partial.replace(target)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no {self.names[0]} in root = {self.root!r} and the download from {self.url} failed: {first_line(error)}"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def read(self, download: bool) -> str:
        """The contents.

        Args:
            download: whether the DataModule may download, for the advice in the error.

        Raises:
            UsageError: the file is missing or cannot be read.
        """
        path = self.path()
        if path is None:
            hint = "call prepare_data()" if download else "set download: true"
            raise UsageError(f"no {self.names[0]} in root = {self.root!r}; give the folder that has it, or {hint}")
        return read_text(path)
