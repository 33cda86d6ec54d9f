#!/usr/bin/env python3
"""Damage, full disks, killed servers, few descriptors, other users. As root."""

import errno
import mmap
import os
import random
import resource
import signal
import stat
import subprocess
import threading
import time
import unittest

from harness import Volume, alive, in_child, kill, main, read, wait_for, write


def lower_of(volume, path):
    """The lower file of a plain one: both have one inode number."""
    number = os.stat(path).st_ino
    for root, _, files in os.walk(volume.lower):
        for name in files:
            if os.lstat(os.path.join(root, name)).st_ino == number:
                return os.path.join(root, name)
    raise AssertionError("no lower file")


class Damage(unittest.TestCase):
    def test_a_flipped_byte_is_an_error_of_that_block_alone(self):
        v = Volume()
        self.addCleanup(v.close)
        process = subprocess.Popen(v.command("--foreground"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        v.supervisor = int(process.stdout.readline())
        data = random.Random(1).randbytes(3 * 4096)
        os.mkdir(v.path("dir"))
        write(v.path("dir", "damaged"), data)
        write(v.path("dir", "sibling"), data)
        lower = lower_of(v, v.path("dir", "damaged"))
        with open(lower, "r+b") as f:
            f.seek(4096 + 4096 + 100)  # the second block
            byte = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([byte ^ 1]))
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
        fd = os.open(v.path("dir", "damaged"), os.O_RDWR)
        for _ in range(3):
            with self.assertRaises(OSError) as caught:
                os.pread(fd, 100, 4096)
            self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertEqual(os.pread(fd, 4096, 8192), data[8192:])
        self.assertEqual(os.pread(fd, 4096, 0), data[:4096])
        os.pwrite(fd, b"n" * 4096, 4096)  # written whole it is well again
        os.fsync(fd)
        self.assertEqual(os.pread(fd, 4096, 4096), b"n" * 4096)
        os.close(fd)
        self.assertEqual(read(v.path("dir", "sibling")), data)
        v.unmount()
        process.wait()
        said = process.stderr.read().splitlines()
        process.stdout.close(), process.stderr.close()
        about = [line for line in said if "dir/damaged" in line]
        self.assertEqual(len(about), 1, said)
        self.assertIn(os.path.basename(lower), about[0])

    def test_a_damaged_header_can_be_emptied_or_removed(self):
        v = Volume()
        self.addCleanup(v.close)
        v.mount()
        for name in ("a", "b", "c"):
            write(v.path(name), b"x" * 10000)
            with open(lower_of(v, v.path(name)), "r+b") as f:
                f.seek(8)
                f.write(b"\0\0\0\0")
        v.remount()
        with self.assertRaises(OSError) as caught:
            read(v.path("a"))
        self.assertEqual(caught.exception.errno, errno.EIO)
        os.truncate(v.path("a"), 0)
        write(v.path("a"), b"new")
        write(v.path("b"), b"new")  # O_TRUNC
        os.unlink(v.path("c"))
        v.remount()
        self.assertEqual([read(v.path(n)) for n in sorted(os.listdir(v.mnt))], [b"new", b"new"])

    def test_every_byte_of_small_files(self):
        v = Volume(options=["shared"])
        self.addCleanup(v.close)
        v.mount()
        data = random.Random(2).randbytes(300)
        write(v.path("f"), data)
        lower = lower_of(v, v.path("f"))
        good = read(lower)
        for at in range(len(good)):
            write(lower, good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1:])
            try:
                self.assertEqual(read(v.path("f")), data, at)
            except OSError as e:
                self.assertEqual(e.errno, errno.EIO)
            else:
                self.fail("byte %d does not matter" % at)
        write(lower, good)
        self.assertEqual(read(v.path("f")), data)


class FullDisk(unittest.TestCase):
    def make(self, kind):
        v = Volume()
        self.addCleanup(v.close)
        if kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", v.lower], check=True)
        else:
            image = os.path.join(v.base, "image")
            with open(image, "wb") as f:
                f.truncate(16 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
            if subprocess.run(["mount", "-o", "loop", image, v.lower], stderr=subprocess.DEVNULL).returncode != 0:
                self.skipTest("no loop device")
        self.addCleanup(subprocess.run, ["umount", v.lower])
        self.addCleanup(v.unmount)
        v.mount()
        return v

    def check(self, kind):
        v = self.make(kind)
        kept = random.Random(5).randbytes(3 << 20)
        with open(v.path("kept"), "wb") as f:
            f.write(kept)
            f.flush()
            os.fsync(f.fileno())
        with self.assertRaises(OSError) as caught:
            with open(v.path("big"), "wb") as f:
                for _ in range(40):
                    f.write(b"b" * (1 << 20))
                    f.flush()
                    os.fsync(f.fileno())
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        # An overwrite of what is there, and names, while it is full.
        with open(v.path("kept"), "r+b") as f:
            f.write(kept[:100])
        self.assertEqual(read(v.path("kept")), kept)
        time.sleep(1.1)  # the kernel's own idea of the size is good for a second
        size = os.stat(v.path("big")).st_size
        big = read(v.path("big"))
        self.assertEqual(big, b"b" * len(big))
        self.assertEqual(len(big), size)
        os.unlink(v.path("big"))
        v.remount()
        write(v.path("after"), b"a" * (1 << 20))
        v.remount()
        self.assertEqual(read(v.path("kept")), kept)
        self.assertEqual(read(v.path("after")), b"a" * (1 << 20))
        fds = len(os.listdir("/proc/%d/fd" % v.server))
        for i in range(50):
            try:
                write(v.path("x%d" % i), b"x" * (1 << 20))
            except OSError as e:
                self.assertEqual(e.errno, errno.ENOSPC)
        self.assertTrue(wait_for(lambda: len(os.listdir("/proc/%d/fd" % v.server)) <= fds + 2))

    def test_tmpfs(self):
        self.check("tmpfs")

    def test_ext4(self):
        self.check("ext4")


def states(pid):
    out = []
    for thread in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/stat" % (pid, thread)) as f:
            out.append(f.read().rsplit(")", 1)[1].split()[0])
    return out


class SlowDisk(unittest.TestCase):
    def test_who_waits_for_the_disk_holds_up_nobody_else(self):
        """A volume inside a volume: when the outer server is stopped, every lower call of the inner one waits."""
        outer = Volume().mount()
        self.addCleanup(outer.close)
        lower = outer.path("lower")
        inner = Volume(lower=lower).mount()
        self.addCleanup(inner.close)
        write(inner.path("small"), b"in memory")
        fd = os.open(inner.path("small"), os.O_RDONLY)
        pids = []
        self.addCleanup(os.close, fd)
        kill(outer.server, signal.SIGSTOP)
        try:
            self.assertTrue(wait_for(lambda: all(state == "T" for state in states(outer.server))))
            for i in range(8):
                pid = os.fork()
                if pid == 0:
                    os._exit(0 if not os.path.exists(inner.path("none%d" % i)) else 1)
                pids.append(pid)
            time.sleep(0.5)
            self.assertEqual([os.waitpid(pid, os.WNOHANG)[0] for pid in pids], [0] * 8)

            def reads():
                for _ in range(100):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    if os.pread(fd, 100, 0) != b"in memory":
                        return 1
                return 0

            reader = os.fork()
            if reader == 0:
                os._exit(reads())
            ended = wait_for(lambda: os.waitpid(reader, os.WNOHANG)[0] == reader, 10)
        finally:
            kill(outer.server, signal.SIGCONT)
        self.assertTrue(ended)
        for pid in pids:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)


class Killed(unittest.TestCase):
    ROUNDS = 30

    def test_what_was_synced_is_there_and_nothing_is_unreadable(self):
        v = Volume()
        self.addCleanup(v.close)
        rng = random.Random(9)
        blocks = {}  # (file, block) -> bytes allowed there: synced, or written since
        for round_number in range(self.ROUNDS):
            v.mount()
            for (name, k), allowed in blocks.items():
                with open(v.path(name), "rb") as f:
                    f.seek(k * 4096)
                    self.assertTrue(f.read(4096) in allowed, (round_number, name, k))
            for name in os.listdir(v.mnt):
                read(v.path(name))
            stop = threading.Event()
            root = os.open(v.mnt, os.O_RDONLY)  # not by path: that leads below the mount once it is detached

            def work():
                try:
                    while not stop.is_set():
                        name = "f%d" % rng.randrange(4)
                        fd = os.open(name, os.O_CREAT | os.O_RDWR, 0o600, dir_fd=root)
                        touched = []
                        for _ in range(rng.randrange(1, 30)):
                            k = rng.randrange(100)
                            data = rng.randbytes(4096)
                            blocks.setdefault((name, k), {b"", b"\0" * 4096}).add(data)
                            os.pwrite(fd, data, k * 4096)
                            touched.append((name, k, data))
                        if rng.randrange(2):
                            os.fsync(fd)
                            for synced in touched:  # later ones of a block win
                                blocks[synced[:2]] = {synced[2]}
                        os.close(fd)
                except OSError:
                    pass

            writer = threading.Thread(target=work)
            writer.start()
            time.sleep(rng.random() * 0.3)
            kill(v.server)
            stop.set()
            writer.join()
            os.close(root)
            self.assertTrue(wait_for(lambda: not alive(v.supervisor)))


class FewDescriptors(unittest.TestCase):
    def test_a_limit_of_64(self):
        v = Volume()
        v.rings = False  # they would take too many of so few
        self.addCleanup(v.close)
        v.mount(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
        for i in range(40):
            os.makedirs(v.path("d%d" % i, "sub", "deeper"))
            write(v.path("d%d" % i, "sub", "deeper", "f"), b"%d" % i)
        handles, failed = [], 0
        for i in range(200):
            try:
                handles.append(os.open(v.path("d%d" % (i % 40), "sub", "deeper", "f" if i < 40 else "g%d" % i),
                                       os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as e:
                self.assertIn(e.errno, (errno.EMFILE, errno.ENFILE))
                failed += 1
        self.assertGreaterEqual(len(handles), 40)
        self.assertGreater(failed, 0)
        for fd in handles:
            os.close(fd)
        self.assertTrue(wait_for(lambda: len(os.listdir("/proc/%d/fd" % v.server)) < 40))
        done = subprocess.run(["find", v.mnt, "-type", "f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.stderr, "")
        self.assertEqual(read(v.path("d7", "sub", "deeper", "f")), b"7")

    def test_a_walk_over_many_files(self):
        v = Volume()
        self.addCleanup(v.close)
        v.mount(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
        for i in range(100):
            os.mkdir(v.path("d%d" % i))
            for k in range(200):
                os.close(os.open(v.path("d%d" % i, "f%d" % k), os.O_CREAT | os.O_WRONLY, 0o600))
        v.remount()
        done = subprocess.run(["find", v.mnt, "-type", "f", "-size", "0"], stdout=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(done.stdout.splitlines()), 20000)
        self.assertLess(len(os.listdir("/proc/%d/fd" % v.server)), 200)


class Users(unittest.TestCase):
    """A mount by root with allow_other: files get the caller's identity."""

    @classmethod
    def setUpClass(cls):
        cls.v = Volume(options=["allow_other"])
        cls.v.mount()
        os.chmod(cls.v.mnt, 0o777)

    @classmethod
    def tearDownClass(cls):
        cls.v.close()

    def as_user(self, uid, gid, groups, work):
        def child():
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            os.umask(0o022)
            return work()

        return in_child(child)

    def test_owner_group_and_mode(self):
        def work():
            os.mkdir(self.v.path("u"), 0o777)
            write(self.v.path("u", "f"), b"mine" * 2000)
            os.symlink("x", self.v.path("u", "l"))
            os.mkfifo(self.v.path("u", "p"))
            return 0 if read(self.v.path("u", "f")) == b"mine" * 2000 else 1

        self.assertEqual(self.as_user(20001, 20002, [], work), 0)
        for name in ("", "f", "l", "p"):
            st = os.lstat(self.v.path("u", name))
            self.assertEqual((st.st_uid, st.st_gid), (20001, 20002), name)
        self.assertEqual(stat.S_IMODE(os.stat(self.v.path("u")).st_mode), 0o755)

        def stranger():
            for attempt in (lambda: write(self.v.path("u", "g"), b""), lambda: os.unlink(self.v.path("u", "f")),
                            lambda: os.chmod(self.v.path("u", "f"), 0o777), lambda: write(self.v.path("u", "f"), b"")):
                try:
                    attempt()
                    return 1
                except PermissionError:
                    pass
            return 0

        self.assertEqual(self.as_user(20003, 20003, [], stranger), 0)

    def test_supplementary_groups(self):
        os.mkdir(self.v.path("shared"))
        os.chown(self.v.path("shared"), 0, 30001)
        os.chmod(self.v.path("shared"), 0o2770)

        def member():
            write(self.v.path("shared", "f"), b"x")
            os.mkdir(self.v.path("shared", "d"))
            write(self.v.path("shared", "own"), b"x")
            os.chown(self.v.path("shared", "own"), -1, 30002)  # by a group of his
            return 0

        self.assertEqual(self.as_user(20001, 20002, [30001, 30002], member), 0)
        st = os.stat(self.v.path("shared", "f"))
        self.assertEqual((st.st_uid, st.st_gid), (20001, 30001))
        self.assertTrue(os.stat(self.v.path("shared", "d")).st_mode & stat.S_ISGID)
        self.assertEqual(os.stat(self.v.path("shared", "own")).st_gid, 30002)

        def stranger():
            try:
                write(self.v.path("shared", "g"), b"x")
            except PermissionError:
                return 0
            return 1

        self.assertEqual(self.as_user(20001, 20002, [30002], stranger), 0)

    def test_set_id_bits_go_for_other_writers(self):
        for how in ("write", "trunc", "truncate", "fallocate", "copy", "direct"):
            path = self.v.path("suid-" + how)
            write(path, b"x" * 8192)
            os.chmod(path, 0o6777)

            def work():
                if how == "write":
                    with open(path, "r+b") as f:
                        f.write(b"y")
                elif how == "trunc":
                    open(path, "w").close()
                elif how == "fallocate":
                    with open(path, "r+b") as f:
                        os.posix_fallocate(f.fileno(), 0, 10000)
                elif how == "copy":
                    with open(path, "rb") as source, open(path, "r+b") as f:
                        os.copy_file_range(source.fileno(), f.fileno(), 4096, 0, 4096)
                elif how == "direct":
                    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
                    os.writev(fd, [mmap.mmap(-1, 4096)])
                    os.close(fd)
                else:
                    os.truncate(path, 3)
                return 0

            self.assertEqual(self.as_user(20001, 20001, [], work), 0)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o777, how)

    def test_several_users_at_once(self):
        os.mkdir(self.v.path("many"))
        os.chmod(self.v.path("many"), 0o1777)
        pids = []
        for who in range(8):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.setgroups([])
                    os.setgid(21000 + who)
                    os.setuid(21000 + who)
                    for i in range(100):
                        os.close(os.open(self.v.path("many", "%d-%d" % (who, i)), os.O_CREAT | os.O_WRONLY, 0o600))
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        for pid in pids:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        for name in os.listdir(self.v.path("many")):
            st = os.stat(self.v.path("many", name))
            self.assertEqual((st.st_uid, st.st_gid), (21000 + int(name.split("-")[0]),) * 2)


if __name__ == "__main__":
    main(needs_root=True)
