"""Run prompts in this process by the host's own validation and executor, with any value on any socket.

Two nodes stand in for the rest of a graph: one supplies a value by its key, as if a node had made it, the other keeps
what arrives.
"""

import asyncio
import itertools
import logging
from dataclasses import dataclass, field

import pack

pack.load()

import execution  # noqa: E402, after the pack, which sets the host up
from animate_anywhere import comfy_entrypoint  # noqa: E402

import nodes  # noqa: E402

SUPPLY, KEEP = "AA_TestSupply", "AA_TestKeep"
_numbers = itertools.count()


class Supply:
    """Gives the value that `Host.values` has under ``key``, whatever the socket wants."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"key": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "supply", "test"
    values: dict = {}  # noqa: RUF012, shared on purpose

    def supply(self, key):
        return (self.values[key],)


class Keep:
    """Keeps the value that arrives under ``key``."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"value": ("*",), "key": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "keep", "test", True
    kept: dict = {}  # noqa: RUF012, shared on purpose

    def keep(self, value, key):
        self.kept[key] = value
        return {}


class Server:
    """What the executor tells its messages to: nobody listens."""

    client_id = last_node_id = None

    def send_sync(self, *_) -> None:
        pass


@dataclass(frozen=True)
class Linked:
    """A value that comes over a link."""

    value: object


@dataclass
class Outcome:
    """What became of a prompt: its ``outputs``; or an ``error`` of the ``kind`` that was raised, "validation" where
    the host refused the prompt itself, "interrupted" where it was canceled."""

    outputs: list = field(default_factory=list)
    kind: str = ""
    error: str = ""
    where: str = ""  # the last line of the pack's code in the traceback


def register() -> dict[str, type]:
    """Let the host know the pack's nodes; name -> class."""
    extension = asyncio.run(comfy_entrypoint())
    asyncio.run(extension.on_load())
    ours = {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}
    nodes.NODE_CLASS_MAPPINGS.update(ours)
    nodes.NODE_CLASS_MAPPINGS.update({SUPPLY: Supply, KEEP: Keep})
    logging.getLogger().setLevel(logging.CRITICAL)  # the host logs every error with its traceback
    return ours


class Host:
    """The host's executor, which keeps no outputs from one prompt to the next."""

    def __init__(self) -> None:
        arguments = {"ram": 0.0, "ram_inactive": 0.0, "lru": 0}
        self.executor = execution.PromptExecutor(Server(), execution.CacheType.NONE, arguments)

    def run(self, node: str, inputs: dict, outputs: int) -> Outcome:
        """Run ``node`` once; `Linked` values come over links, the others are a widget's."""
        prompt = {"node": {"class_type": node, "inputs": {}}}
        number = str(next(_numbers))
        for name, value in inputs.items():
            if not isinstance(value, Linked):
                prompt["node"]["inputs"][name] = value
                continue
            key = f"{number} {name}"
            Supply.values[key] = value.value
            prompt[f"in {name}"] = {"class_type": SUPPLY, "inputs": {"key": key}}
            prompt["node"]["inputs"][name] = [f"in {name}", 0]
        for index in range(outputs):
            inside = {"value": ["node", index], "key": f"{number} {index}"}
            prompt[f"out {index}"] = {"class_type": KEEP, "inputs": inside}
        try:
            return self._run(prompt, number, outputs)
        finally:
            Supply.values.clear()
            Keep.kept.clear()

    def _run(self, prompt: dict, number: str, outputs: int) -> Outcome:
        valid, error, good, node_errors = asyncio.run(execution.validate_prompt(number, prompt, None))
        if not valid:
            told = [each for found in node_errors.values() for each in found["errors"]] or [error]
            text = "; ".join(f"{each['message']}: {each['details']}" for each in told)
            raw = any(each["type"] == "exception_during_validation" for each in told)
            return Outcome(kind="raw validation" if raw else "validation", error=text)
        self.executor.execute(prompt, number, {}, good)
        for event, data in self.executor.status_messages:
            if event == "execution_error":
                kind = data["exception_type"].rpartition(".")[2]
                return Outcome(kind=kind, error=data["exception_message"].strip(), where=_last_own(data["traceback"]))
            if event == "execution_interrupted":
                return Outcome(kind="interrupted")
        return Outcome([Keep.kept.get(f"{number} {index}") for index in range(outputs)])


def _last_own(traceback: list[str]) -> str:
    ours = [line for line in traceback if str(pack.ROOT) in line]
    return " ".join((ours or traceback or ["?"])[-1].split()[1:6]).replace(str(pack.ROOT), "")
