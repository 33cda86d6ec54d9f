#!/usr/bin/env python3
"""Real programs at work in a mount, as root: git, SQLite, rsync, tar, stress-ng, and with ECFS_LONG the build of ecfs itself.

What they leave is compared with what they leave in the bare filesystem: names, kinds, modes, owners, times, links,
attributes, contents."""

import collections
import hashlib
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import unittest

from harness import LONG, Volume, main

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TREE = "/usr" if LONG else "/usr/include"
ENVIRONMENT = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", CCACHE_DISABLE="1",
                   GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t", GIT_COMMITTER_NAME="t", GIT_COMMITTER_EMAIL="t")

# stress-ng's stressors that work on a filesystem and check it. Those that take long to clean up are for --long.
STRESS_CONTENTS = ["copy-file", "fallocate", "fault", "fpunch", "fsize", "hdd", "iomix", "mmapfixed", "msync", "readahead",
                   "revio", "seek", "sendfile", "splice", "sync-file"]
STRESS_NAMES = ["access", "chmod", "chown", "dentry", "dir", "fcntl", "filename", "flock", "fstat", "getdent", "lease",
                "locka", "lockf", "lockofd", "mknod", "rename", "touch", "utime", "xattr"]
STRESS_LONG = ["aio", "aiol", "chdir", "close", "dirdeep", "dirmany", "dup", "inode-flags", "link", "mmap", "mmapfork", "open",
               "symlink"]
STRESS_HOLES = ["fpunch", "fsize"]  # need holes, or take for ever without


def run(*command, **kwargs):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, **kwargs)
    if done.returncode != 0:
        raise AssertionError("%s: %d\n%s" % (" ".join(command), done.returncode, done.stdout[-4000:]))
    return done.stdout


def snapshot(top):
    """All that is below `top`, by relative path; names of one file share a number. Times of devices are left out, for
    rsync leaves them out."""
    out, files = {}, {}
    for path, dirs, names in os.walk(top, onerror=raise_it):
        for name in dirs + names:
            full = os.path.join(path, name)
            st = os.lstat(full)
            kind = stat.S_IFMT(st.st_mode)
            one = [kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid]
            if kind == stat.S_IFREG:
                digest = hashlib.sha256()
                with open(full, "rb") as f:
                    for piece in iter(lambda: f.read(1 << 20), b""):
                        digest.update(piece)
                one += [st.st_size, digest.hexdigest(), st.st_nlink, files.setdefault(st.st_ino, len(files))]
            elif kind == stat.S_IFLNK:
                one.append(os.readlink(full))
            if kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                one.append(st.st_mtime_ns)
            one.append({n: os.getxattr(full, n, follow_symlinks=False)
                        for n in os.listxattr(full, follow_symlinks=False)})
            out[os.path.relpath(full, top)] = one
        dirs.sort()
        names.sort()
    return out


def links_inside(entries):
    """The same with the number of links of each file that are inside: an archive knows of no other."""
    numbers = collections.Counter(one[7] for one in entries.values() if one[0] == stat.S_IFREG)
    return {path: (*one[:6], numbers[one[7]], *one[7:]) if one[0] == stat.S_IFREG else one for path, one in entries.items()}


def raise_it(error):
    raise error


class Programs(unittest.TestCase):
    def setUp(self):
        self.v = Volume()
        self.addCleanup(self.v.close)
        self.v.mount()
        self.bare = tempfile.mkdtemp(prefix="ecfs-bare-", dir="/var/tmp")
        self.addCleanup(shutil.rmtree, self.bare, True)

    def assert_same(self, found, wanted):
        self.assertEqual(sorted(found), sorted(wanted))
        # Numbers of files depend on the order of the walk: those that were one file are one file.
        groups = []
        for side in (found, wanted):
            by_number = {}
            for path, one in side.items():
                if one[0] == stat.S_IFREG:
                    by_number.setdefault(one[7], []).append(path)
            groups.append(sorted(sorted(names) for names in by_number.values()))
        self.assertEqual(groups[0], groups[1])
        for path in wanted:
            a, b = list(found[path]), list(wanted[path])
            if a[0] == stat.S_IFREG:
                a[7] = b[7] = 0
            self.assertEqual(a, b, path)

    def test_git(self):
        origin = os.path.join(self.bare, "origin")
        run("git", "init", "-q", "-b", "main", origin)
        run("tar", "-C", SOURCE, "--exclude=./build", "--exclude=./.git", "-cf", os.path.join(self.bare, "s.tar"), ".")
        run("tar", "-C", origin, "-xf", os.path.join(self.bare, "s.tar"))
        run("git", "-C", origin, "add", "-A")
        run("git", "-C", origin, "commit", "-q", "-m", "one")
        for i in range(20):
            with open(os.path.join(origin, "README.md"), "a") as f:
                f.write("line %d\n" % i)
            run("git", "-C", origin, "commit", "-q", "-a", "-m", "change %d" % i)
        clone = self.v.path("clone")
        run("git", "clone", "-q", origin, clone)
        for i in range(20):
            with open(os.path.join(clone, "CHANGELOG.md"), "a") as f:
                f.write("line %d\n" % i)
            run("git", "-C", clone, "commit", "-q", "-a", "-m", "mine %d" % i)
        run("git", "-C", clone, "checkout", "-q", "-b", "other", "HEAD~10")
        run("git", "-C", clone, "gc", "-q", *(["--aggressive"] if LONG else []))
        run("git", "-C", clone, "checkout", "-q", "main")
        self.v.remount()
        run("git", "-C", clone, "fsck", "--strict", "--full")
        self.assertEqual(run("git", "-C", clone, "status", "--porcelain"), "")
        commits = run("git", "-C", clone, "rev-list", "--count", "HEAD").strip()
        self.assertEqual(commits, "41")
        print("programs: git: %s commits cloned and made, fsck of %s objects clean"
              % (commits, run("git", "-C", clone, "count-objects", "-v").split("in-pack: ")[1].split()[0]))

    def test_sqlite(self):
        rng = random.Random(1)
        for mode in ("delete", "wal"):
            path = self.v.path(mode + ".db")
            wanted = {}
            for session in range(5):
                db = sqlite3.connect(path)
                db.execute("pragma journal_mode=" + mode)
                db.execute("create table if not exists t (k integer primary key, v blob)")
                for _ in range(100 if LONG else 20):
                    with db:
                        for _ in range(50):
                            k, v = rng.randrange(5000), rng.randbytes(rng.randrange(2000))
                            db.execute("insert or replace into t values (?, ?)", (k, v))
                            wanted[k] = v
                try:
                    with db:
                        db.execute("delete from t")
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    pass
                if session == 3:
                    db.execute("vacuum")
                db.close()
                self.v.remount()
            db = sqlite3.connect(path)
            self.assertEqual(db.execute("pragma integrity_check").fetchall(), [("ok",)])
            self.assertEqual(dict(db.execute("select k, v from t")), wanted)
            db.close()
            print("programs: SQLite: %d rows, journal_mode=%s, integrity_check ok" % (len(wanted), mode))

    def make_tree(self, top):
        """What a home has that programs get wrong."""
        os.makedirs(os.path.join(top, "d" * 255))
        rng = random.Random(2)
        for i in range(200):
            path = os.path.join(top, "file %d \u00e4\n" % i if i % 10 == 0 else "file%d" % i)
            with open(path, "wb") as f:
                f.write(rng.randbytes(rng.choice((0, 1, 100, 4096, 5000, 300000))))
            os.chmod(path, rng.randrange(0o10000))
            os.chown(path, rng.choice((0, 1000, 65534)), rng.choice((0, 1000)))
            os.chmod(path, rng.randrange(0o10000))
            os.utime(path, ns=(rng.randrange(2**60), rng.randrange(2**60)))
            if i % 7 == 0:
                os.link(path, os.path.join(top, "d" * 255, "link%d" % i))
        with open(os.path.join(top, "sparse"), "wb") as f:
            f.truncate(1 << 30)
            f.seek(123 << 20)
            f.write(b"here")
        os.symlink("nowhere/" + "x" * 200, os.path.join(top, "symlink"))
        # Not now: rsync leaves a time alone that is right to the second.
        os.utime(os.path.join(top, "symlink"), ns=(1, 2), follow_symlinks=False)
        os.mkfifo(os.path.join(top, "fifo"))
        os.mknod(os.path.join(top, "null"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.setxattr(os.path.join(top, "sparse"), "user.comment", b"\0value")
        run("setfacl", "-m", "u:1000:rx,d:u:1000:rwx", os.path.join(top, "d" * 255))
        for path in (os.path.join(top, "d" * 255), top):
            os.utime(path, ns=(1, 2))

    def test_rsync(self):
        source = os.path.join(self.bare, "source")
        self.make_tree(source)
        inside, outside = self.v.path("copy"), os.path.join(self.bare, "back")
        run("rsync", "-aHAX", "--sparse", source + "/", inside)
        self.v.remount()
        self.assertEqual(run("rsync", "-aHAXnic", "--delete", source + "/", inside), "")
        run("rsync", "-aHAX", "--sparse", inside + "/", outside)
        self.assertEqual(run("rsync", "-aHAXnic", "--delete", source + "/", outside), "")
        wanted = snapshot(source)
        self.assert_same(snapshot(inside), wanted)
        self.assert_same(snapshot(outside), wanted)
        print("programs: rsync -aHAX in and out: %d entries, no difference" % len(wanted))

    def test_tar(self):
        inside = self.v.path("copy")
        os.mkdir(inside)
        archive = os.path.join(self.bare, "a.tar")
        kept = ("--xattrs", "--acls", "--sort=name",
                "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
        run("tar", "-C", TREE, *kept, "-cf", archive, ".")
        run("tar", "-C", inside, "--xattrs", "--xattrs-include=*", "--acls", "-xpf", archive)
        self.v.remount()
        wanted, found = links_inside(snapshot(TREE)), snapshot(inside)
        self.assert_same(found, wanted)
        again = os.path.join(self.bare, "b.tar")
        run("tar", "-C", inside, *kept, "-cf", again, ".")
        self.assertEqual(run("cmp", archive, again), "")
        print("programs: tar of %s: %d entries, the archive made from the copy is the same" % (TREE, len(wanted)))

    def stress_ng(self, stressors, seconds, options=(), arguments=()):
        """stress-ng's stressors at once, each checking what it reads: none may complain, stay away or leave anything."""
        with Volume(options=list(options), arguments=arguments) as v:
            below = sorted(os.listdir(v.lower))
            command = ["stress-ng", "--temp-path", v.mnt, "--verify", "--metrics-brief", "-t", str(seconds),
                       "--copy-file-bytes", "128M", "--seek-size", "16M"]
            for name in ("fallocate", "hdd", "iomix", "readahead", "mmap", "revio", "sync-file"):
                command += ["--%s-bytes" % name, "32M"]
            for name in stressors:
                command += ["--" + name, "1"]
            said = run(*command, cwd=v.mnt)
            self.assertEqual(re.findall(r" fail: .*", said), [])
            worked = set(re.findall(r"^stress-ng: metrc: \[\d+\] (\S+) +\d+ ", said, re.M))
            self.assertEqual(set(stressors) - worked, set(), said)
            v.remount()
            self.assertEqual(os.listdir(v.mnt), [])
            self.assertEqual(sorted(os.listdir(v.lower)), below)

    def test_stress_ng(self):
        for stressors in (STRESS_CONTENTS, STRESS_NAMES):
            self.stress_ng(stressors, 4)
        print("programs: stress-ng: %d stressors, none complains" % len(STRESS_CONTENTS + STRESS_NAMES))

    @unittest.skipUnless(LONG, "with ECFS_LONG")
    def test_stress_ng_one_by_one(self):
        for options, arguments in (((), ()), ((), ("--block-shift", "16", "--suite", "2", "--sealed")),
                                   (("shared",), ("--block-shift", "14",)), ((), ("--ecryptfs",))):
            ours = STRESS_CONTENTS + STRESS_NAMES + STRESS_LONG
            if "--ecryptfs" in arguments:
                ours = [name for name in ours if name not in STRESS_HOLES]
            for name in ours:
                with self.subTest(options=options, arguments=arguments, stressor=name):
                    self.stress_ng([name], 2, options, arguments)
            print("programs: stress-ng: %d stressors, each by itself, with %s, none complains"
                  % (len(ours), " ".join(options + arguments) or "no options"))

    @unittest.skipUnless(LONG, "with ECFS_LONG")
    def test_building_ecfs(self):
        inside = self.v.path("ecfs")
        shutil.copytree(SOURCE, inside, ignore=shutil.ignore_patterns("build", ".git"), symlinks=True)
        run("cmake", "-S", inside, "-B", os.path.join(inside, "build"), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", os.path.join(inside, "build"), "--target", "ecfs", "ecfs-mountd", "fs_format_check")
        self.v.remount()
        out = run(os.path.join(inside, "build/tests/fs/format/fs_format_check"))
        self.assertIn("[  PASSED  ]", out)
        print("programs: ecfs was built inside, and a test of it run from there: " + out.strip().splitlines()[-1])


if __name__ == "__main__":
    main(needs_root=True)
