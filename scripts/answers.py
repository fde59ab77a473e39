"""What the answers of a ComfyUI say: how a prompt went, which files it saved, why it was refused.

Answers come from outside: a part of another type counts as not there.
"""

import math
from collections.abc import Iterator

import strict_json
from prompts import ClientError, title

MAX_REASON_CHARS = 500


class Cancelled(ClientError):
    """The prompt was cancelled."""


def one_line(error: object) -> str:
    """The text of ``error`` in one line of moderate length."""
    text = " ".join(str(error).encode("utf-8", "replace").decode().split())
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}…"


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number. A bool is none, nor is an int beyond all floats."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_success(history: dict) -> bool:
    status = history.get("status")
    return isinstance(status, dict) and status.get("status_str") == "success"


def messages(history: dict) -> Iterator[tuple[object, dict]]:
    """(type, data) of the messages that the history keeps."""
    status = history.get("status")
    kept = status.get("messages") if isinstance(status, dict) else None
    for message in kept if isinstance(kept, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            yield message[0], message[1]


def check_message(kind: object, data: dict, prompt: dict) -> None:
    """Raise ClientError if the message tells that a node failed or was interrupted."""
    node = title(prompt, data.get("node_id"))
    if kind == "execution_error":
        raise ClientError(f"{node}: {one_line(data.get('exception_message', 'it failed'))}")
    if kind == "execution_interrupted":
        raise Cancelled(f"cancelled in {node}")


def check_succeeded(history: dict, prompt: dict) -> None:
    """Raise ClientError, with the reason that the history tells, if the prompt did not succeed."""
    if is_success(history):
        return
    for kind, data in messages(history):
        check_message(kind, data, prompt)
    raise ClientError("the server ended it without success")


def seconds_of(history: dict) -> float:
    """From the first node's start to the last one's end, by the server's clock."""
    told = [data.get("timestamp") for _, data in messages(history)]
    times = [time for time in told if is_number(time)]
    return (max(times) - min(times)) / 1000 if times else 0.0


def files(outputs: object) -> Iterator[dict]:
    """The saved files of one node in a history: pictures and videos."""
    for entries in outputs.values() if isinstance(outputs, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("type") == "output":
                yield entry


def refusal(answer: bytes | dict) -> str:
    """The server's answer to a prompt that it does not take, as one line; empty if it is none."""
    try:
        told = answer if isinstance(answer, dict) else strict_json.parse(answer, strict=False)
        errors = [
            f"{node['class_type']}: {error['message']} ({error['details']})"
            for node in told["node_errors"].values()
            for error in node["errors"]
        ]
        whole = f"{told['error']['message']} {told['error'].get('details', '')}" if not errors else ""
        return one_line("; ".join(errors) or whole)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
