"""Documents that tell when a byte of them has changed: canonical JSON with a digest of its own contents."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def seal(name: str, contents: object) -> bytes:
    """The document `{"digest": ..., name: contents}` in its canonical form. It guards against damage, not forgery."""
    return _canonical({"digest": _digest(contents), name: contents})


def unseal(name: str, data: bytes) -> Any:
    """The contents of a sealed document; ValueError when any byte of it is not as it was written."""
    try:
        document = json.loads(data)
        contents = document[name]
        intact = document["digest"] == _digest(contents) and _canonical(document) == data
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a sealed document") from error
    if not intact:
        raise ValueError("the document is not what was sealed")
    return contents


def _canonical(document: object) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _digest(contents: object) -> str:
    return "sha256:" + hashlib.sha256(_canonical(contents)).hexdigest()
