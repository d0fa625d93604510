"""Certificates between nodes: an authority of our own, and the one certificate of all nodes. Pure.

    steady --- the authority gets old ---> introduced: both are trusted, the old one has signed
    introduced --- all have seen it -----> switched: both are trusted, the new one has signed
    switched --- all have seen it -------> steady: the new one alone is trusted

So at each moment everybody trusts whatever anybody shows. "All have seen it" is a time: a Secret
reaches its pods within two minutes. The nodes' certificate is renewed on its own, more often. Keys
are made here, so the same call twice gives other ones; what is due when depends on time alone.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.peers.tls import NODE_NAME

AUTHORITY_LIFE, AUTHORITY_RENEWED = timedelta(days=730), timedelta(days=180)
NODE_LIFE, NODE_RENEWED = timedelta(days=90), timedelta(days=30)
# Within which everybody has seen a change for sure.
SPREAD = timedelta(hours=1)
# Clocks of nodes differ.
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    @property
    def until(self) -> datetime:
        return _loaded(self.certificate).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Certificates:
    """`authority` signs; `coming` is trusted and will sign, `going` is a certificate that is still
    trusted. `since` is when the last of these changes was.
    """

    authority: Pair
    node: Pair
    since: datetime
    coming: Pair | None = None
    going: bytes | None = None

    @property
    def trusted(self) -> bytes:
        """All certificates of authorities that a node trusts."""
        coming = b"" if self.coming is None else self.coming.certificate
        return self.authority.certificate + coming + (self.going or b"")


def first(now: datetime) -> Certificates:
    authority = _authority(now)
    return Certificates(authority, _node(authority, now), now)


def issued(
    authority: Pair, since: datetime, coming: Pair | None, going: bytes | None, now: datetime
) -> Certificates:
    """A new certificate of nodes by an authority as it is. Raises ValueError."""
    for pair in (authority, coming):
        if pair is not None and not _is_whole(pair):
            raise ValueError("a certificate and a key that do not belong together")
    return Certificates(authority, _node(authority, now), since, coming, going)


def renewed(kept: Certificates, now: datetime) -> Certificates:
    """What is to be used from now on; the same object where nothing is due."""
    if now >= kept.authority.until:
        return first(now)  # nobody trusts anything any more
    kept = _authority_renewed(kept, now)
    if now >= kept.node.until - NODE_RENEWED and kept.node.until < kept.authority.until:
        kept = replace(kept, node=_node(kept.authority, now))
    return kept


def due(kept: Certificates) -> datetime:
    """When `renewed` has something to do."""
    if kept.coming is not None or kept.going is not None:
        changes = kept.since + SPREAD
    else:
        changes = kept.authority.until - AUTHORITY_RENEWED
    if kept.node.until >= kept.authority.until:
        return changes
    return min(changes, kept.node.until - NODE_RENEWED)


def signs(authority: Pair, node: Pair) -> bool:
    """Whether the pair of a node is whole and was signed by this authority. Raises ValueError."""
    certificate, key = _loaded(node.certificate), _key(node.key)
    try:
        certificate.verify_directly_issued_by(_loaded(authority.certificate))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return certificate.public_key() == key.public_key() and _is_whole(authority)


def _authority_renewed(kept: Certificates, now: datetime) -> Certificates:
    if kept.coming is not None:
        if now < kept.since + SPREAD:
            return kept
        node = _node(kept.coming, now)
        return Certificates(kept.coming, node, now, going=kept.authority.certificate)
    if kept.going is not None:
        return kept if now < kept.since + SPREAD else replace(kept, going=None, since=now)
    if now >= kept.authority.until - AUTHORITY_RENEWED:
        return replace(kept, coming=_authority(now), since=now)
    return kept


def _authority(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own each: certificates of two authorities are told apart by it.
    name = _name(f"wml-serving internal {now:%Y-%m-%dT%H:%M:%S.%f}")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        _builder(name, name, key, now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(built, key)


def _node(authority: Pair, now: datetime) -> Pair:
    key, signer = ec.generate_private_key(ec.SECP256R1()), _loaded(authority.certificate)
    until = min(now + NODE_LIFE, authority.until)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(signer))
    built = (
        _builder(_name(NODE_NAME), signer.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NODE_NAME)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(identifier, critical=False)
        .sign(_key(authority.key), hashes.SHA256())
    )
    return _pem(built, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _loaded(certificate: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key of ours")  # noqa: TRY004 - as for any other text
    return key


def _public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not a certificate of ours")  # noqa: TRY004 - as for any other text
    return key


def _is_whole(pair: Pair) -> bool:
    return _loaded(pair.certificate).public_key() == _key(pair.key).public_key()
