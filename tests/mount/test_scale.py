#!/usr/bin/env python3
"""Many files, many entries, a large sparse file, many threads: with figures. As root.

ECFS_LONG: the full numbers (1,000,000 files in 1,000 directories, 100,000 entries)."""

import os
import random
import resource
import subprocess
import time
import unittest

from harness import LONG, STRESS, Volume, main, wait_for

SEED = int(os.environ.get("ECFS_SEED", "0")) or random.randrange(1, 1 << 30)


def run(part, where, **numbers):
    command = [STRESS, "scale", where, "--part", str(part)]
    for name, value in numbers.items():
        command += ["--" + name, str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout.rstrip("\n")


def rss_mb(pid):
    with open("/proc/%d/status" % pid) as f:
        return [int(line.split()[1]) for line in f if line.startswith("VmRSS")][0] / 1024


class Scale(unittest.TestCase):
    def mounted(self, **kwargs):
        v = Volume()
        self.addCleanup(v.close)
        v.mount(**kwargs)
        return v

    def test_many_files_with_few_descriptors_and_little_memory(self):
        dirs, files = (1000, 1000) if LONG else (60, 1000)
        few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))}
        v = self.mounted(**few)
        print(run(1, v.mnt, dirs=dirs, files=files))
        v.unmount()
        v.mount(**few)
        write_nothing = os.path.join(v.mnt, "directory-000000")
        os.listdir(write_nothing)
        before = rss_mb(v.server)
        began = time.monotonic()
        found = subprocess.run(["find", v.mnt, "-type", "f", "-size", "-2"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
        took = time.monotonic() - began
        self.assertEqual((found.returncode, found.stderr), (0, ""))
        self.assertEqual(len(found.stdout.splitlines()), dirs * files)
        known = rss_mb(v.server)
        descriptors = len(os.listdir("/proc/%d/fd" % v.server))
        again = time.monotonic()
        subprocess.run(["find", v.mnt, "-type", "f", "-size", "-2"], stdout=subprocess.DEVNULL, check=True)
        warm = time.monotonic() - again

        def drop():
            with open("/proc/sys/vm/drop_caches", "w") as f:
                f.write("2")
            return rss_mb(v.server) - before <= 0.2 * (known - before) + 8

        returned = wait_for(drop, 120 if LONG else 30)
        after = rss_mb(v.server)
        print("scale: walked %d files in %.1f s (again: %.1f s) with 1024 descriptors (%d in use), server's memory "
              "%.1f MB before, %.1f MB with all known, %.1f MB after they were forgotten"
              % (dirs * files, took, warm, descriptors, before, known, after))
        self.assertLess(descriptors, 600)
        self.assertLessEqual(known - before, 300 * dirs * files / 1e6 + 8)
        self.assertGreater(known - before, 0.1 * 300 * dirs * files / 1e6, "they were not all known at once")
        self.assertTrue(returned, "the memory was not given back")

    def test_a_large_directory_is_listed_in_linear_time(self):
        v = self.mounted()
        sizes = (10000, 100000) if LONG else (4000, 40000)
        each = []
        for size in sizes:
            where = v.path("of-%d" % size)
            os.mkdir(where)
            run(1, where, dirs=1, files=size)
            took = []
            for _ in range(3):  # the least of them: what else this machine does is not to be seen
                v.remount()
                count, seconds = run(5, os.path.join(where, "directory-000000")).split()
                self.assertEqual(int(count), size)
                took.append(float(seconds))
            each.append(min(took) / size)
            print("scale: %s entries listed and looked at in %s s, %.1f us each" % (count, min(took), each[-1] * 1e6))
        self.assertLess(each[1], 4 * each[0] + 20e-6)

    def test_a_sparse_file(self):
        v = self.mounted()
        print(run(4, v.mnt, gib=100, seed=SEED))
        v.remount()
        print(run(4, v.mnt, gib=100, seed=SEED, verify=1))

    def test_many_threads(self):
        v = self.mounted()
        print(run(3, v.mnt, threads=64, seconds=60 if LONG else 4))
        self.assertEqual(os.listdir(v.mnt), [])

    def test_open_files_without_a_name(self):
        v = self.mounted()
        print(run(2, v.mnt, files=10000))
        self.assertEqual(os.listdir(v.mnt), [])
        self.assertTrue(wait_for(lambda: len(os.listdir("/proc/%d/fd" % v.server)) < 100))


if __name__ == "__main__":
    main(needs_root=True)
