"""A machine of its own for tests of logins: accounts, PAM services, /home, /run, /dev and the processes live in a mount and process
namespace that ends with the test, so the real accounts and logins are never touched."""
import contextlib
import ctypes
import os
import pathlib
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import sanitizer_reports  # noqa: E402

PAM_SUCCESS, PAM_PERM_DENIED, PAM_AUTH_ERR, PAM_AUTHTOK_ERR, PAM_AUTHTOK_RECOVERY_ERR = 0, 6, 7, 20, 21
SERVICE = "ecfs-test-login"
SKIP = 77


def need(condition, why):
    if not condition:
        print("skipped:", why)
        sys.exit(SKIP)


def enter(argv):
    """Runs the calling script again inside its namespaces; returns only there. `argv`: the build directories, then unittest's."""
    if os.environ.get("ECFS_TEST_NAMESPACE") != "1":
        need(os.geteuid() == 0, "root is needed to make accounts, services and mounts")
        need(os.path.exists("/dev/fuse"), "there is no /dev/fuse")
        work = tempfile.mkdtemp(prefix="ecfs-pam-", dir="/var/tmp")    # not /tmp, /run or /home, which get another meaning
        os.chmod(work, 0o755)
        env = {name: os.environ[name] for name in ("ECFS_LONG", "ECFS_SANITIZED", "ECFS_TEST_LIBEXEC") if name in os.environ}
        env |= {"ECFS_TEST_NAMESPACE": "1", "ECFS_TEST_WORK": work, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
                   sys.executable, "-B", os.path.abspath(argv[0])] + argv[1:]
        # What a sanitizer finds in a helper program, whose stderr nobody sees.
        reports = pathlib.Path(work, "reports")
        reports.mkdir()
        reports.chmod(0o1777)
        env |= {"ASAN_OPTIONS": f"log_path={reports}/asan", "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/ubsan"}
        status = subprocess.call(command, env=env)
        for text in sanitizer_reports.findings(reports):
            print(text[:5000])
            status = 1
        shutil.rmtree(work, ignore_errors=True)
        sys.exit(status)
    # As the first process of the namespace it would have to reap every orphan: leave that to a parent that does nothing else.
    child = os.fork()
    if child:
        while True:
            pid, status = os.wait()
            if pid == child:
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    make_machine()


def sh(command, **kwargs):
    return subprocess.run(command, shell=True, check=True, text=True, capture_output=True, **kwargs).stdout


WORK = pathlib.Path(os.environ.get("ECFS_TEST_WORK", "/nonexistent"))
PROGRAMS = WORK / "programs"
MODULE = PROGRAMS / "pam_ecfs.so"
HELPER = PROGRAMS / "ecfs-login"
SOURCE = WORK / "source"  # the checkout, which may be below /home
DRIVER = PROGRAMS / "pam_driver"
MAKE_VOLUME = PROGRAMS / "make_volume"
LOG = []  # what came to /dev/log


def make_machine():
    for name in ("etc", "home", "run", "dev", "programs", "source"):
        (WORK / name).mkdir(mode=0o755)
    os.umask(0o022)
    sh(f"mount --bind -o ro {pathlib.Path(__file__).resolve().parents[2]} {SOURCE}")
    for path in sys.argv[1:1 + NUM_PROGRAMS]:
        for file in pathlib.Path(path).iterdir():
            if file.name in PROGRAM_NAMES and file.is_file():
                shutil.copy(file, PROGRAMS / file.name)
    for name in PROGRAM_NAMES:
        if not (PROGRAMS / name).exists():
            print("missing:", name)
            sys.exit(1)
    sh(f"cp -a /etc/. {WORK}/etc/ && mount --bind {WORK}/etc /etc && mount --bind {WORK}/home /home")
    sh("mount -t tmpfs -o mode=755 run /run")
    dev = WORK / "dev"
    sh(f"mount -t tmpfs -o mode=755 dev {dev}")
    for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0), ("fuse", 10, 229)):
        sh(f"mknod -m 666 {dev}/{name} c {major} {minor}")
    sh(f"mkdir {dev}/pts {dev}/shm; mount --bind /dev/pts {dev}/pts; mount -t tmpfs shm {dev}/shm; ln -s pts/ptmx {dev}/ptmx; "
       f"ln -s /proc/self/fd {dev}/fd; mount --move {dev} /dev")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("/dev/log")
    os.chmod("/dev/log", 0o666)
    threading.Thread(target=lambda: [LOG.append(listener.recv(65536).decode("utf-8", "replace")) for _ in iter(int, 1)], daemon=True).start()
    shutil.rmtree("/etc/ecfs", ignore_errors=True)
    write_service(SERVICE)


PROGRAM_NAMES = ("pam_ecfs.so", "ecfs-login", "ecfs-mountd", "ecfs-tpm2", "pam_driver", "make_volume", "ecfs")
NUM_PROGRAMS = 4  # build directories on the command line: of the tests' programs, of pam, of ecfs-mountd and ecfs-tpm2, of ecfs


def write_service(name, module_options="", only_ours=False, password_hash="sha512"):
    ours = f"{MODULE} helper={HELPER} {module_options}"
    if only_ours:
        lines = [f"{kind} {control} {ours}" for kind, control in
                 (("auth", "sufficient"), ("account", "required"), ("session", "required"), ("password", "required"))]
    else:
        lines = ["auth [success=1 default=ignore] pam_unix.so nodelay", "auth requisite pam_deny.so", "auth required pam_permit.so", f"auth optional {ours}",
                 "account required pam_unix.so",
                 f"password [success=1 default=ignore] pam_unix.so obscure {password_hash} rounds=1000", "password requisite pam_deny.so",
                 "password required pam_permit.so",
                 f"password [success=ok authtok_recover_err=die default=ignore] {ours}",
                 "session required pam_permit.so", "session optional pam_keyinit.so force revoke", "session required pam_unix.so",
                 f"session optional {ours}"]
    pathlib.Path("/etc/pam.d", name).write_text("\n".join(lines) + "\n")


LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_EXCHANGE = 2


def exchange(a, b):
    return LIBC.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), RENAME_EXCHANGE) == 0


def write_config(**settings):
    os.makedirs("/etc/ecfs", exist_ok=True)
    pathlib.Path("/etc/ecfs/ecfs.conf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))


class Session:
    """One PAM handle in a process of its own."""

    def __init__(self, user, service=SERVICE, real_uid=None, argv_prefix=(), **popen):
        command = [*argv_prefix, str(DRIVER), service, user] + ([str(real_uid)] if real_uid is not None else [])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **popen)
        self.received = b""
        self.info, self.errors, self.questions, self.output = [], [], [], []

    def send(self, line):
        self.process.stdin.write((line + "\n").encode())

    def wait_result(self, timeout=40):
        end = time.monotonic() + timeout
        while True:
            while b"\n" not in self.received:
                if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                    raise TimeoutError("the PAM call did not return")
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    raise EOFError(f"the PAM program ended: {self.process.wait()}")
                self.received += more
            line, _, self.received = self.received.partition(b"\n")
            line = line.decode("utf-8", "replace")
            kind, text = line[0], line[2:]
            {"I": self.info, "E": self.errors, "Q": self.questions, "O": self.output}.get(kind, []).append(text)
            if kind == "R":
                return int(text.split()[-1])

    def do(self, command, *answers, timeout=40):
        """Calls one PAM function; gives its code and how long it took."""
        for answer in answers:
            self.send("say " + answer)
        begun = time.monotonic()
        self.send(command)
        code = self.wait_result(timeout)
        self.seconds = time.monotonic() - begun
        return code

    def run(self, command):
        self.output = []
        return self.do("run " + command), "\n".join(self.output)

    def login(self, password, *more):
        code = self.do("authenticate", password)
        if code == PAM_SUCCESS:
            code = self.do("acct_mgmt")
        return code or self.do("open_session", *more)

    def logout(self):
        self.do("close_session")
        self.end()

    def end(self):
        self.do("end")
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def kill(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()


class LoginCase(unittest.TestCase):
    counter = 0
    uid_base = 61000 + os.getppid() * 16 % 3000

    def setUp(self):
        self.users, self.sessions = [], []
        LOG.clear()
        shutil.rmtree("/etc/ecfs", ignore_errors=True)

    def tearDown(self):
        for session in self.sessions:
            if session.process.poll() is None:
                session.kill()
        for user in self.users:
            uid = self.uid(user)
            deadline = time.monotonic() + 15
            while self.mounts(user) and time.monotonic() < deadline:
                time.sleep(0.05)
            for mount in self.mounts(user):
                subprocess.call(["umount", "-l", mount])
            subprocess.call(["pkill", "-KILL", "-u", str(uid)])
            subprocess.call(["userdel", "-f", user], stderr=subprocess.DEVNULL)
            shutil.rmtree(f"/home/{user}", ignore_errors=True)

    # ---- what a test makes ----

    def user(self, password="first-password"):
        LoginCase.counter += 1
        name = f"ecfst{LoginCase.counter}"
        sh(f"useradd --create-home --uid {self.uid_base + LoginCase.counter} --shell /bin/sh {name}")
        self.set_password(name, password)
        self.users.append(name)
        return name

    @staticmethod
    def set_password(user, password):
        """Changes the shadow file only, as a tool without our PAM stack does."""
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password, text=True, check=True, capture_output=True).stdout.strip()
        subprocess.run(["usermod", "-p", hashed, user], check=True)

    def volume(self, user, password="first-password", *options):
        """Makes a volume; gives the recovery key and the description of its keyring token."""
        made = subprocess.run([MAKE_VOLUME, user, *options], input=password + "\n", text=True, capture_output=True)
        self.assertEqual(made.returncode, 0, made.stderr)
        return made.stdout.split()

    def session(self, user, service=SERVICE, **kwargs):
        session = Session(user, service, **kwargs)
        self.sessions.append(session)
        return session

    def open(self, user, password="first-password", service=SERVICE):
        session = self.session(user, service)
        self.assertEqual(session.login(password), PAM_SUCCESS)
        return session

    # ---- what a test looks at ----

    @staticmethod
    def uid(user):
        return int(sh(f"id -u {user}"))

    def mounts(self, user):
        uid = self.uid(user)
        found = []
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            before, after = line.split(" - ")
            if after.startswith("fuse.ecfs ") and f"user_id={uid}," in after + ",":
                found.append(before.split()[4])
        return found

    def stale(self, user, name="Private"):
        return sh(f"{MAKE_VOLUME} {user} --mark --name {name}").strip() == "stale"

    def opens(self, user, *passwords):
        """Which of the passwords opens the volume, as text."""
        tried = subprocess.run([MAKE_VOLUME, user, "--tries"], input="".join(p + "\n" for p in passwords), text=True, capture_output=True)
        self.assertEqual(tried.returncode, 0, tried.stderr)
        return [line == "opens" for line in tried.stdout.split("\n")[:len(passwords)]]

    def num_slots(self, user):
        return int(re.search(r"(\d+) slots", sh(f"{MAKE_VOLUME} {user} --tries </dev/null")).group(1))

    def wait_until(self, condition, what, seconds=60.0):
        """What comes and goes under its eyes, a process or a descriptor, is not yet so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if condition():
                    return
            time.sleep(0.02)
        self.fail(f"not within {seconds} s: {what}\n" + "\n".join(LOG))

    def assert_open(self, user, path=None):
        self.assertEqual(self.mounts(user), [path or f"/home/{user}/Private"], "\n".join(LOG))

    def assert_locked_soon(self, user):
        self.wait_until(lambda: not self.mounts(user), "locked")
        self.wait_until(lambda: not os.path.exists(f"/run/ecfs/{self.uid(user)}"), "nothing left in /run/ecfs")

    def assert_no_trace(self, user):
        self.assertFalse(os.path.exists(f"/run/ecfs/{self.uid(user)}"))
        self.assertEqual(self.mounts(user), [])

    def tell_the_watcher_to_end(self):
        catches = lambda pid: int(re.search(r"SigCgt:\t(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1), 16) >> (signal.SIGTERM - 1) & 1
        self.wait_until(lambda: [catches(pid) for pid in self.processes("ecfs-login\0watch")] == [1], "a watcher that listens")
        self.signal("ecfs-login\0watch", signal.SIGTERM)

    @staticmethod
    def as_user(user, command, **kwargs):
        return subprocess.run(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "sh", "-c", command], text=True, capture_output=True,
                              env=dict(os.environ, HOME=pwd.getpwnam(user).pw_dir), **kwargs)

    @staticmethod
    def processes(needle):
        """Process ids whose command line holds `needle`."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if needle.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    @classmethod
    def signal(cls, needle, number):
        """Sends a signal to those processes; gives how many there still were."""
        sent = 0
        for pid in cls.processes(needle):
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(pid, number)
                sent += 1
        return sent


def main():
    del sys.argv[1:1 + NUM_PROGRAMS]
    unittest.main(verbosity=2)
