"""Progress of a prompt in the terminal."""

from prompts import title
from tqdm import tqdm


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
