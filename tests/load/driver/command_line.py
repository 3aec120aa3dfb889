"""The command: builds, fetches, measures every cell in interleaved rounds, prints the table."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import peers
from peers.floor import Floor
from peers.gateway import Gateway

from . import machine, process, report, syscalls
from .cell import Bench, Cell, Failed
from .churn import Churn
from .fetch import Cache
from .report import OURS
from .variants import VARIANTS

ROOT = Path(__file__).resolve().parents[3]
# The fixed rate of the latency phase, as a share of what the slowest of the leaders can do.
PACE = 0.55
# A leader does at least this share of what the fastest peer does; slower ones must not set everybody's rate.
LEADER = 0.5
# Requests a second while changes arrive: a quarter of a core, so that what a change costs shows as latency.
CHURN_RATE = 10_000
# Requests a second of a long run, each on a connection of its own: well below what every proxy holds.
GROWTH_RATE = 3_000


def arguments(argv):
    everyone = list(peers.every())
    parser = argparse.ArgumentParser(
        prog="tests/load/run",
        description="Side-by-side benchmark: this gateway and other reverse proxies on the same work. Compare CPU per "
        "request within one run; see tests/load/README.md for what else to trust.",
        epilog="variants: " + "; ".join(f"{variant.name}: {variant.about}" for variant in VARIANTS.values()),
    )
    add = parser.add_argument
    usual = [name for name, variant in VARIANTS.items() if not variant.changes and not variant.grows]
    add("--variants", default=",".join(usual), help="which jobs, comma separated (default: all but churn and growth)")
    add("--peers", default=",".join(everyone), help="which proxies beside ours (default: %(default)s; '' for none)")
    add("--rounds", type=int, default=3, help="rounds, interleaved; the table shows medians (default: %(default)s)")
    add("--seconds", type=float, default=6, help="of full load in each cell (default: %(default)s)")
    add("--warmup", type=float, default=1.5, help="seconds of load before that (default: %(default)s)")
    add("--paced-seconds", type=float, default=4, help="at a fixed rate, for latency; 0: none (default: %(default)s)")
    add("--minutes", type=float, default=10, help="how long growth runs (default: %(default)s)")
    add("--rate", type=float, help=f"that rate; default: {PACE * 100:.0f} %% of the slowest leader's, per variant")
    add(
        "--mode",
        choices=["pinned", "free"],
        default="pinned",
        help="pinned: the proxy alone on one core with one worker, origin and load on another; free: all on all cores, "
        "a worker for each (default: %(default)s)",
    )
    add(
        "--syscalls",
        choices=["auto", "perf", "strace", "off"],
        default="auto",
        help="how system calls are counted, in the first round (default: %(default)s: perf if it can, else strace)",
    )
    add("--nice", type=int, default=0, help="priority of proxies and load on a busy machine, e.g. -15 as root")
    add("--out", metavar="NAME", help="also write NAME.md and NAME.json")
    add("--cache", default=ROOT / "target/peers", help="where the peers are kept (default: target/peers)")
    add("--fetch", action="store_true", help="only bring the peers into the cache")
    add("--ours", metavar="PROGRAM", help="a data plane that is already built, instead of building one")
    add("--also", metavar="NAME=PROGRAM", action="append", default=[], help="another build of ours to compare with")
    add("--floor", action="store_true", help="also pass bytes on without a look: what the system alone costs")
    add("--load", metavar="PROGRAM", help="a gateway-load that is already built")
    add("--control-plane", metavar="PROGRAM", help="a control plane that is already built (churn)")
    parsed = parser.parse_args(argv)
    parsed.variants = _chosen(parser, "variant", parsed.variants, VARIANTS)
    parsed.peers = _chosen(parser, "peer", parsed.peers, everyone)
    if parsed.rounds < 1 or parsed.seconds <= 0 or parsed.minutes <= 0:
        parser.error("--rounds, --seconds and --minutes must be positive")
    taken = {OURS, Floor.name, *everyone}
    for other in parsed.also:
        name, _, program = other.partition("=")
        if not name or not program:
            parser.error("--also takes NAME=PROGRAM")
        if name in taken:
            parser.error(f"--also {name}: the name is taken, and its figures would stand in the other's place")
        taken.add(name)
    return parsed


def _chosen(parser, what, text, known):
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            parser.error(f"there is no {what} {name}; there are {', '.join(known)}")
    return names


def main(argv=None):
    options = arguments(argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))  # through the context managers: they end the children
    cache = Cache(options.cache)
    missing = cache.fetch(options.peers)
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    if options.fetch:
        return 1 if missing else 0
    ours, load, control_plane = build(options)
    process.nice = options.nice
    contestants = [ours, *others(options)]
    contestants += [Floor(load)] if options.floor else []
    contestants += [peer for name, peer in peers.every().items() if name in options.peers and name not in missing]
    counting = syscalls.way() if options.syscalls == "auto" else options.syscalls
    with tempfile.TemporaryDirectory(prefix="gateway-load-") as certificates:
        os.chmod(certificates, 0o755)
        subprocess.run([load, "certificate", "--directory", certificates], check=True)
        bench = Bench(
            load=load,
            bin=cache.bin,
            certificates=Path(certificates),
            pinned=options.mode == "pinned",
            warmup=options.warmup,
            minutes=options.minutes,
            control_plane=control_plane,
            seconds=options.seconds,
            paced_seconds=options.paced_seconds,
            syscalls=None if counting == "off" else counting,
        )
        results = {
            "machine": machine.describe(),
            "commit": machine.commit(ROOT),
            "versions": {peer.name: peer.version(cache.bin) for peer in contestants},
            "about": {peer.name: peer.about for peer in contestants if peer.about},
            "settings": {
                "mode": options.mode,
                "rounds": options.rounds,
                "seconds": options.seconds,
                "pacedSeconds": options.paced_seconds,
                "syscalls": bench.syscalls,
            },
            "missing": missing,
            "variants": {name: {"rate": None, "leftOut": {}, "cells": {}} for name in options.variants},
        }
        measure(bench, contestants, options, results)
    return 0 if all(sound(found["cells"].get(OURS)) for found in results["variants"].values()) else 1


def sound(cells):
    """We were measured, and every answer was the right one: else the run has failed, whatever its figures."""
    return bool(cells) and not any(cell["errors"] for cell in cells)


def build(options):
    """Our programs as they are shipped (deploy/build), and the load: only what the variants need and nobody gave."""
    shipped = {"gateway-data-plane": options.ours}
    if any(VARIANTS[name].changes for name in options.variants):
        shipped["gateway-control-plane"] = options.control_plane
    if missing := [name for name, program in shipped.items() if not program]:
        subprocess.run([ROOT / "deploy/build", *missing], check=True)
    if not options.load:
        subprocess.run(["cargo", "build", "--profile", "dist", "--locked", "-p", "gateway-load"], cwd=ROOT, check=True)
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = {name: Path(program or built / "shipped" / name).resolve() for name, program in shipped.items()}
    load = Path(options.load or built / "dist/gateway-load").resolve()
    return Gateway(found["gateway-data-plane"]), load, found.get("gateway-control-plane")


def others(options):
    for other in options.also:
        name, program = other.split("=", 1)
        gateway = Gateway(Path(program).resolve())
        gateway.name = name
        yield gateway


def measure(bench, contestants, options, results):
    """Rounds A B C, B C A, C A B …: what disturbs the machine disturbs everybody."""
    for name in options.variants:
        prepare(bench, contestants, VARIANTS[name], options, results["variants"][name])
    for number in range(options.rounds):
        for name in options.variants:
            variant, into = VARIANTS[name], results["variants"][name]
            turn = number % len(contestants)
            for peer in contestants[turn:] + contestants[:turn]:
                if peer.name in into["leftOut"]:
                    continue
                try:
                    found = measured(bench, peer, variant, into["rate"], number == 0)
                except Failed as failure:
                    into["leftOut"][peer.name] = str(failure)
                    print(f"{name} {peer.name}: {failure}", file=sys.stderr, flush=True)
                    continue
                into["cells"].setdefault(peer.name, []).append(found)
                print(f"round {number + 1} {name} {peer.name}: {report.line(found)}", file=sys.stderr, flush=True)
        if options.out:  # after each round: a run that is cut short has not been for nothing
            Path(f"{options.out}.json").write_text(json.dumps(report.with_verdicts(results), indent=1) + "\n")
            Path(f"{options.out}.md").write_text(report.markdown(results))
    sys.stdout.write(report.markdown(results))


def measured(bench, peer, variant, rate, first):
    """One cell."""
    if variant.changes:
        with Churn(bench, peer, variant, bench.control_plane) as cell:
            return cell.measure(rate)
    with Cell(bench, peer, variant) as cell:
        if variant.grows:
            return cell.grow(rate)
        return cell.hold() if variant.hold else cell.measure(rate, first)


def prepare(bench, contestants, variant, options, into):
    """Who takes part, and at which fixed rate."""
    capacities = {}
    if variant.changes:
        into["rate"] = options.rate or CHURN_RATE
        into["leftOut"] = {peer.name: "ours only" for peer in contestants if peer.name not in (OURS,)}
        return
    for peer in contestants:
        if reason := peer.left_out(variant):
            into["leftOut"][peer.name] = reason
        elif options.paced_seconds and not options.rate and not variant.hold and not variant.grows:
            try:
                with Cell(bench, peer, variant) as cell:
                    capacities[peer.name] = cell.capacity()
            except Failed as failure:
                into["leftOut"][peer.name] = str(failure)
                print(f"{variant.name} {peer.name} is left out: {failure}", file=sys.stderr, flush=True)
    if variant.grows:
        into["rate"] = options.rate or GROWTH_RATE
    elif options.rate:
        into["rate"] = options.rate if options.paced_seconds else None
    elif capacities:
        own = capacities.keys() - peers.every().keys()
        into["rate"] = fixed_rate(capacities, own)


def fixed_rate(capacities, own):
    """A rate that the leaders hold. The peers say who leads: however fast we are, the best of them must hold it too."""
    leader = max([found for name, found in capacities.items() if name not in own] or capacities.values())
    slowest = min(found for found in capacities.values() if found >= LEADER * leader)
    return float(f"{PACE * slowest:.2g}")
