"""System calls of a process tree: by perf's tracepoints (cheap) or by strace (dear, but it only has to count)."""

import os
import re
import shutil
import signal
import subprocess
import time

from . import process

TRACEPOINT = "/sys/kernel/tracing/events/raw_syscalls/sys_enter"


def way():
    """`perf`, `strace`, or none of them is possible here."""
    if shutil.which("perf") and os.path.exists(TRACEPOINT):
        return "perf"
    return "strace" if shutil.which("strace") and os.geteuid() == 0 else None


def count(how, pid, directory, load):
    """Runs `load` and returns how many system calls the tree of `pid` made meanwhile."""
    log = directory / "syscalls"
    pids = [str(pid) for pid in process.tree(pid)]
    if how == "perf":
        command = ["perf", "stat", "-x", ",", "-o", log, "-e", "raw_syscalls:sys_enter", "-p", ",".join(pids)]
    else:
        command = ["strace", "-c", "-f", "-q", "-o", log, *(part for pid in pids for part in ("-p", pid))]
    counter = process.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)  # neither says when it has attached
        load()
    finally:
        counter.send_signal(signal.SIGINT)
        try:
            counter.wait(10)
        finally:
            process.stop(counter)
    text = log.read_text()
    if how == "perf":
        found = re.search(r"^(\d+),[^,]*,raw_syscalls:sys_enter", text, re.M)
        return int(found.group(1)) if found else None
    found = re.search(r"^\s*100\.00\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:\d+\s+)?total", text, re.M)
    return int(found.group(1)) if found else None
