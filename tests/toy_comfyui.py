"""A stand-in for a ComfyUI's API: every prompt succeeds at once, and answers can be made wrong on cue."""

import base64
import hashlib
import json
import urllib.parse

import toy_server

OBJECT_INFO = {
    "LoadImage": {"input": {"required": {"image": [["there.png"], {"image_upload": True}]}}},
    "SaveImage": {"input": {"required": {"width": ["INT", {"min": 1, "max": 512}]}}},
}
WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": ""}, "_meta": {"title": "Picture"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "width": 32}, "_meta": {"title": "Save"}},
}
SUCCESS = {"status_str": "success", "messages": [["a", {"timestamp": 0}], ["b", {"timestamp": 1500}]]}


class ToyComfyUI(toy_server.ToyServer):
    """What a prompt saves is ``outputs``; its content tells the inputs that it ran with."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = Handler
        self.outputs = [{"filename": "out.png", "subfolder": "", "type": "output"}]
        self.prompts: dict[str, dict] = {}
        self.uploads: list[tuple[str, bytes]] = []
        # Path, or path and what the prompt's width is -> status and content of its next answers.
        self.wrong: dict[str, tuple[int, bytes]] = {}
        self.handshakes = 0
        self.websocket = False  # whether it takes WebSockets, which it then cuts at once

    def history(self, prompt_id: str) -> dict:
        if prompt_id not in self.prompts:
            return {}
        outputs = [{**file, "subfolder": f"{file['subfolder']}?{prompt_id}"} for file in self.outputs]
        return {prompt_id: {"outputs": {"2": {"images": outputs}}, "status": SUCCESS}}


class Handler(toy_server.Handler):
    server: ToyComfyUI

    def do_GET(self):
        place, query = self.place, dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
        if place == "ws":
            return self.shake_hands()
        prompt_id = query.get("subfolder", "").partition("?")[2] or place.rpartition("/")[2]
        width = self.server.prompts.get(prompt_id, {}).get("2", {}).get("inputs", {}).get("width")
        place = place.partition("/")[0]
        if place in self.server.redirects:
            return self.redirect()
        for wrong in (place, f"{place} {width}"):
            if wrong in self.server.wrong:
                return self.answer(*self.server.wrong[wrong])
        if place == "view":
            return self.answer(200, json.dumps({prompt_id: self.server.prompts[prompt_id]}).encode())
        pages = {
            "object_info": lambda: OBJECT_INFO,
            "features": lambda: {"max_upload_size": 1 << 20},
            "queue": lambda: {"queue_running": [], "queue_pending": []},
            "history": lambda: self.server.history(prompt_id),
        }
        return self.answer(200, json.dumps(pages[place]()).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.place in self.server.wrong:
            return self.answer(*self.server.wrong[self.place])
        if self.place == "upload/image":
            header, _, rest = body.partition(b"\r\n\r\n")
            name = header.rpartition(b'filename="')[2].rstrip(b'"').decode()
            self.server.uploads.append((name, rest.rpartition(b"\r\n--")[0]))
            return self.answer(200, json.dumps({"name": name}).encode())
        if self.place == "prompt":
            prompt_id = f"id{len(self.server.prompts)}"
            self.server.prompts[prompt_id] = json.loads(body)["prompt"]
            return self.answer(200, json.dumps({"prompt_id": prompt_id, "node_errors": {}}).encode())
        return self.answer(200, b"")

    def shake_hands(self):
        """Take the WebSocket, and cut it."""
        self.server.handshakes += 1
        if not self.server.websocket:
            return self.answer(404, b"")
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
