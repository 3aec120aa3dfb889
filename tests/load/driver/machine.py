"""Where it was measured, and what."""

import os
import platform
import subprocess
from pathlib import Path


def describe():
    """Processor, cores, memory, kernel, and how busy it was at the start."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        kilobytes = int(file.readline().split()[1])
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memoryGiB": round(kilobytes / (1 << 20), 1),
        "kernel": platform.release(),
        # What it sends with counts in every figure: BBR paces by timers, which cost.
        "congestionControl": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "loadBefore": os.getloadavg()[0],
    }


def commit(root):
    """The commit, with `+changes` when the tree differs from it."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    name = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"{name} +changes" if changed else name
