"""Certificates for tests, made by openssl: an authority, and what it signs."""

import subprocess
from pathlib import Path

DAYS = "2"


def authority(folder: Path) -> Path:
    """A folder with `ca.crt` and `ca.key`."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", "/CN=authority"),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.crt"),
    )
    return folder


def signed(folder: Path, by: Path, *names: str, common_name: str = "node") -> Path:
    """A folder with `ca.crt`, `tls.crt` and `tls.key`, as a Kubernetes secret has them.

    `names` are its subject alternative names, such as `DNS:a` and `IP:127.0.0.1`, or none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "")
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={common_name}"),
        *("-keyout", folder / "tls.key", "-out", folder / "request"),
    )
    _openssl(
        *("x509", "-req", "-in", folder / "request", "-days", DAYS, "-CAcreateserial"),
        *("-CA", by / "ca.crt", "-CAkey", by / "ca.key", "-extfile", extensions),
        *("-out", folder / "tls.crt"),
    )
    (folder / "ca.crt").write_bytes((by / "ca.crt").read_bytes())
    return folder


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
