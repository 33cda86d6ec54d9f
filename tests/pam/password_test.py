#!/usr/bin/env python3
"""Changed passwords: the slots follow, and where they cannot, nothing is lost and the login says what to do."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import harness
from harness import PAM_AUTHTOK_RECOVERY_ERR, PAM_SUCCESS, LOG, LoginCase

harness.enter(sys.argv)

PAM_NEW_AUTHTOK_REQD = 12
QUESTION = "Old password or recovery key (Enter to skip): "
OLD, NEW = "first-password", "Quite-another-1"


class Password(LoginCase):
    def passwd(self, user, *answers):
        """passwd(1) run by the user: set-user-id root, so the real user id is the user's."""
        session = self.session(user, real_uid=self.uid(user))
        session.code = session.do("chauthtok", *answers)
        return session

    def passwd_by_root(self, user, password=NEW):
        session = self.session(user)
        session.code = session.do("chauthtok", password, password)
        return session

    def asking_service(self):
        harness.write_service("ecfs-test-screen")
        harness.write_config(ask_services="ecfs-test-screen")
        return "ecfs-test-screen"

    def test_a_changed_password_is_taken_over(self):
        user = self.user()
        self.volume(user)
        done = self.passwd(user, OLD, NEW, NEW)
        self.assertEqual(done.code, PAM_SUCCESS, done.errors)
        self.assertEqual([l for l in done.info if l.startswith("ecfs:")] + done.errors, [])
        self.assertEqual(self.opens(user, OLD, NEW), [False, True])
        self.assertEqual(self.num_slots(user), 2)
        self.assertFalse(self.stale(user))
        session = self.open(user, NEW)
        self.assert_open(user)
        self.assertEqual(session.info, [])

    def test_it_is_taken_over_while_the_volume_is_open(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        session.run("echo kept > ~/Private/kept")
        self.assertEqual(self.passwd(user, OLD, NEW, NEW).code, PAM_SUCCESS)
        self.assertEqual(session.run("cat ~/Private/kept"), (0, "kept"))
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.open(user, NEW).run("cat ~/Private/kept"), (0, "kept"))

    def test_a_wrong_old_password_changes_nothing(self):
        user = self.user()
        self.volume(user)
        done = self.passwd(user, "not-it", NEW, NEW)
        self.assertNotEqual(done.code, PAM_SUCCESS)
        self.assertEqual(self.opens(user, OLD, NEW), [True, False])

    def test_an_old_password_that_opens_nothing_is_refused_before_anything_changes(self):
        user = self.user()
        self.volume(user)
        self.set_password(user, "elsewhere-1")  # by a tool that knows nothing of us
        shadow = pathlib.Path("/etc/shadow").read_text()
        done = self.passwd(user, "elsewhere-1", NEW, NEW)
        self.assertEqual(done.code, PAM_AUTHTOK_RECOVERY_ERR)
        self.assertIn("ecfs: this password does not open your encrypted files, so nothing was changed.", done.errors[0])
        self.assertIn("ecfs key change", done.errors[0])
        self.assertEqual(pathlib.Path("/etc/shadow").read_text(), shadow)
        self.assertEqual(self.opens(user, OLD, NEW), [True, False])

    def test_one_marked_stale_is_not_refused(self):
        user = self.user()
        self.volume(user)
        self.set_password(user, "elsewhere-1")
        self.open(user, "elsewhere-1").logout()  # sees that it does not open
        self.assertTrue(self.stale(user))
        done = self.passwd(user, "elsewhere-1", NEW, NEW)
        self.assertEqual(done.code, PAM_SUCCESS)
        self.assertIn("ecfs: Private still opens with its former password only. To change it: ecfs key change", done.info)
        self.assertTrue(self.stale(user))
        self.assertEqual(self.opens(user, OLD, NEW), [True, False])

    def test_a_new_password_that_the_system_refuses_is_not_taken_over(self):
        user = self.user()
        self.volume(user)
        done = self.passwd(user, OLD, "abc", "abc", "abd", "abd", "abe", "abe", "abf", "abf")
        self.assertNotEqual(done.code, PAM_SUCCESS)
        self.assertEqual(self.opens(user, OLD, "abc", "abd", "abe"), [True, False, False, False])
        self.assertFalse(self.stale(user))

    def test_root_changes_it_and_the_login_says_so(self):
        user = self.user()
        self.volume(user)
        done = self.passwd_by_root(user)
        self.assertEqual(done.code, PAM_SUCCESS)
        self.assertEqual(len(done.info), 1)
        self.assertIn(f"ecfs: the encrypted files of {user} (Private) still open with the former password only.", done.info[0])
        self.assertTrue(self.stale(user))
        session = self.open(user, NEW)
        self.assertEqual(session.info, ["ecfs: your login password does not open Private (it was changed elsewhere). Open it with: ecfs mount-private"])
        self.assertEqual(session.questions, ["Password: "])  # this service has nobody to ask
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(self.opens(user, OLD, NEW), [True, False])

    def test_the_old_password_is_asked_for_once(self):
        user = self.user()
        self.volume(user)
        service = self.asking_service()
        self.passwd_by_root(user)
        session = self.session(user, service)
        self.assertEqual(session.login(NEW, OLD), PAM_SUCCESS)
        self.assertEqual(session.questions, ["Password: ", QUESTION])
        self.assertEqual(session.info[-1], "ecfs: Private is open, and opens with your login password from now on.")
        self.assert_open(user)
        self.assertEqual(self.opens(user, OLD, NEW), [False, True])
        self.assertEqual(self.num_slots(user), 2)
        self.assertFalse(self.stale(user))
        session.logout()
        self.assert_locked_soon(user)
        again = self.open(user, NEW, service)
        self.assertEqual((again.questions, again.info), (["Password: "], []))
        self.assert_open(user)

    def test_the_recovery_key_answers_it_too(self):
        user = self.user()
        recovery = self.volume(user)[0]
        service = self.asking_service()
        self.passwd_by_root(user)
        session = self.session(user, service)
        self.assertEqual(session.login(NEW, recovery.lower().replace("-", " ")), PAM_SUCCESS)
        self.assert_open(user)
        self.assertEqual(self.opens(user, OLD, NEW), [False, True])
        self.assertEqual(self.num_slots(user), 2)
        self.assertFalse(self.stale(user))

    def test_without_a_mark_the_login_finds_out_by_itself(self):
        user = self.user()
        self.volume(user)
        service = self.asking_service()
        self.set_password(user, NEW)  # no PAM involved
        session = self.session(user, service)
        self.assertEqual(session.login(NEW, OLD), PAM_SUCCESS)
        self.assert_open(user)
        self.assertEqual(self.opens(user, OLD, NEW), [False, True])

    def test_no_answer_or_a_wrong_one_lets_the_login_go_on(self):
        user = self.user()
        recovery = self.volume(user)[0]
        service = self.asking_service()
        self.passwd_by_root(user)
        broken = recovery[:-1] + ("0" if recovery[-1] != "0" else "1")
        for answer in ("", "guess", broken):
            session = self.session(user, service)
            self.assertEqual(session.login(NEW, answer), PAM_SUCCESS, answer)
            self.assertEqual(session.questions, ["Password: ", QUESTION])
            self.assertEqual(len(session.info), 2 if answer else 1)
            if answer == "guess":
                self.assertEqual(session.info[1], "ecfs: that does not open Private either. Try again with: ecfs mount-private")
            self.assertEqual(self.mounts(user), [])
            session.logout()
        hopeless = self.session(user, service)  # a conversation that fails
        self.assertEqual(hopeless.login(NEW), PAM_SUCCESS)
        silent = self.session(user, service)
        silent.send("silent")
        self.assertEqual(silent.login(NEW), PAM_SUCCESS)
        self.assertEqual((silent.questions, silent.info), (["Password: "], []))
        self.assertEqual(self.opens(user, OLD, NEW), [True, False])

    def test_an_expired_password_changed_in_the_login_opens(self):
        user = self.user()
        self.volume(user)
        subprocess.run(["chage", "-d", "0", user], check=True)
        session = self.session(user)
        self.assertEqual(session.do("authenticate", OLD), PAM_SUCCESS)
        self.assertEqual(session.do("acct_mgmt"), PAM_NEW_AUTHTOK_REQD)
        self.assertEqual(session.do("chauthtok expired", OLD, NEW, NEW), PAM_SUCCESS, session.errors)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assert_open(user)
        self.assertEqual(self.opens(user, OLD, NEW), [False, True])

    def test_users_without_ecfs_change_theirs_as_before(self):
        user = self.user()
        mine = self.passwd(user, OLD, NEW, NEW)
        self.assertEqual(mine.code, PAM_SUCCESS)
        roots = self.passwd_by_root(user, "Third-pass-9")
        self.assertEqual(roots.code, PAM_SUCCESS)
        for session in (mine, roots):
            self.assertEqual([l for l in session.info + session.errors if l.startswith("ecfs:")], [])
        self.assert_no_trace(user)

    def test_the_lower_directory_may_be_away(self):
        user = self.user()
        self.volume(user)
        shutil.move(f"/home/{user}/.Private", f"/home/{user}/.away")
        self.assertEqual(self.passwd(user, OLD, NEW, NEW).code, PAM_SUCCESS)
        shutil.move(f"/home/{user}/.away", f"/home/{user}/.Private")
        self.assertEqual(self.opens(user, OLD, NEW), [False, True])
        self.open(user, NEW)
        self.assert_open(user)

    def test_a_helper_killed_at_any_moment_of_the_change_loses_nothing(self):
        user = self.user()
        self.volume(user)
        password, interrupted = OLD, 0
        for step in range(24 if not os.environ.get("ECFS_LONG") else 200):
            new = f"Pass-number-{step}"
            session = self.session(user, real_uid=self.uid(user))
            for answer in (password, new, new):
                session.send("say " + answer)
            session.send("chauthtok")
            end = time.monotonic() + 5
            while not self.processes("ecfs-login\0change") and time.monotonic() < end:
                pass
            time.sleep(step % 24 * 0.012)
            interrupted += self.signal("ecfs-login\0change", signal.SIGKILL)
            self.assertEqual(session.wait_result(), PAM_SUCCESS)
            session.end()
            old_opens, new_opens = self.opens(user, password, new)
            self.assertTrue(old_opens or new_opens, step)
            if not new_opens:  # the login password is the new one already; the former opens the volume
                self.set_password(user, password)
            else:
                password = new
        self.assertGreater(interrupted, 5)
        self.open(user, password)
        self.assert_open(user)

    def test_pamtester_changes_and_logs_in(self):
        if os.environ.get("ECFS_SANITIZED"):
            self.skipTest("a sanitized module cannot be loaded into pamtester")
        user = self.user()
        self.volume(user)
        change = subprocess.run(["pamtester", harness.SERVICE, user, "chauthtok"], input=f"{NEW}\n{NEW}\n", text=True, capture_output=True)
        self.assertEqual(change.returncode, 0, change.stderr)
        self.assertTrue(self.stale(user))
        self.assertEqual(subprocess.run([harness.MAKE_VOLUME, user, "--rewrap"], input=f"{OLD}\n{NEW}\n", text=True).returncode, 0)
        login = subprocess.run(["pamtester", harness.SERVICE, user, "authenticate", "acct_mgmt", "open_session"], input=f"{NEW}\n", text=True,
                               capture_output=True)
        self.assertEqual(login.returncode, 0, login.stderr)
        self.assertIn("successfully opened a session", login.stdout)
        self.assert_locked_soon(user)  # pamtester ended without close_session
        self.assertTrue(any(f"user {user}: Private is open" in l for l in LOG), LOG)

    def test_CVE_2008_5188_CVE_2009_1296_no_secret_is_ever_to_be_seen(self):
        canaries = {name: f"Canary-{name}-7351" for name in ("old", "new", "third")}
        user = self.user(canaries["old"])
        recovery = self.volume(user, canaries["old"])[0]
        service = self.asking_service()
        needles = [c.encode() for c in canaries.values()] + [recovery.encode()]
        found, looks, stop = [], [0], threading.Event()

        def look():
            while not stop.is_set():
                for entry in os.scandir("/proc"):
                    if not entry.name.isdigit():
                        continue
                    for file in ("cmdline", "environ"):
                        try:
                            with open(f"{entry.path}/{file}", "rb") as f:
                                text = f.read()
                        except OSError:
                            continue
                        looks[0] += 1
                        if any(n in text for n in needles):
                            found.append((entry.name, file, text))

        sampler = threading.Thread(target=look)
        sampler.start()
        try:
            self.open(user, canaries["old"]).logout()
            self.assert_locked_soon(user)
            self.assertEqual(self.passwd(user, canaries["old"], canaries["new"], canaries["new"]).code, PAM_SUCCESS)
            self.assertEqual(self.passwd_by_root(user, canaries["third"]).code, PAM_SUCCESS)
            session = self.session(user, service)
            self.assertEqual(session.login(canaries["third"], recovery), PAM_SUCCESS)
            self.assert_open(user)
            session.logout()
            self.assert_locked_soon(user)
        finally:
            stop.set()
            sampler.join()
        self.assertEqual(found, [])
        self.assertGreater(looks[0], 1000)
        for line in LOG:
            for needle in needles:
                self.assertNotIn(needle.decode(), line)
        for path in [p for root in (f"/home/{user}", "/run", "/etc") for p in pathlib.Path(root).rglob("*") if p.is_file() and not p.is_symlink()]:
            text = path.read_bytes()
            self.assertFalse(any(n in text for n in needles), path)


if __name__ == "__main__":
    harness.main()
