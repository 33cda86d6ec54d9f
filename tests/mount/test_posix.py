#!/usr/bin/env python3
"""What POSIX and Linux programs expect of a filesystem, asked of a real mount."""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
import time
import unittest

from harness import ECRYPTFS, LONGEST_NAME, OPTIONS, MountTest, in_child, main, read, write

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP, FALLOC_PUNCH, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT = 1, 2, 8, 16, 32
# What makes zeros of a part of a file: eCryptfs has no holes to punch.
FALLOC_CLEAR = (FALLOC_ZERO if ECRYPTFS else FALLOC_PUNCH) | FALLOC_KEEP


def call(name, *args):
    if getattr(libc, name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def ask_server(fd):
    """Has the attributes come from the server, whatever the kernel knows."""
    buffer = ctypes.create_string_buffer(256)
    call("statx", fd, b"", 0x1000 | 0x2000, 0xFFF, buffer)  # AT_EMPTY_PATH | AT_STATX_FORCE_SYNC


def renameat2(a, b, flags):
    call("renameat2", AT_FDCWD, a.encode(), AT_FDCWD, b.encode(), flags)


def fallocate(fd, mode, offset, length):
    call("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


class Names(MountTest):
    def test_long_and_odd_names(self):
        for name in ("a" * LONGEST_NAME, "é" * (LONGEST_NAME // 2), "new\nline", "*?[", " ", "-rf", "~", ".hidden", ".ecfs-volume", "x.n"):
            write(self.p(name), name.encode())
        self.assertErrno(errno.ENAMETOOLONG, open, self.p("a" * (LONGEST_NAME + 1)), "w")
        self.assertErrno(errno.ENAMETOOLONG, os.mkdir, self.p("a" * (LONGEST_NAME + 1)))
        self.v.remount()
        self.assertEqual(len(os.listdir(self.dir)), 10)
        for name in os.listdir(self.dir):
            self.assertEqual(read(self.p(name)), name.encode())

    def test_operations_on_long_names(self):
        a, b = self.p("a" * LONGEST_NAME), self.p("b" * LONGEST_NAME)
        write(a, b"x" * 10000)
        os.truncate(a, 5000)
        with open(a, "r+b") as f:
            os.ftruncate(f.fileno(), 100)
        os.link(a, b)
        os.unlink(a)
        os.chmod(b, 0o600)
        os.utime(b, ns=(1, 2))
        os.rename(b, a)
        self.assertEqual(os.listdir(self.dir), ["a" * LONGEST_NAME])
        self.assertEqual(os.stat(a).st_size, 100)

    def test_deep_paths(self):
        os.chdir(self.dir)
        try:
            name = "d" * min(200, LONGEST_NAME)
            for i in range(60):
                os.mkdir(name)
                os.chdir(name)
            write("f", b"deep")
            self.assertEqual(read("f"), b"deep")
        finally:
            os.chdir("/")
        shutil.rmtree(self.p(name))

    def test_statfs(self):
        self.assertEqual(os.statvfs(self.dir).f_namemax, LONGEST_NAME)
        self.assertGreater(os.statvfs(self.dir).f_blocks, 0)

    def test_links_to_names(self):
        longest = 3007 if ECRYPTFS else 3039
        target = "t" * longest
        os.symlink(target, self.p("l"))
        self.assertEqual(os.readlink(self.p("l")), target)
        self.assertEqual(os.lstat(self.p("l")).st_size, longest)
        os.utime(self.p("l"), ns=(5, 6), follow_symlinks=False)
        self.assertEqual(os.lstat(self.p("l")).st_mtime_ns, 6)
        self.assertErrno(errno.ENAMETOOLONG, os.symlink, "t" * (longest + 1), self.p("m"))
        os.symlink("f", self.p("s"))
        write(self.p("s"), b"through")
        self.assertEqual(read(self.p("f")), b"through")
        os.link(self.p("s"), self.p("s2"), follow_symlinks=False)
        self.assertEqual(os.readlink(self.p("s2")), "f")
        self.assertErrno(errno.ELOOP, os.open, self.p("s"), os.O_RDONLY | os.O_NOFOLLOW)

    def test_hard_links_are_one_file(self):
        a, b = self.p("a"), self.p("b")
        write(a, b"1")
        os.link(a, b)
        self.assertEqual(os.stat(a).st_ino, os.stat(b).st_ino)
        rng = random.Random(1)
        size = 1
        for i in range(300):
            path, other = (a, b) if i % 2 else (b, a)
            with open(path, "r+b") as f:
                f.seek(rng.randrange(20000))
                f.write(bytes([i % 256]) * rng.randrange(1, 3000))
                size = max(size, f.tell())
            self.assertEqual(os.stat(other).st_size, size)
            self.assertEqual(read(a), read(b))
        os.chmod(a, 0o640)
        self.assertEqual(stat.S_IMODE(os.stat(b).st_mode), 0o640)
        self.assertEqual(os.stat(b).st_nlink, 2)
        write(self.p("c"), b"")
        os.rename(self.p("c"), a)
        self.assertEqual(os.stat(b).st_nlink, 1)

    def test_a_file_outlives_each_of_its_names(self):
        # As git stores an object, an editor a backup: link, then unlink one of the names.
        for first in ("old", "new"):
            for looked_at in (False, True):
                d = self.p("%s-%s" % (first, looked_at))
                os.mkdir(d)
                old, new = os.path.join(d, "old"), os.path.join(d, "new")
                write(old, b"x" * 5000)
                os.link(old, new)
                if looked_at:
                    self.assertEqual((os.stat(old).st_nlink, os.stat(new).st_nlink), (2, 2))
                    time.sleep(1.1)
                os.unlink(old if first == "old" else new)
                left = new if first == "old" else old
                for _ in range(2):
                    fd = os.open(left, os.O_RDWR)
                    self.assertEqual(os.pread(fd, 6000, 0), b"x" * 5000)
                    os.fchmod(fd, 0o640)
                    os.fsync(fd)
                    os.close(fd)
                    os.sync()  # what the kernel has kept of its times goes to the server
                self.assertEqual(os.stat(left).st_nlink, 1)

    def test_one_of_many_names_goes_while_the_file_is_open(self):
        write(self.p("n0"), b"x" * 5000)
        for i in range(1, 50):
            os.link(self.p("n0"), self.p("n%d" % i))
        fd = os.open(self.p("n0"), os.O_RDWR)
        for i in range(49):
            os.unlink(self.p("n%d" % i))
        os.pwrite(fd, b"y", 0)
        os.close(fd)
        self.assertEqual(read(self.p("n49")), b"y" + b"x" * 4999)
        self.assertEqual(os.stat(self.p("n49")).st_nlink, 1)
        self.v.remount()
        self.assertEqual(read(self.p("n49")), b"y" + b"x" * 4999)

    def test_rename_flags(self):
        a, b, d, e = self.p("a"), self.p("b"), self.p("d"), self.p("e")
        write(a, b"A")
        write(b, b"B")
        os.makedirs(self.p("d", "in-d"))
        os.makedirs(self.p("e", "in-e"))
        self.assertErrno(errno.EEXIST, renameat2, a, b, RENAME_NOREPLACE)
        renameat2(a, b, RENAME_EXCHANGE)
        self.assertEqual((read(a), read(b)), (b"B", b"A"))
        renameat2(d, e, RENAME_EXCHANGE)
        self.assertEqual(os.listdir(d), ["in-e"])
        renameat2(a, d, RENAME_EXCHANGE)
        self.assertEqual((read(d), os.listdir(a)), (b"B", ["in-e"]))
        self.assertErrno(errno.EINVAL, renameat2, b, self.p("w"), RENAME_WHITEOUT)
        self.assertErrno(errno.ENOTEMPTY, os.rename, a, e)
        self.assertErrno(errno.EINVAL, os.rename, a, self.p("a", "in-e", "x"))
        self.v.remount()
        self.assertEqual((read(d), os.listdir(a), os.listdir(e)), (b"B", ["in-e"], ["in-d"]))

    def test_rename_trees(self):
        os.makedirs(self.p("a", "b", "c"))
        write(self.p("a", "b", "c", "f"), b"f")
        for i in range(20):
            os.rename(self.p("a"), self.p("t%d" % i))
            os.rename(self.p("t%d" % i, "b"), self.p("b%d" % i))
            os.mkdir(self.p("a"))
            os.rename(self.p("b%d" % i), self.p("a", "b"))
            os.rmdir(self.p("t%d" % i))
        self.assertEqual(read(self.p("a", "b", "c", "f")), b"f")
        self.v.remount()
        self.assertEqual(read(self.p("a", "b", "c", "f")), b"f")

    def test_rmdir_and_the_working_directory(self):
        os.mkdir(self.p("d"))
        write(self.p("d", "f"), b"")
        self.assertErrno(errno.ENOTEMPTY, os.rmdir, self.p("d"))
        os.unlink(self.p("d", "f"))
        os.chdir(self.p("d"))
        try:
            os.rmdir(self.p("d"))
            os.stat(".")
            self.assertErrno(errno.ENOENT, open, "f", "w")
        finally:
            os.chdir("/")
        self.assertErrno(errno.ENOENT, os.stat, self.p("d"))

    def test_an_open_directory_answers_while_it_is_removed(self):
        # All the while that the name goes, by rmdir and by rename.
        failed = []

        def ask(fd):
            while not done.is_set() and not failed:
                try:
                    ask_server(fd)
                except OSError as e:
                    failed.append(e)

        for i in range(300):
            os.mkdir(self.p("d"))
            os.mkdir(self.p("other"))
            fd = os.open(self.p("d"), os.O_RDONLY)
            done = threading.Event()
            asking = threading.Thread(target=ask, args=(fd,))
            asking.start()
            time.sleep(0.0005)
            if i % 2:
                os.rmdir(self.p("d"))
                os.rmdir(self.p("other"))
            else:
                os.rename(self.p("other"), self.p("d"))
            time.sleep(0.0005)
            done.set()
            asking.join()
            os.close(fd)
            self.assertEqual(failed, [])
            if i % 2 == 0:
                os.rmdir(self.p("d"))

    def test_what_is_open_outlives_its_name(self):
        def ask(fd, links, kind):
            st = os.fstat(fd)
            self.assertEqual((st.st_nlink, stat.S_IFMT(st.st_mode)), (links, kind))
            ask_server(fd)

        for replaced in (False, True):
            os.mkfifo(self.p("fifo"))
            os.symlink("where it leads", self.p("link"))
            fifo = os.open(self.p("fifo"), os.O_RDWR)
            link = os.open(self.p("link"), os.O_PATH | os.O_NOFOLLOW)
            os.link(self.p("fifo"), self.p("other"))
            os.unlink(self.p("fifo"))
            ask(fifo, 1, stat.S_IFIFO)
            for name in ("other", "link"):
                if replaced:
                    write(self.p("new"), b"")
                    os.rename(self.p("new"), self.p(name))
                else:
                    os.unlink(self.p(name))
            ask(fifo, 0, stat.S_IFIFO)
            ask(link, 0, stat.S_IFLNK)
            self.assertEqual(os.readlink("", dir_fd=link), "where it leads")
            os.fchmod(fifo, 0o640)
            os.utime(fifo, (1, 2))
            st = os.fstat(fifo)
            self.assertEqual((st.st_mode & 0o7777, st.st_mtime), (0o640, 2))
            os.write(fifo, b"through it")
            self.assertEqual(os.read(fifo, 100), b"through it")
            os.close(fifo)
            os.close(link)
            if replaced:
                os.unlink(self.p("other"))
                os.unlink(self.p("link"))

    def test_what_is_replaced_all_the_time_opens(self):
        """As a configuration that is saved while programs start."""
        write(self.p("f"), b"0" * 5000)
        stop = threading.Event()

        def replace(mine):
            while not stop.is_set():
                write(self.p(mine), b"1" * 5000)
                os.rename(self.p(mine), self.p("f"))

        writers = [threading.Thread(target=replace, args=("new%d" % i,)) for i in range(2)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(1000):
                self.assertIn(read(self.p("f")), (b"0" * 5000, b"1" * 5000))
                os.chmod(self.p("f"), 0o640)
                os.stat(self.p("f"))
        finally:
            stop.set()
            for writer in writers:
                writer.join()

    def test_many_entries_and_removal_while_listing(self):
        for i in range(3000):
            os.close(os.open(self.p("f%d" % i), os.O_CREAT | os.O_WRONLY, 0o600))
        self.assertEqual(len(os.listdir(self.dir)), 3000)
        with os.scandir(self.dir) as entries:
            for entry in entries:
                self.assertTrue(entry.is_file())
                os.unlink(entry.path)
        self.assertEqual(os.listdir(self.dir), [])

    def test_special_files(self):
        os.mkfifo(self.p("fifo"), 0o620)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.p("fifo")).st_mode))
        self.assertEqual(stat.S_IMODE(os.stat(self.p("fifo")).st_mode), 0o600)
        reader = os.open(self.p("fifo"), os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(self.p("fifo"), os.O_WRONLY)
        os.write(writer, b"pipe")
        self.assertEqual(os.read(reader, 10), b"pipe")
        os.close(reader), os.close(writer)
        os.chdir(self.dir)  # a socket's path is short
        try:
            with socket.socket(socket.AF_UNIX) as s, socket.socket(socket.AF_UNIX) as c:
                s.bind("sock")
                s.listen()
                c.connect("sock")
        finally:
            os.chdir("/")
        if os.geteuid() == 0:
            os.mknod(self.p("null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            self.assertEqual(os.stat(self.p("null")).st_rdev, os.makedev(1, 3))
            self.assertErrno(errno.EACCES, open, self.p("null"))  # nodev


class Attributes(MountTest):
    def test_modes_are_exactly_what_was_asked(self):
        os.umask(0)
        for mode in (0o151, 0o000, 0o700, 0o777, 0o1777, 0o555):
            os.mkdir(self.p("d%o" % mode), mode)
            self.assertEqual(stat.S_IMODE(os.stat(self.p("d%o" % mode)).st_mode), mode)
        for mode in (0o000, 0o200, 0o400, 0o640, 0o777):
            fd = os.open(self.p("f%o" % mode), os.O_CREAT | os.O_RDWR, mode)
            os.write(fd, b"x" * 5000)
            os.close(fd)
            self.assertEqual(stat.S_IMODE(os.stat(self.p("f%o" % mode)).st_mode), mode)
        os.umask(0o027)
        os.mkdir(self.p("masked"), 0o777)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("masked")).st_mode), 0o750)

    def test_files_that_deny_their_owner(self):
        write(self.p("w"), b"x" * 5000)
        os.chmod(self.p("w"), 0o200)
        fd = os.open(self.p("w"), os.O_WRONLY)
        os.pwrite(fd, b"yy", 2500)  # a part of a block: it has to be read first
        os.close(fd)
        os.truncate(self.p("w"), 4000)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("w")).st_mode), 0o200)
        if os.geteuid() != 0:
            self.assertErrno(errno.EACCES, open, self.p("w"))
        os.chmod(self.p("w"), 0o600)
        self.assertEqual(read(self.p("w")), b"x" * 2500 + b"yy" + b"x" * 1498)
        if os.geteuid() != 0:
            os.chmod(self.p("w"), 0o000)
            self.assertErrno(errno.EACCES, open, self.p("w"))
            os.chmod(self.p("w"), 0o400)
            self.assertErrno(errno.EACCES, open, self.p("w"), "r+")
            self.assertEqual(len(read(self.p("w"))), 4000)

    def test_directories_that_deny_their_owner(self):
        long_name = "l" * LONGEST_NAME
        for mode in (0o400, 0o300, 0o100):
            d = self.p("d%o" % mode)
            os.mkdir(d)
            write(os.path.join(d, "f"), b"x")
            write(os.path.join(d, long_name), b"y")
            os.rename(d, d + "r")  # its id is now a file in it
            os.chmod(d + "r", mode)
        self.v.remount()
        if os.geteuid() == 0:
            return
        self.assertEqual(sorted(os.listdir(self.p("d400r"))), ["f", long_name])
        self.assertErrno(errno.EACCES, open, self.p("d400r", "f"))
        self.assertErrno(errno.EACCES, os.listdir, self.p("d300r"))
        write(self.p("d300r", "new"), b"n")
        self.assertEqual(read(self.p("d300r", "new")), b"n")
        self.assertEqual(read(self.p("d100r", "f")), b"x")
        self.assertErrno(errno.EACCES, open, self.p("d100r", "new"), "w")
        for mode in (0o400, 0o300, 0o100):
            d = self.p("d%o" % mode)
            self.assertEqual(stat.S_IMODE(os.stat(d + "r").st_mode), mode)
            os.rename(d + "r", d)
            os.chmod(d, 0o700)
            for name in os.listdir(d):
                os.unlink(os.path.join(d, name))
            os.chmod(d, 0)
            os.rmdir(d)

    def test_a_handle_outlives_a_change_of_mode(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR, 0o600)
        os.fchmod(fd, 0)
        os.write(fd, b"still")
        self.assertEqual(os.pread(fd, 10, 0), b"still")
        os.close(fd)

    def test_times(self):
        write(self.p("f"), b"x")
        os.utime(self.p("f"), ns=(123456789012345678, 987654321098765432))
        st = os.stat(self.p("f"))
        self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (123456789012345678, 987654321098765432))
        call("utimensat", AT_FDCWD, self.p("f").encode(), (ctypes.c_long * 4)(0, (1 << 30) - 2, 77, 88), 0)  # OMIT
        st = os.stat(self.p("f"))
        self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (123456789012345678, 77 * 10**9 + 88))
        before = time.time_ns() - 10**9
        call("utimensat", AT_FDCWD, self.p("f").encode(), (ctypes.c_long * 4)(5, 6, 0, (1 << 30) - 1), 0)  # NOW
        st = os.stat(self.p("f"))
        self.assertEqual(st.st_atime_ns, 5 * 10**9 + 6)
        self.assertGreater(st.st_mtime_ns, before)

    def test_times_survive_a_copy(self):
        # As cp -p does: written, its time set, closed.
        for size in (10, 5000, 300000):
            with open(self.p("f"), "wb") as f:
                f.write(os.urandom(size))
                f.flush()
                os.utime(f.fileno(), ns=(10**18, 10**18 + 7))
            self.assertEqual(os.stat(self.p("f")).st_mtime_ns, 10**18 + 7)
            self.v.remount()
            self.assertEqual(os.stat(self.p("f")).st_mtime_ns, 10**18 + 7)

    def test_a_write_moves_the_time(self):
        write(self.p("f"), b"x")
        os.utime(self.p("f"), ns=(1, 1))
        before = time.time_ns() - 10**9
        with open(self.p("f"), "ab") as f:
            f.write(b"y")
        self.assertGreater(os.stat(self.p("f")).st_mtime_ns, before)
        self.v.remount()
        self.assertGreater(os.stat(self.p("f")).st_mtime_ns, before)

    def test_set_id_bits_go_with_a_write(self):
        for change in ("write", "truncate", "open", "chown"):
            path = self.p(change)
            write(path, b"x" * 100)
            os.chmod(path, 0o6755)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o6755)

            def by_owner():
                if change == "write":
                    with open(path, "r+b") as f:
                        f.write(b"y")
                elif change == "truncate":
                    os.truncate(path, 5)
                elif change == "open":
                    open(path, "w").close()
                else:
                    os.chown(path, -1, os.getegid())

            if os.geteuid() == 0:
                continue  # root keeps them
            by_owner()
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode) & 0o6000, 0, change)

    def test_set_id_bits_outlive_what_is_written_back(self):
        for late in ("write", "map", "truncate"):
            path = self.p(late)
            write(path, b"x" * 10000)
            fd = os.open(path, os.O_RDWR)
            with mmap.mmap(fd, 0) as m:
                if late == "write":
                    os.pwrite(fd, b"y" * 9000, 0)
                elif late == "truncate":
                    os.ftruncate(fd, 7000)
                os.fchmod(fd, 0o6755)
                if late == "map":
                    m[5000] = 1
                os.fsync(fd)
            os.close(fd)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o6755, late)
            self.v.remount()
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o6755, late)

    def test_a_change_that_changes_nothing_moves_the_time(self):
        before = time.time_ns() - 10**9
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR, 0o600)
        for change in (lambda: os.ftruncate(fd, 0), lambda: fallocate(fd, FALLOC_CLEAR, 0, 5000),
                       lambda: os.close(os.open(self.p("f"), os.O_WRONLY | os.O_TRUNC))):
            os.utime(fd, ns=(1, 1))
            change()
            self.assertGreater(os.fstat(fd).st_mtime_ns, before)
        os.close(fd)

    def test_xattrs(self):
        path = self.p("f")
        write(path, b"x")
        os.setxattr(path, "user.name", b"value")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user." + "n" * 162, b"v")
        os.setxattr(path, "user.big", b"b" * 2000)
        self.assertEqual(os.getxattr(path, "user.name"), b"value")
        self.assertEqual(os.getxattr(path, "user.empty"), b"")
        self.assertEqual(os.getxattr(path, "user.big"), b"b" * 2000)
        self.assertEqual(len(os.listxattr(path)), 4)
        self.assertErrno(errno.EEXIST, os.setxattr, path, "user.name", b"", os.XATTR_CREATE)
        self.assertErrno(errno.ENODATA, os.setxattr, path, "user.none", b"", os.XATTR_REPLACE)
        self.assertErrno(errno.ENODATA, os.getxattr, path, "user.none")
        os.removexattr(path, "user.name")
        os.mkdir(self.p("d"))
        os.setxattr(self.p("d"), "user.d", b"1")
        self.v.remount()
        self.assertEqual(os.getxattr(path, "user.empty"), b"")
        self.assertEqual(os.listxattr(self.p("d")), ["user.d"])
        if os.geteuid() == 0:
            os.symlink("f", self.p("l"))
            os.setxattr(self.p("l"), "trusted.l", b"link", follow_symlinks=False)
            self.assertEqual(os.getxattr(self.p("l"), "trusted.l", follow_symlinks=False), b"link")
            self.assertErrno(errno.ENODATA, os.getxattr, path, "trusted.l")

    def test_acls(self):
        if subprocess.run(["setfacl", "-m", "u:12345:r", self.v.lower], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("the lower filesystem keeps no ACLs")
        subprocess.run(["setfacl", "-b", self.v.lower], check=True)
        os.umask(0o077)
        subprocess.run(["setfacl", "-d", "-m", "u:12345:rwx,g::rx,o::-", self.dir], check=True)
        os.mkdir(self.p("d"), 0o777)
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR, 0o666)
        os.close(fd)
        acl = subprocess.run(["getfacl", "-cnp", self.p("f")], stdout=subprocess.PIPE, text=True).stdout
        self.assertIn("user:12345:rwx\t#effective:rw-", acl.replace("\t\t", "\t").replace("\t\t", "\t"))
        # The umask counts for nothing where there is a default ACL.
        self.assertEqual(stat.S_IMODE(os.stat(self.p("f")).st_mode), 0o660)
        self.assertEqual(stat.S_IMODE(os.stat(self.p("d")).st_mode), 0o770)
        os.chmod(self.p("f"), 0o600)
        acl = subprocess.run(["getfacl", "-cnp", self.p("f")], stdout=subprocess.PIPE, text=True).stdout
        self.assertIn("mask::---", acl)


class Contents(MountTest):
    def test_small_files_opened_while_another_writes(self):
        """The server gives the kernel a small file's contents when it is opened: never over something newer."""
        path, stop = self.p("f"), self.p("stop")
        write(path, b"%08d" % 0)

        def reader():
            while not os.path.exists(stop):
                with open(path, "rb") as f:
                    if len(f.read()) != 8:
                        return 1
            return 0

        pids = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(reader())
            pids.append(pid)
        try:
            for n in range(1, 1500):
                fd = os.open(path, os.O_RDWR)
                os.pwrite(fd, b"%08d" % n, 0)
                self.assertEqual(os.pread(fd, 8, 0), b"%08d" % n)
                os.close(fd)
                os.chmod(path, 0o600 | (n & 1))  # another state of the lower file: what was cached is not kept
                self.assertEqual(read(path), b"%08d" % n)
        finally:
            write(stop, b"")
            for pid in pids:
                self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_sizes_around_the_shapes_of_a_file(self):
        for size in (0, 1, 15, 16, 63, 64, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 258047, 258048, 258049, 600000):
            data = random.Random(size).randbytes(size)
            write(self.p("f%d" % size), data)
        self.v.remount()
        for size in (0, 1, 15, 16, 63, 64, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 258047, 258048, 258049, 600000):
            self.assertEqual(os.stat(self.p("f%d" % size)).st_size, size)
            self.assertEqual(read(self.p("f%d" % size)), random.Random(size).randbytes(size))

    def test_random_changes_match_a_model(self):
        for seed in range(4):
            rng = random.Random(seed)
            model = bytearray()
            path = self.p("m%d" % seed)
            fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            for step in range(400):
                kind = rng.randrange(12)
                at = rng.randrange(400000)
                if kind < 5:
                    data = rng.randbytes(rng.randrange(1, 60000))
                    os.pwrite(fd, data, at)
                    model.extend(b"\0" * (at - len(model)))
                    model[at:at + len(data)] = data
                elif kind < 7:
                    os.ftruncate(fd, at)
                    model.extend(b"\0" * (at - len(model)))
                    del model[at:]
                elif kind == 7 and len(model) > at:
                    fallocate(fd, FALLOC_CLEAR, at, 30000)
                    end = min(len(model), at + 30000)
                    model[at:end] = b"\0" * (end - at)
                elif kind == 8:
                    fallocate(fd, 0, at, 10000)
                    model.extend(b"\0" * (at + 10000 - len(model)))
                elif kind == 9:
                    os.fsync(fd)
                elif kind == 10 and step % 5 == 0:
                    os.close(fd)
                    self.v.remount()
                    fd = os.open(path, os.O_RDWR)
                else:
                    self.assertEqual(os.pread(fd, 50000, at), bytes(model[at:at + 50000]), (seed, step))
                self.assertEqual(os.fstat(fd).st_size, len(model), (seed, step))
            os.close(fd)
            self.assertEqual(read(path), bytes(model), seed)
            self.v.remount()
            self.assertEqual(read(path), bytes(model), seed)

    def test_append_by_several_processes(self):
        path = self.p("log")
        write(path, b"")

        def append(who):
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            for i in range(400):
                os.write(fd, b"%d:%d\n" % (who, i))
            os.close(fd)

        pids = []
        for who in range(4):
            pid = os.fork()
            if pid == 0:
                append(who)
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        lines = read(path).split(b"\n")[:-1]
        self.assertEqual(sorted(lines), sorted(b"%d:%d" % (w, i) for w in range(4) for i in range(400)))
        for who in range(4):
            mine = [line for line in lines if line.startswith(b"%d:" % who)]
            self.assertEqual(mine, [b"%d:%d" % (who, i) for i in range(400)])

    def test_appending_ignores_the_position(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        os.write(fd, b"one")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"two")
        self.assertEqual(os.pread(fd, 10, 0), b"onetwo")
        os.close(fd)

    def test_unlinked_files_live_on(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR, 0o600)
        os.write(fd, b"x" * 10000)
        os.unlink(self.p("f"))
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        os.pwrite(fd, b"y" * 10000, 5000)
        os.ftruncate(fd, 12000)
        os.fchmod(fd, 0o640)
        self.assertEqual(os.pread(fd, 20000, 0), b"x" * 5000 + b"y" * 7000)
        again = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
        self.assertEqual(os.pread(again, 3, 0), b"xxx")
        os.close(again), os.close(fd)
        self.assertEqual(os.listdir(self.dir), [])

    def test_rename_over_an_open_file(self):
        write(self.p("old"), b"old" * 2000)
        write(self.p("new"), b"new" * 2000)
        fd = os.open(self.p("old"), os.O_RDONLY)
        os.rename(self.p("new"), self.p("old"))
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        self.assertEqual(os.pread(fd, 6000, 0), b"old" * 2000)
        self.assertEqual(read(self.p("old")), b"new" * 2000)
        os.close(fd)

    def test_mmap(self):
        path = self.p("f")
        write(path, b"a" * 100000)
        with open(path, "r+b") as f:
            with mmap.mmap(f.fileno(), 0) as m:
                m[50000:50005] = b"hello"
                m[99999] = ord("z")
                self.assertEqual(os.pread(f.fileno(), 5, 50000), b"hello")
                m.flush()
            os.pwrite(f.fileno(), b"world", 10)
            with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
                self.assertEqual(m[10:15], b"world")
        with open(path, "r+b") as f:
            m = mmap.mmap(f.fileno(), 0)
        m[0:4] = b"late"  # the file is closed, the mapping is not
        m.close()
        self.v.remount()
        data = read(path)
        self.assertEqual((data[:4], data[50000:50005], data[-1:]), (b"late", b"hello", b"z"))

    @unittest.skipIf(ECRYPTFS, "eCryptfs files have no holes")
    def test_sparse_files(self):
        path = self.p("f")
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        os.ftruncate(fd, 1 << 40)
        os.pwrite(fd, b"middle", 1 << 39)
        self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA) >> 20, 1 << 19)
        self.assertLess(os.lseek(fd, 1 << 39, os.SEEK_HOLE), (1 << 39) + (1 << 20))
        self.assertErrno(errno.ENXIO, os.lseek, fd, 1 << 40, os.SEEK_DATA)
        self.assertEqual(os.pread(fd, 10, (1 << 39) - 2), b"\0\0middle\0\0")
        os.close(fd)
        self.v.remount()
        st = os.stat(path)
        self.assertEqual(st.st_size, 1 << 40)
        self.assertLess(st.st_blocks * 512, 64 << 20)
        fd = os.open(path, os.O_RDWR)
        self.assertEqual(os.pread(fd, 10, (1 << 39) - 2), b"\0\0middle\0\0")
        os.close(fd)

    def test_a_copy_by_holes_of_a_file_just_written(self):
        with open(self.p("a"), "wb") as f:
            f.truncate(20 << 20)
            f.seek(10 << 20)
            f.write(b"data" * 3000)
            f.flush()
            subprocess.run(["cp", "--sparse=auto", self.p("a"), self.p("b")], check=True)
            self.assertEqual(subprocess.run(["cmp", self.p("a"), self.p("b")]).returncode, 0)

    def test_impossible_sizes_are_refused_at_once(self):
        with open(self.p("f"), "wb") as f:
            began = time.monotonic()
            try:
                os.ftruncate(f.fileno(), 999999999999999)
            except OSError as e:
                self.assertIn(e.errno, (errno.EFBIG, errno.ENOSPC) if ECRYPTFS else (errno.EFBIG,))
            self.assertErrno(errno.EFBIG, os.ftruncate, f.fileno(), (1 << 63) - 1)
            self.assertLess(time.monotonic() - began, 5)
        os.truncate(self.p("f"), 0)

    def test_a_write_that_fails_leaves_the_file_as_it_was(self):
        path = self.p("f")
        write(path, b"before")
        for _ in range(30):    # the kernel tells of the last close some time after it
            fd = os.open(path, os.O_RDWR)
            # The writeback cache takes it, and the error comes with the sync, or with the close.
            with self.assertRaises(OSError):
                os.pwrite(fd, b"x", 1 << 62)
                os.fsync(fd)
            try:
                os.close(fd)
            except OSError:
                pass
            with open(path, "rb") as f:
                self.assertEqual(os.fstat(f.fileno()).st_size, 6)
                self.assertEqual(f.read(100), b"before")
            self.assertEqual(os.stat(path).st_size, 6)

    def test_fallocate(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR, 0o600)
        os.write(fd, b"x" * 100000)
        fallocate(fd, FALLOC_KEEP, 100000, 50000)
        self.assertEqual(os.fstat(fd).st_size, 100000)
        fallocate(fd, 0, 0, 120000)
        self.assertEqual(os.fstat(fd).st_size, 120000)
        if ECRYPTFS:
            self.assertErrno(errno.EOPNOTSUPP, fallocate, fd, FALLOC_PUNCH | FALLOC_KEEP, 10000, 50000)
        fallocate(fd, FALLOC_CLEAR, 10000, 50000)
        fallocate(fd, FALLOC_ZERO, 70000, 100)
        for mode in (FALLOC_COLLAPSE, FALLOC_INSERT):
            self.assertErrno(errno.EOPNOTSUPP, fallocate, fd, mode, 0, 4096)
        expected = bytearray(b"x" * 100000 + b"\0" * 20000)
        expected[10000:60000] = b"\0" * 50000
        expected[70000:70100] = b"\0" * 100
        self.assertEqual(os.pread(fd, 200000, 0), bytes(expected))
        os.close(fd)

    def test_copy_file_range(self):
        data = random.Random(3).randbytes(3 << 20)
        write(self.p("a"), data)
        with open(self.p("a"), "rb") as a, open(self.p("b"), "w+b") as b:
            done = 0
            while done < len(data) - 1000:
                n = os.copy_file_range(a.fileno(), b.fileno(), len(data) - 1000 - done, 1000 + done, done + 5)
                self.assertGreater(n, 0)
                done += n
        self.assertEqual(read(self.p("b")), b"\0" * 5 + data[1000:])

    def test_direct_io(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
        block = mmap.mmap(-1, 8192)
        block[:] = b"d" * 8192
        self.assertEqual(os.pwrite(fd, block, 4096), 8192)
        back = mmap.mmap(-1, 8192)
        self.assertEqual(os.preadv(fd, [back], 4096), 8192)
        self.assertEqual(back[:], b"d" * 8192)
        os.close(fd)
        self.assertEqual(read(self.p("f")), b"\0" * 4096 + b"d" * 8192)

    def test_open_flags(self):
        path = self.p("f")
        write(path, b"x" * 9000)
        self.assertErrno(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        self.assertErrno(errno.ENOTDIR, os.open, path, os.O_RDONLY | os.O_DIRECTORY)
        self.assertErrno(errno.EISDIR, os.open, self.dir, os.O_WRONLY)
        other = os.open(path, os.O_RDWR)
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        self.assertEqual(os.fstat(other).st_size, 0)
        os.write(other, b"fresh")
        self.assertEqual(read(path), b"fresh")
        os.close(other)
        self.assertErrno(errno.EOPNOTSUPP, os.open, self.dir, os.O_TMPFILE | os.O_RDWR)
        fd = os.open(path, os.O_RDONLY)
        self.assertErrno(errno.EBADF, os.write, fd, b"x")
        os.close(fd)

    def test_reading_first_and_writing_later(self):
        # The lower file was opened for a reader of a file that its mode forbids to write; then a writer comes.
        path = self.p("f")
        write(path, b"x" * 9000)
        os.chmod(path, 0o400)
        reader = os.open(path, os.O_RDONLY)
        self.assertEqual(os.pread(reader, 3, 0), b"xxx")
        os.chmod(path, 0o600)
        writer = os.open(path, os.O_WRONLY)
        os.pwrite(writer, b"yyy", 0)
        self.assertEqual(os.pread(reader, 3, 0), b"yyy")
        os.close(writer)
        self.assertEqual(os.pread(reader, 3, 0), b"yyy")
        os.close(reader)

    def test_sync(self):
        fd = os.open(self.p("f"), os.O_CREAT | os.O_RDWR, 0o600)
        os.write(fd, b"x")
        os.fsync(fd)
        os.fdatasync(fd)
        os.close(fd)
        fd = os.open(self.dir, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def test_file_size_limit(self):
        def limited():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
            with open(self.p("f"), "wb", buffering=0) as f:
                if f.write(b"x" * 20000) != 10000:
                    return 1
                try:
                    f.write(b"x")
                except OSError as e:
                    return 0 if e.errno == errno.EFBIG else 2
            return 3

        self.assertEqual(in_child(limited), 0)
        self.assertEqual(os.stat(self.p("f")).st_size, 10000)

    def test_locks(self):
        path = self.p("f")
        write(path, b"x" * 100)
        f = open(path, "r+b")
        fcntl.flock(f, fcntl.LOCK_EX)

        def try_flock():
            with open(path, "r+b") as g:
                try:
                    fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return 7
            return 0

        self.assertEqual(in_child(try_flock), 7)
        fcntl.flock(f, fcntl.LOCK_UN)
        self.assertEqual(in_child(try_flock), 0)
        fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)

        def try_range():
            with open(path, "r+b") as g:
                fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
                try:
                    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14)
                except BlockingIOError:
                    return 7
            return 0

        self.assertEqual(in_child(try_range), 7)
        f.close()
        self.assertEqual(in_child(try_range), 0)

    def test_executes(self):
        shutil.copy("/bin/true", self.p("prog"))
        os.chmod(self.p("prog"), 0o511)
        self.assertEqual(subprocess.run([self.p("prog")]).returncode, 0)
        write(self.p("script"), b"#!/bin/sh\nexit 5\n")
        os.chmod(self.p("script"), 0o700)
        self.assertEqual(subprocess.run([self.p("script")]).returncode, 5)

    def test_sqlite(self):
        for mode in ("delete", "wal"):
            path = self.p(mode + ".db")
            db = sqlite3.connect(path)
            self.assertEqual(db.execute("pragma journal_mode=" + mode).fetchone()[0], mode)
            db.execute("create table t(a integer primary key, b blob)")
            for i in range(50):
                with db:
                    db.executemany("insert into t(b) values(?)", [(os.urandom(700),) for _ in range(20)])
            db.close()
            self.v.remount()
            db = sqlite3.connect(path)
            self.assertEqual(db.execute("pragma integrity_check").fetchone()[0], "ok")
            self.assertEqual(db.execute("select count(*) from t").fetchone()[0], 1000)
            db.close()

    def test_parallel_writers(self):
        def work(i):
            rng = random.Random(i)
            data = rng.randbytes(rng.randrange(1, 700000))
            with open(self.p("w%d" % i), "wb") as f:
                for at in range(0, len(data), 37777):
                    f.write(data[at:at + 37777])
            if read(self.p("w%d" % i)) != data:
                failures.append(i)

        failures = []
        threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.v.remount()
        for i in range(32):
            rng = random.Random(i)
            self.assertEqual(read(self.p("w%d" % i)), rng.randbytes(rng.randrange(1, 700000)))

    def test_parallel_writers_of_one_file(self):
        path = self.p("f")
        write(path, b"")

        def work(i):
            with open(path, "r+b", buffering=0) as f:
                for k in range(i, 640, 32):
                    f.seek(k * 3000)
                    f.write(bytes([i + 1]) * 3000)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expected = b"".join(bytes([k % 32 + 1]) * 3000 for k in range(640))
        self.assertEqual(read(path), expected)
        self.v.remount()
        self.assertEqual(read(path), expected)

    def test_a_tree_comes_through_tar(self):
        source = "/usr/include/linux"
        if not os.path.isdir(source):
            self.skipTest("no tree to copy")
        tar = subprocess.Popen(["tar", "-C", source, "-cf", "-", "."], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-C", self.dir, "-xf", "-"], stdin=tar.stdout, check=True)
        tar.stdout.close()
        tar.wait()
        self.assertEqual(subprocess.run(["diff", "-r", source, self.dir]).returncode, 0)
        self.v.remount()
        self.assertEqual(subprocess.run(["diff", "-r", source, self.dir]).returncode, 0)


@unittest.skipIf(ECRYPTFS, "of the native format")
class Sealed(Contents):
    """The same in a volume that authenticates sizes."""

    volume_arguments = ("--sealed",)


class Below(MountTest):
    def test_nothing_plain_shows_below(self):
        os.makedirs(self.p("confidential-dir"))
        write(self.p("confidential-dir", "confidential-name"), b"confidential-contents " * 1000)
        os.symlink("confidential-target", self.p("link"))
        if not ECRYPTFS:  # which leaves attributes as they are
            os.setxattr(self.p("confidential-dir"), "user.confidential-attr", b"confidential-value")
        write(self.p("confidential-" + "x" * (LONGEST_NAME - 25)), b"y")
        self.v.unmount()
        for root, dirs, files in os.walk(self.v.lower):
            for name in dirs + files:
                path = os.path.join(root, name)
                self.assertNotIn("confidential", path[len(self.v.lower):])
                for attr in os.listxattr(path, follow_symlinks=False):
                    self.assertNotIn("confidential", attr)
                    self.assertNotIn(b"confidential", os.getxattr(path, attr, follow_symlinks=False))
                if os.path.islink(path):
                    self.assertNotIn("confidential", os.readlink(path))
                elif os.path.isfile(path):
                    self.assertNotIn(b"confidential", read(path))
        self.v.mount()

    def test_files_changed_behind_a_shared_mount(self):
        if "shared" not in OPTIONS:
            self.skipTest("for -o shared")
        write(self.p("a"), b"old contents")
        write(self.p("b"), b"new and longer contents")
        lower = {}
        for root, _, files in os.walk(self.v.lower):
            for name in files:
                lower[os.stat(os.path.join(root, name)).st_ino] = os.path.join(root, name)
        a, b = lower[os.stat(self.p("a")).st_ino], lower[os.stat(self.p("b")).st_ino]
        shutil.copy(b, a)  # in place, as some tools do
        self.assertEqual(read(self.p("a")), b"new and longer contents")
        shutil.copy(b, a + ".tmp")
        os.rename(a + ".tmp", a)
        self.assertEqual(read(self.p("a")), b"new and longer contents")
        os.unlink(a)
        self.assertErrno(errno.ENOENT, open, self.p("a"))


if __name__ == "__main__":
    main()
