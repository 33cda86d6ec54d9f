#!/usr/bin/env python3
"""Compares ecfs with its peers and with the bare lower directory, side by side. See README.md beside this file.

    bench.py --build DIR [--lower DIR] [--rounds N] [--only NAMES] [--groups NAMES] [--quick]

Exit status: 0; 1 if something failed; 77 if this machine cannot run it (not root, no /dev/fuse).
"""

import argparse
import csv
import ctypes
import json
import math
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from rings_switch import SWITCH, switch_rings  # noqa: E402

EXAMPLES = "/usr/share/doc/libfuse3-dev/examples"
PACKAGES = ["gocryptfs", "securefs", "encfs", "cryfs"]
PASSPHRASE = "bench 4711 correct horse"
MIB = 1 << 20

# row: (group, what it counts, whether more is better)
ROWS = {
    "seq_write": ("stream", "MB/s", True),
    "read_cold": ("stream", "MB/s", True),
    "read_lower_cached": ("stream", "MB/s", True),
    "reread_warm": ("stream", "MB/s", True),
    "rand_read_1": ("stream", "IOPS", True),
    "rand_read_4": ("stream", "IOPS", True),
    "rand_write_1": ("stream", "IOPS", True),
    "rand_write_4": ("stream", "IOPS", True),
    "scattered_cold": ("stream", "IOPS", True),
    "cpu_written": ("stream", "s/GiB", False),
    "cpu_read": ("stream", "s/GiB", False),
    "par4_write": ("parallel", "MB/s", True),
    "par4_read": ("parallel", "MB/s", True),
    "untar": ("files", "s", False),
    "walk_cold": ("files", "s", False),
    "walk_warm": ("files", "s", False),
    "read_all_cold": ("files", "s", False),
    "read_all_warm": ("files", "s", False),
    "rm": ("files", "s", False),
    "rss_peak": ("files", "MiB", False),
    "mount": ("mount", "ms", False),
}
GROUPS = ["stream", "parallel", "files", "mount"]

# What ecfs is to reach: (row, against whom, at least). "below": an absolute value that it is to stay under.
WANTED = [
    ("seq_write", "gocryptfs", 1.4), ("seq_write", "passthrough", 0.75),
    ("read_lower_cached", "gocryptfs", 1.3), ("read_lower_cached", "passthrough", 0.7),
    ("reread_warm", "gocryptfs", 4.5), ("reread_warm", "passthrough", 0.9),
    ("rand_read_4", "gocryptfs", 1.6), ("rand_read_1", "gocryptfs", 1.2),
    ("rand_write_1", "gocryptfs", 1.5), ("scattered_cold", "gocryptfs", 2.0),
    ("par4_write", "gocryptfs", 1.2), ("untar", "gocryptfs", 1.6),
    ("walk_cold", "gocryptfs", 1.2), ("walk_warm", "gocryptfs", 3.0),
    ("read_all_cold", "gocryptfs", 1.2), ("read_all_warm", "gocryptfs", 2.0),
    ("rm", "gocryptfs", 1.3), ("mount", "gocryptfs", 1.0),
    ("cpu_read", "below", 0.9), ("cpu_written", "below", 1.25), ("rss_peak", "below", 20),
]


class Failed(Exception):
    pass


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, **kwargs):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
    if done.returncode != 0:
        raise Failed("%s: exit status %d: %s" % (" ".join(command), done.returncode, done.stderr.strip()))
    return done.stdout


# ---- processes


def stat_fields(pid):
    with open("/proc/%d/stat" % pid) as f:
        return f.read().rsplit(")", 1)[1].split()


def family(pid):
    """The process and all that descend from it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(stat_fields(int(entry))[1]), []).append(int(entry))
            except OSError:
                pass
    found = [pid]
    for p in found:
        found += children.get(p, [])
    return found


def cpu_seconds(pid):
    total = 0
    for p in family(pid):
        try:
            fields = stat_fields(p)
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def peak_rss_mib(pid):
    """Of the largest process: the one that serves. Those that only wait share nearly all they have with it."""
    most = 0
    for p in family(pid):
        try:
            with open("/proc/%d/status" % p) as f:
                most = max([most] + [int(line.split()[1]) for line in f if line.startswith("VmHWM:")])
        except OSError:
            pass
    return most / 1024


# ---- the filesystems


class Contender:
    """One filesystem over a lower directory of its own. A subclass says how it is made and mounted, in the foreground,
    so that its process is known."""

    kind = "fuse"
    reads_passphrase = False  # from stdin, when it mounts

    def __init__(self, base, tools):
        self.base = os.path.join(base, self.name)
        self.tools = tools
        self.lower = os.path.join(self.base, "lower")
        self.mnt = os.path.join(self.base, "mnt")
        self.process = None
        self.env = {}

    @classmethod
    def missing(cls, tools):
        """Why it cannot be compared; "" if it can."""
        return "" if shutil.which(cls.name) else "not installed"

    def make(self):
        self.wipe()
        self.mnt = os.path.join(self.base, "mnt")
        os.makedirs(self.lower)
        os.makedirs(self.mnt)
        self.passfile = os.path.join(self.base, "passphrase")
        with open(self.passfile, "w") as f:
            f.write(PASSPHRASE + "\n")
        self.init()

    def init(self):
        pass

    def mount(self):
        before = os.stat(self.mnt).st_dev
        begin = time.monotonic()
        stdin = open(self.passfile) if self.reads_passphrase else subprocess.DEVNULL
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.mount_command(), stdin=stdin, stdout=self.log, stderr=self.log,
                                        env=dict(os.environ, CRYFS_FRONTEND="noninteractive", CRYFS_NO_UPDATE_CHECK="true",
                                                 CRYFS_LOCAL_STATE_DIR=os.path.join(self.base, "state"), **self.env))
        while True:
            if os.stat(self.mnt).st_dev != before:
                os.listdir(self.mnt)
                return time.monotonic() - begin
            if self.process.poll() is not None or time.monotonic() - begin > 120:
                self.log.seek(0)
                raise Failed("%s does not mount: %s" % (self.name, self.log.read().strip()[-500:]))
            time.sleep(0.0005)

    def mount_in_background(self):
        """As a user does: the seconds until the command has returned and the mount answers."""
        before = os.stat(self.mnt).st_dev
        begin = time.monotonic()
        subprocess.run(self.background_command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=dict(os.environ, **self.env))
        while os.stat(self.mnt).st_dev == before:
            if time.monotonic() - begin > 10:
                raise Failed(self.name + " does not mount in the background")
            time.sleep(0.0005)
        took = time.monotonic() - begin
        run(["umount", self.mnt])
        time.sleep(0.3)  # until its server has ended
        return took

    def unmount(self):
        if self.process is None:
            return
        deadline = time.monotonic() + 30
        while os.path.ismount(self.mnt):
            done = subprocess.run(["umount", self.mnt], stderr=subprocess.PIPE, text=True)
            if done.returncode == 0:
                break
            if time.monotonic() > deadline:
                subprocess.run(["umount", "-l", self.mnt])
                raise Failed("%s does not unmount: %s" % (self.name, done.stderr))
            time.sleep(0.05)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def cpu(self):
        return cpu_seconds(self.process.pid)

    def rss(self):
        return peak_rss_mib(self.process.pid)

    def wipe(self):
        self.unmount()
        shutil.rmtree(self.base, ignore_errors=True)


class Bare(Contender):
    name = "bare"
    kind = "bare"

    @classmethod
    def missing(cls, tools):
        return ""

    def mount(self):
        self.mnt = self.lower
        return 0.0

    def unmount(self):
        pass

    def cpu(self):
        return 0.0


class Ecfs(Contender):
    name = "ecfs"

    @classmethod
    def missing(cls, tools):
        return "" if os.access(tools.ecfs, os.X_OK) else "not built: " + tools.ecfs

    def init(self):
        # The recovery key alone: what opens a slot of that kind has no costs to wait for.
        self.recovery = os.path.join(self.base, "recovery")
        os.rmdir(self.lower)
        run([self.tools.ecfs, "init", "--no-password", "--recovery-key-file", self.recovery, self.lower])

    def mount_command(self):
        return [self.tools.ecfs, "mount", "-f", "--recovery", "--passphrase-file", self.recovery, self.lower, self.mnt]

    def background_command(self):
        return [word for word in self.mount_command() if word != "-f"]


class Ecryptfs(Ecfs):
    """ecfs with an eCryptfs directory, as ecryptfs-utils sets one up: AES with 16 bytes of key, names encrypted."""

    name = "ecfs-ecryptfs"

    def init(self):
        pass

    def mount_command(self):
        options = ("ecryptfs_cipher=aes,ecryptfs_key_bytes=16,ecryptfs_enable_filename_crypto=y,no_sig_cache,"
                   "key=passphrase:passphrase_passwd_file=" + self.passfile)
        return [self.tools.ecfs, "mount", "-f", "-o", options, self.lower, self.mnt]


class Rings(Ecfs):
    """ecfs where the kernel is set to hand requests over io_uring: the switch is the machine's, and on for as long as
    this one mounts."""

    name = "ecfs-rings"

    @classmethod
    def missing(cls, tools):
        return "" if os.access(SWITCH, os.W_OK) else "this kernel has no requests over io_uring (Linux 6.15 and later)"

    def switched_on(self, work):
        before = switch_rings(True)
        try:
            return work()
        finally:
            switch_rings(before)

    def mount(self):
        return self.switched_on(super().mount)

    def mount_in_background(self):
        return self.switched_on(super().mount_in_background)


class Before(Ecfs):
    """ecfs of another build folder (--before): what a change did."""

    name = "before"

    @classmethod
    def missing(cls, tools):
        return "" if tools.before else "no --before given"

    def init(self):
        super().init()
        self.env = {"ECFS_LIBEXEC": os.path.join(self.tools.before, "fs")}

    def mount_command(self):
        return [os.path.join(self.tools.before, "setup", "ecfs")] + super().mount_command()[1:]


class Gocryptfs(Contender):
    name = "gocryptfs"

    def init(self):
        run(["gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", self.passfile, self.lower])

    def mount_command(self):
        return ["gocryptfs", "-q", "-fg", "-passfile", self.passfile, self.lower, self.mnt]

    def background_command(self):  # a key that is given has nothing derived
        return ["gocryptfs", "-q", "-zerokey", self.lower, self.mnt]


class Securefs(Contender):
    name = "securefs"

    def init(self):
        run(["securefs", "create", "--pbkdf", "pkcs5-pbkdf2-hmac-sha256", "-r", "1", "--pass", PASSPHRASE, self.lower])

    def mount_command(self):
        return ["securefs", "mount", "--pass", PASSPHRASE, self.lower, self.mnt]

    def background_command(self):
        log = os.path.join(self.base, "log")
        return ["securefs", "mount", "-b", "--log", log, "--pass", PASSPHRASE, self.lower, self.mnt]


class Encfs(Contender):
    name = "encfs"
    reads_passphrase = True

    def mount_command(self):
        return ["encfs", "-f", "--standard", "--stdinpass", self.lower, self.mnt]


class Cryfs(Contender):
    name = "cryfs"
    reads_passphrase = True

    def mount_command(self):
        return ["cryfs", "-f", self.lower, self.mnt]


class Passthrough(Contender):
    """libfuse's example passthrough_ll, compiled here from the sources in Debian's libfuse3-dev. No encryption: what the
    way through FUSE costs."""

    name = "passthrough"

    @classmethod
    def missing(cls, tools):
        source = os.path.join(EXAMPLES, "passthrough_ll.c")
        if not os.path.exists(source):
            return "its source %s is not there (package libfuse3-dev)" % source
        tools.passthrough = os.path.join(tools.out, "passthrough_ll")
        flags = run(["pkg-config", "--cflags", "--libs", "fuse3"]).split()
        run(["cc", "-O2", "-w", "-o", tools.passthrough, source] + flags)
        return ""

    def mount_command(self):
        return [self.tools.passthrough, "-f", "-o", "source=%s,writeback,cache=always" % self.lower, self.mnt]


CONTENDERS = [Bare, Ecfs, Rings, Ecryptfs, Before, Gocryptfs, Securefs, Encfs, Cryfs, Passthrough]


# ---- the rows


class Bench:
    def __init__(self, args, tools):
        self.args = args
        self.tools = tools
        self.size = args.mib * MIB
        self.results = []  # (round, contender, row, value)

    def note(self, c, row, value):
        self.results.append((self.round, c.name, row, value))
        say("  %-12s %-18s %10.4g %s" % (c.name, row, value, ROWS[row][1]))

    def work(self, *words):
        out = run([self.tools.workload] + [str(w) for w in words]).split()
        return float(out[1]), int(out[3])

    def rate(self, c, row, *words):
        seconds, count = self.work(*words)
        self.note(c, row, count / seconds / (1e6 if ROWS[row][1] == "MB/s" else 4096))

    def timed(self, c, row, command):
        begin = time.monotonic()
        run(command)
        self.note(c, row, time.monotonic() - begin)

    @staticmethod
    def drop_caches():
        os.sync()
        for _ in range(3):  # what was used lately goes only when it is met again
            with open("/proc/sys/vm/drop_caches", "w") as f:
                f.write("3")
        time.sleep(0.5)  # servers are told what was forgotten

    def cpu_per_gib(self, c, row, before):
        if c.kind != "bare" and self.size >= 64 * MIB:  # the kernel counts in 10 ms
            self.note(c, row, (c.cpu() - before) / (self.size / (1 << 30)))

    def stream(self, c):
        f = os.path.join(c.mnt, "stream")
        before = c.cpu()
        self.rate(c, "seq_write", "write", f, 1, self.size)
        self.cpu_per_gib(c, "cpu_written", before)
        self.drop_caches()
        self.rate(c, "read_cold", "read", f, 1, self.size)
        if c.kind == "bare":
            self.work("read", f, 1, self.size)
        else:
            self.work("evict", f, 1)
        before = c.cpu()
        self.rate(c, "read_lower_cached", "read", f, 1, self.size)
        self.cpu_per_gib(c, "cpu_read", before)
        self.rate(c, "reread_warm", "read", f, 1, self.size)
        for what in ("read", "write"):
            for jobs in (1, 4):
                if c.kind != "bare":
                    self.work("evict", f, 1)
                self.rate(c, "rand_%s_%d" % (what, jobs), "rand" + what, f, jobs, self.args.ops, self.args.cap)
        self.drop_caches()
        self.rate(c, "scattered_cold", "randwrite", f, 1, self.args.scattered, 60)
        os.remove(f + ".0")

    def parallel(self, c):
        f = os.path.join(c.mnt, "stream")
        self.rate(c, "par4_write", "write", f, 4, self.size // 4)
        self.drop_caches()
        self.rate(c, "par4_read", "read", f, 4, self.size // 4)

    def files(self, c):
        tree = os.path.join(c.mnt, "tree")
        os.mkdir(tree)
        walk = ["find", tree, "-printf", "%s\n"]
        read_all = ["sh", "-c", 'find "$0" -type f -print0 | xargs -0 cat >/dev/null', tree]
        self.timed(c, "untar", ["tar", "-xf", self.archive, "-C", tree])
        self.drop_caches()
        self.timed(c, "walk_cold", walk)
        self.timed(c, "walk_warm", walk)
        self.drop_caches()
        self.timed(c, "read_all_cold", read_all)
        self.timed(c, "read_all_warm", read_all)
        self.compare(tree)
        self.timed(c, "rm", ["rm", "-rf", tree])
        if c.kind != "bare":
            self.note(c, "rss_peak", c.rss())

    def compare(self, tree):
        """What was read is what was packed. Times and owners are not all filesystems' business (securefs)."""
        done = subprocess.run(["tar", "-df", self.archive, "-C", tree], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env=dict(os.environ, LC_ALL="C"))
        wrong = [line for line in done.stdout.splitlines() if not line.endswith((": Mod time differs", ": Uid differs"))]
        if wrong or done.returncode > 1:
            raise Failed("the tree differs from the archive: " + "; ".join(wrong[:5]))

    def mount(self, c):
        for _ in range(3):
            c.make()
            self.note(c, "mount", c.mount_in_background() * 1000)

    def skips(self, group, c):
        if group == "mount":
            if c.kind == "bare" or c.name in ("encfs", "cryfs", "passthrough"):
                return True
        if group == "files" and c.name == "passthrough":
            # It keeps a descriptor for every file it was asked about.
            return self.tools.nofile < self.args.files * 1.1 + 100
        return False

    def one(self, group, c):
        if self.skips(group, c):
            return
        c.make()
        try:
            if group == "mount":
                self.mount(c)
            else:
                c.mount()
                getattr(self, group)(c)
        finally:
            c.wipe()

    def make_archive(self, path):
        """A tree like one of sources: most files small, a few of some ten KiB, names of 6 to 26 bytes."""
        self.archive = path
        rng = random.Random(2048)
        with tarfile.open(path, "w") as tar:
            for i in range(self.args.files):
                if i % 50 == 0:
                    directory = "dir%d/sub%d" % (i // 1000, i // 50)
                    for d in (directory.split("/")[0], directory):
                        entry = tarfile.TarInfo(d)
                        entry.type = tarfile.DIRTYPE
                        entry.mode = 0o755
                        entry.mtime = 1700000000
                        tar.addfile(entry)
                size = min(int(math.exp(rng.gauss(8.0, 1.2))), 200000)  # median 3 KiB, mean 6 KiB
                entry = tarfile.TarInfo("%s/%s%d.txt" % (directory, "name" * rng.randint(0, 4), i))
                entry.size = size
                entry.mtime = 1700000000 + i
                tar.addfile(entry, BytesIO(rng.randbytes(size)))

    def run(self, contenders, groups):
        for self.round in range(1, self.args.rounds + 1):
            for group in groups:
                turn = (self.round - 1) % len(contenders)
                order = contenders[turn:] + contenders[:turn]
                if (self.round - 1) // len(contenders) % 2:
                    order = list(reversed(order))
                say("round %d, %s" % (self.round, group))
                for c in order:
                    self.one(group, c)

    # ---- what comes out

    def values(self, row, name):
        """By round: the median of what the round gave."""
        found = {}
        for r, n, w, value in self.results:
            if (n, w) == (name, row):
                found.setdefault(r, []).append(value)
        return {r: statistics.median(v) for r, v in found.items()}

    def ratios(self, row, name, other):
        """How many times better `name` is than `other`, for each round that has both."""
        mine, theirs = self.values(row, name), self.values(row, other)
        more = ROWS[row][2]
        return [(mine[r] / theirs[r]) if more else (theirs[r] / mine[r]) for r in mine if theirs.get(r) and mine[r]]

    def table(self, names):
        rows = [row for row in ROWS if any(self.values(row, n) for n in names)]
        lines = ["## Values: median (least-most) of %d rounds" % self.args.rounds, ""]
        lines += grid(["row"] + names, [["%s, %s" % (row, ROWS[row][1])] + [spread(self.values(row, n).values()) for n in names]
                                        for row in rows])
        for other in [n for n in ("before", "gocryptfs", "passthrough", "bare") if n in names]:
            those = [n for n in names if n != other]
            lines += ["", "## Against %s in the same round: median (least-most), above 1 is better" % other, ""]
            lines += grid(["row"] + those, [[row] + [spread(self.ratios(row, n, other)) for n in those] for row in rows
                                            if self.values(row, other)])
        for name in [n for n in ("ecfs", "ecfs-rings") if n in names]:
            wanted = self.wanted(name, names)
            if wanted:
                lines += ["", "## Wanted of ecfs: " + name, ""] + grid(["row", "against", "wanted", "median", ""], wanted)
            best = self.against_best(name, names)
            if best:
                lines += ["", "## %s against the best of its rivals in each round" % name, ""]
                lines += grid(["row", "median", ""], best)
        return "\n".join(lines) + "\n"

    def wanted(self, name, names):
        out = []
        for row, other, least in WANTED:
            if other == "below":
                got = list(self.values(row, name).values())
                if got:
                    m = statistics.median(got)
                    out.append([row, "-", "<= %g" % least, number(m), "" if m <= least else "short"])
            elif other in names:
                got = self.ratios(row, name, other)
                if got:
                    m = statistics.median(got)
                    out.append([row, other, ">= %g" % least, number(m), "" if m >= least else "short"])
        return out

    def against_best(self, name, names):
        rivals = [n for n in names if n in PACKAGES]
        out = []
        for row in ROWS:
            rounds = self.values(row, name)
            ratios = []
            for r in rounds:
                theirs = [v for v in (self.values(row, n).get(r) for n in rivals) if v]
                if theirs:
                    ratios.append(rounds[r] / max(theirs) if ROWS[row][2] else min(theirs) / rounds[r])
            if ratios:
                out.append([row, spread(ratios), "" if statistics.median(ratios) >= 1 else "below"])
        return out


def number(value):
    return "%.0f" % value if value >= 1000 else "%.3g" % value


def spread(values):
    values = list(values)
    if not values:
        return "-"
    if len(values) == 1:
        return number(values[0])
    return "%s (%s-%s)" % (number(statistics.median(values)), number(min(values)), number(max(values)))


def grid(head, rows):
    widths = [max(len(str(line[i])) for line in [head] + rows) for i in range(len(head))]
    line = lambda cells: ("| " + " | ".join(str(c).ljust(w) for c, w in zip(cells, widths)) + " |")
    return [line(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|"] + [line(r) for r in rows]


def picture(bench, names, path):
    """Rows downwards, how many times better than gocryptfs (else than the bare directory) to the right."""
    other = "gocryptfs" if "gocryptfs" in names else "bare"
    colours = {"bare": "#999999", "ecfs": "#d62728", "ecfs-rings": "#ff9896", "ecfs-ecryptfs": "#bcbd22", "gocryptfs": "#1f77b4", "securefs": "#2ca02c", "encfs": "#9467bd",
               "cryfs": "#8c564b", "before": "#e377c2", "passthrough": "#ff7f0e"}
    rows = [row for row in ROWS if bench.values(row, other) and any(bench.ratios(row, n, other) for n in names if n != other)]
    if not rows:
        return
    left, top, width, step = 170, 60, 640, 26
    low, high = -1.3, 2.0  # powers of ten

    def x_of(ratio):
        return left + width * (min(max(math.log10(ratio), low), high) - low) / (high - low)

    height = top + step * len(rows) + 40
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">'
           % (left + width + 30, height), '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="20" font-size="15">Times better than %s, medians of %d same-round ratios</text>'
           % (other, bench.args.rounds)]
    x = left
    for n in names:
        out.append('<circle cx="%d" cy="38" r="5" fill="%s"/><text x="%d" y="42">%s</text>' % (x, colours[n], x + 9, n))
        x += 90
    for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle">%g</text>'
                   % (x_of(tick), top, x_of(tick), height - 30, "#333333" if tick == 1 else "#dddddd", x_of(tick), height - 14, tick))
    for i, row in enumerate(rows):
        y = top + step * i + step / 2
        out.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>' % (left - 10, y + 4, row))
        for n in names:
            ratios = [1.0] if n == other else bench.ratios(row, n, other)
            if not ratios:
                continue
            out.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="2"/>'
                       % (x_of(min(ratios)), y, x_of(max(ratios)), y, colours[n]))
            out.append('<circle cx="%.1f" cy="%.1f" r="%d" fill="%s"/>'
                       % (x_of(statistics.median(ratios)), y, 6 if n == "ecfs" else 4, colours[n]))
    with open(path, "w") as f:
        f.write("\n".join(out + ["</svg>"]) + "\n")


def describe_machine(args, lower):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    fs = run(["stat", "-f", "-c", "%T", lower]).strip()
    return "%s, %d CPUs used, kernel %s, lower directory on %s; streams of %d MiB, %d files; load at the start %.1f" % (
        model, len(os.sched_getaffinity(0)), os.uname().release, fs, args.mib, args.files, os.getloadavg()[0])


def own_mount_namespace():
    """What an interrupted run leaves mounted goes with the run."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) == 0:  # CLONE_NEWNS
        libc.mount(b"none", b"/", None, (1 << 14) | (1 << 18), None)  # MS_REC | MS_PRIVATE


def install(names):
    absent = [n for n in names if n in PACKAGES and not shutil.which(n)]
    if absent:
        say("installing " + " ".join(absent))
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends"] + absent,
            env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))


def main():
    parser = argparse.ArgumentParser(description="Compares ecfs with its peers. See tests/bench/README.md.")
    parser.add_argument("--build", required=True, help="the build folder (release or dev); results go to BUILD/bench")
    parser.add_argument("--lower", help="where the lower directories are made (default: a folder in /var/tmp)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contenders, with commas: " + ",".join(c.name for c in CONTENDERS))
    parser.add_argument("--groups", help="groups of rows, with commas: " + ",".join(GROUPS))
    parser.add_argument("--mib", type=int, default=1024, help="size of the streams")
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--ops", type=int, default=40000, help="random reads or writes of a row, at most")
    parser.add_argument("--scattered", type=int, default=20000, help="overwrites with cold caches")
    parser.add_argument("--cap", type=float, default=5.0, help="seconds for a row of random reads or writes, at most")
    parser.add_argument("--before", metavar="BUILD", help="another build folder of ecfs: compared as `before`")
    parser.add_argument("--cpus", help="run everything on these CPUs, with commas")
    parser.add_argument("--name", default="bench", help="of the result files")
    parser.add_argument("--quick", action="store_true", help="ecfs (both formats) and the bare directory, tiny: does it run at all?")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.mib, args.files, args.ops, args.scattered, args.cap = 1, 8, 200, 500, 200, 1.0
        args.only = args.only or "bare,ecfs,ecfs-ecryptfs"

    if os.geteuid() != 0:
        print("SKIPPED: needs root (to mount, and to drop caches)")
        return 77
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("SKIPPED: /dev/fuse cannot be used here")
        return 77
    own_mount_namespace()
    if args.cpus:
        os.sched_setaffinity(0, {int(n) for n in args.cpus.split(",")})

    class Tools:
        out = os.path.join(os.path.abspath(args.build), "bench")
        ecfs = os.path.join(os.path.abspath(args.build), "setup", "ecfs")
        workload = os.path.join(os.path.abspath(args.build), "tests", "bench", "bench_workload")
        before = os.path.abspath(args.before) if args.before else ""
        nofile = 0

    tools = Tools()
    os.makedirs(tools.out, exist_ok=True)
    os.environ["ECFS_LIBEXEC"] = os.path.join(os.path.abspath(args.build), "fs")
    tools.nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (tools.nofile, tools.nofile))

    names = args.only.split(",") if args.only else [c.name for c in CONTENDERS]
    unknown = set(names) - {c.name for c in CONTENDERS}
    groups = args.groups.split(",") if args.groups else GROUPS
    if unknown or set(groups) - set(GROUPS):
        parser.error("no such contender or group")
    install(names)
    base = tempfile.mkdtemp(prefix="ecfs-bench-", dir=args.lower or "/var/tmp")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    contenders = []
    for c in CONTENDERS:
        if c.name not in names:
            continue
        why = c.missing(tools)
        if why and (c is Ecfs or c is Bare):
            raise Failed("%s: %s" % (c.name, why))
        if why and c is Before:
            continue
        if why:
            say("left out: %s: %s" % (c.name, why))
        else:
            contenders.append(c(base, tools))
    names = [c.name for c in contenders]
    bench = Bench(args, tools)
    started = time.monotonic()
    try:
        machine = describe_machine(args, base)
        bench.make_archive(os.path.join(base, "tree.tar"))
        bench.run(contenders, groups)
    finally:
        for c in contenders:
            c.wipe()
        shutil.rmtree(base, ignore_errors=True)

    expected = {row for row, (group, _, _) in ROWS.items() if group in groups}
    if bench.size < 64 * MIB:
        expected -= {"cpu_read", "cpu_written"}
    if "ecfs" in names:
        absent = [row for row in expected if not all(v > 0 for v in bench.values(row, "ecfs").values() or [0])]
        if absent:
            raise Failed("no result of ecfs in: " + " ".join(sorted(absent)))
    table = machine + "\n\n" + bench.table(names)
    out = os.path.join(tools.out, args.name)
    with open(out + ".txt", "w") as f:
        f.write(table)
    with open(out + ".csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["round", "contender", "row", "value", "unit"])
        writer.writerows([(r, n, row, "%.6g" % v, ROWS[row][1]) for r, n, row, v in bench.results])
    with open(out + ".json", "w") as f:
        json.dump({"machine": machine, "rounds": args.rounds, "results": [
            {"round": r, "contender": n, "row": row, "value": v, "unit": ROWS[row][1]} for r, n, row, v in bench.results]}, f, indent=1)
    picture(bench, names, out + ".svg")
    print(table)
    print("%.0f s; written: %s.txt .csv .json .svg" % (time.monotonic() - started, out))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print("FAILED:", failure, file=sys.stderr)
        sys.exit(1)
