#!/usr/bin/env python3
"""How a mount begins and ends, whatever happens to its processes."""

import errno
import mmap
import os
import shutil
import signal
import subprocess
import threading
import time
import unittest

from harness import Volume, alive, is_mounted, is_sanitized, kill, main, read, status_of, wait_for, write
from inject import CLOSE, OPENAT, SOCKET, can_inject, inject


class Lifecycle(unittest.TestCase):
    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)

    def assertGone(self, supervisor, server):
        self.assertTrue(wait_for(lambda: not alive(supervisor) and not alive(server)), "processes are left")
        self.assertFalse(is_mounted(self.v.mnt))

    def test_unmounting_ends_both_processes(self):
        self.v.mount()
        pids = self.v.supervisor, self.v.server
        write(self.v.path("f"), b"x" * 100000)
        self.v.unmount()
        self.assertGone(*pids)
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"x" * 100000)

    def test_a_killed_server_leaves_no_dead_mount(self):
        self.v.mount()
        write(self.v.path("f"), b"kept")
        pids = self.v.supervisor, self.v.server
        held = os.open(self.v.path("f"), os.O_RDONLY)
        kill(self.v.server)
        self.assertTrue(wait_for(lambda: not is_mounted(self.v.mnt)))
        self.assertEqual(os.listdir(self.v.mnt), [])
        self.assertGone(*pids)
        with self.assertRaises(OSError):
            os.fsync(held)
        with self.assertRaises(OSError):
            os.close(held)
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"kept")

    def test_a_mount_over_a_dead_one(self):
        self.v.mount()
        write(self.v.path("f"), b"kept")
        supervisor, server = self.v.supervisor, self.v.server
        kill(supervisor)
        kill(server)
        self.assertTrue(wait_for(lambda: not alive(server)))
        with self.assertRaises(OSError):
            os.stat(self.v.mnt)
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"kept")
        with open("/proc/self/mountinfo") as f:
            self.assertEqual(sum(line.split()[4] == self.v.mnt for line in f), 1)

    def test_signals_unmount(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for to_server in (False, True):
                self.v.mount()
                write(self.v.path("f"), b"%d" % number * 5000)
                pids = self.v.supervisor, self.v.server
                kill(pids[to_server], number)
                self.assertGone(*pids)
                self.v.mount()
                self.assertEqual(read(self.v.path("f")), b"%d" % number * 5000)
                self.v.unmount()

    def test_a_busy_mount_is_drained(self):
        self.v.mount()
        pids = self.v.supervisor, self.v.server
        fd = os.open(self.v.path("f"), os.O_CREAT | os.O_RDWR, 0o600)
        os.write(fd, b"before" * 1000)
        kill(self.v.supervisor, signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not is_mounted(self.v.mnt)))
        os.write(fd, b"after" * 1000)  # its last user has a while
        os.close(fd)
        self.assertGone(*pids)
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"before" * 1000 + b"after" * 1000)

    def test_a_mount_held_for_ever_ends_all_the_same(self):
        self.v.mount()
        pids = self.v.supervisor, self.v.server
        fd = os.open(self.v.path("f"), os.O_CREAT | os.O_RDWR, 0o600)
        os.write(fd, b"flushed" * 1000)
        kill(self.v.supervisor, signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not alive(pids[0]) and not alive(pids[1])))
        try:
            os.close(fd)
        except OSError:
            pass  # ENOTCONN: its server has ended
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"flushed" * 1000)

    def test_one_volume_is_not_mounted_twice(self):
        self.v.mount()
        other = Volume(lower=self.v.lower)
        self.addCleanup(other.close)
        done = other.try_mount()
        self.assertEqual(done.returncode, 1)
        self.assertIn("mounted already", done.stderr)
        same_place = Volume()
        self.addCleanup(same_place.close)
        same_place.mnt, own = self.v.mnt, same_place.mnt
        done = same_place.try_mount()
        same_place.mnt = own
        self.assertEqual(done.returncode, 1)
        self.assertIn("mounted there already", done.stderr)
        self.v.unmount()
        other.mount()

    def test_read_only_mounts_share_a_volume(self):
        self.v.mount()
        write(self.v.path("f"), b"x")
        self.v.unmount()
        self.v.options = ["ro"]
        self.v.mount()
        other = Volume(lower=self.v.lower, options=["ro"])
        self.addCleanup(other.close)
        other.mount()
        self.assertEqual(read(other.path("f")), b"x")
        with self.assertRaises(OSError):
            write(other.path("g"), b"")

    def test_failures_say_what_to_do(self):
        good = self.v.mnt
        self.v.mnt = good + "/missing"
        self.assertIn("No such file", self.v.try_mount().stderr)
        self.v.mnt = self.v.base + "/file"
        write(self.v.mnt, b"")
        self.assertIn("no directory", self.v.try_mount().stderr)
        self.v.mnt = good
        if os.geteuid() != 0:
            self.v.options = ["allow_other"]
            self.assertIn("user_allow_other", self.v.try_mount().stderr)
            os.mkdir(self.v.base + "/locked", 0o555)
            self.v.mnt, self.v.options = self.v.base + "/locked", []
            self.assertIn("fusermount3", self.v.try_mount().stderr)
            self.v.mnt = good
        self.v.options = []
        self.v.mount()
        self.v.unmount()
        with open(self.v.lower + "/.ecfs-volume", "r+b") as f:
            f.seek(20)
            f.write(b"\xff")
        self.assertEqual(self.v.try_mount().returncode, 1)
        self.assertFalse(is_mounted(good))

    def test_a_missing_device_is_explained(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        script = 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"'
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh"] + self.v.command(), stderr=subprocess.PIPE,
                              text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("modprobe fuse", done.stderr)

    def test_the_server_has_no_way_to_more_and_leaves_no_core(self):
        self.v.mount()
        server = self.v.server
        status = status_of(server)
        self.assertEqual(status["NoNewPrivs"], "1")
        if is_sanitized(server):
            self.skipTest("a sanitized server is not confined")
        if os.geteuid() != 0:
            with self.assertRaises(PermissionError):  # not dumpable
                os.readlink("/proc/%d/cwd" % server)
            self.assertEqual(int(status["CapPrm"], 16), 0)
        for pid in (server, self.v.supervisor):
            if os.geteuid() == 0:
                with open("/proc/%d/limits" % pid) as f:
                    core = [line for line in f if line.startswith("Max core")][0].split()
                self.assertEqual(core[4:6], ["0", "0"])
                # The key of the tests is 32 times 'Z': nowhere in the command line or the environment.
                self.assertNotIn(b"ZZZZ", read("/proc/%d/cmdline" % pid) + read("/proc/%d/environ" % pid))

    def test_the_server_is_confined(self):
        if not can_inject():
            self.skipTest("needs root, on x86-64")
        if is_sanitized(self.v.mount().server):
            self.skipTest("a sanitized server is not confined")
        self.v.unmount()
        for options in ([], ["allow_other"]):
            with self.subTest(options=options):
                self.v.options = options
                self.v.mount()
                server, supervisor = self.v.server, self.v.supervisor
                for name in os.listdir("/proc/%d/task" % server):
                    status = status_of(int(name))
                    self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
                    self.assertEqual(int(status["CapEff"], 16) & (1 << 19 | 1 << 12 | 1 << 16), 0)  # PTRACE, NET, MODULE
                self.assertEqual(status_of(supervisor)["Seccomp"], "0")
                at, flags = (1 << 64) - 100, os.O_RDONLY | os.O_CLOEXEC
                fd = inject(server, OPENAT, at, self.v.lower.encode() + b"/.ecfs-volume", flags)
                self.assertGreaterEqual(fd, 0)
                self.assertEqual(inject(server, CLOSE, fd), 0)
                for path in (b"/etc/passwd", b"/", b"/proc/self/environ", self.v.base.encode()):
                    # Where groups are read, /proc may be.
                    if path.startswith(b"/proc") and options:
                        continue
                    self.assertEqual(inject(server, OPENAT, at, path, flags), -errno.EACCES, path)
                write(self.v.path("f"), b"it goes on")
                self.assertEqual(inject(server, SOCKET, 2, 1, 0), -1000 - signal.SIGSYS)
                self.assertGone(supervisor, server)

    def test_idle(self):
        self.v.options = ["idle=2s"]
        self.v.mount()
        pids = self.v.supervisor, self.v.server
        os.mkdir(self.v.path("d"))
        inside = subprocess.Popen(["sleep", "60"], cwd=self.v.path("d"))  # no handle, and a use all the same
        self.addCleanup(inside.wait)
        self.addCleanup(inside.kill)
        time.sleep(5)
        self.assertTrue(is_mounted(self.v.mnt))
        held = os.open(self.v.path("f"), os.O_CREAT | os.O_RDWR, 0o600)
        inside.kill()
        inside.wait()
        time.sleep(5)
        self.assertTrue(is_mounted(self.v.mnt), "unmounted with a file open")
        os.write(held, b"kept")
        with mmap.mmap(held, 4) as mapped:  # open for the mapping's sake alone
            os.close(held)
            time.sleep(5)
            self.assertTrue(is_mounted(self.v.mnt), "unmounted with a file mapped")
            self.assertEqual(mapped[:], b"kept")
        directory = os.open(self.v.path("d"), os.O_RDONLY | os.O_DIRECTORY)
        time.sleep(5)
        self.assertTrue(is_mounted(self.v.mnt), "unmounted with a directory open")
        os.close(directory)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            begin = time.monotonic()
            self.assertEqual(os.listdir(self.v.path("d")), [])
            time.sleep(0.5)
        os.statvfs(self.v.mnt)
        while is_mounted(self.v.mnt):  # a look at it from outside, as by a file manager, is no use
            os.statvfs(self.v.mnt)
            os.stat(self.v.mnt)
            self.assertLess(time.monotonic(), begin + 60)
            time.sleep(0.3)
        self.assertGreater(time.monotonic(), begin + 1.9)
        self.assertGone(*pids)
        self.v.options = []
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"kept")

    def test_noatime(self):
        self.v.mount()
        os.mkdir(self.v.path("d"))
        write(self.v.path("d", "f"), b"x" * 100000)
        self.v.unmount()

        def below():
            """Every file and directory below that reading may touch, but the header of the volume."""
            for directory, _, names in os.walk(self.v.lower):
                yield from (os.path.join(directory, name) for name in names if not name.startswith(".ecfs"))
                if directory != self.v.lower:
                    yield directory

        for options, changes in ((["noatime"], False), (["noatime", "ro"], False), (["ro"], True)):
            paths = list(below())
            self.assertEqual(len(paths), 2)
            for path in paths:  # older than the last change: what relatime, too, puts right at the next reading
                os.utime(path, (1000, 2000))
            self.v.options = options
            self.v.mount()
            self.assertEqual(os.listdir(self.v.path("d")), ["f"])
            self.assertEqual(len(read(self.v.path("d", "f"))), 100000)
            self.v.unmount()
            for path in paths:
                self.assertEqual(os.stat(path).st_atime != 1000, changes, (options, path))

    def test_show_conflicts(self):
        self.v.mount()
        write(self.v.path("notes"), b"mine")
        self.v.unmount()
        (name,) = (name for name in os.listdir(self.v.lower) if not name.startswith(".ecfs"))
        shutil.copy(self.v.lower + "/" + name, self.v.lower + "/" + name + " (conflicted copy)")
        self.v.mount()
        self.assertEqual(os.listdir(self.v.mnt), ["notes"])
        self.v.unmount()
        self.v.options = ["show-conflicts"]
        self.v.mount()
        shown = sorted(os.listdir(self.v.mnt))
        self.assertEqual(len(shown), 2)
        self.assertTrue(shown[1].startswith("notes.ecfs-conflict-"))
        self.assertEqual(read(self.v.path(shown[1])), b"mine")
        with self.assertRaises(OSError):
            os.unlink(self.v.path(shown[1]))

    def test_the_foreground_status_is_the_servers(self):
        process = subprocess.Popen(self.v.command("--foreground"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        supervisor = int(process.stdout.readline())
        self.assertTrue(is_mounted(self.v.mnt))
        self.v.supervisor = supervisor
        kill(self.v.server)
        self.assertEqual(process.wait(20), 1)
        said = process.stderr.read()
        self.assertIn("status 137", said)
        self.assertIn("signal 9", said)

    def test_many_mounts_with_traffic(self):
        for i in range(40):
            self.v.mount()
            pids = self.v.supervisor, self.v.server

            def traffic():
                try:
                    for k in range(10000):
                        if stop.is_set():
                            break
                        write(self.v.path("t%d" % (k % 100)), b"x" * 5000)
                except OSError:
                    pass

            stop = threading.Event()
            threads = [threading.Thread(target=traffic) for _ in range(3)]
            for t in threads:
                t.start()
            time.sleep(0.02)
            kill(self.v.supervisor, signal.SIGTERM)
            wait_for(lambda: not is_mounted(self.v.mnt))
            stop.set()
            for t in threads:
                t.join()
            self.assertTrue(wait_for(lambda: not alive(pids[0]) and not alive(pids[1]), 15), i)
            # What went on in the unmounted directory.
            for name in os.listdir(self.v.mnt):
                os.unlink(self.v.path(name))
        self.v.mount()
        for name in os.listdir(self.v.mnt):
            data = read(self.v.path(name))
            self.assertEqual(data, b"x" * len(data))


if __name__ == "__main__":
    main()
