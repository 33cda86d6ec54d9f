#!/usr/bin/env python3
"""Random operations on a mount: against a mirror on the lower's own filesystem, on single files against a copy in memory,
and by processes that race. Mounted again in between, so that what is compared was decoded from below.

ECFS_SEED repeats a run (each part prints its seed); ECFS_LONG: 5 minutes instead of half a minute (less with --user, --options or --ecryptfs), for
all parts of one run of this script together."""

import os
import random
import subprocess
import unittest

from harness import ECRYPTFS, LIMITS, LONG, OPTIONS, STRESS, VARIANT, Volume, main

SEED = int(os.environ.get("ECFS_SEED", "0")) or random.randrange(1, 1 << 30)


class Stress(unittest.TestCase):
    def volume(self, arguments=()):
        v = Volume(arguments=arguments)
        self.addCleanup(v.close)
        v.mount()
        return v

    def stress(self, part, *paths, **numbers):
        command = [STRESS, part] + list(paths) + LIMITS
        for name, value in numbers.items():
            command += ["--" + name, str(value)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        print(done.stdout, end="")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def tree(self, rounds, seconds, arguments=()):
        v = self.volume(arguments)
        mirror = os.path.join(v.base, "mirror")
        os.mkdir(mirror)
        for i in range(rounds):
            self.stress("tree", mirror, v.mnt, seed=SEED + i, seconds=seconds, threads=4)
            v.remount()
        self.stress("tree", mirror, v.mnt, seed=SEED + rounds, ops=0)  # compares only

    def test_a_tree_against_a_mirror(self):
        self.tree(15 if LONG else 1 if VARIANT else 3, 8 if LONG else 4)

    def test_a_tree_with_sealed_sizes(self):
        if OPTIONS or ECRYPTFS:
            self.skipTest("once is enough, and of the native format")
        self.tree(4 if LONG else 1, 8 if LONG else 3, ["--sealed", "--suite", "2"])

    def test_files_against_memory(self):
        v = self.volume()
        for i in range(12 if LONG else 1 if VARIANT else 2):
            self.stress("file", v.path("f"), os.path.join(v.base, "m"), seed=SEED + i, seconds=5 if LONG else 3, files=4)
            v.remount()

    def test_races(self):
        v = self.volume()
        for i in range(6 if LONG else 1):
            lists = [os.path.join(v.base, name) for name in ("before", "after")]
            said = self.stress("race", v.mnt, lists[0], seed=SEED + i, seconds=10 if LONG else 3 if ECRYPTFS else 6, workers=6)
            v.remount()
            again = self.stress("race", v.mnt, lists[1], verify=1)
            if said.splitlines()[-1] != again.splitlines()[-1]:
                differ = subprocess.run(["diff", *lists], capture_output=True, text=True).stdout
                self.fail("the tree is another after a remount:\n" + differ)


if __name__ == "__main__":
    main()
