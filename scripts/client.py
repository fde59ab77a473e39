"""Drive a running ComfyUI through its API: upload, queue, follow with a progress bar, cancel, fetch what came out.

    python scripts/client.py workflows/api/animate.json --upload dance.mp4 --upload person.png \\
        --set "Driving video.file=dance.mp4" --set "Character.image=person.png" --set "Sample shot.seed=7" --out out/

Nodes are named by their title or id. Several runs with other values make a batch.
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import download as downloads
import pack
import strict_json
import websocket
from answers import check_message, check_succeeded, files, is_number, is_success, one_line, refusal
from progress import Bars
from prompts import ClientError, find, put, read, rename, title, unchosen
from strict_json import shown

# Other scripts and the tests reach a prompt's functions through this module.
__all__ = ["Client", "ClientError", "Gone", "files", "find", "put", "rename", "server_url", "title"]

DEFAULT_URL = "http://127.0.0.1:8188"
# So long the server may be silent before we look whether it is still there.
SILENCE_S = 20
POLL_S = 1.0  # between two looks at the history, where there is no WebSocket
UNSAFE_IN_HEADER = re.compile(r'["\\\x00-\x1f\x7f]')  # of a file name in a form's header
AWAY = (502, 503, 504)  # what stands before a server answers these when the server does not
MIB = 1 << 20


class Gone(ClientError):
    """The server does not answer, or has forgotten the prompt: it ended, or was started anew."""


class AddressError(ClientError):
    """An address that is not a server's."""


def server_url(address: str) -> str:
    """Return ``address`` as http://HOST:PORT, http:// being assumed. Raises AddressError."""
    text = address.strip()
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        _ = parts.port  # raises ValueError where it is none
        host = (parts.hostname or "").encode("idna").decode()
        fits = host and text.isprintable() and not re.search(r"[\s@\\]", text)
        if fits and parts.scheme in ("http", "https") and not (parts.query or parts.fragment):
            return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    except ValueError:  # UnicodeError is one
        pass
    raise AddressError(
        f"--server: {shown(address)} is not the address of a server. "
        "Write http://HOST:PORT or HOST:PORT, as in 127.0.0.1:8188."
    )


class Client:
    """One connection to the ComfyUI at ``url``; use it as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = server_url(url)
        self.id = uuid.uuid4().hex
        self.socket: websocket.WebSocket | None = None

    def __enter__(self) -> "Client":
        """Connect. Where only the WebSocket does not work, as behind some proxies, progress is not
        shown and the history tells when a prompt is done."""
        try:
            self._connect()
        except Gone as error:
            with contextlib.suppress(ClientError):
                self.queued()
                return self
            raise error from None
        return self

    def __exit__(self, *_) -> None:
        self._disconnect()

    def _connect(self) -> None:
        address = "ws" + self.url.removeprefix("http") + f"/ws?clientId={self.id}"
        try:
            self.socket = websocket.create_connection(address, timeout=SILENCE_S)
        except (OSError, ValueError, websocket.WebSocketException) as error:
            raise Gone(f"no ComfyUI at {self.url} ({one_line(error)})") from None

    def _disconnect(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self.socket.close()
        self.socket = None

    def get(self, path: str, **query: str) -> bytes:
        address = f"{self.url}/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        return self._open(urllib.request.Request(address))

    def post(self, path: str, body: bytes | dict, kind: str = "application/json") -> dict:
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"{self.url}/{path}", body, {"Content-Type": kind})
        answer = self._open(request)
        return self._parsed(path, answer) if answer else {}

    def get_object(self, path: str) -> dict:
        """Return the JSON object that the server answers. Raises ClientError for anything else."""
        return self._parsed(path, self.get(path))

    def _parsed(self, path: str, answer: bytes) -> dict:
        try:
            value = strict_json.parse(answer, strict=False)
        except ValueError as error:
            raise ClientError(f"{self.url}/{path} answers no JSON: {one_line(error)}") from None
        return self._expect(path, value, dict)

    def _expect(self, path: str, value: object, kind: type) -> object:
        """Return ``value``, a part of the answer at ``path``. ClientError if it is of another type."""
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ClientError(
                f"{self.url}/{path}: {shown(value)} in the answer is not of type {kind.__name__}; is it a ComfyUI?"
            )
        return value

    def _open(self, request: urllib.request.Request) -> bytes:
        try:
            with downloads.open_url(request) as answer:
                return answer.read()
        except downloads.DownloadError as error:  # it leads to another scheme
            raise ClientError(str(error)) from None
        except urllib.error.HTTPError as error:
            if error.code in AWAY:
                raise Gone(f"no ComfyUI behind {request.full_url} ({error})") from None
            raise ClientError(refusal(_body(error)) or f"{request.full_url}: {error}") from None
        except (OSError, http.client.HTTPException) as error:  # the latter: it broke off in the middle
            raise Gone(f"no answer from {request.full_url} ({one_line(error)})") from None

    def upload(self, path: Path, name: str | None = None) -> str:
        """Put the file into the server's input folder; the name to use in a node."""
        return self.put_input(name or path.name, path.read_bytes())

    def put_input(self, name: str, content: bytes) -> str:
        """`upload` of a file that is in memory.

        The server leaves a file of the same name and content as it is, and one of another content, too: the new one is
        then called "NAME (1)". Overwriting would empty it for a moment under a prompt that reads it.
        """
        if len(content) > self.largest:
            raise ClientError(
                f"{name}: {len(content) / MIB:.1f} MiB, and the server takes at most {self.largest / MIB:.0f} MiB; "
                "start it with a larger --max-upload-size"
            )
        boundary, name = uuid.uuid4().hex, UNSAFE_IN_HEADER.sub("_", name)
        file = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body = os.fsencode(file) + content + f"\r\n--{boundary}--\r\n".encode()
        answer = self.post("upload/image", body, f"multipart/form-data; boundary={boundary}")
        return self._expect("upload/image", answer.get("name"), str)

    @cached_property
    def largest(self) -> float:
        """How many bytes the server takes at once."""
        told = self.get_object("features").get("max_upload_size")
        return told if is_number(told) and told > 0 else math.inf

    def known(self) -> dict:
        """The node types that the server has, and their inputs."""
        return self.get_object("object_info")

    def queue(self, prompt: dict) -> str:
        """Queue ``prompt`` (API form). ClientError, naming the node and the input, if the server refuses any of it."""
        for node, key in unchosen(prompt):
            raise ClientError(f"{title(prompt, node)}: no {key} is chosen")
        answer = self.post("prompt", {"prompt": prompt, "client_id": self.id})
        prompt_id = self._expect("prompt", answer.get("prompt_id"), str)
        if answer.get("node_errors"):  # it would run those outputs that are not concerned, and leave out the rest
            self.cancel(prompt_id)
            raise ClientError(refusal(answer) or f"the server refuses it: {shown(answer)}")
        return prompt_id

    def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or stop it if it runs."""
        self.post("queue", {"delete": [prompt_id]})
        self.post("interrupt", {"prompt_id": prompt_id})

    def queued(self) -> list[str]:
        """The ids of the prompts that run or wait."""
        queue = self.get_object("queue")
        waiting = [self._expect("queue", queue.get(f"queue_{part}"), list) for part in ("running", "pending")]
        items = [self._expect("queue", item, list) for part in waiting for item in part]
        return [item[1] for item in items if len(item) > 1]

    def history(self, prompt_id: str) -> dict:
        """What the server keeps of a finished prompt: its outputs by node, and its status."""
        path = f"history/{urllib.parse.quote(prompt_id, safe='')}"
        return self._expect(path, self.get_object(path).get(prompt_id, {}), dict)

    def succeeded(self, prompt_id: str) -> bool:
        return is_success(self.history(prompt_id))

    def fetch(self, file: dict) -> bytes:
        """The content of a file that the history names."""
        place = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        return self.get("view", **{key: self._expect("history", value, str) for key, value in place.items()})

    def saved(self, history: dict) -> list[tuple[str, bytes]]:
        """(name, content) of what the prompt's nodes saved, as the server names it: check the name
        before it becomes a path. Two files of two subfolders may have one name."""
        outputs = self._expect("history", history.get("outputs", {}), dict)
        found = [file for each in outputs.values() for file in files(each)]
        return [(file.get("filename"), self.fetch(file)) for file in found]

    def events(self, prompt_id: str) -> Iterator[tuple[str, dict]]:
        """The server's messages about the prompt, until it has succeeded, failed or been interrupted.

        Where the WebSocket ends or tells nothing, the history says whether the prompt is done. Raises Gone where
        neither the history nor the queue has it.
        """
        while True:
            message = self._receive()
            if message is None:
                if not self._is_pending(prompt_id):
                    return
            elif message["data"].get("prompt_id") == prompt_id:
                yield message["type"], message["data"]
                # Only then the history is there; "execution_success" comes before it.
                if message["type"] == "executing" and message["data"].get("node") is None:
                    return

    def _receive(self) -> dict | None:
        """The next message with a type and data; None after a while without one."""
        if self.socket is None:
            time.sleep(POLL_S)
            with contextlib.suppress(Gone):  # whether the server is gone, the history tells
                self._connect()
            return None
        try:
            content = self.socket.recv()
        except websocket.WebSocketTimeoutException:
            return None
        except (OSError, ValueError, websocket.WebSocketException):
            self._disconnect()
            return None
        if not isinstance(content, str):  # a preview picture
            return {"type": "", "data": {}}
        try:
            message = strict_json.parse(content.encode(), strict=False)
        except ValueError:
            message = None
        well_formed = isinstance(message, dict) and isinstance(message.get("data"), dict)
        return message if well_formed and "type" in message else {"type": "", "data": {}}

    def _is_pending(self, prompt_id: str) -> bool:
        """Whether the prompt waits or runs. Raises Gone where the server has forgotten it."""
        if self.history(prompt_id):
            return False
        if prompt_id in self.queued():
            return True
        if self.history(prompt_id):  # it was done between the two questions
            return False
        raise Gone("the server has dropped the prompt without a word")

    def follow(self, prompt_id: str, prompt: dict) -> dict:
        """Show the prompt's progress in the terminal until it is done; its history.

        Raises ClientError if a node failed. Ctrl-C cancels the prompt on the server, too.
        """
        try:
            with Bars(prompt) as bars:
                for kind, data in self.events(prompt_id):
                    node, value, total = (data.get(key) for key in ("node", "value", "max"))
                    if kind == "progress" and isinstance(node, str) and is_number(value) and is_number(total):
                        bars.show(node, value, total)
                    check_message(kind, data, prompt)
        except KeyboardInterrupt:
            self.cancel(prompt_id)
            raise
        history = self.history(prompt_id)
        check_succeeded(history, prompt)
        return history


def _body(error: urllib.error.HTTPError) -> bytes:
    """What the server says with a refusal, if it says it to the end."""
    try:
        return error.read()
    except (OSError, http.client.HTTPException):
        return b""


def upload_all(client: Client, paths: list[Path]) -> dict[str, str]:
    """Upload the files; what they are called here -> on the server. A file is called by its path
    and, where no other one has it, by its name."""
    on_server = {str(path): client.upload(path) for path in paths}
    counted = Counter(path.name for path in set(paths))
    return on_server | {path.name: on_server[str(path)] for path in paths if counted[path.name] == 1}


def check_names(prompt: dict, paths: list[Path]) -> None:
    """Raise ClientError if the prompt names a file that two of ``paths`` could be."""
    counted = Counter(path.name for path in set(paths))
    values = [value for entry in prompt.values() for value in entry["inputs"].values()]
    for name in (name for name, count in counted.items() if count > 1 and name in values):
        several = ", ".join(str(path) for path in paths if path.name == name)
        raise ClientError(f"--upload: {several} have one name. Give --set the path that --upload has, not {name}.")


def assign(prompt: dict, assignments: list[str]) -> None:
    """Set each NODE.INPUT=VALUE. Raises ClientError."""
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        node, dot, key = name.rpartition(".")
        if not equals or not dot:
            raise ClientError(f"--set: {shown(assignment)} is not of the form NODE.INPUT=VALUE.")
        with contextlib.suppress(ValueError):  # a word needs no quotes
            value = strict_json.parse(os.fsencode(value))
        put(prompt, node, key, value)


def write_all(folder: Path, files: list[tuple[str, bytes]]) -> Iterator[Path]:
    """Write what the server has saved into ``folder``; a name that is taken gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    safe_path, atomic = pack.load_file("models/safe_path.py"), pack.load_file("models/whole_file.py")
    for name, content in files:
        path = safe_path.unused_path(safe_path.path_inside(folder, name, "the server's answer"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.whole(path) as partial:
            partial.write_bytes(content)
        yield path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", type=Path, help="a workflow in the API form")
    parser.add_argument("--server", default=DEFAULT_URL, help=f"its address (default: {DEFAULT_URL})")
    parser.add_argument("--upload", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE")
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the files (default: output)")
    return parser.parse_args()


def main() -> int:
    options = parse()
    try:
        prompt = read(options.workflow)
        assign(prompt, options.set)
        check_names(prompt, options.upload)
        with Client(options.server) as client:
            rename(prompt, upload_all(client, options.upload))
            history = client.follow(client.queue(prompt), prompt)
            for path in write_all(options.out, client.saved(history)):
                print(path)
    except (ClientError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
