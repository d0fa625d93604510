"""What an API server was asked by our ServiceAccounts, by its own audit log.

Each call once, reads and watches included, a watch from its beginning on. Whose call it was is told
by the token that it came with.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOG = "audit.log"
NAMESPACE = "wml-serving"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]},
        {"level": "None"},
    ],
}
CREDENTIAL = "authentication.kubernetes.io/credential-id"
READS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Call:
    """`name` is that of the object, of an event its own; `code` is the HTTP status."""

    verb: str
    resource: str
    name: str
    code: int
    credential: str

    @property
    def is_write(self) -> bool:
        return self.verb not in READS

    @property
    def about(self) -> str:
        """The object whose status or event it writes; empty for all other calls."""
        if self.resource == "events":
            return self.name.rpartition(".")[0]
        return self.name if self.resource.endswith("/status") else ""


def options(folder: Path) -> tuple[str, ...]:
    """What kube-apiserver is told, so that it keeps the log."""
    policy = folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(POLICY))
    return f"--audit-policy-file={policy}", f"--audit-log-path={folder / LOG}"


def calls(folder: Path, credential: str = "") -> list[Call]:
    """All so far, of one token or of any."""
    return [call for call in _calls(folder / LOG) if credential in ("", call.credential)]


def credential_of(token: str) -> str:
    """By which the log knows the calls that were made with a token."""
    claims = token.split(".")[1]
    return f"JTI={json.loads(base64.urlsafe_b64decode(claims + '=='))['jti']}"


def _calls(log: Path) -> Iterator[Call]:
    seen: set[str] = set()
    for line in log.read_bytes().splitlines(keepends=True) if log.exists() else ():
        if not line.endswith(b"\n"):
            return  # it is being written
        event = json.loads(line)
        if event["auditID"] not in seen:  # a watch is told of twice, as it begins and as it ends
            seen.add(event["auditID"])
            yield _call(event)


def _call(event: dict[str, Any]) -> Call:
    about = event.get("objectRef", {})
    part = about.get("subresource")
    (credential,) = event["user"].get("extra", {}).get(CREDENTIAL, [""])
    return Call(
        event["verb"],
        about.get("resource", "") + (f"/{part}" if part else ""),
        about.get("name", ""),
        event.get("responseStatus", {}).get("code", 0),
        credential,
    )
