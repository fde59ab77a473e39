"""What old workflows rely on: node ids, the order of inputs, which of them are required, the outputs.

    $(python3 scripts/host.py --python) scripts/contract.py      write down what is new in tests/contract.json

tests/test_contract.py holds the nodes to it. What is written there stays: a saved workflow names inputs and outputs by
it, and the host refuses a prompt that lacks a required input which came later.
"""

import asyncio
import json

import pack

FILE = pack.ROOT / "tests" / "contract.json"


def described(extension_class) -> dict[str, dict[str, list[str]]]:
    """By node id: inputs and required ones by name, outputs by type, each in order."""

    async def nodes() -> list:
        extension = extension_class()
        await extension.on_load()
        return await extension.get_node_list()

    found = {}
    for node in asyncio.run(nodes()):
        schema = node.GET_SCHEMA()
        found[schema.node_id] = {
            "inputs": [item.id for item in schema.inputs],
            "required": list(node.INPUT_TYPES().get("required", {})),
            "outputs": [item.io_type for item in schema.outputs],
        }
    return found


def broken(promised: dict, found: dict) -> list[str]:
    """What of the contract the nodes ``found`` do not keep, a line each."""
    lines = []
    for name, node in promised.items():
        now = found.get(name)
        if now is None:
            lines.append(f"{name} is gone")
            continue
        for kind in ("inputs", "outputs"):
            if now[kind][: len(node[kind])] != node[kind]:
                lines.append(f"{name}: {kind} were {node[kind]}, are {now[kind]}; new ones go to the end")
        late = [item for item in now["required"] if item not in node["required"]]
        if late:
            lines.append(f"{name}: {', '.join(late)} came later or were optional; make them optional=True")
    return lines


def main() -> int:
    extension = pack.load().AnimateAnywhere
    promised = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    found = described(extension)
    problems = broken(promised, found)
    if problems:
        print("\n".join(problems))
        return 1
    for name, node in found.items():
        kept = promised.get(name, {"required": node["required"]})["required"]
        promised[name] = {**node, "required": kept}
    FILE.write_text(json.dumps(promised, indent=1) + "\n", encoding="utf-8")
    print(f"{FILE.relative_to(pack.ROOT)}: {len(promised)} nodes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
