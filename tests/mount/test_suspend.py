#!/usr/bin/env python3
"""A mount whose keys are wiped while programs use it, and given back: nothing is lost, nothing is shown meanwhile."""

import errno
import os
import random
import signal
import socket
import threading
import time
import unittest

from harness import Volume, alive, answers, connect, in_child, is_mounted, kill, main, read, tell, wait_for, write

KEY = b"\x5a" * 32  # that of mount_native
PAGE = 4096


class Suspend(unittest.TestCase):
    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)
        self.v.mount()
        # It is made once the mount answers.
        self.assertTrue(wait_for(lambda: answers(self.v)))

    def assertNoKey(self, call, *args):
        with self.assertRaises(OSError) as caught:
            call(*args)
        self.assertEqual(caught.exception.errno, errno.ENOKEY, caught.exception)

    def test_nothing_is_told_while_it_is_suspended(self):
        v = Volume(options=["shared"])  # the kernel remembers names for a second, not for a minute
        self.addCleanup(v.close)
        v.mount()
        self.assertTrue(wait_for(lambda: answers(v)))
        os.mkdir(v.path("d"))
        write(v.path("d", "f"), b"secret" * 5000)
        os.symlink("target", v.path("l"))
        os.setxattr(v.path("d"), "user.x", b"value")
        held = os.open(v.path("d", "f"), os.O_RDWR)
        self.addCleanup(os.close, held)
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
        self.assertEqual(tell(v, b"s"), b"+s")
        self.assertEqual(tell(v, b"s"), b"+s")
        self.assertEqual(tell(v, b"?"), b"+s")
        time.sleep(1.2)  # what the kernel has of names and attributes
        self.assertNoKey(os.listdir, v.mnt)
        self.assertNoKey(os.stat, v.path("d"))
        self.assertNoKey(os.stat, v.path("missing"))
        self.assertNoKey(read, v.path("d", "f"))
        self.assertNoKey(os.pread, held, 100, 0)
        self.assertNoKey(os.readlink, v.path("l"))
        self.assertNoKey(os.getxattr, v.path("d"), "user.x")
        self.assertNoKey(os.mkdir, v.path("new"))
        self.assertNoKey(os.ftruncate, held, 5)
        os.stat(v.mnt)
        os.statvfs(v.mnt)
        self.assertEqual(os.fstat(held).st_size, 30000)
        for wrong in (b"r", b"r" + b"\x5b" * 32, b"r" + KEY[:31], b"r" + KEY + b"\0"):
            answer = tell(v, wrong)
            self.assertIn(b"key", answer)
            self.assertFalse(answer.startswith(b"+"), answer)
        self.assertIn(b"unknown", tell(v, b"x"))
        self.assertNoKey(os.listdir, v.mnt)
        self.assertEqual(tell(v, b"r" + KEY), b"+")
        self.assertEqual(tell(v, b"r" + KEY), b"+")
        self.assertEqual(os.pread(held, 6, 6), b"secret")
        self.assertEqual(read(v.path("d", "f")), b"secret" * 5000)
        self.assertEqual(os.readlink(v.path("l")), "target")
        self.assertEqual(os.getxattr(v.path("d"), "user.x"), b"value")
        self.assertEqual(sorted(os.listdir(v.mnt)), ["d", "l"])

    def test_what_was_written_waits_and_is_not_lost(self):
        v = self.v
        data = os.urandom(64 * PAGE)
        fd = os.open(v.path("f"), os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, data[: 32 * PAGE])
        other = os.open(v.path("g"), os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(other, b"small", 0)
        self.assertEqual(tell(v, b"s"), b"+s")
        os.pwrite(fd, data[32 * PAGE :], 32 * PAGE)  # whole pages, into the kernel's cache
        synced = threading.Event()
        thread = threading.Thread(target=lambda: (os.fsync(fd), synced.set()))
        thread.start()
        self.assertFalse(synced.wait(1.5))
        closing = threading.Thread(target=os.close, args=(other,))
        closing.start()
        self.assertEqual(tell(v, b"r" + KEY), b"+")
        self.assertTrue(synced.wait(120))
        thread.join()
        closing.join()
        os.close(fd)
        v.remount()
        self.assertEqual(read(v.path("f")), data)
        self.assertEqual(read(v.path("g")), b"small")

    def test_again_and_again_under_traffic(self):
        v, stop, failures = self.v, threading.Event(), []

        def work(number):
            rng, path, size = random.Random(number), v.path("t%d" % number), 64 * PAGE
            model = bytearray(size)
            while True:
                try:
                    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                    break
                except OSError as e:
                    if e.errno != errno.ENOKEY:
                        return failures.append(e)
            done = 0
            while not stop.is_set() or done < 20:
                at, length = rng.randrange(size - 1), rng.randrange(1, 3 * PAGE)
                piece = rng.randbytes(min(length, size - at))
                try:
                    if rng.random() < 0.2:
                        os.close(os.open(v.path("t%d" % rng.randrange(4)), os.O_RDONLY))
                    # One page at a time, so that it is known what of it was taken.
                    while piece:
                        n = os.pwrite(fd, piece[: PAGE - at % PAGE], at)
                        model[at : at + n] = piece[:n]
                        piece, at = piece[n:], at + n
                    if rng.random() < 0.1:
                        os.fsync(fd)
                    done += 1
                except OSError as e:
                    if e.errno not in (errno.ENOKEY, errno.ENOENT):
                        return failures.append(e)
            os.close(fd)
            models[number] = bytes(model)

        models = {}
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        rounds = 200 if os.environ.get("ECFS_LONG") else 25
        for _ in range(rounds):
            time.sleep(random.random() * 0.1)
            self.assertEqual(tell(v, b"s"), b"+s")
            time.sleep(random.random() * 0.1)
            self.assertEqual(tell(v, b"r" + KEY), b"+")
        stop.set()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        v.remount()
        for number, model in models.items():
            self.assertEqual(read(v.path("t%d" % number)).ljust(len(model), b"\0"), model)

    def test_it_ends_as_ever(self):
        write(self.v.path("f"), b"x" * 10000)
        self.assertEqual(tell(self.v, b"s"), b"+s")
        pids = self.v.supervisor, self.v.server
        self.v.unmount()
        self.assertTrue(wait_for(lambda: not alive(pids[0]) and not alive(pids[1])))
        self.v.mount()
        self.assertEqual(read(self.v.path("f")), b"x" * 10000)
        self.assertTrue(wait_for(lambda: answers(self.v)))
        self.assertEqual(tell(self.v, b"s"), b"+s")
        pids = self.v.supervisor, self.v.server
        inside = os.open(self.v.mnt, os.O_PATH)
        kill(self.v.supervisor, signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not is_mounted(self.v.mnt)))
        os.close(inside)
        self.assertTrue(wait_for(lambda: not alive(pids[0]) and not alive(pids[1]), 15))

    def test_what_waits_does_not_hold_up_the_end(self):
        v = self.v
        fd = os.open(v.path("f"), os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, b"on the disk")
        os.fsync(fd)
        other = os.open(v.path("g"), os.O_RDWR | os.O_CREAT, 0o600)
        self.assertEqual(tell(v, b"s"), b"+s")
        # Nothing of it waits: it is on the disk, and no key is needed.
        os.fsync(fd)
        os.pwrite(other, b"p" * 4 * PAGE, 0)
        blocked = os.fork()
        if blocked == 0:
            os.close(fd)
            try:
                os.fsync(other)
            except OSError:
                pass
            os._exit(0)
        time.sleep(0.5)
        self.assertEqual(os.waitpid(blocked, os.WNOHANG), (0, 0))
        os.kill(blocked, signal.SIGKILL)
        pids = v.supervisor, v.server
        kill(v.supervisor, signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not alive(pids[0]) and not alive(pids[1]), 20))
        self.assertFalse(is_mounted(v.mnt))
        self.assertTrue(wait_for(lambda: os.waitpid(blocked, os.WNOHANG)[0] == blocked))
        for gone in (fd, other):
            try:
                os.close(gone)
            except OSError:
                pass
        v.mount()
        self.assertEqual(read(v.path("f")), b"on the disk")

    def test_only_the_user_is_listened_to(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to be another user")
        with open(self.v.lower + "/.ecfs-volume", "rb") as f:
            volume = f.read(32)[16:].hex().encode()

        def as_another():
            os.setresuid(65534, 65534, 65534)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                s.settimeout(10)
                s.connect(b"\0ecfs-mountd/0/%s/0" % volume)
                try:
                    s.send(b"s")
                    return 0 if s.recv(100) == b"" else 1
                except (BrokenPipeError, ConnectionResetError):
                    return 0

        self.assertEqual(in_child(as_another), 0)
        self.assertEqual(tell(self.v, b"?"), b"+")
        os.listdir(self.v.mnt)

    def test_one_that_says_nothing_is_no_hindrance(self):
        with connect(self.v), connect(self.v) as other:
            begin = time.monotonic()
            self.assertEqual(os.listdir(self.v.mnt), [])
            other.send(b"?")
            self.assertEqual(other.recv(100), b"+")
            self.assertLess(time.monotonic() - begin, 8)

    def test_a_taken_name_is_passed_over(self):
        self.v.unmount()
        with open(self.v.lower + "/.ecfs-volume", "rb") as f:
            volume = f.read(32)[16:].hex().encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter:
            squatter.bind(b"\0ecfs-mountd/%d/%s/0" % (os.geteuid(), volume))
            self.v.mount()
            self.assertTrue(wait_for(lambda: self.number_answers(1)))

    def number_answers(self, number):
        try:
            with connect(self.v, number) as s:
                s.send(b"?")
                return s.recv(100) == b"+"
        except OSError:
            return False


if __name__ == "__main__":
    main()
