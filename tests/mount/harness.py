"""What the mount tests share: a temporary volume, mounted for real.

Environment (set by CMake): MOUNT_NATIVE, the program that mounts; MOUNTD, another server for it to start; MOUNT_STRESS,
the one that works in a mount. ECFS_LONG: longer runs. A script is run as
    test_x.py [--user NAME] [--options OPTIONS] [--ecryptfs] [--rings] [unittest arguments]
With --user, root becomes that user first. With --rings, requests come over io_uring; that is a setting of the whole
machine, so nothing else should mount meanwhile. What cannot run here is skipped aloud with exit status 77.
"""

import argparse
import contextlib
import ctypes
import errno
import hashlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import sanitizer_reports  # noqa: E402
from rings_switch import SWITCH, switch_rings  # noqa: E402

MOUNT_NATIVE = os.environ.get("MOUNT_NATIVE", "mount_native")
STRESS = os.environ.get("MOUNT_STRESS", "mount_stress")
LONG = bool(os.environ.get("ECFS_LONG"))
MOUNTD = os.environ.get("MOUNTD")  # another program than the one that MOUNT_NATIVE starts
OPTIONS = []
ECRYPTFS = "--ecryptfs" in sys.argv  # the volumes of the tests are eCryptfs trees
VARIANT = any(word in sys.argv for word in ("--ecryptfs", "--user", "--options", "--rings"))  # another test has the usual case
RINGS = "--rings" in sys.argv
LONGEST_NAME = 143 if ECRYPTFS else 255
LIMITS = ["--holes", "0", "--longest-name", "143"] if ECRYPTFS else []  # for MOUNT_STRESS


def skip_all(why):
    print("SKIPPED:", why)
    sys.exit(77)


def own_mount_namespace():
    """Nobody else's namespace then holds a copy of our mounts, which would keep their servers alive, and what a test
    leaves mounted goes with the test."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) == 0:  # CLONE_NEWNS
        libc.mount(b"none", b"/", None, (1 << 14) | (1 << 18), None)  # MS_REC | MS_PRIVATE


def with_rings_on():
    """Goes on in a child. The parent stays root to put the switch back, and ends as the child does."""
    if not os.access(SWITCH, os.W_OK):
        skip_all("this kernel has no requests over io_uring, or root is needed to switch them on")
    try:
        with open("/proc/sys/kernel/io_uring_disabled") as f:
            if f.read().strip() == "2":
                skip_all("this machine forbids io_uring")
    except FileNotFoundError:
        pass
    before = switch_rings(True)
    pid = os.fork()
    if pid == 0:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: kill(pid, n))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    switch_rings(before)
    os._exit(status if status >= 0 else 1)


def num_rings(pid):
    """Rings that a process has."""
    found = 0
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):  # closed since
            found += os.readlink("/proc/%d/fd/%s" % (pid, fd)) == "anon_inode:[io_uring]"
    return found


def is_served_over_rings(pid):
    """Whether a thread of it waits in io_uring_enter."""
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/syscall" % (pid, task)) as f:
                if f.read().split()[0] == "426":
                    return True
        except OSError:
            pass
    return False


def main(needs_root=False):
    parser = argparse.ArgumentParser()
    parser.add_argument("--user")
    parser.add_argument("--options")
    parser.add_argument("--ecryptfs", action="store_true")
    parser.add_argument("--rings", action="store_true")
    args, rest = parser.parse_known_args()
    if os.geteuid() == 0 and os.path.exists("/dev/fuse") and stat.S_IMODE(os.stat("/dev/fuse").st_mode) != 0o666:
        os.chmod("/dev/fuse", 0o666)  # as udev does where there is one
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip_all("/dev/fuse cannot be used here")
    if needs_root and os.geteuid() != 0:
        skip_all("needs root")
    if args.rings:
        with_rings_on()
    if os.geteuid() == 0:
        own_mount_namespace()
    if args.user:
        if os.geteuid() != 0:
            if pwd.getpwuid(os.geteuid()).pw_name != args.user:
                skip_all("needs root to become " + args.user)
        else:
            who = pwd.getpwnam(args.user)
            os.initgroups(args.user, who.pw_gid)
            os.setgid(who.pw_gid)
            os.setuid(who.pw_uid)
        os.environ["HOME"] = "/"
        if not os.access(MOUNT_NATIVE, os.X_OK):
            skip_all("the user %s cannot run %s" % (args.user, MOUNT_NATIVE))
    elif not needs_root and os.geteuid() != 0:
        skip_all("the variant for root")
    if args.options:
        OPTIONS.append(args.options)
    reports = collect_sanitizer_reports()
    done = unittest.main(argv=[sys.argv[0]] + rest, verbosity=2, exit=False)
    found = print_all(reports)
    sys.exit(0 if done.result.wasSuccessful() and not found else 1)


def collect_sanitizer_reports():
    """A server built with a sanitizer has nobody to tell but a file."""
    reports = tempfile.mkdtemp(prefix="ecfs-reports-")
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
        os.environ[name] = ":".join(filter(None, [os.environ.get(name), "log_path=%s/report" % reports]))
    return reports


def print_all(reports):
    """Prints the reports; gives their number."""
    found = sanitizer_reports.findings(reports)
    for text in found:
        print(text)
    shutil.rmtree(reports)
    return len(found)


def wait_for(what, seconds=60.0):
    """Waits until what() is true; gives whether it became so. What comes and goes under its eyes, a process or a descriptor, is not yet so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if what():
                return True
        time.sleep(0.02)
    return bool(what())


def is_mounted(path):
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == path for line in f)


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def is_sanitized(pid):
    try:
        program = read("/proc/%d/exe" % pid)
    except PermissionError:  # not dumpable
        return False
    return b"__asan_init" in program or b"__tsan_init" in program


def status_of(pid):
    """What /proc/PID/status says."""
    with open("/proc/%d/status" % pid) as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def children_of(pid):
    out = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        out.append(int(entry))
            except OSError:
                pass
    return out


class Volume:
    """A lower directory and a mountpoint. Use as a context manager or call close()."""

    def __init__(self, lower=None, options=None, arguments=()):
        self.base = tempfile.mkdtemp(prefix="ecfs-mount-")
        os.chmod(self.base, 0o755)
        self.lower = lower or os.path.join(self.base, "lower")
        self.mnt = os.path.join(self.base, "mnt")
        os.makedirs(self.lower, exist_ok=True)
        os.mkdir(self.mnt)
        self.options = OPTIONS if options is None else options
        self.arguments = list(arguments)
        self.supervisor = 0
        self.rings = RINGS

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        self.close()

    def command(self, *more):
        out = [MOUNT_NATIVE, self.lower, self.mnt] + self.arguments + list(more)
        if ECRYPTFS:
            out.append("--ecryptfs")
        for option in self.options:
            out += ["-o", option]
        if MOUNTD:
            out += ["--program", MOUNTD]
        return out

    def try_mount(self, **kwargs):
        return subprocess.run(self.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90,
                              **kwargs)

    def mount(self, **kwargs):
        done = self.try_mount(**kwargs)
        if done.returncode != 0:
            raise RuntimeError("mount failed: " + done.stderr)
        self.supervisor = int(done.stdout)
        if self.rings and os.geteuid() == 0 and not wait_for(lambda: is_served_over_rings(self.server)):
            raise RuntimeError("mounted, but requests do not come over io_uring")
        return self

    @property
    def server(self):
        found = children_of(self.supervisor)
        return found[0] if found else 0

    def unmount(self):
        """Unmounts, and waits for the server's end, so that the lower directory can be used."""
        for _ in range(100):
            if not is_mounted(self.mnt):
                break
            tool = ["umount", self.mnt] if os.geteuid() == 0 else ["fusermount3", "-u", self.mnt]
            if subprocess.run(tool, stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.05)
        if not wait_for(lambda: not alive(self.supervisor)):
            raise RuntimeError("the server did not end")

    def remount(self):
        self.unmount()
        self.mount()

    def close(self):
        try:
            self.unmount()
        finally:
            if is_mounted(self.mnt):
                subprocess.run(["fusermount3", "-u", "-z", self.mnt])
            subprocess.run(["chmod", "-R", "u+rwx", self.base], stderr=subprocess.DEVNULL)
            shutil.rmtree(self.base, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.mnt, *names)


def id_of(v):
    """The id by which a volume's server is found."""
    try:
        with open(v.lower + "/.ecfs-volume", "rb") as f:
            return f.read(32)[16:]
    except FileNotFoundError:  # an eCryptfs tree
        st = os.stat(v.lower)
        return hashlib.sha256(b"ecryptfs %d %d" % (st.st_dev, st.st_ino)).digest()[:16]


def connect(v, number=0):
    """A connection to the control socket of a volume's server."""
    volume = id_of(v)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    try:
        s.connect(b"\0ecfs-mountd/%d/%s/%d" % (os.geteuid(), volume.hex().encode(), number))
    except OSError:
        s.close()
        raise
    return s


def tell(v, message):
    """What the server answers: \"?\" its state, \"s\" suspend, \"r\" and the key: resume."""
    with connect(v) as s:
        s.send(message)
        return s.recv(4096)


def answers(v):
    """Whether the server listens already: it does so a little after the mount answers."""
    try:
        return tell(v, b"?").startswith(b"+")
    except OSError:
        return False


class MountTest(unittest.TestCase):
    """One volume for all tests of a class, a directory in it for each."""

    volume_arguments = ()

    @classmethod
    def setUpClass(cls):
        cls.v = Volume(arguments=cls.volume_arguments).mount()

    @classmethod
    def tearDownClass(cls):
        cls.v.close()

    def setUp(self):
        os.umask(0o022)
        self.dir = self.v.path(self.id().rsplit(".", 1)[1])
        os.mkdir(self.dir)

    def p(self, *names):
        return os.path.join(self.dir, *names)

    def assertErrno(self, number, call, *args, **kwargs):
        with self.assertRaises(OSError) as caught:
            call(*args, **kwargs)
        self.assertEqual(errno.errorcode.get(caught.exception.errno), errno.errorcode.get(number))


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def in_child(work):
    """Runs work() in a child; gives its exit status: what it returns, or 99 for an exception."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work() or 0
        except BaseException as e:  # the child must not go on into the test runner
            print("child:", repr(e), file=sys.stderr)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid, number=signal.SIGKILL):
    if pid > 0:
        os.kill(pid, number)
