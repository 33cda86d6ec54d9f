#!/usr/bin/env python3
"""Requests over io_uring (fs/fuse/rings.h): what is other than over /dev/fuse. Run with --rings."""

import os
import signal
import subprocess
import threading
import time
import unittest

from harness import (Volume, alive, in_child, is_mounted, is_sanitized, main, num_rings, read, switch_rings, wait_for,
                     write)
from inject import can_inject, inject

PAGE = 4096
IO_URING_SETUP, IO_URING_REGISTER = 425, 427
REGISTER_BUFFERS = 0
NOBODY = 65534


class Rings(unittest.TestCase):
    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)

    def test_several_threads_stand_at_each_queue(self):
        self.v.mount()
        self.assertGreaterEqual(num_rings(self.v.server), 2 * os.cpu_count())

        def bound():
            """The CPUs of threads that are bound to one."""
            found = set()
            for task in os.listdir("/proc/%d/task" % self.v.server):
                cpus = os.sched_getaffinity(int(task))
                if len(cpus) == 1:
                    found |= cpus
            return found

        self.assertTrue(wait_for(lambda: bound() >= os.sched_getaffinity(0)), bound())

    def test_every_cpu_is_served(self):
        self.v.mount()
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        for cpu in before:
            os.sched_setaffinity(0, {cpu})
            data = os.urandom(300 * 1000)
            write(self.v.path("f%d" % cpu), data)
            fd = os.open(self.v.path("f%d" % cpu), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(os.pread(fd, len(data), 0), data)
            os.close(fd)

    def test_the_switch_is_turned_off_under_a_mount(self):
        self.v.mount()
        write(self.v.path("f"), b"x" * 100000)
        switch_rings(False)
        self.addCleanup(switch_rings, True)
        self.assertEqual(sorted(os.listdir(self.v.mnt)), ["f"])
        write(self.v.path("g"), b"y" * 100000)
        os.rename(self.v.path("g"), self.v.path("h"))
        self.v.rings = False
        self.v.remount()
        self.assertEqual(num_rings(self.v.server), 0)
        self.assertEqual(read(self.v.path("h")), b"y" * 100000)

    def test_io_uring_forbidden_by_the_machine(self):
        path = "/proc/sys/kernel/io_uring_disabled"
        if not os.path.exists(path):
            self.skipTest("this kernel cannot forbid it")
        before = read(path)
        write(path, b"2")
        try:
            self.v.rings = False
            self.v.mount()
            self.assertEqual(num_rings(self.v.server), 0)
            write(self.v.path("f"), b"over /dev/fuse")
            self.assertEqual(read(self.v.path("f")), b"over /dev/fuse")
        finally:
            write(path, before)

    def test_answers_from_another_thread(self):
        """SEEK_HOLE where somebody writes is answered by the seeker, while the thread that took the question goes on."""
        self.v.mount()

        def look(number):
            fd = os.open(self.v.path("s%d" % number), os.O_RDWR | os.O_CREAT, 0o600)
            for i in range(60):
                os.ftruncate(fd, 0)
                os.ftruncate(fd, 1 << 31)
                os.pwrite(fd, b"x" * PAGE, 1 << 30)
                if os.lseek(fd, 0, os.SEEK_DATA) >> 20 != 1 << 10 or os.fstat(fd).st_size != 1 << 31:
                    wrong.append(number)
            os.close(fd)

        wrong = []
        threads = [threading.Thread(target=look, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])

    def test_what_a_ring_may_do(self):
        if not can_inject():
            self.skipTest("needs root, on x86-64")
        self.v.mount()
        if is_sanitized(self.v.server):
            self.skipTest("a sanitized server is not confined")
        for call in ((IO_URING_SETUP, 1, 0), (IO_URING_REGISTER, 0, REGISTER_BUFFERS, 0, 0)):
            self.assertEqual(inject(self.v.server, *call), -1000 - signal.SIGSYS)
            self.assertTrue(wait_for(lambda: not is_mounted(self.v.mnt)))
            self.assertTrue(wait_for(lambda: not alive(self.v.supervisor)))
            self.v.mount()

    def test_a_user(self):
        """A mount that an ordinary user makes."""
        os.chown(self.v.base, NOBODY, NOBODY)
        os.chown(self.v.lower, NOBODY, NOBODY)
        os.chown(self.v.mnt, NOBODY, NOBODY)

        def work():
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            self.v.mount()
            for i in range(200):
                write(self.v.path("f%d" % i), b"%d" % i * 1000)
            self.v.remount()
            return sum(read(self.v.path("f%d" % i)) != b"%d" % i * 1000 for i in range(200))

        self.assertEqual(in_child(work), 0)
        subprocess.run(["umount", self.v.mnt], check=True)


class Frozen(unittest.TestCase):
    """A lower filesystem that stands still holds up those who want something written, and nobody else."""

    def setUp(self):
        self.image = "/var/tmp/ecfs-rings-%d.img" % os.getpid()
        with open(self.image, "wb") as f:
            f.truncate(64 << 20)
        self.addCleanup(os.remove, self.image)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.v = Volume()
        subprocess.run(["mount", "-o", "loop", self.image, self.v.lower], check=True)
        self.addCleanup(self.v.close)
        self.addCleanup(lambda: subprocess.run(["umount", self.v.lower], check=True))
        self.addCleanup(self.v.unmount)

    def test_others_on_the_same_cpu_go_on(self):
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        self.v.mount()
        for i in range(50):
            write(self.v.path("f%d" % i), b"x" * 5000)
        for i in range(2):  # the kernel lets one at a time make something in a directory
            os.mkdir(self.v.path("d%d" % i))
        os.sched_setaffinity(0, {min(before)})
        subprocess.run(["fsfreeze", "-f", self.v.lower], check=True)
        thaw = threading.Timer(30, lambda: subprocess.run(["fsfreeze", "-u", self.v.lower]))
        thaw.start()
        makers = []
        try:
            for i in range(2):
                makers.append(threading.Thread(target=os.mkdir, args=(self.v.path("d%d" % i, "in"),)))
                makers[-1].start()
            time.sleep(0.5)
            for i in range(50):
                fd = os.open(self.v.path("f%d" % i), os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                self.assertEqual(os.pread(fd, 10, 0), b"x" * 10)
                os.close(fd)
            self.assertTrue(all(m.is_alive() for m in makers), "nothing stood still")
        finally:
            thaw.cancel()
            subprocess.run(["fsfreeze", "-u", self.v.lower], check=True)
        for m in makers:
            m.join()
        self.assertEqual([os.listdir(self.v.path("d%d" % i)) for i in range(2)], [["in"], ["in"]])


if __name__ == "__main__":
    main(needs_root=True)
