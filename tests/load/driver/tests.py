"""What the driver computes from what it measured: `python3 -B -m unittest driver.tests` (tests/tests/load.rs does)."""

import contextlib
import io
import os
import tempfile
import unittest
from unittest import mock

from . import command_line, report
from .fetch import Cache
from .variants import VARIANTS

NO_FAILURES = {"status": 0, "body": 0, "broken": 0, "connect": 0, "unanswered": 0}


def cell(cpu, p50=100, p99=200, **more):
    found = {"cpu": cpu, "user": cpu / 2, "system": cpu / 2, "perSecond": 1e6 / cpu, "busy": 1.0, "cpuPaced": cpu}
    found |= {"p50": p50, "p99": p99, "p999": 2 * p99, "idleBytes": 10e6, "loadedBytes": 12e6, "reuse": 0.99}
    return found | {"others": 0.0, "errors": 0, "failures": NO_FAILURES, "unsent": 0.0} | more


def results(cells, name="plain"):
    return {
        "machine": {
            "processor": "p",
            "cores": 2,
            "memoryGiB": 1,
            "kernel": "6",
            "congestionControl": "cubic",
            "loadBefore": 0.0,
        },
        "commit": "abc",
        "versions": {"ours": "this commit", "nginx": "1.30"},
        "about": {},
        "settings": {"mode": "pinned", "rounds": 3, "seconds": 1, "syscalls": None},
        "missing": {"envoy": "no network"},
        "variants": {name: {"rate": 1000.0, "leftOut": {"caddy": "too slow"}, "cells": cells}},
    }


class Rate(unittest.TestCase):
    def test_the_rate_is_one_that_the_best_peer_holds_however_fast_we_are(self):
        self.assertEqual(command_line.fixed_rate({"ours": 40_000, "nginx": 10_000, "haproxy": 12_000}, {"ours"}), 5_500)

    def test_a_slow_peer_does_not_set_the_rate_and_a_slow_build_of_ours_does_not_either(self):
        capacities = {"ours": 9_000, "old": 3_000, "nginx": 10_000, "caddy": 2_000}
        self.assertEqual(command_line.fixed_rate(capacities, {"ours", "old"}), 5_000)

    def test_without_peers_our_own_builds_say_who_leads(self):
        self.assertEqual(command_line.fixed_rate({"ours": 10_000, "old": 8_000}, {"ours", "old"}), 4_400)


class Exit(unittest.TestCase):
    def test_a_run_without_our_figures_or_with_wrong_answers_has_failed(self):
        self.assertTrue(command_line.sound([cell(10), cell(11)]))
        self.assertFalse(command_line.sound([cell(10), cell(11, errors=1)]))
        self.assertFalse(command_line.sound(None))


class Report(unittest.TestCase):
    def verdicts(self, cells, name="plain"):
        return {check["what"]: check for check in report.verdicts(name, cells)}

    def test_the_ratio_is_that_of_the_medians_of_ours_and_the_best_peer(self):
        cells = {
            "ours": [cell(10), cell(90), cell(11)],
            "nginx": [cell(14), cell(15), cell(99)],
            "haproxy": [cell(13), cell(16), cell(17)],
            "old": [cell(1)],  # another build of ours is no peer
        }
        ratio = self.verdicts(cells)["CPU ratio"]
        self.assertAlmostEqual(ratio["value"], 15 / 11)
        self.assertTrue(ratio["holds"])
        self.assertEqual(report.best(cells, "cpu"), ("nginx", 15))
        self.assertEqual(report.spread(cells, "nginx", "cpu"), "(0.17–9.00)")

    def test_the_floor_is_no_peer_and_bounds_the_ratio(self):
        cells = {"ours": [cell(12)], "nginx": [cell(15)], "floor": [cell(10)]}
        self.assertAlmostEqual(self.verdicts(cells)["CPU ratio"]["value"], 15 / 12)
        self.assertIn("nobody can pass 1.50: the system alone costs 10.0 (floor)", report.markdown(results(cells)))

    def test_latency_may_equal_the_best_p50_and_exceed_the_best_p99_by_a_tenth(self):
        peer = {"nginx": [cell(20, p50=100, p99=200)]}
        for p50, p99, holds in ((100, 219, (True, True)), (101, 221, (False, False))):
            found = self.verdicts(peer | {"ours": [cell(10, p50=p50, p99=p99)]})
            self.assertEqual((found["p50 µs"]["holds"], found["p99 µs"]["holds"]), holds)

    def test_every_target_that_was_measured_is_judged(self):
        found = self.verdicts({"ours": [cell(10, syscalls=4.2)]})
        held = {what: check["holds"] for what, check in found.items()}
        self.assertEqual(held, {"system calls": False, "idle MB": True})
        held = self.verdicts({"ours": [{"bytesPerConnection": 2048, "idleBytes": 1, "loadedBytes": 1}]}, "idle")
        self.assertTrue(held["bytes per connection"]["holds"])

    def test_the_table_names_who_is_missing_and_marks_errors_overload_and_disturbance(self):
        failures = NO_FAILURES | {"broken": 3}
        cells = {"ours": [cell(10, others=0.2)], "nginx": [cell(20, errors=3, failures=failures, unsent=0.5)]}
        text = report.markdown(results(cells))
        for expected in (
            "envoy is left out: no network",
            "caddy is left out: too slow",
            "**errors: nginx**",
            "3 broken; the rate is too much for it",
            "Others used up to 20% of the machine",
            "pass CPU ratio 2.00 (≥ 1.25)",
        ):
            self.assertIn(expected, text)

    def test_many_routes_are_compared_with_one(self):
        found = results({"ours": [cell(10)]})
        found["variants"]["routes100k"] = {"rate": None, "leftOut": {}, "cells": {"ours": [cell(10.4)]}}
        self.assertIn("100,000 routes cost 1.04 × the CPU of one", report.markdown(found))

    def test_every_variant_is_printed_without_any_cell(self):
        for name in VARIANTS:
            self.assertIn(f"## {name}", report.markdown(results({}, name)))


class Growth(unittest.TestCase):
    def cell(self, sizes):
        memory = [(5.0 * at, size) for at, size in enumerate(sizes)]
        more = {"idleBytes": 8e6, "loadedBytes": sizes[-1], "perSecond": 3000, "unsent": 0.0, "others": 0.0}
        return more | {"memory": memory, "errors": 0}

    def holds(self, sizes):
        (check,) = report.verdicts("growth", {"ours": [self.cell(sizes)]})
        return check["holds"]

    def test_what_comes_with_the_first_load_is_no_growth_and_a_slow_leak_is(self):
        jitter = [(at % 3) * 40_000 for at in range(120)]
        warming = [min(8e6 + at * 2e5, 14e6) + jitter[at] for at in range(120)]
        self.assertTrue(self.holds(warming))
        leaking = [size + at * 8_000 for at, size in enumerate(warming)]
        self.assertFalse(self.holds(leaking))

    def test_the_table_shows_the_round_that_rose_most(self):
        rounds = [self.cell([14e6] * 120), self.cell([14e6 + at * 1e4 for at in range(120)])]
        self.assertIn("| 14.30 | 15.19 | 15.19 | 0.89 |", report.markdown(results({"ours": rounds}, "growth")))


class Arguments(unittest.TestCase):
    def refused(self, *arguments):
        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit):
            command_line.arguments(arguments)
        return said.getvalue()

    def test_another_build_needs_a_name_of_its_own(self):
        self.assertEqual(command_line.arguments(["--also", "old=a", "--also", "older=b"]).also, ["old=a", "older=b"])
        for taken in ("ours=a", "nginx=a"):
            self.assertIn("the name is taken", self.refused("--also", taken))
        self.assertIn("the name is taken", self.refused("--also", "old=a", "--also", "old=b"))
        for bad in ("old", "=a", "old="):
            self.assertIn("takes NAME=PROGRAM", self.refused("--also", bad))

    def test_a_run_of_no_time_is_refused(self):
        self.assertIn("must be positive", self.refused("--minutes", "0"))


class Fetch(unittest.TestCase):
    def test_what_cannot_be_had_is_named_with_the_reason(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PATH=folder):
            missing = Cache(folder).fetch(["nginx"])
        self.assertRegex(missing["nginx"], "needs apt-get, which is not here|comes from Debian, and there is no")

    def test_what_is_in_the_cache_needs_no_network(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PATH=folder):
            cache = Cache(folder)
            cache.bin.mkdir()
            (cache.bin / "nginx").touch()
            self.assertEqual(cache.fetch(["nginx"]), {})
