"""A server on loopback that speaks as much of S3 as pyarrow uses: buckets in memory, no signatures checked."""

import contextlib
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_TIME = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class ObjectStore:
    """Objects by `BUCKET/KEY`, and the URIs under which pyarrow finds them.

    Attributes:
        objects: The bytes of each object.
        num_puts: How often each was written.
        times: When each was written, in seconds since 1970, if that is not 2026-01-01.
        requests: Method and path of each request.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.objects: dict[str, bytes] = {}
        self.num_puts: dict[str, int] = {}
        self.times: dict[str, float] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploads: dict[str, dict[int, bytes]] = {}

    def uri(self, path: str) -> str:
        """Return the URI of `BUCKET/KEY`, with a key and a secret."""
        return f"s3://AKEY:SECRET@{path}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"

    def time_of(self, path: str) -> datetime:
        """Return when an object was written."""
        return datetime.fromtimestamp(self.times.get(path, _TIME), UTC)

    def put(self, path: str, data: bytes) -> None:
        self.objects[path] = data
        self.num_puts[path] = self.num_puts.get(path, 0) + 1


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Serve a store for the time of a with-block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.store = ObjectStore(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the acknowledgement of its head

    def log_message(self, *_):
        pass

    @property
    def store(self) -> ObjectStore:
        return self.server.store

    def _target(self):
        parts = urlsplit(self.path)
        self.store.requests.append((self.command, unquote(parts.path)))
        return unquote(parts.path).removeprefix("/"), parse_qs(parts.query, keep_blank_values=True)

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        found = b""  # chunks of another kind inside, with a checksum at their end
        while data:
            head, _, data = data.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            if not size:
                break
            found, data = found + data[:size], data[size + 2 :]
        return found

    def do_HEAD(self):
        path, _ = self._target()
        if "/" not in path.rstrip("/"):
            self._answer(200)
        elif path in self.store.objects:
            modified = format_datetime(self.store.time_of(path), usegmt=True)
            length = str(len(self.store.objects[path]))
            self._answer(200, Content_Length=length, ETag='"tag"', Last_Modified=modified)
        else:
            self._answer(404)

    def do_GET(self):
        path, query = self._target()
        if "list-type" in query or "/" not in path.rstrip("/"):
            self._list(path.rstrip("/"), query)
            return
        if path not in self.store.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
            return
        data = self.store.objects[path]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self._answer(200, data, ETag='"tag"')
            return
        start, stop = int(match[1]), int(match[2] or len(data) - 1) + 1
        part = data[start:stop]
        self._answer(206, part, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(data)}")

    def _list(self, bucket, query):
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        limit = int(query.get("max-keys", ["1000"])[0])
        keys, folders = [], set()
        for path in sorted(self.store.objects):
            name, _, key = path.partition("/")
            if name != bucket or not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                keys.append(key)
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.store.objects[f'{bucket}/{key}'])}</Size>"
            f"<LastModified>{self.store.time_of(f'{bucket}/{key}'):%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            for key in keys[:limit]
        )
        items += "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        body = (
            f"<ListBucketResult {XMLNS}><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(keys[:limit]) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>{items}"
            "</ListBucketResult>"
        )
        self._answer(200, body.encode(), Content_Type="application/xml")

    def do_PUT(self):
        path, query = self._target()
        data = self._body()
        if "uploadId" in query:
            self.store.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = data
        elif "/" in path.rstrip("/"):
            self.store.put(path, data)
        self._answer(200, ETag='"tag"')

    def do_POST(self):
        path, query = self._target()
        body = self._body()
        if "uploads" in query:
            upload = f"upload{len(self.store.uploads)}"
            self.store.uploads[upload] = {}
            name = "InitiateMultipartUploadResult"
            answer = f"<{name} {XMLNS}><UploadId>{upload}</UploadId></{name}>"
        elif "uploadId" in query:
            parts = self.store.uploads.pop(query["uploadId"][0])
            self.store.put(path, b"".join(parts[number] for number in sorted(parts)))
            answer = (
                f"<CompleteMultipartUploadResult {XMLNS}><ETag>tag</ETag></CompleteMultipartUploadResult>"
            )
        else:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.store.objects.pop(f"{path}/{key}", None)
            answer = f"<DeleteResult {XMLNS}></DeleteResult>"
        self._answer(200, answer.encode(), Content_Type="application/xml")

    def do_DELETE(self):
        path, _ = self._target()
        self.store.objects.pop(path, None)
        self._answer(204)
