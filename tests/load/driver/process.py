"""Child processes that never outlive the driver, and what /proc says about them."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from dataclasses import dataclass

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
# Priority of what is started from here on; 0 changes nothing.
nice = 0
# Priority of what must not take a core from what is measured.
BACKGROUND = 19
_libc = ctypes.CDLL(None, use_errno=True)


def start(command, cores=None, environment=None, priority=None, **streams):
    """Starts a child in a process group of its own, on `cores`, with as many descriptors as are allowed."""
    priority = nice if priority is None else priority

    def before_exec():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cores:
            os.sched_setaffinity(0, cores)
        if priority:
            os.nice(priority)
            # Each session is a scheduling group where the kernel does that, and niceness counts inside a group only.
            # Who is not root may be told to come back later: then it stays one group among others.
            with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
                file.write(str(priority))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    return subprocess.Popen(
        [str(part) for part in command],
        env=dict(os.environ, **(environment or {})),
        start_new_session=True,
        preexec_fn=before_exec,
        **streams,
    )


def stop(child):
    """Ends a child and everything it started."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def tree(pid):
    """The process and everything under it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _stat(pid):
    """The fields of /proc/PID/stat after the name, which may hold anything; none when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True)
class Cpu:
    """CPU time in microseconds. The sum is exact to a tick (10 ms); the kernel only estimates the split."""

    user: float
    system: float

    def since(self, earlier):
        return Cpu(self.user - earlier.user, self.system - earlier.system)

    @property
    def total(self):
        return self.user + self.system


def cpu(pid):
    """CPU time that the whole tree has used."""
    stats = [fields for process in tree(pid) if (fields := _stat(process))]
    return Cpu(*(sum(int(fields[column]) for fields in stats) * TICK_US for column in (11, 12)))


def machine_us():
    """CPU time that everybody on the machine has used, and what a hypervisor took away."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) * TICK_US


def memory_bytes(pid):
    """Proportional set size of the whole tree: what is shared counts once."""
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except OSError:
            pass  # it ended meanwhile
    return total
