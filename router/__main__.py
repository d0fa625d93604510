"""`python -m router` and the console script `wml-serving`."""

from mesh.ops.settings import settle_grpc


def main() -> None:
    """Runs the command line of this process."""
    settle_grpc()
    from router.cli.main import main as command_line  # what it imports reads the environment

    command_line()


if __name__ == "__main__":
    main()
