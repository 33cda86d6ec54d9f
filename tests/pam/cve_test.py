#!/usr/bin/env python3
"""Weaknesses that were found in eCryptfs's tools, fscrypt, pam_mount and others, each brought about here, with its id in the name. Those with a
test elsewhere have the id there: `grep -rnE '(CVE|LP)_?-?[0-9]' tests`."""
import contextlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import threading

import harness
from harness import PAM_SUCCESS, LoginCase, exchange, sh

harness.enter(sys.argv)

ECFS = harness.PROGRAMS / "ecfs"
QUICK = "--kdf-memory 19 --kdf-time 2"


def snapshot(*places):
    """What `find` tells of every file below: names, owners, modes, sizes and times of change."""
    return sh(f"find {' '.join(map(str, places))} -xdev -printf '%p %U:%G %m %s %C@\\n' | sort")


class Known(LoginCase):
    def ecfs(self, user, arguments, **kwargs):
        return self.as_user(user, f"cd; ECFS_LIBEXEC={harness.PROGRAMS} {ECFS} {arguments}", **kwargs)

    def set_up(self, user, password="first-password", more=""):
        return self.ecfs(user, f"setup-private --yes --allow-weak-passphrase --passphrase-fd 0 --recovery-key-file key {QUICK} {more}", input=password + "\n")

    def test_CVE_2011_1833_the_encrypted_directory_exchanged_all_the_time(self):
        """Root checks LOWER and serves another one: here a link to a directory of somebody else's that holds a copy of the volume."""
        user, victim = self.user(), self.user()
        self.volume(user)
        home = f"/home/{user}"
        decoy = pathlib.Path(f"/home/{victim}/decoy")
        shutil.copytree(f"{home}/.Private", decoy)
        sh(f"chown -R {victim}: {decoy}; chmod 755 /home/{victim}; chmod -R a+rwX {decoy}")
        os.symlink(decoy, f"{home}/decoy")
        before = snapshot(decoy)
        stop, exchanged = threading.Event(), [0]

        def swap():
            while not stop.is_set():
                exchanged[0] += exchange(f"{home}/.Private", f"{home}/decoy")

        thread = threading.Thread(target=swap)
        thread.start()
        opened = rounds = 0
        try:
            while rounds < 12 or exchanged[0] < 10000:
                rounds += 1
                session = self.session(user)
                self.assertEqual(session.login("first-password"), PAM_SUCCESS)
                if self.mounts(user):
                    opened += 1
                    session.run("echo x >~/Private/file")
                session.logout()
                self.assert_locked_soon(user)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(snapshot(decoy), before)
        print(f"\n    {rounds} logins, {exchanged[0]} exchanges, opened {opened} times, never the other's")

    def test_CVE_2011_1834_CVE_2011_3145_nothing_in_etc_is_written(self):
        user = self.user()
        self.volume(user)
        before = snapshot("/etc")
        session = self.session(user, argv_prefix=["prlimit", "--fsize=0:"], preexec_fn=lambda: os.umask(0))
        self.assertEqual(session.login("first-password"), PAM_SUCCESS)
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(snapshot("/etc"), before)

    def test_CVE_2011_1835_CVE_2008_5138_nothing_goes_through_a_place_that_others_can_prepare(self):
        user = self.user()
        closed = ("/tmp", "/dev/shm")
        # These programs are below it, and those of tests beside this one.
        others = ("ecfs-pam-", "ecfs-bare-", "ecfs-rings-", "ecfs-bench-")
        var_tmp = lambda: {name for name in os.listdir("/var/tmp") if not name.startswith(others)}
        there = var_tmp()
        # No right in them at all: who needed one would fail.
        for place in closed:
            sh(f"mount -t tmpfs -o mode=700 closed {place}")
        try:
            made = self.set_up(user)
            self.assertEqual(made.returncode, 0, made.stderr)
            session = self.open(user)
            self.assert_open(user)
            self.assertEqual(sum(len(os.listdir(place)) for place in closed), 0)
            session.logout()
            self.assert_locked_soon(user)
        finally:
            for place in closed:
                sh(f"umount {place}")
        self.assertEqual(var_tmp(), there)

    def test_CVE_2011_1836_what_was_recovered_is_its_owners_alone(self):
        user, other = self.user(), self.user()
        self.assertEqual(self.set_up(user).returncode, 0)
        self.assertEqual(self.ecfs(user, "mount-private --passphrase-fd 0", input="first-password\n").returncode, 0)
        self.as_user(user, "echo mine >~/Private/file; chmod 666 ~/Private/file; chmod 777 ~/Private")
        self.assertEqual(self.ecfs(user, "umount-private").returncode, 0)
        sh(f"chmod 755 /home/{user}")
        done = self.ecfs(user, "recover-private --passphrase-file key .Private")
        self.assertEqual(done.returncode, 0, done.stderr)
        mount, = self.mounts(user)
        self.assertEqual(self.as_user(user, f"cat '{mount}/file'").stdout, "mine\n")
        for command in (f"cat '{mount}/file'", f"ls '{mount}'"):
            self.assertNotEqual(self.as_user(other, command).returncode, 0, command)
        self.assertEqual(self.ecfs(user, f"umount '{mount}'").returncode, 0)

    def test_CVE_2014_9687_no_salt_is_used_twice(self):
        """The same password twice: the files have no 8 bytes in common but zeros, costs and names of types."""
        texts = []
        for _ in range(2):
            user = self.user()
            self.assertEqual(self.set_up(user, more="--no-recovery").returncode, 0)
            texts.append(pathlib.Path(f"/home/{user}/.ecfs/Private/volume").read_bytes())
        # fs/FORMAT.md §2: the first 64 bytes are settings and the id; wrap/FORMAT.md §1: the record's begin at 16, the parameters behind a label.
        record = 64 + 16
        label = texts[0][record + 12]
        salt = record + 32 + label
        salts = [text[salt:salt + 16] for text in texts]
        self.assertNotEqual(salts[0], salts[1])
        for one in salts:
            self.assertGreater(len(set(one)), 5, one)
            self.assertNotIn(bytes.fromhex("0011223344556677"), one)
        behind = [text[salt + 28:] for text in texts]
        common = {behind[0][i:i + 8] for i in range(len(behind[0]) - 7)} & {behind[1][i:i + 8] for i in range(len(behind[1]) - 7)}
        self.assertLessEqual(common, {bytes(8)})
        # A salt of zeros, as a broken source of random numbers gives: refused, not computed.
        user = self.user()
        self.volume(user)
        home = pathlib.Path(f"/home/{user}")
        for path in [p for d in (home / ".ecfs/Private", home / ".Private") for p in d.iterdir() if "volume" in p.name]:
            data = path.read_bytes()
            place = data.find((19 * 1024).to_bytes(4, "little")) - 16
            if place > 0:
                path.write_bytes(data[:place] + bytes(16) + data[place + 16:])
        session = self.open(user)
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(len(session.info), 1)

    def test_CVE_2022_25326_nobody_else_can_write_where_ecfs_keeps_things(self):
        user, other = self.user(), self.user()
        os.chmod(f"/home/{user}", 0o755)
        made = self.ecfs(user, f"setup-private --yes --allow-weak-passphrase --passphrase-fd 0 --recovery-key-file key {QUICK}", input="first-password\n",
                         preexec_fn=lambda: os.umask(0))
        self.assertEqual(made.returncode, 0, made.stderr)
        self.open(user)
        for place in (f"/home/{user}/.ecfs", f"/home/{user}/.Private", "/run/ecfs"):
            for line in sh(f"find {place} -printf '%m %y %p\\n'").splitlines():
                mode, kind, path = line.split(" ", 2)
                self.assertEqual(int(mode, 8) & 0o077, 0, path) if kind != "l" else None
            self.assertNotEqual(self.as_user(other, f"touch {place}/x").returncode, 0, place)
        self.assertEqual(stat.S_IMODE(os.stat(f"/home/{user}/key").st_mode) & 0o077, 0)

    def test_CVE_2008_3970_a_profile_cannot_ask_for_more_than_a_user_may(self):
        user = self.user()
        self.volume(user)
        profile = pathlib.Path(f"/home/{user}/.ecfs/Private/profile.json")
        good = profile.read_text()
        print()
        for options in ("allow_other", "suid", "dev", "exec,suid,dev", "fd=0", "user_id=0", "rootmode=140000", "blkdev", "context=x", "allow_root",
                        "subtype=ext4", "max_read=1", "noatime\\nsuid", "ro,," * 1000):
            profile.write_text(re.sub(r'"options": *\[[^]]*\]', lambda _: f'"options": ["{options}"]', good))
            self.assertIn(options, profile.read_text())
            session = self.session(user)
            self.assertEqual(session.login("first-password"), PAM_SUCCESS)
            mounts = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " fuse.ecfs " in line]
            print(f"    {options[:30]!r:34} {'; '.join(session.info)[:100] or 'opened without it'}")
            for line in mounts:
                self.assertIn("nosuid,nodev", line)
                self.assertNotIn("allow_other", line)
                self.assertIn(f"user_id={self.uid(user)},", line)
                self.assertIn("default_permissions", line)
            if not mounts:
                self.assertEqual(len(session.info), 1)
            session.logout()
            self.assert_locked_soon(user)

    def test_CVE_2019_12209_a_recovery_key_does_not_go_through_a_link(self):
        """pam_u2f's debug file and fscrypt's recovery file were written through links."""
        user = self.user()
        victim = pathlib.Path(f"/home/{user}/victim")
        for make in (lambda key: key.symlink_to(victim), lambda key: key.symlink_to("/home/none"), lambda key: os.mkfifo(key), lambda key: key.write_text("mine")):
            victim.write_text("untouched")
            key = pathlib.Path(f"/home/{user}/key")
            make(key)
            done = self.set_up(user)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("key", done.stderr)
            self.assertEqual(victim.read_text(), "untouched")
            self.assertFalse(os.path.exists(f"/home/{user}/.ecfs/Private/profile.json"))
            key.unlink()
        self.assertEqual(self.set_up(user).returncode, 0)

    def test_CVE_2019_12210_descriptors_and_environment_of_the_host_reach_no_helper(self):
        user = self.user()
        self.volume(user)
        read, write = os.pipe()
        secret = os.open("/etc/shadow", os.O_RDONLY)
        hostile = {"ECFS_LIBEXEC": "/home", "ECFS_TCTI": "swtpm", "LD_PRELOAD_NOT": "x", "MALLOC_CHECK_": "3", "OPENSSL_CONF": "/home/evil.cnf",
                   "TSS2_LOG": "all+TRACE", "XDG_RUNTIME_DIR": "/home", "HOME": "/nonexistent", "CANARY": "Canary-5521"}
        session = self.session(user, pass_fds=(read, write, secret), env=dict(os.environ, **hostile))
        self.assertEqual(session.login("first-password"), PAM_SUCCESS)
        self.assert_open(user)
        self.wait_until(lambda: self.processes("ecfs-login\0watch"), "a watcher")
        helpers = self.processes(str(harness.PROGRAMS / "ecfs-mountd")) + self.processes("ecfs-login\0watch")
        self.assertEqual(len(helpers), 3)
        ours = os.fstat(read).st_ino
        for pid in helpers:
            environment = pathlib.Path(f"/proc/{pid}/environ").read_text()
            for name in hostile:
                self.assertNotIn(name + "=", environment)
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed since
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                    self.assertNotIn("shadow", target)
                    self.assertNotIn(f"pipe:[{ours}]", target)
        for fd in (read, write, secret):
            os.close(fd)


if __name__ == "__main__":
    harness.main()
