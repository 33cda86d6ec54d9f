#!/usr/bin/env python3
"""A user who wants to hang a login, to read what is not his, or to have something mounted where it must not be."""
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time

import harness
from harness import PAM_SUCCESS, LoginCase, exchange

harness.enter(sys.argv)

def path_is_regular(path):
    return stat.S_ISREG(os.lstat(path).st_mode)


class Hostile(LoginCase):

    def login_goes_on(self, user, what, limit, mounted=False, service=harness.SERVICE):
        session = self.session(user, service)
        self.assertEqual(session.login("first-password"), PAM_SUCCESS, what)
        self.assertLess(session.seconds, limit, what)
        print(f"    {what:58} {session.seconds * 1000:7.0f} ms  {'; '.join(session.info)[:110]}")
        if not mounted:
            self.assertEqual(self.mounts(user), [], what)
        for line in session.info:
            self.assertTrue(line.startswith("ecfs: "), line)
            self.assertLess(len(line), 520)
            self.assertNotIn("root:", line)
        return session

    def replacements(self, path, user, victim):
        """Every kind of thing that can stand where a file is expected."""
        uid = self.uid(user)

        def fifo():
            os.mkfifo(path, 0o600)

        def unix_socket():
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(str(path))

        def sparse():
            with open(path, "wb") as f:
                f.truncate(1 << 30)

        def link(target):
            return lambda: os.symlink(target, path)

        def device():
            os.mknod(path, 0o600 | 0o20000, os.makedev(1, 9))  # random: never ends

        def foreign():
            path.write_bytes(b"\0" * 4096)
            os.chown(path, self.uid(victim), -1)

        def contents(data):
            return lambda: path.write_bytes(data)

        kinds = {"FIFO": fifo, "socket": unix_socket, "1 GiB of holes": sparse, "link to /etc/shadow": link("/etc/shadow"),
                 "link to /dev/zero": link("/dev/zero"), "link to itself": link(path.name), "directory": path.mkdir, "device": device, "another's file": foreign,
                 "empty": contents(b""), "zeros": contents(b"\0" * 65536), "noise": contents(os.urandom(65536)), "brackets": contents(b"[" * 65000)}
        for kind, make in kinds.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.exists():
                path.unlink()
            make()
            if kind not in ("another's file",):
                os.chown(path, uid, -1, follow_symlinks=False)
            yield kind

    def test_CVE_2022_25327_CVE_2024_22365_every_file_replaced_by_everything(self):
        user, victim = self.user(), self.user()
        self.volume(user)
        home = pathlib.Path(f"/home/{user}")
        profile = home / ".ecfs/Private"
        (home / ".Private/file").write_bytes(b"ciphertext")  # an empty directory would not be looked at further
        print()
        for name in ("profile.json", "volume", "lock"):
            subprocess.check_call(f"cp -a {home}/.ecfs {home}/.saved && cp -a {home}/.Private {home}/.saved-lower", shell=True)
            for kind in self.replacements(profile / name, user, victim):
                if name == "volume":  # its backups too, else those open it
                    for backup in (profile / "volume.bak", home / ".Private/.ecfs-volume", home / ".Private/.ecfs-volume.bak"):
                        backup.unlink(missing_ok=True)
                may_open = name == "lock"
                session = self.login_goes_on(user, f"{name}: {kind}", 8, mounted=may_open)
                # A directory without a regular profile.json is no profile; all else is told.
                if not self.mounts(user) and not (name == "profile.json" and not path_is_regular(profile / name)):
                    self.assertGreaterEqual(len(session.info), 1, f"{name}: {kind}: silence")
                session.logout()
                self.assert_locked_soon(user)
            subprocess.check_call(f"cd {home} && rm -rf .ecfs .Private && mv .saved .ecfs && mv .saved-lower .Private", shell=True)
        self.assertIn("root:", pathlib.Path("/etc/shadow").read_text())

    def test_directories_replaced_by_everything(self):
        user, victim = self.user(), self.user()
        self.volume(user)
        home = pathlib.Path(f"/home/{user}")
        self.volume(victim)
        print()
        for name in (".ecfs", ".ecfs/Private", ".Private", "Private"):
            path = home / name
            os.rename(path, home / ".saved")
            for kind in self.replacements(path, user, victim):
                self.login_goes_on(user, f"{name}: {kind}", 8, mounted=name == "Private" and kind == "directory").logout()
                self.assert_locked_soon(user)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            for kind, target in (("link to another's", f"/home/{victim}/{name}"), ("link to /etc", "/etc"), ("link to /proc/self", "/proc/self")):
                os.symlink(target, path)
                self.login_goes_on(user, f"{name}: {kind}", 8).logout()
                path.unlink()
            os.mkdir(path)
            os.chown(path, self.uid(victim), -1)
            self.login_goes_on(user, f"{name}: another's directory", 8).logout()
            os.rmdir(path)
            os.rename(home / ".saved", path)
        self.open(user)
        self.assert_open(user)

    def test_ten_thousand_names(self):
        user = self.user()
        self.volume(user)
        self.as_user(user, f"cd /home/{user}/.ecfs && seq 1 10000 | xargs mkdir")
        print()
        session = self.login_goes_on(user, "10,000 profiles", 8, mounted=True)
        self.assertLessEqual(len(session.info), 16)

    def test_costs_beyond_all_bounds(self):
        user = self.user()
        self.volume(user)
        home = pathlib.Path(f"/home/{user}")
        print()
        for cost in (0x7FFFFFFF, 0xFFFFFFFF, 0):
            for path in [p for d in (home / ".ecfs/Private", home / ".Private") for p in d.iterdir() if "volume" in p.name]:
                data = path.read_bytes()
                path.write_bytes(data.replace((19 * 1024).to_bytes(4, "little"), cost.to_bytes(4, "little")))
            self.login_goes_on(user, f"Argon2 memory {cost} KiB", 20).logout()
            for path in [p for d in (home / ".ecfs/Private", home / ".Private") for p in d.iterdir() if "volume" in p.name]:
                data = path.read_bytes()
                path.write_bytes(data.replace(cost.to_bytes(4, "little"), (19 * 1024).to_bytes(4, "little"), 1) if cost else data)

    def test_costs_that_take_longer_than_a_login_may(self):
        user = self.user()
        self.volume(user, "something-else", "--memory-kib", str(1 << 20))
        harness.write_service("ecfs-test-short", "time_limit=1")
        session = self.session(user, "ecfs-test-short")
        self.assertEqual(session.login("first-password"), PAM_SUCCESS)
        print(f"\n    1 GiB of Argon2 against a limit of 1 s: {session.seconds * 1000:.0f} ms")
        self.assertLess(session.seconds, 20)
        self.assertEqual(len(session.info), 1)
        self.assertEqual(self.mounts(user), [])

    def test_a_lock_that_is_never_let_go(self):
        user = self.user()
        self.volume(user)
        path = f"/home/{user}/.ecfs/Private/lock"
        with open(path, "a") as held:
            os.chown(path, self.uid(user), -1)
            fcntl.flock(held, fcntl.LOCK_EX)
            print()
            session = self.login_goes_on(user, "its lock held for ever", 9)
            self.assertEqual(len(session.info), 1)
            session.logout()
        self.open(user)
        self.assert_open(user)

    def signal_all_the_time(self, user, number):
        """A process of the user's that stops, or kills, everything of its own user id as soon as it sees it."""
        code = textwrap.dedent(f"""
            import os
            me = os.getpid()
            print("on", flush=True)
            while True:
                for name in os.listdir("/proc"):
                    if name.isdigit() and int(name) != me:
                        try:
                            if os.stat("/proc/" + name).st_uid == os.getuid() or os.stat("/proc/" + name).st_uid == 0:
                                os.kill(int(name), {int(number)})
                        except OSError:
                            pass
            """)
        process = subprocess.Popen(["setpriv", "--reuid", user, "--regid", user, "--init-groups", sys.executable, "-c", code],
                                   stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        self.addCleanup(lambda: (process.kill(), process.wait(), process.stdout.close()))
        return process

    def test_stopping_and_killing_what_runs_for_the_login(self):
        user = self.user()
        self.volume(user)
        # Without pam_keyinit, which has the user's id for a moment and can be stopped then: that is not ours to mend.
        pathlib.Path("/etc/pam.d/ecfs-test-plain").write_text(
            f"auth required pam_unix.so nodelay\nauth optional {harness.MODULE}\naccount required pam_permit.so\n"
            f"session required pam_permit.so\nsession optional {harness.MODULE} helper={harness.HELPER} time_limit=4\n")
        print()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            process = self.signal_all_the_time(user, number)
            for _ in range(3):
                self.login_goes_on(user, f"{number.name} for all of the user's", 15, mounted=True, service="ecfs-test-plain").logout()
            process.kill()
            process.wait()
            subprocess.call(["pkill", "-CONT", "-u", str(self.uid(user))])
            subprocess.call(["pkill", "-KILL", "-u", str(self.uid(user))])
            self.wait_until(lambda: not self.mounts(user) and not self.processes("ecfs-login"), "all is gone")
        self.open(user)
        self.assert_open(user)

    def test_a_stopped_server_does_not_hold_up_logins(self):
        user = self.user()
        self.volume(user)
        harness.write_service(harness.SERVICE, "time_limit=6")
        self.addCleanup(lambda: harness.write_service(harness.SERVICE))
        self.open(user)
        servers = self.processes(str(harness.PROGRAMS / "ecfs-mountd"))
        for pid in servers:
            os.kill(pid, signal.SIGSTOP)
        print()
        try:
            self.login_goes_on(user, "the server of the mount stopped", 15, mounted=True)
        finally:
            for pid in servers:
                os.kill(pid, signal.SIGCONT)

    def test_CVE_2016_1572_no_mount_on_what_is_not_a_plain_directory(self):
        user = self.user()
        self.volume(user)
        sleeper = subprocess.Popen(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "sleep", "100"])
        self.addCleanup(lambda: (sleeper.kill(), sleeper.wait()))
        profile = pathlib.Path(f"/home/{user}/.ecfs/Private/profile.json")
        good = profile.read_text()
        self.wait_until(lambda: os.stat(f"/proc/{sleeper.pid}").st_uid == self.uid(user), "it is the user's")
        os.mkdir("/home/mine")
        os.chown("/home/mine", self.uid(user), -1)
        self.addCleanup(lambda: os.rmdir("/home/mine"))
        print()
        for place in (f"/proc/{sleeper.pid}/task", f"/proc/{sleeper.pid}/fd", f"/proc/{sleeper.pid}", "/sys", "/etc", "/", "/run", "/dev/pts", "/home"):
            profile.write_text(good.replace(f"/home/{user}/Private", place))
            self.login_goes_on(user, f"mountpoint {place}"[:50], 5).logout()
            self.assertEqual(self.mounts(user), [])
        profile.write_text(good.replace(f"/home/{user}/Private", "/home/mine"))  # the user's own: allowed
        self.open(user)
        self.assert_open(user, "/home/mine")

    def test_CVE_2011_1831_a_mountpoint_that_is_exchanged_all_the_time(self):
        user, victim = self.user(), self.user()
        self.volume(user)
        home = f"/home/{user}"
        os.mkdir("/home/target", 0o777)
        os.chmod("/home/target", 0o777)
        self.addCleanup(lambda: shutil.rmtree("/home/target", ignore_errors=True))
        stop, exchanged = threading.Event(), [0]
        for what, decoy in (("a link to another's directory", f"/home/{victim}"), ("a link to root's directory", "/home/target"), ("a link to /etc", "/etc")):
            os.symlink(decoy, f"{home}/decoy")
            stop.clear()

            def swap():
                while not stop.is_set():
                    exchanged[0] += exchange(f"{home}/Private", f"{home}/decoy")

            thread = threading.Thread(target=swap)
            thread.start()
            mounted = 0
            try:
                for _ in range(12 if not os.environ.get("ECFS_LONG") else 100):
                    session = self.session(user)
                    self.assertEqual(session.login("first-password"), PAM_SUCCESS)
                    for path in self.mounts(user):
                        mounted += 1
                        self.assertIn(path, (f"{home}/Private", f"{home}/decoy"), what)
                    session.logout()
                    self.assert_locked_soon(user)
            finally:
                stop.set()
                thread.join()
            if os.path.islink(f"{home}/Private"):
                exchange(f"{home}/Private", f"{home}/decoy")
            os.unlink(f"{home}/decoy")
            print(f"\n    {what}: mounted {mounted} times where it should be, {exchanged[0]} exchanges so far", end="")
        print()
        self.assertGreater(exchanged[0], 10000)

    def test_CVE_2011_1832_the_unmount_never_hits_another_mount(self):
        # The directory around the mountpoint becomes a link to one with root's mount of the same name.
        user = self.user()
        home = f"/home/{user}"
        os.makedirs(f"{home}/around")
        os.chown(f"{home}/around", self.uid(user), -1)
        self.volume(user, "first-password", "--mountpoint", f"{home}/around/Private")
        os.makedirs("/home/roots/Private")
        subprocess.check_call(["mount", "-t", "tmpfs", "roots", "/home/roots/Private"])
        self.addCleanup(lambda: (subprocess.call(["umount", "/home/roots/Private"]), shutil.rmtree("/home/roots")))
        os.symlink("/home/roots", f"{home}/decoy")
        stop, exchanged = threading.Event(), [0]

        def swap():
            while not stop.is_set():
                exchanged[0] += exchange(f"{home}/around", f"{home}/decoy")

        rounds = 0
        while rounds < (8 if not os.environ.get("ECFS_LONG") else 80) or exchanged[0] < 10000:
            rounds += 1
            self.assertLess(rounds, 500)
            session = self.open(user)
            self.assertEqual(len(self.mounts(user)), 1)
            stop.clear()
            thread = threading.Thread(target=swap)
            thread.start()
            session.logout()
            try:
                self.wait_until(lambda: not self.mounts(user), "locked")
            finally:
                stop.set()
                thread.join()
            self.assertTrue(os.path.ismount("/home/roots/Private"), "root's mount was hit")
            if os.path.islink(f"{home}/around"):
                exchange(f"{home}/around", f"{home}/decoy")
            self.assert_locked_soon(user)
        print(f"\n    {rounds} logouts, {exchanged[0]} exchanges")

    def test_CVE_2011_1837_nothing_can_be_planted_in_run(self):
        user = self.user()
        self.volume(user)
        uid = self.uid(user)
        self.assertNotEqual(self.as_user(user, f"mkdir -p /run/ecfs/{uid}").returncode, 0)
        session = self.open(user)
        for command in (f"ls /run/ecfs", f"ls /run/ecfs/{uid}", f"flock -n /run/ecfs/{uid}/session.lock true"):
            self.assertNotEqual(self.as_user(user, command).returncode, 0, command)
        session.logout()
        self.assert_locked_soon(user)
        # Not root's, somehow: refused, and the login goes on.
        shutil.rmtree("/run/ecfs")
        os.mkdir("/run/ecfs", 0o777)
        os.chown("/run/ecfs", uid, -1)
        session = self.session(user)
        self.assertEqual(session.login("first-password"), PAM_SUCCESS)
        self.assertEqual(self.mounts(user), [])
        self.assertIn("belongs to another user", session.info[0])
        shutil.rmtree("/run/ecfs")

    def test_ecfs_login_by_hand_does_nothing(self):
        user = self.user()
        done = self.as_user(user, f"{harness.HELPER} open --user=root")
        self.assertEqual(done.returncode, 1)
        self.assertIn("needs root", done.stderr)


if __name__ == "__main__":
    harness.main()
