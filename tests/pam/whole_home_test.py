#!/usr/bin/env python3
"""Logins into a whole home that `ecfs setup-private --whole-home` has moved inside."""
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import threading
import time

import pexpect

import harness
from harness import PAM_SUCCESS, LoginCase

harness.enter(sys.argv)

OLD, NEW = "first-password", "Quite-another-1"
KEYS = "ssh-ed25519 AAAA somebody\n"
TOOL = f"ECFS_LIBEXEC={harness.PROGRAMS} {harness.PROGRAMS}/ecfs"


class WholeHome(LoginCase):
    def tool(self, *arguments, password=OLD):
        return subprocess.run([harness.PROGRAMS / "ecfs", *arguments], input=password + "\n", text=True, capture_output=True,
                              env=dict(os.environ, ECFS_LIBEXEC=str(harness.PROGRAMS)))

    def setup_home(self, user, *options):
        return self.tool("setup-private", "--whole-home", "--user", user, "--yes", "--allow-weak-passphrase", "--no-recovery", "--passphrase-fd", "0",
                         "--kdf-memory", "19", "--kdf-time", "2", *options)

    def whole_home(self, mode=0o700, *options):
        """A user with some files and ssh keys, whose home is encrypted."""
        user = self.user()
        home = pathlib.Path(f"/home/{user}")
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh/authorized_keys").write_text(KEYS)
        (home / "file").write_text("mine\n")
        (home / "public").write_text("for all\n")
        subprocess.check_call(["chown", "-R", f"{user}:", home])
        home.chmod(mode)
        made = self.setup_home(user, *options)
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        self.addCleanup(lambda: [shutil.rmtree(p, ignore_errors=True) for p in ("/home/.ecfs", f"/home/{user}.unencrypted")])
        return user

    def keys_of_sshd(self, user):
        """What sshd reads before a login, and what StrictModes looks at."""
        path = os.path.realpath(f"/home/{user}/.ssh/authorized_keys") if not self.mounts(user) else f"/home/.ecfs/{user}/authorized_keys"
        self.assertEqual(path, f"/home/.ecfs/{user}/authorized_keys")
        for part in [path, *map(str, pathlib.Path(path).parents)]:
            info = os.stat(part)
            self.assertIn(info.st_uid, (0, self.uid(user)), part)
            self.assertEqual(info.st_mode & 0o022, 0, part)
        read = self.as_user(user, "cat ~/.ssh/authorized_keys")
        self.assertEqual(read.returncode, 0, read.stderr)
        return read.stdout

    def test_opens_at_login_and_locks_at_logout(self):
        user = self.whole_home(0o755)
        home = f"/home/{user}"
        self.assertEqual(sorted(os.listdir(home)), [".ssh", "README.txt"])
        self.assertEqual(stat.S_IMODE(os.stat(home).st_mode), 0o500)
        self.assertEqual(self.keys_of_sshd(user), KEYS)
        session = self.open(user)
        self.assertEqual(session.info + session.errors, [])
        self.assert_open(user, home)
        self.assertEqual(session.run("cd && pwd && cat file && stat -c '%U %a' ."), (0, f"{home}\nmine\n{user} 755"))
        self.assertEqual(self.keys_of_sshd(user), KEYS)
        line = [l for l in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " fuse.ecfs " in l][0]
        self.assertIn(" rw,nosuid,nodev,", line)
        self.assertIn("default_permissions", line)
        self.assertIn("allow_other", line)
        session.run("echo 'ssh-ed25519 BBBB more' >> ~/.ssh/authorized_keys")
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.keys_of_sshd(user), KEYS + "ssh-ed25519 BBBB more\n")
        self.assertEqual(self.open(user).run("cat ~/file"), (0, "mine"))

    def test_others_see_what_the_modes_allow(self):
        user, other = self.whole_home(0o711), self.user()
        home = f"/home/{user}"
        session = self.open(user)
        session.run("chmod 600 ~/file; chmod 644 ~/public; mkdir -m 1777 ~/drop")
        self.assertEqual(self.as_user(other, f"cat {home}/public").stdout, "for all\n")
        self.assertNotEqual(self.as_user(other, f"cat {home}/file").returncode, 0)
        self.assertNotEqual(self.as_user(other, f"ls {home}").returncode, 0)
        # The server is the user's and makes files for nobody else, whatever the modes say.
        self.assertNotEqual(self.as_user(other, f"touch {home}/drop/of-another").returncode, 0)
        self.assertEqual(pathlib.Path(home, "file").read_text(), "mine\n")  # root
        with self.assertRaises(PermissionError):
            pathlib.Path(home, "drop/of-root").touch()
        # Nobody gets more by a file that was made before: neither a set-uid bit nor a device counts.
        self.assertEqual(session.run("cp /bin/sh ~/sh && chmod 4755 ~/sh && ~/sh -c 'id -u'")[0], 0)
        self.assertEqual(self.as_user(other, f"{home}/sh -p -c 'id -u'").stdout.strip(), str(self.uid(other)))

    def test_a_login_shell_begins_in_the_open_home(self):
        user, other = self.whole_home(), self.user()
        shutil.copy("/bin/su", "/run/su")  # set-user-id, where no mount takes that away
        os.chmod("/run/su", 0o4755)
        harness.write_service("su-l")
        for _ in range(2):
            child = pexpect.spawn("/usr/bin/setpriv", ["--reuid", other, "--regid", other, "--init-groups", "/run/su", "-", user], encoding="utf-8", timeout=30)
            child.expect_exact("Password: ")
            child.sendline(OLD)
            child.expect_exact("$ ")
            child.sendline("echo in $(pwd): $(cat file) $(ls -A | wc -l)")
            child.expect(f"in /home/{user}: mine [0-9]+\r\n")
            child.sendline("exit")
            child.expect(pexpect.EOF)
            child.close()
            self.assert_locked_soon(user)

    def test_without_a_password_it_stays_locked_and_opens_by_hand(self):
        user = self.whole_home()
        home = f"/home/{user}"
        session = self.session(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assertEqual(session.info, ["ecfs: Home is locked; open it with: ecfs mount-private Home"])
        for conf, others in (("", False), ("#user_allow_other\n", False), ("# comment\n  user_allow_other\n", True)):
            pathlib.Path("/etc/fuse.conf").write_text(conf)
            status, text = session.run(f"cd; echo {OLD} | {TOOL} mount-private --passphrase-fd 0 2>&1")
            self.assertEqual(status, 0, text)
            self.assertEqual("other users and root do not see into this home" in text, not others, text)
            self.assertIn("Home is open at " + home, text)
            self.assert_open(user, home)
            line = [l for l in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " fuse.ecfs " in l][0]
            self.assertEqual("allow_other" in line, others)
            self.assertEqual(session.run("cat ~/file"), (0, "mine"))
            second = self.open(user)  # finds it open
            self.assertEqual(second.info, [])
            second.logout()
            self.assert_open(user, home)
            status, text = session.run(f"cd /; {TOOL} umount-private 2>&1")
            self.assertEqual((status, text), (0, "Home is locked"))
            self.assertEqual(sorted(os.listdir(home)), [".ssh", "README.txt"])
            self.assertEqual(stat.S_IMODE(os.stat(home).st_mode), 0o500)
        session.run(f"cd; echo {OLD} | {TOOL} mount-private --passphrase-fd 0")
        session.logout()
        self.assert_locked_soon(user)

    def test_a_new_password_and_another_key(self):
        user = self.whole_home()
        for locked in (True, False):
            session = self.session(user, real_uid=self.uid(user)) if locked else self.open(user, NEW)
            change = session if locked else self.session(user, real_uid=self.uid(user))
            before, after = (OLD, NEW) if locked else (NEW, OLD)
            self.assertEqual(change.do("chauthtok", before, after, after), PAM_SUCCESS, change.errors)
            self.assertEqual([l for l in change.info if l.startswith("ecfs:")] + change.errors, [])
            session.kill()
            self.assert_locked_soon(user)
        session = self.open(user, OLD)
        self.assertEqual(session.info, [])
        self.assert_open(user, f"/home/{user}")
        status, text = session.run(f"printf '{OLD}\\n' > ~/old; printf 'one more key 8812\\n' > ~/new; cd / && {TOOL} key add password --label more --kdf-memory 19 "
                                   f"--kdf-time 2 --passphrase-file ~/old --new-passphrase-file ~/new Home 2>&1 && {TOOL} key list Home && {TOOL} status")
        self.assertEqual(status, 0, text)
        self.assertIn("more", text)
        self.assertIn("Home: open", text)
        session.logout()
        self.assert_locked_soon(user)

    def test_root_changes_the_password(self):
        user = self.whole_home()
        self.set_password(user, NEW)
        session = self.open(user, NEW)
        self.assertEqual(session.info, ["ecfs: your login password does not open Home (it was changed elsewhere). Open it with: ecfs mount-private Home"])
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(self.keys_of_sshd(user), KEYS)

    def test_twenty_logins_at_one_instant_make_one_mount(self):
        user = self.whole_home()
        sessions = [self.session(user) for _ in range(20)]
        codes = []
        threads = [threading.Thread(target=lambda s=s: codes.append(s.login(OLD))) for s in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(codes, [PAM_SUCCESS] * 20)
        self.assert_open(user, f"/home/{user}")
        self.assertEqual([s.info for s in sessions if s.info], [])
        for session in sessions:
            session.logout()
        self.assert_locked_soon(user)

    def test_a_volume_inside_is_opened_by_hand(self):
        user = self.whole_home()
        session = self.open(user)
        status, text = session.run(f"cd; echo {OLD} | {TOOL} setup-private --yes --name Archive --allow-weak-passphrase --no-recovery --passphrase-fd 0 "
                                   "--kdf-memory 19 --kdf-time 2 2>&1")
        self.assertEqual(status, 0, text)
        self.assertTrue(os.path.exists(f"/home/.ecfs/{user}/.ecfs/Archive/profile.json"))
        session.logout()
        self.assert_locked_soon(user)
        session = self.open(user)
        self.assert_open(user, f"/home/{user}")
        self.assertEqual(session.info, ["ecfs: Archive stays locked: the mountpoint is on a filesystem that nothing may be mounted on. "
                                        "To try again: ecfs mount-private Archive"])
        status, text = session.run(f"cd; echo {OLD} | {TOOL} mount-private --passphrase-fd 0 Archive 2>&1 && echo in >Archive/file")
        self.assertEqual(status, 0, text)
        self.assertEqual(sorted(self.mounts(user)), [f"/home/{user}", f"/home/{user}/Archive"])
        again = self.open(user)
        self.assertEqual(again.info, [])
        again.logout()
        session.logout()
        self.assert_locked_soon(user)

    def test_the_original_goes_only_after_a_login(self):
        user = self.whole_home()
        self.assertEqual(self.tool("setup-private", "--whole-home", "--user", user, "--remove-original").returncode, 1)
        session = self.session(user)
        session.do("open_session")  # a session, but nothing is opened
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.tool("setup-private", "--whole-home", "--user", user, "--remove-original").returncode, 1)
        self.assertTrue(os.path.exists(f"/home/{user}.unencrypted/file"))
        session = self.open(user)
        session.run("echo later > ~/file; rm ~/public")
        done = self.tool("setup-private", "--whole-home", "--user", user, "--remove-original")  # also while it is open
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertFalse(os.path.exists(f"/home/{user}.unencrypted"))
        self.assertEqual(session.run("cat ~/file"), (0, "later"))
        session.logout()
        self.assert_locked_soon(user)

    def test_nobody_who_is_logged_in_is_moved(self):
        user = self.user()
        session = self.open(user)
        program = subprocess.Popen(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "sleep", "30"])
        self.addCleanup(lambda: (program.kill(), program.wait()))
        self.wait_until(lambda: os.readlink(f"/proc/{program.pid}/exe").endswith("/sleep"), "it is the program")
        made = self.setup_home(user)
        self.assertEqual((made.returncode, "is using this machine: close sleep" in made.stderr), (1, True), made.stderr)
        session.logout()
        self.assertFalse(os.path.exists("/home/.ecfs"))

    def test_only_root_makes_a_home_that_others_see(self):
        # The user says so of a directory of his own, and of his home, without what root would have made.
        user = self.user()
        self.volume(user, OLD, "--options", "allow_other")
        session = self.open(user)
        self.assert_open(user)
        line = [l for l in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " fuse.ecfs " in l][0]
        self.assertNotIn("allow_other", line)
        session.logout()
        self.assert_locked_soon(user)
        # With a whole home set up by root, another directory than the home.
        user = self.whole_home()
        subprocess.check_call(["install", "-d", "-o", user, f"/home/.ecfs/{user}/elsewhere"])
        profile = pathlib.Path(f"/home/.ecfs/{user}/.ecfs/Home/profile.json")
        profile.write_text(profile.read_text().replace(f'"mountpoint": "/home/{user}"', f'"mountpoint": "/home/.ecfs/{user}/elsewhere"'))
        session = self.open(user)
        self.assert_open(user, f"/home/.ecfs/{user}/elsewhere")
        line = [l for l in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " fuse.ecfs " in l][0]
        self.assertNotIn("allow_other", line)
        session.logout()
        self.assert_locked_soon(user)
        # The directory around the keys is not root's alone.
        profile.write_text(profile.read_text().replace("/elsewhere", "").replace(f'"mountpoint": "/home/.ecfs/{user}"', f'"mountpoint": "/home/{user}"'))
        os.chmod("/home/.ecfs", 0o777)
        session = self.open(user)
        self.assertEqual(self.mounts(user), [])
        os.chmod("/home/.ecfs", 0o755)


if __name__ == "__main__":
    harness.main()
