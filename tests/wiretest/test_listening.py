"""Where servers listen: on every address of a name, or not at all."""

import socket

import grpc.aio
import pytest

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from router.address import bind_all
from router.server import CannotListen, ServerLimits, listen, server_options
from tests.support.world import world

LOOPBACK = sorted({info[4][0] for info in socket.getaddrinfo("localhost", 0)})


def held(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


@pytest.mark.parametrize("host", LOOPBACK)
async def test_localhost_with_one_of_its_addresses_taken_is_refused(host):
    server = grpc.aio.server(options=server_options(ServerLimits()))
    with held(host) as other:
        address = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(CannotListen) as caught:
            listen(server, address)
    assert f"cannot listen on {address}: is it taken?" in str(caught.value)


async def test_localhost_is_served_on_each_of_its_addresses():
    async with world(public="localhost:0") as w:
        for host in LOOPBACK:
            target = f"[{host}]" if ":" in host else host
            async with grpc.aio.insecure_channel(f"{target}:{w.running.port}") as channel:
                stub = kfs_grpc.GRPCInferenceServiceStub(channel)
                assert (await stub.ServerLive(kfs.ServerLiveRequest(), timeout=5)).live


@pytest.mark.parametrize(
    "address", ["no-such-host.invalid:0", "127.0.0.1:x", ":0", "192.0.2.1:0", "x"]
)
async def test_address_that_is_none_of_ours_is_refused(address):
    server = grpc.aio.server()
    with pytest.raises(CannotListen):
        listen(server, address)


@pytest.mark.parametrize("address", ["127.0.0.1:7", "[::1]:7", "0.0.0.0:7", "unix:/a/b", ":7"])
def test_address_without_a_name_is_bound_as_it_stands(address):
    bound = []
    assert bind_all(lambda each: bound.append(each) or 7, address) == 7
    assert bound == [address]


def test_port_that_the_first_address_got_is_that_of_all():
    bound = []
    bind_all(lambda each: bound.append(each) or 4711, "localhost:0")
    assert bound[0].endswith(":0")
    assert all(each.endswith(":4711") for each in bound[1:])
