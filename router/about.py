"""What this server says of itself."""

from importlib.metadata import PackageNotFoundError, version

NAME = "wml-serving"

try:
    VERSION = version(NAME)
except PackageNotFoundError:
    VERSION = "unknown"
