"""Gives the etcd of this pod its users: `set_etcd_users.py [URL]`.

The mesh's user may read and write what is below its prefix, and nothing else; without a user nobody
may do anything. Whatever is there already stays, so a restart changes nothing. It then stays, and
takes connections on a port: the pod is ready once no one gets in without a password.
"""

import base64
import http.client
import json
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

URL = "http://127.0.0.1:2379"
READY_PORT = 8080
CONNECTION = Path("/etcd-config/etcd_connection")
ROOT_PASSWORD = Path("/etcd-root/password")
TRIES, PAUSE_S, TIMEOUT_S = 120, 0.5, 30
# gRPC's FAILED_PRECONDITION: there are no users yet.
NO_USERS = 9
ROOT = "root"


class Refused(Exception):
    """What etcd said; `code` is gRPC's."""

    def __init__(self, said: str, code: int) -> None:
        super().__init__(said)
        self.code = code


class Etcd:
    """Its Auth service, by the JSON that etcd itself translates."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._token = ""

    def ask(self, what: str, **body: Any) -> dict[str, Any]:
        request = Request(f"{self._url}/v3/auth/{what}", json.dumps(body).encode())  # noqa: S310
        if self._token:
            request.add_header("Authorization", self._token)
        try:
            with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - our own URL
                return dict(json.load(answer))
        except HTTPError as error:
            said = json.load(error)
            raise Refused(f"{what}: {said.get('message')}", said.get("code", 0)) from error

    def sign_in(self, password: str) -> None:
        """As root, where there are users already."""
        try:
            self._token = self.ask("authenticate", name=ROOT, password=password)["token"]
        except Refused as error:
            if error.code != NO_USERS:
                raise

    def has_role(self, name: str) -> bool:
        return name in self.ask("role/list").get("roles", [])

    def set_user(self, name: str, password: str, role: str) -> None:
        """With this password, also where it had another."""
        if name not in self.ask("user/list").get("users", []):
            self.ask("user/add", name=name, password=password)
        elif self._token and not self._knows(name, password):
            self.ask("user/changepw", name=name, password=password)
        if not self.has_role(role):
            self.ask("role/add", name=role)
        if role not in self.ask("user/get", name=name).get("roles", []):
            self.ask("user/grant", user=name, role=role)

    def _knows(self, name: str, password: str) -> bool:
        try:
            self.ask("authenticate", name=name, password=password)
        except Refused:
            return False
        return True


def set_users(url: str, connection: dict[str, str], root_password: str) -> None:
    """Raises Refused, and OSError where etcd is not up."""
    etcd = Etcd(url)
    etcd.sign_in(root_password)
    etcd.set_user(ROOT, root_password, ROOT)
    name, prefix = connection["userid"], connection["root_prefix"]
    etcd.set_user(name, connection["password"], name)
    # From "prefix/" to before "prefix0": the character after the slash.
    first, end = (base64.b64encode(f"{prefix}{last}".encode()).decode() for last in "/0")
    may = {"permType": "READWRITE", "key": first, "range_end": end}
    held = etcd.ask("role/get", role=name).get("perm", [])
    if not any(each.items() >= may.items() for each in held):
        etcd.ask("role/grant", name=name, perm=may)
    etcd.ask("enable")


def main(url: str) -> None:
    """Tries until etcd is up, then stays until it is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process is not ended else
    connection = json.loads(CONNECTION.read_text())
    for left in reversed(range(TRIES)):
        try:
            set_users(url, connection, ROOT_PASSWORD.read_text().strip())
            print(f"users: {ROOT}, {connection['userid']}", flush=True)
            break
        except (Refused, URLError, OSError, http.client.HTTPException) as error:
            if not left:
                sys.exit(f"etcd does not take the users: {error}")
            time.sleep(PAUSE_S)
    with socket.create_server(("", READY_PORT)) as server:
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else URL)
