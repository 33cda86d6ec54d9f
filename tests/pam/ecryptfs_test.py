#!/usr/bin/env python3
"""Homes of ecryptfs-utils at logins: what ecryptfs-setup-private made (tests/vectors/ecryptfs/home-layout.tar, with Debian's programs) opens
with no conversion, and stays as it was."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import harness
from harness import PAM_AUTHTOK_RECOVERY_ERR, PAM_SUCCESS, LOG, LoginCase

harness.enter(sys.argv)

VECTORS = harness.SOURCE / "tests/vectors/ecryptfs"
LAYOUT = json.loads((VECTORS / "home-layout.json").read_text())
OLD, NEW = LAYOUT["login_passphrase"], "Quite-another-1"
MOUNT = LAYOUT["mount_passphrase"]
SIGNATURES = [LAYOUT["sig"], LAYOUT["fnek_sig"]]
LOCKED = "ecfs: Private is locked; open it with: ecfs mount-private"


class Ecryptfs(LoginCase):
    def home(self, *markers, password=OLD):
        """A user whose home ecryptfs-setup-private has been in."""
        user = self.user(password)
        home = pathlib.Path(f"/home/{user}")
        subprocess.run(["tar", "-C", home, "--strip-components=1", "-xf", VECTORS / "home-layout.tar"], check=True)
        (home / ".ecryptfs/Private.mnt").write_text(f"{home}/Private\n")
        for marker in markers or ("auto-mount", "auto-umount"):
            (home / ".ecryptfs" / marker).touch(0o600)
        subprocess.run(["chown", "-hR", f"{user}:", home], check=True)
        return user

    def whole_home(self):
        """The same for a whole home: everything beside it, links in it."""
        user = self.home()
        home, beside = pathlib.Path(f"/home/{user}"), pathlib.Path(f"/home/.ecryptfs/{user}")
        beside.mkdir(parents=True)
        for name in (".ecryptfs", ".Private"):
            shutil.move(home / name, beside / name)
            (home / name).symlink_to(beside / name)
        (beside / ".ecryptfs/Private.mnt").write_text(f"{home}\n")
        for entry in list(home.iterdir()):
            if not entry.is_symlink():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (home / "README.txt").symlink_to("/usr/share/ecryptfs-utils/ecryptfs-mount-private.txt")
        subprocess.run(["chown", "-hR", f"{user}:", beside, home], check=True)
        home.chmod(0o500)
        self.addCleanup(shutil.rmtree, beside, True)
        return user

    def state(self, user):
        """Everything in ~/.ecryptfs, to be the same afterwards."""
        top = pathlib.Path(f"/home/{user}/.ecryptfs").resolve()
        return {p.name: (p.read_bytes(), p.stat().st_mode, p.stat().st_mtime_ns) for p in top.iterdir()}

    def token(self, user):
        """Which of the keys are in the user keyring."""
        found = []
        for signature in SIGNATURES:
            said = self.as_user(user, f"keyctl session - sh -c 'keyctl link @u @s && keyctl search @u user {signature}'")
            found.append(said.returncode == 0)
        return found

    def unwraps(self, user, *passwords, name="wrapped-passphrase"):
        return [self.as_user(user, f"printf %s '{p}' | {harness.PROGRAMS}/ecfs unwrap-passphrase ~/.ecryptfs/{name} -").stdout.strip() == MOUNT
                for p in passwords]

    def passwd(self, user, *answers):
        session = self.session(user, real_uid=self.uid(user))
        session.code = session.do("chauthtok", *answers)
        return session

    def assert_files(self, session, where="~/Private"):
        status, text = session.run(f"sha256sum {where}/file")
        self.assertEqual((status, text.split()[:1]), (0, [LAYOUT["entries"][0]["sha256"]]))

    def test_opens_at_login_and_locks_at_logout(self):
        user = self.home()
        before = self.state(user)
        session = self.open(user, OLD)
        self.assertEqual(session.info + session.errors, [])
        self.assert_open(user)
        self.assert_files(session)
        self.assertEqual(session.run("echo new > ~/Private/new; cat ~/Private/new"), (0, "new"))
        lower = sorted(os.listdir(f"/home/{user}/.Private"))
        self.assertEqual([name[:23] for name in lower], ["ECRYPTFS_FNEK_ENCRYPTED"] * 2)
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.state(user), before)
        session = self.open(user, OLD)
        self.assertEqual(session.run("cat ~/Private/new"), (0, "new"))

    def test_the_keys_in_the_keyring_are_those_of_ecryptfs_utils(self):
        user = self.home()
        session = self.open(user, OLD)
        kept = next(k for k in json.loads((VECTORS / "keys.json").read_text())["keyring"] if k["passphrase"] == MOUNT)
        for key in kept["keys"]:
            status, text = session.run(f"keyctl print $(keyctl search @u user {key['description']}) | sed s/^:hex://")
            self.assertEqual((status, text), (0, key["payload_hex"]), key["role"])
        self.assertEqual(self.token(user), [True, True])
        session.logout()
        self.assert_locked_soon(user)
        self.wait_until(lambda: self.token(user) == [False, False], "the keys have left the keyring")

    def test_a_whole_home(self):
        user = self.whole_home()
        before = self.state(user)
        session = self.open(user, OLD)
        self.assertEqual(session.info, [])
        self.assert_open(user, f"/home/{user}")
        self.assert_files(session, "~")
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.state(user), before)

    def test_a_wrapped_passphrase_of_version_1_without_encrypted_names(self):
        user = self.home(password="login pass")
        home = pathlib.Path(f"/home/{user}")
        shutil.copyfile(VECTORS / "wrapped/wrapped-v1-spec0", home / ".ecryptfs/wrapped-passphrase")
        (home / ".ecryptfs/Private.sig").write_text("a216278e6e397a04\n")
        for entry in (home / ".Private").iterdir():
            entry.unlink()
        session = self.open(user, "login pass")
        self.assertEqual(session.info, [])
        self.assertEqual(session.run("echo x > ~/Private/plain; cat ~/Private/plain"), (0, "x"))
        self.assertEqual(os.listdir(home / ".Private"), ["plain"])
        session.logout()
        self.assert_locked_soon(user)

    def test_without_auto_mount_it_stays_locked_and_without_auto_umount_open(self):
        user = self.home("auto-umount")
        session = self.open(user, OLD)
        self.assertEqual((session.info, self.mounts(user)), ([], []))
        session.logout()
        (pathlib.Path(f"/home/{user}/.ecryptfs/auto-mount")).touch()
        (pathlib.Path(f"/home/{user}/.ecryptfs/auto-umount")).unlink()
        session = self.open(user, OLD)
        self.assert_open(user)
        session.logout()
        time.sleep(1.5)
        self.assert_open(user)
        self.assertEqual(self.token(user), [True, True])

    def test_a_wrapping_passphrase_of_its_own_is_not_tried(self):
        user = self.home("auto-mount", "auto-umount", "wrapping-independent")
        before = self.state(user)
        session = self.open(user, OLD)  # which would even open it
        self.assertEqual((session.info, self.mounts(user)), ([LOCKED], []))
        done = self.passwd(user, OLD, NEW, NEW)
        self.assertEqual((done.code, done.errors), (PAM_SUCCESS, []))
        self.assertEqual(self.state(user), before)

    def test_another_password_is_one_line(self):
        user = self.home(password="something-else")
        before = self.state(user)
        session = self.open(user, "something-else")
        self.assertEqual(session.info, ["ecfs: your login password does not open Private (it was changed elsewhere). Open it with: ecfs mount-private"])
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(self.unwraps(user, OLD), [True])
        self.assertEqual(self.state(user), before)
        self.assertIn("no longer opens it", self.as_user(user, f"{harness.PROGRAMS}/ecfs status").stdout)

    def test_the_former_password_is_asked_for_where_one_can(self):
        user = self.home(password="something-else")
        harness.write_service("ecfs-test-screen")
        harness.write_config(ask_services="ecfs-test-screen")
        for answer in (OLD, MOUNT):
            session = self.session(user, "ecfs-test-screen")
            self.assertEqual(session.login("something-else", answer), PAM_SUCCESS)
            self.assertEqual(session.info[-1], "ecfs: Private is open, and opens with your login password from now on.")
            self.assert_files(session)
            self.assertEqual(self.unwraps(user, OLD, "something-else"), [False, True])
            session.logout()
            self.assert_locked_soon(user)
            self.set_password(user, "something-else")
            subprocess.run(["tar", "-C", f"/home/{user}", "--strip-components=1", "-xf", VECTORS / "home-layout.tar", "ecu/.ecryptfs/wrapped-passphrase"], check=True)
            shutil.chown(f"/home/{user}/.ecryptfs/wrapped-passphrase", user, user)

    def test_damage_is_one_line(self):
        user = self.home()
        top = pathlib.Path(f"/home/{user}/.ecryptfs")
        whole = {name: (top / name).read_bytes() for name in ("wrapped-passphrase", "Private.sig", "Private.mnt")}
        wrong = whole["wrapped-passphrase"][:-1] + bytes([whole["wrapped-passphrase"][-1] ^ 1])
        for name, contents, words in (
                ("wrapped-passphrase", wrong, "wrapped-passphrase is damaged, or another directory's"),
                ("wrapped-passphrase", b":\x02short", "stays locked"),
                ("wrapped-passphrase", b"x" * 5000, "stays locked"),
                ("Private.sig", b"not a signature\n", "Private.sig does not hold one or two lines of 16 hexadecimal digits"),
                ("Private.sig", b"", "Private.sig is empty"),
                ("Private.sig", None, "Private.sig is missing"),
                ("Private.sig", whole["Private.sig"] * 2, "Private.sig does not hold one or two lines"),
                ("Private.mnt", b"../elsewhere\n", "the mountpoint in Private.mnt is not an absolute path"),
                ("Private.mnt", b"/home/../etc\n", 'the mountpoint in Private.mnt contains ".."'),
                ("Private.mnt", b"/etc\n", "stays locked"),
                ("Private.mnt", b"/proc/self\n", "stays locked")):
            if contents is None:
                (top / name).unlink()
            else:
                (top / name).write_bytes(contents)
            session = self.open(user, OLD)
            self.assertEqual(len(session.info), 1, (name, contents, session.info))
            self.assertIn(words, session.info[0])
            self.assertEqual(self.mounts(user), [])
            session.logout()
            (top / name).write_bytes(whole[name])
            os.chown(top / name, self.uid(user), -1)
        self.assert_files(self.open(user, OLD))

    def test_what_is_no_file_harms_no_login(self):
        user = self.home()
        top = pathlib.Path(f"/home/{user}/.ecryptfs")
        for name in ("wrapped-passphrase", "Private.sig", "Private.mnt"):
            kept = (top / name).read_bytes()
            for make in (lambda p: os.mkfifo(p, 0o666), lambda p: p.symlink_to("/etc/shadow"), lambda p: p.mkdir()):
                (top / name).unlink()
                make(top / name)
                session = self.open(user, OLD)
                self.assertLess(session.seconds, 5)
                self.assertEqual(self.mounts(user), [], (name, session.info))
                self.assertEqual(len(session.info), 1, (name, session.info))
                self.assertNotIn("root:", session.info[0])
                session.logout()
                (top / name).rmdir() if (top / name).is_dir() and not (top / name).is_symlink() else (top / name).unlink()
                (top / name).write_bytes(kept)
                os.chown(top / name, self.uid(user), -1)
        other = self.user()
        os.chown(top / "Private.sig", self.uid(other), -1)
        session = self.open(user, OLD)
        self.assertEqual((len(session.info), self.mounts(user)), (1, []))

    def test_a_changed_password_is_taken_over(self):
        user = self.home()
        before = self.state(user)
        done = self.passwd(user, OLD, NEW, NEW)
        self.assertEqual((done.code, done.errors), (PAM_SUCCESS, []))
        self.assertEqual(self.unwraps(user, OLD, NEW), [False, True])
        self.assertEqual(self.unwraps(user, OLD, NEW, name="wrapped-passphrase.bak"), [False, True])
        after = self.state(user)
        self.assertEqual(sorted(set(after) - set(before)), ["wrapped-passphrase.bak"])
        self.assertEqual({n: after[n] for n in before if n != "wrapped-passphrase"}, {n: before[n] for n in before if n != "wrapped-passphrase"})
        self.assert_files(self.open(user, NEW))

    def test_an_old_password_that_opens_nothing_is_refused_before_anything_changes(self):
        user = self.home()
        self.set_password(user, "elsewhere-1")
        before = self.state(user)
        done = self.passwd(user, "elsewhere-1", NEW, NEW)
        self.assertEqual(done.code, PAM_AUTHTOK_RECOVERY_ERR)
        self.assertEqual(self.state(user), before)
        self.open(user, "elsewhere-1").logout()  # sees that it does not open
        self.assertEqual(self.state(user), before)
        done = self.passwd(user, "elsewhere-1", NEW, NEW)
        self.assertEqual(done.code, PAM_SUCCESS)
        self.assertIn("ecfs: Private still opens with its former password only. To change it: ecfs key change", done.info)
        self.assertEqual(self.unwraps(user, OLD), [True])

    def test_a_wrapped_passphrase_of_another_directory_is_not_wrapped_anew(self):
        user = self.home()
        (pathlib.Path(f"/home/{user}/.ecryptfs/Private.sig")).write_text("00112233445566aa\n")
        kept = pathlib.Path(f"/home/{user}/.ecryptfs/wrapped-passphrase").read_bytes()
        self.passwd(user, OLD, NEW, NEW)
        self.assertEqual(pathlib.Path(f"/home/{user}/.ecryptfs/wrapped-passphrase").read_bytes(), kept)

    def test_root_changes_it(self):
        user = self.home()
        session = self.session(user)
        self.assertEqual(session.do("chauthtok", NEW, NEW), PAM_SUCCESS)
        self.assertIn(f"ecfs: the encrypted files of {user} (Private) still open with the former password only.", session.info[0])
        self.assertEqual(self.open(user, NEW).info,
                         ["ecfs: your login password does not open Private (it was changed elsewhere). Open it with: ecfs mount-private"])

    def test_a_helper_killed_at_any_moment_of_the_change_loses_nothing(self):
        user = self.home()
        password, other = OLD, NEW
        for i in range(12):
            with subprocess.Popen([harness.DRIVER, harness.SERVICE, user, str(self.uid(user))], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as driver:
                driver.stdin.write(f"say {password}\nsay {other}\nsay {other}\nchauthtok\n".encode())
                driver.stdin.flush()
                time.sleep(0.02 + i * 0.02)
                self.signal("ecfs-login\0change", signal.SIGKILL)
                driver.kill()
            # One that was being made just then.
            self.wait_until(lambda: not self.signal("ecfs-login\0change", signal.SIGKILL), "no helper is left")
            opened = self.unwraps(user, password, other)
            self.assertEqual(sum(opened), 1, opened)
            if opened[1]:
                password, other = other, password
            self.set_password(user, password)
        self.assert_files(self.open(user, password))

    def test_key_slots_take_its_place(self):
        user = self.home()
        ecfs = f"{harness.PROGRAMS}/ecfs"
        before = self.state(user)
        made = self.as_user(user, f"printf '%s\\n' '{OLD}' | {ecfs} key add recovery --kdf-memory 19 --kdf-time 2 --passphrase-fd 0 --recovery-key-file ~/key Private")
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertEqual(self.state(user), before)
        (pathlib.Path(f"/home/{user}/.ecryptfs/wrapped-passphrase")).unlink()
        session = self.open(user, OLD)
        self.assertEqual(session.info, [])
        self.assert_files(session)
        self.assertEqual(self.token(user), [True, True])
        session.logout()
        self.assert_locked_soon(user)
        self.wait_until(lambda: self.token(user) == [False, False], "the keys have left the keyring")
        self.assertEqual(self.passwd(user, OLD, NEW, NEW).code, PAM_SUCCESS)
        session = self.open(user, NEW)
        self.assertEqual(session.info, [])
        self.assert_files(session)

    def test_a_profile_of_the_same_place_has_precedence(self):
        user = self.home(password="first-password")
        self.volume(user, "first-password", "--name", "Mine", "--lower", f"/home/{user}/lower", "--mountpoint", f"/home/{user}/Private")
        session = self.open(user, "first-password")
        self.assertEqual(session.info, [])
        self.assert_open(user)
        self.assertEqual(session.run("ls ~/Private"), (0, ""))


harness.main()
