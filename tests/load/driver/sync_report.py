"""From what was measured on the stream to rows with their targets, and to a table."""

MB = 1 << 20
# The sizes that targets are about: a change is compared between them.
SMALL, LARGE = 1_000, 100_000


def rows(results):
    """Every row that can be told: what, at which size, value, unit, target; `holds` where there is one."""
    found = []
    for size, of in results["sizes"].items():
        found += [row | {"routes": size} for row in _rows_of(size, of, results["settings"])]
    sizes = {int(size): of.get("change") for size, of in results["sizes"].items()}
    if sizes.get(SMALL) and sizes.get(LARGE):
        ratio = sizes[LARGE]["receivedBytes"] / sizes[SMALL]["receivedBytes"]
        found.append(_row(f"bytes of a change, {LARGE:,} : {SMALL:,} routes", ratio, "", 1.1) | {"routes": LARGE})
    return found


def _rows_of(size, of, settings):
    change, restart, large = of.get("change"), of.get("restart"), int(size) >= LARGE
    if change:
        clients = f"{settings['clients']:,} data planes"
        overhead = change["receivedBytes"] - change["objectBytes"]
        yield _row(f"commit to the last of {clients}, p50", change["fromAnswer"]["p50"], "ms", 80)
        yield _row("the same, p99", change["fromAnswer"]["p99"], "ms", 300)
        yield _row("from the request's first byte, p50", change["fromSent"]["p50"], "ms")
        yield _row("the same, p99", change["fromSent"]["p99"], "ms")
        yield _row("bytes of a change beyond the object's", overhead, "B", 96)
        yield _row("the object", change["objectBytes"], "B")
        yield _row("bytes that a data plane answers", change["sentBytes"], "B")
        yield _row("control-plane CPU of a change and data plane", change["cpuUs"], "µs", 60)
        yield _row("data-plane apply of a change, p50", change["applyMs"]["p50"], "ms", 2 if large else None)
        yield _row("the same, p99", change["applyMs"]["p99"], "ms")
        yield _row("divergences", change["diverged"], "", 0)
    if "endpointsMs" in of:
        yield _row("a discovered endpoint changes, until the last has it and serves by it, p50", of["endpointsMs"]["p50"], "ms", 120)
        yield _row("the same, p99", of["endpointsMs"]["p99"], "ms", 400)
    if "bytesPerDataPlane" in of:
        yield _row("control-plane memory of a data plane", of["bytesPerDataPlane"] / 1024, "KiB", 64)
    if "bytesPerRoute" in of:
        yield _row("control-plane memory of a route", of["bytesPerRoute"] / 1024, "KiB", 1.2 if large else None)
    if restart:
        yield _row("control-plane restart, from its start until all are back", restart["seconds"], "s", 3)
        yield _row("until it is ready", restart["readySeconds"], "s")
        yield _row("bytes of objects sent after it", restart["resourceBytes"], "B", 0)
        yield _row("memory peak of it to what it was", restart["peakRatio"], "", 1.3)
    if "fullSyncSeconds" in of:
        yield _row("start of a data plane with nothing, until it serves", of["fullSyncSeconds"], "s", 1.5 if large else None)
        yield _row("the control plane's share: everything to a light one", of["fullSyncLightSeconds"], "s")
        yield _row("objects of everything", of["snapshotBytes"] / MB, "MiB")
    if "atOnce" in of:
        count = settings["at_once"]
        yield _row(f"everything to {count} at once: memory", of["atOnce"]["growthBytes"] / MB, "MiB", 200)
        yield _row("until the last has it", of["atOnce"]["seconds"], "s")
    if "stalledBytes" in of:
        yield _row(f"{settings['stalled']} that stopped reading: memory", of["stalledBytes"] / MB, "MiB", 40)
    if "fromDiskSeconds" in of:
        yield _row("start of a data plane without a control plane", of["fromDiskSeconds"], "s", 2 if large else None)


def _row(what, value, unit, target=None):
    row = {"what": what, "value": value, "unit": unit, "target": target}
    return row if target is None else row | {"holds": value <= target}


def markdown(results):
    """The table, and what else must be known to read it."""
    about, settings = results["machine"], results["settings"]
    lines = [
        f"Commit {results['commit']}; {about['processor']}, {about['cores']} cores, {about['memoryGiB']} GiB, "
        f"Linux {about['kernel']}; {'clear text' if settings['clear'] else 'TLS 1.3'}, "
        f"{settings['clients']:,} light data planes and a real one, {settings['changes']} changes.",
        "",
        "| routes | measure | value | target | |",
        "|---:|---|---:|---:|---|",
    ]
    for row in results["rows"]:
        unit = f" {row['unit']}" if row["unit"] else ""
        target = "" if row["target"] is None else f"≤ {row['target']:g}{unit}"
        verdict = {True: "pass", False: "**miss**", None: ""}[row.get("holds")]
        lines.append(f"| {int(row['routes']):,} | {row['what']} | {_number(row['value'])}{unit} | {target} | {verdict} |")
    lines.append("")
    for size, of in results["sizes"].items():
        if failure := of.get("failure"):
            lines += [f"At {int(size):,} routes it broke off: {failure}", ""]
        if loud := {step: share for step, share in of.get("others", {}).items() if share > 0.05}:
            busy = ", ".join(f"{step} {share:.0%}" for step, share in loud.items())
            lines += [f"At {int(size):,} routes other processes used the machine meanwhile ({busy}): times are too long.", ""]
    return "\n".join(lines)


def _number(value):
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
