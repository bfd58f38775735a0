"""Bundles changed by hand and sealed anew, as by somebody who makes one with intent: what is told then lies deeper."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.bundle import GOLDEN, MANIFEST, WEIGHTS
from model.manifest import Manifest


def seal(folder: Path, **changes: Any) -> None:
    """Change entries of bundle.json, and give it the checksums and the version that go with what lies in the folder.

    One that breaks a rule of the manifest gets no other version: that is told before anybody looks at it."""
    file = folder / MANIFEST
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (WEIGHTS, GOLDEN)}
    content = {**json.loads(file.read_text(encoding="utf-8")), "files": digests, **changes}
    try:
        manifest = Manifest.model_validate_json(json.dumps(content))
    except ValidationError:
        pass
    else:
        if "version" not in changes:
            content["version"] = manifest.version[:-6] + manifest.digest
    file.write_text(json.dumps(content), encoding="utf-8")
