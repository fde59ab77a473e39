"""A batch on many ComfyUIs: Ray places an actor on each GPU or machine, starts it anew elsewhere when its machine is
lost, and takes it away at the end. Each actor owns one ComfyUI; a job goes to whichever is free.

Used by scripts/batch.py --ray. Inputs and results travel through Ray, so the machines share no folder. On each of them
Python and Ray have the same version as here, and the command that starts ComfyUI is the same.
"""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import client
import comfyui
import host as hosts
import jobs as tables
from answers import seconds_of

LOCAL = {
    # Without it Ray's processes listen on every network of this machine, even when nobody else is to join.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
ATTEMPTS = 3  # at starting a Ray, which gives its own parts half a minute: too little on a machine that is very busy
RESTARTS = 10  # of one actor, whose machine or process is lost


class FarmError(client.ClientError):
    """No ComfyUI of the farm works, or there is none."""


class Worker:
    """One ComfyUI; a Ray actor. It lives as long as its process does, and the process no longer than it: when it goes
    away, Ray starts another actor."""

    def __init__(self, words: list[str]) -> None:
        import ray

        self.stack = contextlib.ExitStack()
        self.server = self.stack.enter_context(comfyui.installed(words, cpu=not ray.get_gpu_ids()))

    def ready(self) -> None:
        """Answers when ComfyUI does."""

    def known(self) -> dict:
        with client.Client(self.server.url) as connection:
            return connection.known()

    def run(self, prompt: dict, contents: dict) -> tuple[list[tuple[str, bytes]], float]:
        """What ``prompt`` saved, and its seconds. ClientError if the job is at fault."""
        try:
            with client.Client(self.server.url) as connection:
                prompt_id = connection.queue(tables.uploaded(connection, prompt, contents))
                history = connection.follow(prompt_id, prompt)
                return connection.saved(history), seconds_of(history)
        except client.Gone as error:
            print(f"{error}\n{self.server.log_tail()}", flush=True)
            os._exit(1)


@contextlib.contextmanager
def started(address: str, count: int, words: list[str]) -> Iterator[list]:
    """Actors of `Worker`, on a Ray of this machine or on the cluster at ``address``; gone with the block.

    count: 0 for one a GPU, or one a machine without any. words: what starts ComfyUI there, or nothing for the host's.
    """
    ray = _ray(local=not address)
    words = [str(Path(word).absolute()) if Path(word).is_file() else word for word in words or _of_host()]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(
                address or "local",
                num_cpus=None if address else max(count, os.cpu_count() or 1),
                include_dashboard=None if address else False,
                runtime_env={"working_dir": str(Path(__file__).resolve().parent)},
            )
            break
        except Exception as error:  # noqa: BLE001, Ray raises nothing narrower
            ray.shutdown()
            if address or attempt == ATTEMPTS:
                raise FarmError(f"no Ray at {address or 'this machine'}: {error}") from None
            print(f"Ray did not start ({error}); trying again", file=sys.stderr, flush=True)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        actor = ray.remote(Worker).options(
            num_cpus=1, num_gpus=min(gpus, 1), max_restarts=RESTARTS, scheduling_strategy="SPREAD"
        )
        yield [actor.remote(words) for _ in range(count or gpus or len(ray.nodes()))]
    finally:
        ray.shutdown()


def _ray(local: bool) -> ModuleType:
    for name, value in LOCAL.items() if local else ():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise FarmError("--ray needs Ray in this Python: pip install ray") from None
    return ray


def _of_host() -> list[str]:
    host = hosts.get()
    return [str(host.python), str(host.root / "main.py")]


class Farm:
    """Jobs through ``workers``, each of which has one at a time."""

    def __init__(self, workers: list, results, patience: float) -> None:
        self.results = results
        self.patience = patience
        self.free = deque()
        # What is under way: the answer awaited -> who is to give it, and the job. Without a job, that it is ready.
        self.pending = {}
        for worker in workers:
            self._await(worker)

    def known(self) -> dict:
        """The node types of the first ComfyUI that is ready."""
        import ray

        while True:
            while not self.free:
                self._next(deque())
            try:
                return ray.get(self.free[0].known.remote())
            except ray.exceptions.RayActorError:
                self._await(self.free.popleft())

    def run(self, waiting: list[tables.Job]) -> None:
        """Until all are done or failed. Raises FarmError when no ComfyUI is left or comes back, OSError when nothing
        can be written."""
        waiting = deque(waiting)
        while waiting or self._has_jobs():
            while waiting and self.free:
                job = waiting.popleft()
                contents = self.results.contents(job)
                if contents is None:
                    continue
                worker = self.free.popleft()
                print(f"{job.name}: started", flush=True)
                self.pending[worker.run.remote(job.prompt, contents)] = worker, job
            if waiting or self._has_jobs():
                self._next(waiting)

    def _has_jobs(self) -> bool:
        return any(job for _, job in self.pending.values())

    def _await(self, worker) -> None:
        """``worker`` is free when it is there, again or for the first time."""
        self.pending[worker.ready.options(max_task_retries=-1).remote()] = worker, None

    def _next(self, waiting: deque[tables.Job]) -> None:
        """Take the next answer. A job whose worker was lost goes to the front of ``waiting``."""
        import ray

        if not self.pending:
            raise FarmError("no ComfyUI of the farm is left; why stands above")
        timeout = None if self._has_jobs() else self.patience
        answers, _ = ray.wait(list(self.pending), num_returns=1, timeout=timeout)
        if not answers:
            raise FarmError(f"no ComfyUI of the farm has been ready for {self.patience:.0f} s")
        worker, job = self.pending.pop(answers[0])
        try:
            answer = ray.get(answers[0])
        except ray.exceptions.RayActorError as error:
            self._lost(worker, job, error, waiting)
            return
        except ray.exceptions.RayTaskError as error:
            self.results.fail(job, error.cause)
        else:
            if job:
                self.results.keep(job, *answer)
        self.free.append(worker)

    def _lost(self, worker, job: tables.Job | None, error: Exception, waiting: deque[tables.Job]) -> None:
        if job is None:  # it does not start, or not any more
            print(f"a ComfyUI of the farm did not start: {error}", file=sys.stderr, flush=True)
            return
        lost = client.Gone("its machine or process was lost")
        print(f"{job.name}: {lost}", flush=True)
        if self.results.count_try(job, lost):
            waiting.appendleft(job)
        self._await(worker)
