#!/usr/bin/env python3
"""Where the keys of a mount stand in the memory of its server: nowhere that is dumped.

Works on copies of the server that are compiled for this test: MOUNTD_TEST, whose memory can be looked into and which may
leave a core, and MOUNTD_TEST_PLAIN, which besides has OpenSSL use the ordinary heap. In that one the keys must be found:
else the search proves nothing.
"""

import glob
import hashlib
import hmac
import os
import resource
import signal
import subprocess
import sys
import threading
import unittest

from harness import Volume, answers, kill, main, status_of, tell, wait_for

VOLUME_KEY = b"\x5a" * 32  # that of mount_native
LABELS = {"file": 32, "dir": 32, "long": 32, "name": 64, "dirid": 64, "symlink": 64, "xname": 64, "xvalue": 64}
ECRYPTFS_KEYS = bytes((i * 167 + 13) % 256 for i in range(144))  # with their salts
NUM_FILES = 40
PIECE = 16  # bytes of a key that count as the key
NUM_MANY = 10000
MANY = """
import ctypes, os, sys
fds = [os.open("%s/%d" % (sys.argv[1], i), os.O_RDWR | os.O_CREAT, 0o600) for i in range(int(sys.argv[2]))]
for i, fd in enumerate(fds):
    os.write(fd, b"%08d" % i * 640)
assert ctypes.CDLL(None).syncfs(fds[0]) == 0
for fd in fds:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
right = all(os.pread(fd, 8000, 0) == b"%08d" % i * 640 for i, fd in enumerate(fds))
print("open", flush=True)
sys.stdin.readline()
print("right" if right else "wrong", flush=True)
"""


def hmac256(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(prk, info, length):
    out, block = b"", b""
    while len(out) < length:
        block = hmac256(prk, block + info + bytes([len(out) // 32 + 1]))
        out += block
    return out[:length]


def pieces_of(secrets):
    """What to look for: every 16 bytes of every key, by what they are."""
    return {key[at : at + PIECE]: what for what, key in secrets.items() for at in range(0, len(key), PIECE)}


def keys_of(volume):
    """The keys that the server of a volume has, and had, by the description of the format alone."""
    with open(volume.lower + "/.ecfs-volume", "rb") as f:
        header = f.read()
    prk = hmac256(header[16:32], VOLUME_KEY)
    secrets = {"volume key": VOLUME_KEY, "prk": prk, "header key": expand(prk, b"ecfs1 hdr", 32)}
    for label, length in LABELS.items():
        secrets["key " + label] = expand(prk, b"ecfs1 " + label.encode(), length)
    for directory, _, names in os.walk(volume.lower):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path) or name.startswith(".ecfs"):
                continue
            with open(path, "rb") as f:
                fixed = f.read(24)
            if len(fixed) == 24:
                secrets["file " + name[:12]] = hmac256(secrets["key file"], b"ecfs1 content" + fixed)
    return secrets


def close_quietly(fd):
    """Of a server that was ended there is nobody to say goodbye to."""
    try:
        os.close(fd)
    except OSError:
        pass


def mappings(pid):
    """(begin, end, permissions, flags) of each mapping of a process."""
    out = []
    with open("/proc/%d/smaps" % pid) as f:
        for line in f:
            words = line.split()
            if words[0].endswith(":"):
                if words[0] == "VmFlags:":
                    out[-1][3] = words[1:]
            else:
                begin, end = (int(x, 16) for x in words[0].split("-"))
                out.append([begin, end, words[1], []])
    return out


def stacks(pid):
    """The mappings that its threads' stack pointers lead to."""
    out, all_mappings = [], mappings(pid)
    for task in os.listdir("/proc/%d/task" % pid):
        words = []
        while len(words) < 3:  # "running" between two system calls
            with open("/proc/%d/task/%s/syscall" % (pid, task)) as f:
                words = f.read().split()
        pointer = int(words[-2], 16)
        out += [m for m in all_mappings if m[0] <= pointer < m[1]]
    return out


def programs_of(pid):
    """The files that are mapped there."""
    with open("/proc/%d/maps" % pid) as f:
        return f.read()


def found_in(data, pieces):
    return {what for piece, what in pieces.items() if piece in data}


def search(pid, pieces):
    """Which keys are in memory that is dumped, and which in other memory that can be read."""
    dumped, other, hidden = set(), set(), 0
    fd = os.open("/proc/%d/mem" % pid, os.O_RDONLY)
    try:
        for begin, end, permissions, flags in mappings(pid):
            if permissions[0] != "r":
                continue
            try:
                data = os.pread(fd, end - begin, begin) if begin < 1 << 63 else b""
            except OSError:
                hidden += "dd" in flags
                continue
            (other if "dd" in flags else dumped).update(found_in(data, pieces))
    finally:
        os.close(fd)
    return dumped, other, hidden


def aes128(key, block):
    """One decryption of eCryptfs' file keys."""
    return subprocess.run(["openssl", "enc", "-d", "-aes-128-ecb", "-nopad", "-K", key.hex()], input=block,
                          stdout=subprocess.PIPE, check=True).stdout


def ecryptfs_keys_of(volume):
    """The keys that the server of an eCryptfs tree has, and had (fs/ECRYPTFS-FORMAT.md): those of mount_native."""
    contents, names = ECRYPTFS_KEYS[8:72], ECRYPTFS_KEYS[80:]
    prefix = hashlib.md5(names).digest()
    secrets = {"key contents": contents, "key names": names, "prefix": prefix, "prefix 2": hashlib.md5(prefix).digest()}
    for name in os.listdir(volume.lower):
        path = os.path.join(volume.lower, name)
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as f:
                packet = f.read(64)[26:]
            assert packet[0] == 0x8C and packet[2] == 4, packet
            secrets["file " + name[-12:]] = key = aes128(contents[:16], packet[15:31])
            secrets["iv " + name[-12:]] = hashlib.md5(key).digest()
    return secrets


class EcryptfsKeys(unittest.TestCase):
    NUM_FILES = 8

    def mounted(self, program, options):
        v = Volume(options=options, arguments=["--ecryptfs", "--program", os.environ[program]])
        self.addCleanup(v.close)
        return v.mount()

    def used(self, v):
        """Does all that needs keys, and leaves files open."""
        os.mkdir(v.path("d"))
        os.symlink("target", v.path("link"))
        os.readlink(v.path("link"))
        for i in range(self.NUM_FILES):
            fd = os.open(v.path("f%d" % i), os.O_RDWR | os.O_CREAT, 0o600)
            self.addCleanup(close_quietly, fd)
            os.write(fd, os.urandom(10000 + i))
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(fd, 5000, 100)
        os.listdir(v.mnt)
        pieces = pieces_of(ecryptfs_keys_of(v))
        files = {what for what in pieces.values() if what.startswith(("file ", "iv "))}
        self.assertEqual(len(files), 2 * self.NUM_FILES)
        return pieces, files

    def test_no_key_is_in_memory_that_is_dumped(self):
        v = self.mounted("MOUNTD_TEST", ["hibernate"])
        pieces, files = self.used(v)
        self.assertEqual(search(v.supervisor, pieces)[:2], (set(), set()))
        dumped, other, _ = search(v.server, pieces)
        self.assertEqual(dumped, set())
        # Locked pages: they are there, so the search does look for the right bytes.
        self.assertEqual(other & files, files)
        self.assertTrue({"key contents", "key names", "prefix"} <= other, other)

    def test_a_suspended_server_has_none(self):
        v = self.mounted("MOUNTD_TEST", ["hibernate"])
        pieces, files = self.used(v)
        self.assertTrue(wait_for(lambda: answers(v)))
        self.assertTrue(tell(v, b"s").startswith(b"+s"))
        self.assertEqual(search(v.server, pieces)[:2], (set(), set()))
        with self.assertRaises(OSError):
            os.listdir(v.mnt)
        self.assertNotEqual(tell(v, b"r" + ECRYPTFS_KEYS[:72])[:1], b"+")  # the key of the names is missing
        self.assertTrue(tell(v, b"r" + ECRYPTFS_KEYS).startswith(b"+"))
        self.assertEqual(len(os.listdir(v.mnt)), self.NUM_FILES + 2)
        self.assertEqual(search(v.server, pieces)[0], set())

    @unittest.skipUnless(os.environ.get("ECFS_BOTAN"), "built without Botan")
    def test_botans_keys_are_the_servers_alone(self):
        # They stand there in another form, so that no search finds them; what Botan keeps them in is looked at.
        v = self.mounted("MOUNTD_TEST", ["hibernate", "ecryptfs_cipher=twofish", "ecryptfs_key_bytes=32"])
        with open(v.path("file"), "wb") as f:
            f.write(b"secret" * 10000)
        self.assertIn("libbotan", programs_of(v.server))
        self.assertNotIn("libbotan", programs_of(v.supervisor))
        # Stacks are not dumped either; one of a thread that has ended stays for the next.
        sizes = {end - begin for begin, end, _, _ in stacks(v.server)}
        kept = [m for m in mappings(v.server) if m[2].startswith("rw") and "dd" in m[3] and m[1] - m[0] not in sizes]
        self.assertGreaterEqual(sum(end - begin for begin, end, _, _ in kept), 512 << 10)
        self.assertEqual([m for m in kept if "lo" not in m[3]], [])
        self.assertEqual(search(v.server, pieces_of({"contents": ECRYPTFS_KEYS[8:72], "names": ECRYPTFS_KEYS[80:]}))[0],
                         set())

    def test_the_search_finds_keys_in_ordinary_memory(self):
        v = self.mounted("MOUNTD_TEST_PLAIN", ["hibernate"])
        pieces, files = self.used(v)
        self.assertTrue(search(v.server, pieces)[0] & files)


class Keys(unittest.TestCase):
    def mounted(self, program, options, arguments=()):
        v = Volume(options=options, arguments=list(arguments) + ["--program", os.environ[program]])
        self.addCleanup(v.close)
        v.mount(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2))
        return v

    def used(self, v):
        """Does all that needs keys, and leaves files open."""
        os.mkdir(v.path("d"))
        os.rename(v.path("d"), v.path("renamed"))
        os.symlink("target", v.path("link"))
        os.readlink(v.path("link"))
        with open(v.path("n" * 250), "wb") as f:
            f.write(b"a long name")
        os.setxattr(v.path("renamed"), "user.x", b"value")
        os.getxattr(v.path("renamed"), "user.x")
        fds = []
        for i in range(NUM_FILES):
            fd = os.open(v.path("renamed", "f%d" % i), os.O_RDWR | os.O_CREAT, 0o600)
            fds.append(fd)
            os.write(fd, os.urandom(10000 + i))
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(fd, 5000, 100)
            self.addCleanup(close_quietly, fd)
        os.listdir(v.path("renamed"))
        pieces = pieces_of(keys_of(v))
        files = {what for what in pieces.values() if what.startswith("file ")}
        self.assertEqual(len(files), NUM_FILES + 1)
        return pieces, files

    def test_no_key_is_in_memory_that_is_dumped(self):
        for options in (["hibernate"], []):
            for suite in ("1", "2"):
                with self.subTest(options=options, suite=suite):
                    v = self.mounted("MOUNTD_TEST", options, ["--suite", suite])
                    pieces, files = self.used(v)
                    self.assertEqual(search(v.supervisor, pieces)[:2], (set(), set()))
                    # Where a library has a key for a moment.
                    found = stacks(v.server)
                    self.assertGreater(len(found), 2)
                    self.assertEqual([m for m in found if "dd" not in m[3]], [])
                    dumped, other, hidden = search(v.server, pieces)
                    self.assertEqual(dumped, set())
                    if options:
                        # Locked pages: they are there, so the search does look for the right bytes.
                        self.assertGreaterEqual(len(other & files), NUM_FILES)
                        self.assertIn("key file", other)
                        self.assertIn("key name", other)
                        self.assertNotIn("volume key", other)
                        self.assertNotIn("prk", other)
                    elif hidden == 0:
                        self.skipTest("this kernel has no memfd_secret")
                    else:
                        self.assertEqual(other, set())

    def test_nor_while_it_works(self):
        for suite in ("1", "2"):
            v = self.mounted("MOUNTD_TEST", ["hibernate"], ["--suite", suite])
            pieces, files = self.used(v)
            few = sorted(files)[:3]
            pieces = {piece: what for piece, what in pieces.items() if what not in files or what in few}
            stop = threading.Event()

            def work(directory):
                os.mkdir(directory)
                while not stop.is_set():
                    for i in range(20):
                        with open("%s/%d" % (directory, i), "wb") as f:
                            f.write(b"x" * 9000)
                    for name in os.listdir(directory):
                        os.unlink(directory + "/" + name)

            threads = [threading.Thread(target=work, args=(v.path("w%d" % i),)) for i in range(3)]
            for t in threads:
                t.start()
            try:
                for _ in range(5):
                    self.assertEqual(search(v.server, pieces)[0], set(), suite)
            finally:
                stop.set()
                for t in threads:
                    t.join()

    def test_a_suspended_server_has_none(self):
        for suite in ("1", "2"):
            v = self.mounted("MOUNTD_TEST", ["hibernate"], ["--suite", suite])
            pieces, files = self.used(v)
            self.assertTrue(wait_for(lambda: answers(v)))
            _, other, _ = search(v.server, pieces)
            self.assertGreaterEqual(len(other & files), NUM_FILES)
            self.assertEqual(tell(v, b"s"), b"+s")
            self.assertEqual(search(v.server, pieces)[:2], (set(), set()))
            self.assertEqual(search(v.supervisor, pieces)[:2], (set(), set()))
            self.assertEqual(tell(v, b"r" + VOLUME_KEY), b"+")
            os.listdir(v.mnt)
            dumped, other, _ = search(v.server, pieces)
            self.assertEqual(dumped, set())
            self.assertIn("key name", other)
            self.assertNotIn("volume key", other)
            self.assertEqual(search(v.supervisor, pieces)[:2], (set(), set()))

    def test_a_forced_core_holds_no_key(self):
        # The kernel's own: written with the server's rights, which reach the lower directory alone.
        v = self.mounted("MOUNTD_TEST", ["hibernate"])
        pieces, _ = self.used(v)
        server = v.server
        with open("/proc/%d/coredump_filter" % server, "w") as f:
            f.write("0x7f")
        with open("/proc/sys/kernel/core_pattern") as f:
            pattern = f.read()
        try:
            with open("/proc/sys/kernel/core_pattern", "w") as f:
                f.write(v.lower + "/core-of-the-test")
            kill(server, signal.SIGABRT)
            self.assertTrue(wait_for(lambda: not os.path.exists("/proc/%d" % server)))
        finally:
            with open("/proc/sys/kernel/core_pattern", "w") as f:
                f.write(pattern)
        (core,) = glob.glob(v.lower + "/core-of-the-test*")
        with open(core, "rb") as f:
            data = f.read()
        self.assertGreater(len(data), 1 << 20)
        self.assertIn(v.mnt.encode(), data)  # it is one
        self.assertEqual(found_in(data, pieces), set())

    def test_the_search_finds_keys_in_ordinary_memory(self):
        v = self.mounted("MOUNTD_TEST_PLAIN", ["hibernate"])
        pieces, files = self.used(v)
        dumped, _, _ = search(v.server, pieces)
        self.assertGreaterEqual(len(dumped & files), NUM_FILES)
        self.assertIn("key name", dumped)

    def test_ten_thousand_open_files_of_an_ordinary_user(self):
        v = Volume(options=[], arguments=["--program", os.environ["MOUNTD_TEST"]])
        self.addCleanup(v.close)
        for path in (v.base, v.lower, v.mnt):
            os.chown(path, 65534, 65534)

        def as_nobody():
            resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)

        done = v.try_mount(preexec_fn=as_nobody, env=dict(os.environ, HOME="/"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        v.supervisor = int(done.stdout)
        # Both directions: each file is written, brought to the disk, and read back from there.
        work = subprocess.Popen([sys.executable, "-c", MANY, v.mnt, str(NUM_MANY)], preexec_fn=as_nobody,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(work.stdout.close)
        self.addCleanup(work.wait)
        self.addCleanup(work.stdin.close)
        self.assertEqual(work.stdout.readline(), "open\n")
        self.assertGreaterEqual(len(os.listdir("/proc/%d/fd" % v.server)), NUM_MANY)
        locked = int(status_of(v.server)["VmLck"].split()[0])
        print("%d open files: %s KiB locked, resident %s" % (NUM_MANY, locked, status_of(v.server)["VmRSS"]))
        secrets = keys_of(v)
        few = dict(sorted(secrets.items())[:8])
        self.assertIn("file", " ".join(few))
        self.assertEqual(search(v.server, pieces_of(few))[0], set())
        work.stdin.write("\n")
        work.stdin.flush()
        self.assertEqual(work.stdout.readline(), "right\n")
        self.assertEqual(work.wait(), 0)
        subprocess.run(["umount", v.mnt], check=True)

    def test_a_small_limit_on_locked_memory_is_no_obstacle(self):
        for limit in (0, 65536):
            with self.subTest(limit=limit):
                v = Volume(options=[], arguments=["--program", os.environ["MOUNTD_TEST"]])
                self.addCleanup(v.close)
                os.chmod(v.lower, 0o777)
                os.chown(v.base, 65534, 65534)
                os.chown(v.lower, 65534, 65534)
                os.chown(v.mnt, 65534, 65534)

                def as_nobody():
                    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
                    os.setgroups([])
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(65534, 65534, 65534)

                done = v.try_mount(preexec_fn=as_nobody, env=dict(os.environ, HOME="/"))
                if limit == 0:  # the starting program itself has the key, and insists
                    self.assertIn("ulimit -l", done.stderr)
                    continue
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                v.supervisor = int(done.stdout)
                pieces = {VOLUME_KEY: "volume key"}
                dumped, _, _ = search(v.server, pieces)
                self.assertEqual(dumped, set())
                subprocess.run(["umount", v.mnt], check=True)


if __name__ == "__main__":
    main(needs_root=True)
