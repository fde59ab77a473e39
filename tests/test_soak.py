"""Prompts and cancels in one host leave its memory as it is."""

import subprocess
import sys

import soak


def test_prompts_and_cancels_keep_memory_flat():
    """In a process of its own, where nothing else is loaded meanwhile."""
    words = [sys.executable, soak.__file__, "--prompts", "75", "--warm-up", "50"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "canceled" in done.stdout.splitlines()[-1] and " 0 of them" not in done.stdout


def test_growth_is_what_the_end_has_more_than_the_start():
    assert abs(soak.growth([(50, 100), (75, 300), (100, 104)]) - 0.04) < 1e-9


def test_memory_that_is_kept_is_seen():
    before = soak.resident_bytes()
    kept = bytearray(b"x") * (64 << 20)
    assert soak.resident_bytes() - before > 50 << 20, len(kept)
