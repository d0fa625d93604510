"""Puts a folder into the S3 server of this pod: `put_example_models.py FOLDER`.

It then stays, and takes connections on a port: the pod is ready once the models are there.
"""

import json
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

READY_PORT = 8080
ENTRY = Path("/storage-config/wml-serving-example-models")
TRIES, PAUSE_S = 120, 0.5


def put(folder: Path, entry: dict[str, str]) -> int:
    """How many files were put into the entry's bucket, which is made where it is not there."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{urlsplit(entry['endpoint_url']).port}",
        aws_access_key_id=entry["access_key_id"],
        aws_secret_access_key=entry["secret_access_key"],
        region_name=entry["region"],
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    bucket = entry["default_bucket"]
    if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        sys.exit(f"there are no models in {folder}")
    for path in files:
        client.put_object(
            Bucket=bucket, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes()
        )
    return len(files)


def main(folder: Path) -> None:
    """Tries until the server is up, then stays until it is ended."""
    entry = json.loads(ENTRY.read_text())
    for left in reversed(range(TRIES)):
        try:
            print(f"{put(folder, entry)} files in {entry['default_bucket']}", flush=True)
            break
        except (BotoCoreError, ClientError) as error:
            if not left:
                sys.exit(f"the S3 server does not take the models: {error}")
            time.sleep(PAUSE_S)
    with socket.create_server(("", READY_PORT)) as server:
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
