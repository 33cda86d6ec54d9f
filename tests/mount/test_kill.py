#!/usr/bin/env python3
"""The server is killed in the middle of writes and renames, and nothing that it has answered is lost."""

import os
import random
import subprocess
import time
import unittest

from harness import ECRYPTFS, LIMITS, LONG, STRESS, Volume, alive, kill, main, wait_for

SEED = int(os.environ.get("ECFS_SEED", "0")) or random.randrange(1, 1 << 30)
ROUNDS = 200 if LONG else 20 if ECRYPTFS else 50  # of all modes together


class Killed(unittest.TestCase):
    def run_mode(self, mode, rounds, options=None, arguments=()):
        v = Volume(options=options, arguments=arguments)
        self.addCleanup(v.close)
        v.mount()
        # What the program holds open would keep a dead mount alive: it opens the mount for each half of a round alone.
        program = subprocess.Popen([STRESS, "kill", v.mnt, "--seed", str(SEED), "--mode", str(mode)] + LIMITS,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        rng = random.Random(SEED + mode)

        def answer(expected):
            line = program.stdout.readline().rstrip("\n")
            if line != expected:
                program.stdin.close()
                program.wait(60)
                self.fail("seed %d: %r instead of %r" % (SEED, line, expected))

        def tell(word):
            program.stdin.write(word + "\n")
            program.stdin.flush()

        with program:
            print(program.stdout.readline().rstrip("\n"))
            for _ in range(rounds):
                tell("go")
                answer("running")
                time.sleep(rng.uniform(0.01, 0.25))
                kill(v.server)
                answer("down")
                self.assertTrue(wait_for(lambda: not alive(v.supervisor)))
                v.mount()
                tell("check")
                answer("checked")
            program.stdin.close()
            print(program.stdout.read().rstrip("\n"))
            self.assertEqual(program.wait(60), 0)

    def test_direct_writes(self):
        self.run_mode(0, ROUNDS * 3 // 10)

    def test_synced_writes_in_the_cache(self):
        self.run_mode(1, ROUNDS * 3 // 10)

    def test_a_shared_mount(self):
        self.run_mode(2, ROUNDS * 2 // 10, options=["shared"])

    @unittest.skipIf(ECRYPTFS, "of the native format")
    def test_sealed_sizes(self):
        self.run_mode(0, ROUNDS * 2 // 10, arguments=["--sealed"])


if __name__ == "__main__":
    main()
