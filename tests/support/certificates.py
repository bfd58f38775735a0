"""Certificates for tests of TLS: an authority that lives for a day, and what it signs, made by openssl."""

import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """A new authority, with its files in `folder`. Skips the test where there is no openssl."""

    def __init__(self, folder: Path) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("needs openssl on the PATH")
        self._openssl, self._folder = openssl, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.pem", folder / "ca-key.pem"
        self._run("req", "-x509", *self._fresh(self._key), "-subj", "/CN=tests", "-out", self.certificate)

    def sign(self, name: str) -> tuple[Path, Path]:
        """Certificate and key (PKCS 8, without a password) of `name`, for 127.0.0.1 and localhost."""
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        by = ["-CA", self.certificate, "-CAkey", self._key]
        hosts = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        self._run("req", "-x509", *self._fresh(key), *by, "-subj", f"/CN={name}", *hosts, "-out", certificate)
        return certificate, key

    def _fresh(self, key: Path) -> list[str | Path]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-keyout", key]

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run([self._openssl, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
