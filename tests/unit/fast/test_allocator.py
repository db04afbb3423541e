"""The allocator takes both settings; what they are worth is a benchmark's to say."""

import platform
import subprocess
import sys

import pytest

SCRIPT = "from ada2i.fast.allocator import keep_freed_memory; raise SystemExit(not keep_freed_memory())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_takes_the_settings() -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT], check=False).returncode == 0  # a process of its own
