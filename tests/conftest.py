"""What every folder of tests may use."""

pytest_plugins = ["tests.support.s3", "tests.support.etcd"]
