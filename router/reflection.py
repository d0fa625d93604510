"""What gRPC reflection says of our services.

Python's generated descriptors carry no JSON names, without which grpcurl prints `model_name` where
it prints `modelName` with the .proto file; and its pool does not find methods. Both are added here.
"""

from typing import Any

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool


class Symbols:
    """A descriptor pool of some files, as grpc_reflection asks one."""

    def __init__(self, *files: FileDescriptor) -> None:
        self._pool = DescriptorPool()
        for file in files:
            self._add(file)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        """The file of a message, service, field or method. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found: Any = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return self._pool.FindFileContainingSymbol(service)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def _add(self, file: FileDescriptor) -> None:
        for needed in file.dependencies:
            self._add(needed)
        described = FileDescriptorProto()
        file.CopyToProto(described)
        for message in described.message_type:
            _name_fields(message, file.message_types_by_name[message.name])
        self._pool.Add(described)


def _name_fields(described: DescriptorProto, message: Descriptor) -> None:
    for field in described.field:
        field.json_name = message.fields_by_name[field.name].json_name
    for nested in described.nested_type:
        _name_fields(nested, message.nested_types_by_name[nested.name])
