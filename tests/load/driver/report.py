"""Medians, ratios, verdicts: a Markdown table for people, JSON for programs."""

import statistics

from .variants import VARIANTS

OURS = "ours"
FLOOR = "floor"
# When more than this share of the requests of the latency phase were never sent, its latencies are those of a queue.
TOO_MUCH = 0.01
# When other processes took more than this share of the machine while a proxy was measured, its figures are too high.
DISTURBED = 0.05


def median(cells, key):
    values = [cell[key] for cell in cells if cell.get(key) is not None]
    return statistics.median(values) if values else None


def rise(samples):
    """By how many bytes memory rises over a run, (seconds, bytes) each: along the line of least squares through its
    last three quarters, because buffers, counters and pools come with the first of the load."""
    later = samples[len(samples) // 4 :]
    if len(later) < 2:
        return None
    seconds, sizes = zip(*later, strict=True)
    return statistics.linear_regression(seconds, sizes).slope * (seconds[-1] - seconds[0])


def _rises(cells):
    found = [rise(cell["memory"]) for cell in cells if "memory" in cell]
    return max((one for one in found if one is not None), default=None)


def line(cell):
    """One cell in a line, for whoever watches."""
    if "memory" in cell:
        return f"{cell['loadedBytes'] / 1e6:.2f} MB in the end, risen by {(rise(cell['memory']) or 0) / 1e6:.3f} MB"
    if "changesPerSecond" in cell:
        return f"p99.9 {cell['quietP999']:.0f} µs, {cell['p999']:.0f} with {cell['changesPerSecond']:.1f} changes/s"
    if "bytesPerConnection" in cell:
        return f"{cell['bytesPerConnection']:.0f} bytes per connection"
    tail = f", p99 {cell['p99']:.0f} µs" if cell.get("p99") is not None else ""
    return f"{cell['perSecond']:.0f}/s, {cell['cpu']:.1f} µs CPU each{tail}, {cell['errors']} errors"


# -- verdicts


def best(cells, key):
    """(name, median) of the peer with the least of `key`; other builds of ours are no peers."""
    found = [(median(rounds, key), name) for name, rounds in cells.items() if name in _peers()]
    found = sorted((value, name) for value, name in found if value is not None)
    return (found[0][1], found[0][0]) if found else (None, None)


def _peers():
    import peers

    return peers.every()


def verdicts(name, cells):
    """What issue 3 asks of this variant: (what, ours, target as text, held or not) each."""
    variant, ours, found = VARIANTS[name], cells.get(OURS, []), []

    def check(what, value, target, holds, text):
        if value is not None and target is not None:
            found.append({"what": what, "value": value, "target": text, "holds": holds(value, target)})

    def at_most(value, target):
        return value <= target

    _, theirs = best(cells, "cpu")
    mine = median(ours, "cpu")
    ratio = theirs / mine if theirs and mine else None
    check("CPU ratio", ratio, variant.ratio, lambda value, target: value >= target, f"≥ {variant.ratio}")
    for key, slack in (("p50", 1.0), ("p99", 1.1)):
        peer, theirs = best(cells, key)
        if theirs and variant.ratio:
            target = theirs * slack
            check(f"{key} µs", median(ours, key), target, at_most, f"≤ {target:.0f} ({peer})")
    check("system calls", median(ours, "syscalls"), variant.syscalls, at_most, f"≤ {variant.syscalls}")
    idle, loaded = median(ours, "idleBytes"), median(ours, "loadedBytes")
    check("idle MB", idle and idle / 1e6, variant.idle_mb, at_most, f"≤ {variant.idle_mb}")
    check("loaded MB", loaded and loaded / 1e6, variant.loaded_mb, at_most, f"≤ {variant.loaded_mb}")
    quiet, changed = median(ours, "quietP999"), median(ours, "p999")
    moved = changed - quiet if quiet is not None else None
    check("p99.9 moves by µs", moved, variant.moved_us, lambda value, most: value < most, f"< {variant.moved_us}")
    risen = _rises(ours)
    check("memory rises by MB", risen and risen / 1e6, variant.rise_mb, at_most, f"≤ {variant.rise_mb}")
    each = median(ours, "bytesPerConnection")
    check("bytes per connection", each, variant.bytes_per_connection, at_most, f"≤ {variant.bytes_per_connection}")
    return found


def scale(variants):
    """100,000 routes against one, ours: CPU per request may be 5 % more."""

    def ours(name):
        return median(variants.get(name, {}).get("cells", {}).get(OURS, []), "cpu")

    one, many = ours("plain"), ours("routes100k")
    return many / one if one and many else None


def with_verdicts(results):
    variants = {
        name: found
        | {
            "about": VARIANTS[name].about,
            "medians": {
                peer: {key: median(cells, key) for key in cells[0] if not isinstance(cells[0][key], dict)}
                for peer, cells in found["cells"].items()
            },
            "verdicts": verdicts(name, found["cells"]),
        }
        for name, found in results["variants"].items()
    }
    return results | {"variants": variants, "manyRoutesToOne": scale(results["variants"])}


# -- Markdown


def number(value, places=0, unit=1.0):
    return "–" if value is None else f"{value / unit:,.{places}f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def markdown(results):
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"# Side-by-side benchmark, commit {results['commit']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memoryGiB']} GiB, Linux {machine['kernel']}, "
        f"TCP {machine['congestionControl']}, load {machine['loadBefore']:.1f} before. Mode {settings['mode']}, medians of {settings['rounds']} interleaved "
        f"rounds of {settings['seconds']:g} s. System calls: {settings['syscalls'] or 'not counted'}.",
        "",
        f"{versions}.",
        "",
        *(f"- {name} is left out: {reason}" for name, reason in results["missing"].items()),
        *(f"- {name}: {about}." for name, about in results["about"].items()),
        "",
        *summary(results),
    ]
    for name, found in results["variants"].items():
        lines += detail(name, found)
    return "\n".join(lines) + "\n"


def summary(results):
    rows = []
    for name, found in results["variants"].items():
        cells = found["cells"]
        key = "bytesPerConnection" if VARIANTS[name].hold else "cpu"
        peer, theirs = best(cells, key)
        mine = median(cells.get(OURS, []), key)
        places = 0 if VARIANTS[name].hold else 1
        checks = [
            f"{'pass' if check['holds'] else '**miss**'} {check['what']} {number(check['value'], 2)} ({check['target']})"
            for check in verdicts(name, cells)
        ]
        if theirs and (floor := median(cells.get(FLOOR, []), key)):
            checks.append(f"nobody can pass {theirs / floor:.2f}: the system alone costs {floor:.1f} (floor)")
        noisy = [peer for peer, rounds in cells.items() if sum(cell["errors"] for cell in rounds)]
        if noisy:
            checks.append(f"**errors: {', '.join(noisy)}**")
        ratio = f"{theirs / mine:.2f} {spread(cells, peer, key)}" if theirs and mine else "–"
        best_text = f"{number(theirs, places)} {peer}" if peer else "–"
        rows.append([name, number(mine, places), best_text, ratio, "; ".join(checks) or "no target"])
    many = scale(results["variants"])
    measured = [rounds for found in results["variants"].values() for rounds in found["cells"].values()]
    disturbed = [median(rounds, "others") or 0 for rounds in measured]
    after = [f"100,000 routes cost {many:.2f} × the CPU of one (target ≤ 1.05).", ""] if many else []
    head = ["variant", "ours, CPU µs/request (idle: bytes)", "best peer", "ratio (rounds)", "targets of issue 3"]
    if max(disturbed, default=0) > DISTURBED:
        after += [f"**Others used up to {max(disturbed):.0%} of the machine meanwhile: do not trust these figures.**", ""]
    return table(head, rows) + after


def spread(cells, peer, key):
    """The ratio in the worst and the best round: how much to trust the median."""
    pairs = zip(cells.get(OURS, []), cells.get(peer, []), strict=False)
    ratios = [theirs[key] / ours[key] for ours, theirs in pairs if ours.get(key)]
    return f"({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 else ""


def detail(name, found):
    variant, cells = VARIANTS[name], found["cells"]
    what = "" if variant.grows else "latency "
    rate = f"; {what}at {found['rate']:,.0f} requests/s" if found["rate"] else ""
    lines = [f"## {name}", "", f"{variant.about}{rate}.", ""]
    order = sorted(cells, key=lambda peer: median(cells[peer], "bytesPerConnection" if variant.hold else "cpu") or 0)
    if variant.changes:
        head = ["proxy", "changes/s", "CPU µs per change", "p50 µs without", "with", "p99 without", "with"]
        head += ["p99.9 without", "with", "MB", "others", "errors", "rounds"]
        rows = [[peer, *_changed(cells[peer]), str(len(cells[peer]))] for peer in order]
    elif variant.grows:
        head = ["proxy", "MB idle", "after a quarter", "at the end", "most", "rises by MB", "requests/s", "others"]
        head += ["errors", "rounds"]
        rows = [[peer, *_grown(cells[peer]), str(len(cells[peer]))] for peer in order]
    elif variant.hold:
        head = ["proxy", "bytes per connection", "MB before", "MB with them", "errors", "rounds"]
        rows = [[peer, *_held(cells[peer]), str(len(cells[peer]))] for peer in order]
    else:
        head = ["proxy", "CPU µs/request", "user", "system", "requests/s", "busy", "CPU µs at the rate", "p50 µs"]
        head += ["p99", "p99.9", "MB idle", "MB loaded", "system calls", "reuse", "others", "errors", "rounds"]
        rows = [[peer, *_loaded(cells[peer]), str(len(cells[peer]))] for peer in order]
    lines += table(head, rows)
    return lines + [f"- {peer} is left out: {reason}" for peer, reason in found["leftOut"].items()] + [""]


def _held(rounds):
    errors = sum(cell["errors"] for cell in rounds)
    sizes = [number(median(rounds, key), 1, 1e6) for key in ("idleBytes", "loadedBytes")]
    return [number(median(rounds, "bytesPerConnection")), *sizes, str(errors)]


def _grown(rounds):
    """Of the round in which memory rose most."""
    worst = max(rounds, key=lambda cell: rise(cell["memory"]) or 0)
    sizes = [size for _, size in worst["memory"]]
    shown = [worst["idleBytes"], sizes[len(sizes) // 4], sizes[-1], max(sizes), rise(worst["memory"])]
    errors = f"{worst['errors']}" + ("; the rate is too much for it" if worst["unsent"] > TOO_MUCH else "")
    return [*(number(size, 2, 1e6) for size in shown), number(worst["perSecond"]), f"{worst['others']:.0%}", errors]


def _changed(rounds):
    latencies = [number(median(rounds, key)) for key in ("quietP50", "p50", "quietP99", "p99", "quietP999", "p999")]
    return [
        number(median(rounds, "changesPerSecond"), 1),
        number(median(rounds, "cpuPerChange")),
        *latencies,
        number(median(rounds, "loadedBytes"), 1, 1e6),
        f"{median(rounds, 'others'):.0%}",
        str(sum(cell["errors"] for cell in rounds)),
    ]


def _loaded(rounds):
    errors = {kind: sum(cell["failures"][kind] for cell in rounds) for kind in rounds[0]["failures"]}
    shown = ", ".join(f"{count} {kind}" for kind, count in errors.items() if count) or "0"
    if (median(rounds, "unsent") or 0) > TOO_MUCH:
        shown += "; the rate is too much for it"
    busy, reuse = median(rounds, "busy"), median(rounds, "reuse")
    return [
        *(number(median(rounds, key), 1) for key in ("cpu", "user", "system")),
        number(median(rounds, "perSecond")),
        f"{busy:.0%}",
        *(number(median(rounds, key), 1) for key in ("cpuPaced",)),
        *(number(median(rounds, key)) for key in ("p50", "p99", "p999")),
        *(number(median(rounds, key), 1, 1e6) for key in ("idleBytes", "loadedBytes")),
        number(median(rounds, "syscalls"), 2),
        f"{reuse:.1%}",
        f"{median(rounds, 'others'):.0%}",
        shown,
    ]
