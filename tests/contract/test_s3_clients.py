"""S3 clients: one for each content of an account, and one's own CA."""

import socket
import ssl
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from mesh.storage.accounts import S3Account
from mesh.storage.port import StoreUnreachable
from mesh.storage.s3 import S3Stores
from mesh.storage.s3_clients import S3Clients

ENTRY = {
    "type": "s3",
    "access_key_id": "id",
    "secret_access_key": "secret",
    "endpoint_url": "http://127.0.0.1:1",
    "bucket": "models",
}
EMPTY = b"""<?xml version="1.0"?><ListBucketResult><Contents><Key>m</Key><Size>1</Size>\
<ETag>"e"</ETag></Contents></ListBucketResult>"""
ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(EMPTY) + EMPTY


def account(**changed: str) -> S3Account:
    return S3Account.model_validate({**ENTRY, **changed})


@pytest.fixture
def clients():
    clients = S3Clients(most=2)
    yield clients
    clients.close()


def test_get_equal_accounts_share_a_client(clients):
    assert clients.get(account()) is clients.get(account())


def test_get_changed_secret_gets_another_client(clients):
    assert clients.get(account()) is not clients.get(account(secret_access_key="new"))


def test_get_least_recently_used_client_is_dropped(clients):
    first, second = clients.get(account()), clients.get(account(region="second"))
    assert clients.get(account()) is first
    clients.get(account(region="third"))
    assert clients.get(account()) is first
    assert clients.get(account(region="second")) is not second


def test_get_own_endpoint_is_asked_with_the_bucket_in_the_path(clients):
    url = clients.get(account()).generate_presigned_url(
        "get_object", Params={"Bucket": "models", "Key": "m"}
    )
    assert url.startswith("http://127.0.0.1:1/models/m?")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a self-signed certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("ca")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    made += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def tls_endpoint(authority):
    """A TLS server that answers every request with a listing of one object `m`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=answer_all, args=(listener, context))
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def answer_all(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(ANSWER)
            except OSError:
                continue


def test_listing_with_the_certificate_of_the_account_is_trusted(tls_endpoint, authority, clients):
    trusted = account(endpoint_url=tls_endpoint, certificate=(authority / "cert.pem").read_text())
    assert S3Stores(clients).open("k", trusted, "").listing("m").is_single


def test_listing_without_the_certificate_is_not_trusted_and_says_so(tls_endpoint, clients):
    store = S3Stores(clients).open("k", account(endpoint_url=tls_endpoint), "")
    with pytest.raises(StoreUnreachable, match=r"certificate of endpoint .* is not trusted"):
        store.listing("m")


def test_close_removes_the_certificate_file(authority, clients, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    clients.get(account(certificate=(authority / "cert.pem").read_text()))
    assert [path.suffix for path in tmp_path.iterdir()] == [".pem"]
    clients.close()
    assert list(tmp_path.iterdir()) == []
