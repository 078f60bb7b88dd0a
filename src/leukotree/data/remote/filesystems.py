"""The file systems of object stores: where they are, and how they are reached."""

from __future__ import annotations

import os
import urllib.request
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

NOT_LOGGED_IN = (
    "no access token of Google could be had; log in with gcloud auth application-default login, or set "
    "GOOGLE_APPLICATION_CREDENTIALS"
)


def of(scheme: str, connect: float, silence: float) -> Any:
    """The fsspec file system of an object store: `s3`, `gs` or `hf`. The address, the region and the keys of
    S3 come from the variables AWS_ENDPOINT_URL, AWS_REGION and those of AWS.

    Args: connect, silence: seconds without an answer after which a connection counts as lost.
    """
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"))
    from fsspec.implementations.arrow import ArrowFSWrapper

    return ArrowFSWrapper(gcs(connect) if scheme == "gs" else s3(connect, silence))


def gcs(connect: float) -> Any:
    """The file system of pyarrow for Google's store, with the credentials that Google's programs leave; or
    for its emulator at STORAGE_EMULATOR_HOST, as in Google's own clients."""
    from pyarrow import fs

    options: dict[str, Any] = {"retry_time_limit": timedelta(seconds=connect)}
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        parts = urlsplit(emulator if "://" in emulator else f"http://{emulator}")
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme, "anonymous": True}
    return fs.GcsFileSystem(**options)


def s3(connect: float = 10.0, silence: float = 30.0, **options: Any) -> Any:
    """The S3 file system of pyarrow. It takes the keys from their variables itself, but not the address, the
    region and the proxy."""
    from pyarrow import fs

    names = os.environ
    endpoint = names.get("AWS_ENDPOINT_URL_S3") or names.get("AWS_ENDPOINT_URL")
    parts = urlsplit(endpoint if endpoint and "://" in endpoint else f"https://{endpoint or 'amazonaws.com'}")
    if endpoint:
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        options["proxy_options"] = proxy
    if region := names.get("AWS_REGION") or names.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return fs.S3FileSystem(
        connect_timeout=connect,
        request_timeout=silence,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
        **options,
    )
