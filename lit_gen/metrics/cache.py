"""The disk cache of what need not be computed twice: classifiers, statistics of real images, anchors.

Files are written to a temporary name and renamed, so that a reader sees a whole file or none; each carries its key and a
digest of its content, and a file that does not match is computed anew with a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VERSION = 1
"""Part of every key; to be raised when the meaning of a cached value changes."""


def cache_dir() -> Path:
    """The cache's folder: ``$LIT_GEN_CACHE``, or ``~/.cache/lit_gen``."""
    return Path(os.environ.get("LIT_GEN_CACHE") or "~/.cache/lit_gen").expanduser()


def tensors_hash(content: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all entries (tensors or plain values), by sorted name."""
    digest = hashlib.sha256()
    for name in sorted(content):
        value = content[name]
        digest.update(name.encode())
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous()
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.view(-1).numpy().tobytes() if value.numel() else b"")
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def _path(kind: str, key: tuple[Any, ...]) -> Path:
    readable = re.sub(r"[^A-Za-z0-9_.]+", "_", str(key[0]))[:40]
    return cache_dir() / f"{kind}-{readable}-{hashlib.sha256(repr((VERSION, *key)).encode()).hexdigest()[:16]}.pt"


def load(kind: str, key: tuple[Any, ...]) -> dict[str, Any] | None:
    """What :func:`store` kept under this key; None where there is nothing, or (with a warning) nothing sound.

    Args:
        kind: first part of the file's name.
        key: all that the content depends on; its first entry is shown in the file's name.
    """
    path = _path(kind, key)
    if not os.path.exists(path):
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        if kept["key"] != repr(key) or kept["digest"] != tensors_hash(kept["content"]):
            raise ValueError("its content does not match its digest")
        return kept["content"]
    except Exception as error:  # a torn or foreign file fails in many ways inside the unpickler
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"{path} is corrupted and will be computed anew ({reason})", stacklevel=2)
        return None


def store(kind: str, key: tuple[Any, ...], content: dict[str, Any]) -> None:
    """Keeps tensors and plain values under the key, atomically; an unwritable cache costs a warning, not the run."""
    path = _path(kind, key)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save({"key": repr(key), "digest": tensors_hash(content), "content": content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        warnings.warn(f"{path} could not be written and will be computed again ({error.strerror})", stacklevel=2)
