"""Drive a running ComfyUI through its API: upload, queue, follow with a progress bar, cancel, fetch what came out.

    python scripts/client.py workflows/api/animate.json --upload dance.mp4 --upload person.png \\
        --set "Driving video.file=dance.mp4" --set "Character.image=person.png" --set "Sample shot.seed=7" --out out/

Nodes are named by their title or id. Several runs with other values make a batch.
"""

import argparse
import contextlib
import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import websocket
from tqdm import tqdm

# So long the server may be silent before we look whether it is still there.
SILENCE_S = 20
# Inputs that the examples leave to the user. The host takes an empty name for its input folder and fails late.
CHOSEN = {"LoadVideo": "file", "LoadImage": "image"}
AWAY = (502, 503, 504)  # what stands before a server answers these when the server does not
MIB = 1 << 20


class ClientError(Exception):
    """What the server refused or could not do, in one line."""


class Cancelled(ClientError):
    """The prompt was cancelled."""


class Gone(ClientError):
    """The server does not answer, or has forgotten the prompt: it ended, or was started anew."""


class Client:
    """One connection to the ComfyUI at ``url``; use it as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.id = uuid.uuid4().hex

    def __enter__(self) -> "Client":
        address = "ws" + self.url.removeprefix("http") + f"/ws?clientId={self.id}"
        try:
            self.socket = websocket.create_connection(address, timeout=SILENCE_S)
        except (OSError, websocket.WebSocketException) as error:
            raise Gone(f"no ComfyUI at {self.url} ({error})") from None
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def get(self, path: str, **query: str) -> bytes:
        address = f"{self.url}/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        return self._open(urllib.request.Request(address))

    def post(self, path: str, body: bytes | dict, kind: str = "application/json") -> dict:
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        answer = self._open(urllib.request.Request(f"{self.url}/{path}", body, {"Content-Type": kind}))
        return json.loads(answer) if answer else {}

    def _open(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code in AWAY:
                raise Gone(f"no ComfyUI behind {request.full_url} ({error})") from None
            raise ClientError(refusal(error.read()) or f"{request.full_url}: {error}") from None
        except (OSError, http.client.HTTPException) as error:  # the latter: it broke off in the middle
            raise Gone(f"no answer from {request.full_url} ({error})") from None

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
        boundary = uuid.uuid4().hex
        file = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body = file.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return self.post("upload/image", body, f"multipart/form-data; boundary={boundary}")["name"]

    @cached_property
    def largest(self) -> float:
        """How many bytes the server takes at once."""
        return json.loads(self.get("features")).get("max_upload_size", float("inf"))

    def known(self) -> dict:
        """The node types that the server has, and their inputs."""
        return json.loads(self.get("object_info"))

    def queue(self, prompt: dict) -> str:
        """Queue ``prompt`` (API form). ClientError, naming the node and the input, if the server refuses any of it."""
        for node, key in unchosen(prompt):
            raise ClientError(f"{title(prompt, node)}: no {key} is chosen")
        answer = self.post("prompt", {"prompt": prompt, "client_id": self.id})
        if answer["node_errors"]:  # it would run those outputs that are not concerned, and leave out the rest
            self.cancel(answer["prompt_id"])
            raise ClientError(refusal(answer))
        return answer["prompt_id"]

    def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or stop it if it runs."""
        self.post("queue", {"delete": [prompt_id]})
        self.post("interrupt", {"prompt_id": prompt_id})

    def queued(self) -> list[str]:
        """The ids of the prompts that run or wait."""
        queue = json.loads(self.get("queue"))
        return [item[1] for item in queue["queue_running"] + queue["queue_pending"]]

    def history(self, prompt_id: str) -> dict:
        """What the server keeps of a finished prompt: its outputs by node, and its status."""
        return json.loads(self.get(f"history/{prompt_id}")).get(prompt_id, {})

    def succeeded(self, prompt_id: str) -> bool:
        return is_success(self.history(prompt_id))

    def fetch(self, file: dict) -> bytes:
        """The content of a file that the history names."""
        return self.get("view", **{key: file[key] for key in ("filename", "subfolder", "type")})

    def saved(self, history: dict) -> dict[str, bytes]:
        """By name, what the prompt's nodes saved."""
        found = [file for outputs in history["outputs"].values() for file in files(outputs)]
        return {file["filename"]: self.fetch(file) for file in found}

    def events(self, prompt_id: str) -> Iterator[tuple[str, dict]]:
        """The server's messages about the prompt, until it has succeeded, failed or been interrupted.

        The last one is "executing" without a node: only then the history is there. "execution_success" comes before it.
        """
        while True:
            try:
                message = self.socket.recv()
            except websocket.WebSocketTimeoutException:
                if prompt_id in self.queued():
                    continue
                raise Gone("the server has dropped the prompt without a word") from None
            except (OSError, websocket.WebSocketException) as error:
                raise Gone(f"the server at {self.url} went away ({error})") from None
            if isinstance(message, bytes):  # a preview picture
                continue
            message = json.loads(message)
            if message.get("data", {}).get("prompt_id") != prompt_id:
                continue
            yield message["type"], message["data"]
            if message["type"] == "executing" and message["data"]["node"] is None:
                return

    def follow(self, prompt_id: str, prompt: dict) -> dict:
        """Show the prompt's progress in the terminal until it is done; its history. ClientError if a node failed.

        Ctrl-C cancels the prompt on the server, too.
        """
        try:
            with Bars(prompt) as bars:
                for kind, data in self.events(prompt_id):
                    if kind == "progress":
                        bars.show(data["node"], data["value"], data["max"])
                    elif kind == "execution_error":
                        message = " ".join(data["exception_message"].split())
                        raise ClientError(f"{title(prompt, data['node_id'])}: {message}")
                    elif kind == "execution_interrupted":
                        raise Cancelled(f"cancelled in {title(prompt, data['node_id'])}")
        except KeyboardInterrupt:
            self.cancel(prompt_id)
            raise
        return self.history(prompt_id)


def is_success(history: dict) -> bool:
    return history.get("status", {}).get("status_str") == "success"


def check_succeeded(history: dict) -> None:
    if not is_success(history):
        raise ClientError("the server ended it without success")


def seconds_of(history: dict) -> float:
    """From the first node's start to the last one's end, by the server's clock."""
    times = [message[1]["timestamp"] for message in history["status"]["messages"] if "timestamp" in message[1]]
    return (max(times) - min(times)) / 1000 if times else 0.0


class Bars:
    """One bar a node that reports its progress. Where there is no terminal, one line a node when it is done."""

    def __init__(self, prompt: dict) -> None:
        self.prompt = prompt
        self.node = self.bar = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def show(self, node: str, value: float, total: float) -> None:
        if node != self.node:
            self.close()
            name = title(self.prompt, node)
            self.node, self.bar = node, tqdm(desc=f"{name:<22.22}", total=total, disable=None, dynamic_ncols=True)
        self.last = (value, total)
        self.bar.n, self.bar.total = value, total
        self.bar.refresh()

    def close(self) -> None:
        if self.bar is None:
            return
        if self.bar.disable:
            print(f"{title(self.prompt, self.node)}: {self.last[0]:g} of {self.last[1]:g}", flush=True)
        self.bar.close()
        self.bar = None


def title(prompt: dict, node: str) -> str:
    """How the artist calls the node."""
    entry = prompt.get(node, {})
    return entry.get("_meta", {}).get("title") or entry.get("class_type") or f"node {node}"


def refusal(answer: bytes | dict) -> str:
    """The server's answer to a prompt that it does not take, as one line; empty if it is none."""
    try:
        answer = answer if isinstance(answer, dict) else json.loads(answer)
        told = [
            f"{node['class_type']}: {error['message']} ({error['details']})"
            for node in answer["node_errors"].values()
            for error in node["errors"]
        ]
        return "; ".join(told) or f"{answer['error']['message']} {answer['error'].get('details', '')}".strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def find(prompt: dict, name: str) -> str:
    """The id of the node with this title or id."""
    found = [node for node in prompt if name in (node, title(prompt, node))]
    if len(found) != 1:
        titles = ", ".join(sorted(title(prompt, node) for node in prompt))
        raise ClientError(f"{len(found)} nodes are called {name!r}; there are: {titles}")
    return found[0]


def put(prompt: dict, name: str, key: str, value: object) -> None:
    """Set the widget ``key`` of the node called ``name``."""
    inputs = prompt[find(prompt, name)]["inputs"]
    if key not in inputs:
        raise ClientError(f"{name!r} has no input {key!r}; it has: {', '.join(inputs)}")
    inputs[key] = value


def rename(prompt: dict, names: dict[str, str]) -> None:
    """Put the names that uploaded files got on the server in place of their own."""
    for entry in prompt.values():
        for key, value in entry["inputs"].items():
            if isinstance(value, str):
                entry["inputs"][key] = names.get(value, value)


def unchosen(prompt: dict) -> Iterator[tuple[str, str]]:
    """(node, input) of files that the workflow leaves to the user and nobody has chosen."""
    for node, entry in prompt.items():
        key = CHOSEN.get(entry["class_type"])
        if key and entry["inputs"].get(key) == "":
            yield node, key


def files(outputs: dict) -> Iterator[dict]:
    """The saved files of one node in a history: pictures and videos."""
    for entries in outputs.values():
        yield from (entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "output")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", type=Path, help="a workflow in the API form")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--upload", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE")
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the files (default: output)")
    options = parser.parse_args()
    prompt = json.loads(options.workflow.read_text())
    try:
        for assignment in options.set:
            name, _, value = assignment.partition("=")
            node, _, key = name.rpartition(".")
            with contextlib.suppress(ValueError):  # a word needs no quotes
                value = json.loads(value)
            put(prompt, node, key, value)
        with Client(options.server) as client:
            rename(prompt, {path.name: client.upload(path) for path in options.upload})
            history = client.follow(client.queue(prompt), prompt)
            options.out.mkdir(parents=True, exist_ok=True)
            for name, content in client.saved(history).items():
                (options.out / name).write_bytes(content)
                print(options.out / name)
    except (ClientError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
