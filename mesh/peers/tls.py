"""Mutual TLS between nodes: whoever has no certificate of the mesh's authority gets no answer.

The files are those of a Kubernetes TLS secret: `ca.crt`, `tls.crt` and `tls.key` in one folder.
They are read again when they change, so that certificates can be renewed while nodes run: a server
uses them from the next connection on, a client from its next channel on.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

# What certificates of nodes are made out to, whatever the address is.
NODE_NAME = "wml-serving-node"


class UnusableTls(Exception):
    """The folder has not what it takes."""


@dataclass(frozen=True, slots=True)
class NodeTls:
    """The folder with the certificate of this node and of the authority. Raises UnusableTls."""

    folder: Path

    def check(self) -> None:
        """Reads all of it once, for a start that fails loudly."""
        self.server_credentials()
        self.channel_credentials()

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that asks each client for its certificate.

        Whom that is made out to, it has to look at by itself.
        """
        first = self._stamp()
        seen = [first]

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            stamp = self._stamp()
            if stamp == seen[0]:
                return None
            seen[0] = stamp
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            renewed,  # type: ignore[arg-type] # None: as before, which the stubs do not know
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        authority, certificate, key = self._read()
        return grpc.ssl_channel_credentials(authority, key, certificate)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        authority, certificate, key = self._read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        names = ("ca.crt", "tls.crt", "tls.key")
        try:
            authority, certificate, key = ((self.folder / name).read_bytes() for name in names)
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
            raise UnusableTls(f"no certificate for the mesh: {problem}") from error
        for name, text in zip(names, (authority, certificate, key), strict=True):
            if b"-----BEGIN " not in text:
                raise UnusableTls(f"no certificate for the mesh: {self.folder / name}: not PEM")
        return authority, certificate, key

    def _stamp(self) -> tuple[float, ...]:
        try:
            return tuple(
                (self.folder / name).stat().st_mtime for name in ("ca.crt", "tls.crt", "tls.key")
            )
        except OSError:
            return ()  # in the middle of a renewal: the next connection sees it
