#!/usr/bin/env python3
"""Logins with keys that a TPM sealed: a real TPM in software (swtpm) that root alone may use."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest

import harness
from harness import LOG, PAM_AUTH_ERR, PAM_SUCCESS, LoginCase

harness.need(shutil.which("swtpm") and shutil.which("tpm2_pcrextend"), "there is no swtpm or no tpm2-tools (packages swtpm, tpm2-tools)")
harness.enter(sys.argv)

TOOL = f"ECFS_LIBEXEC={harness.PROGRAMS} {harness.PROGRAMS}/ecfs"
QUICK = "--kdf-memory 19 --kdf-time 2"
QUESTION = "Recovery key (Enter to skip): "


class Tpm:
    def __init__(self, name):
        self.state = harness.WORK / name
        self.state.mkdir()
        self.state.chmod(0o711)
        self.socket = self.state / "s"
        self.tcti = f"swtpm:path={self.socket}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}", "--server", f"type=unixio,path={self.socket}",
                                         "--ctrl", f"type=unixio,path={self.socket}.ctrl", "--flags", "not-need-init,startup-clear"], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not self.is_listening():
            if time.monotonic() > end:
                raise TimeoutError("swtpm did not start")
            time.sleep(0.02)
        self.allow(False)

    def is_listening(self):
        """At this socket last."""
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
            words = line.split()
            if words[3] == "00010000" and words[7:] == [str(self.socket)]:
                return True
        return False

    def allow(self, all_users):
        for path in (self.socket, f"{self.socket}.ctrl"):
            os.chmod(path, 0o666 if all_users else 0o600)

    def stop(self):
        self.process.kill()
        self.process.wait()
        for path in (self.socket, pathlib.Path(f"{self.socket}.ctrl")):
            path.unlink(missing_ok=True)

    def tool(self, *command):
        env = dict(os.environ, TPM2TOOLS_TCTI=self.tcti, TSS2_LOG="all+NONE")
        return subprocess.run(command, env=env, check=True, text=True, capture_output=True).stdout

    def extend(self, pcr):
        self.tool("tpm2_pcrextend", f"{pcr}:sha256={'0' * 63}1")

    def failed_tries(self):
        text = subprocess.run(f"{TOOL} tpm status --json --tcti {self.tcti}", shell=True, check=True, text=True, capture_output=True).stdout
        return json.loads(text)["failed_tries"]


class TpmLogin(LoginCase):
    def setUp(self):
        super().setUp()
        LoginCase.counter += 1
        self.tpm = Tpm(f"tpm{LoginCase.counter}")
        self.addCleanup(self.tpm.stop)
        self.tpm.extend(7)
        harness.write_config(tpm_tcti=self.tpm.tcti)

    def ecfs(self, user, command, *lines, fails=False):
        """The tool as the user, who may use the TPM for as long; the lines are what it reads from descriptor 0."""
        self.tpm.allow(True)
        done = self.as_user(user, f"{TOOL} {command}", input="".join(line + "\n" for line in lines))
        self.tpm.allow(False)
        self.assertEqual(done.returncode != 0, fails, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def bind(self, user, *more, password="first-password"):
        self.ecfs(user, f"key add tpm2 {QUICK} --passphrase-fd 0 --new-passphrase-fd 0 --allow-weak-passphrase {' '.join(more)} Private", password, password)

    def only_with_tpm(self, user, password="first-password"):
        """The TPM and the login password; no slot for the password alone."""
        self.bind(user, "--with-password", password=password)
        self.ecfs(user, "key remove --passphrase-fd 0 Private password", password)

    def test_the_tpm_alone_opens_without_a_password(self):
        user = self.user()
        self.volume(user)
        self.bind(user)
        session = self.session(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)  # with an ssh key
        self.assertEqual(session.info + session.errors, [])
        self.assert_open(user)
        self.assertEqual(session.run("echo kept > ~/Private/note && cat ~/Private/note"), (0, "kept"))
        self.assertFalse(self.processes("ecfs-tpm2"))
        session.logout()
        self.assert_locked_soon(user)

    def test_another_boot_state_falls_back_to_the_password_and_is_said(self):
        user = self.user()
        self.volume(user)
        self.bind(user)
        self.tpm.extend(7)
        session = self.open(user)
        self.assert_open(user)
        self.assertEqual(session.info, ["ecfs: Private: this computer was not booted in the state that the key is sealed to (PCR 7 changed); open it with "
                                        "the recovery key or another passphrase, then bind it anew: ecfs key reseal"])
        session.logout()
        self.assert_locked_soon(user)
        session = self.session(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(len(session.info), 1, session.info)
        self.assertIn("PCR 7 changed", session.info[0])
        session.logout()
        self.assert_locked_soon(user)
        self.ecfs(user, "key reseal --passphrase-fd 0 Private", "first-password")
        session = self.session(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assert_open(user)

    def test_a_login_binds_anew_where_the_machine_allows_it(self):
        user = self.user()
        self.volume(user)
        self.bind(user, "--label desk")
        harness.write_config(tpm_tcti=self.tpm.tcti, tpm_reseal="yes")
        for change in (lambda: self.tpm.extend(7), lambda: self.tpm.tool("tpm2_clear")):
            change()
            session = self.open(user)
            self.assert_open(user)
            self.assertEqual(session.info[-1], "ecfs: Private: its key in the TPM was bound to the present state", session.info)
            session.logout()
            self.assert_locked_soon(user)
            session = self.session(user)
            self.assertEqual(session.do("open_session"), PAM_SUCCESS)  # without a password
            self.assertEqual(session.info, [])
            self.assert_open(user)
            session.logout()
            self.assert_locked_soon(user)
        self.assertEqual(self.num_slots(user), 3)

    def test_the_tpm_and_the_login_password(self):
        user = self.user()
        recovery, _ = self.volume(user)
        self.only_with_tpm(user)
        session = self.open(user)
        self.assertEqual(session.info + session.errors, [])
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.tpm.failed_tries(), 0)
        # Elsewhere the password opens nothing, and the recovery key does.
        self.tpm.stop()
        text = self.as_user(user, f"{TOOL} mount-private --passphrase-fd 0 2>&1", input="first-password\n").stdout
        self.assertIn("no passphrase opens it", text)
        session = self.open(user)
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(len(session.info), 1, session.info)
        self.assertIn("Private stays locked: no TPM answers", session.info[0])
        self.assertFalse(self.stale(user))
        done = self.as_user(user, f"{TOOL} mount-private --passphrase-fd 0 2>&1", input=recovery + "\n")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assert_open(user)
        self.tpm.start()

    def asking_service(self):
        harness.write_service("ecfs-test-screen")
        harness.write_config(tpm_tcti=self.tpm.tcti, ask_services="ecfs-test-screen")
        return "ecfs-test-screen"

    def test_the_recovery_key_is_asked_for_where_only_the_tpm_was_tried(self):
        user = self.user()
        recovery, _ = self.volume(user)
        self.only_with_tpm(user)
        service = self.asking_service()
        self.tpm.stop()
        broken = recovery[:-1] + ("0" if recovery[-1] != "0" else "1")
        for answer in ("", "first-password", broken, recovery.lower().replace("-", " ")):
            session = self.session(user, service)
            self.assertEqual(session.login("first-password", answer), PAM_SUCCESS, LOG)
            self.assertEqual(session.questions, ["Password: ", QUESTION])  # once
            self.assertIn("Private stays locked: no TPM answers", session.info[0])
            if "-" in answer:
                self.assertEqual(session.info[1:], ["ecfs: that does not open Private either. Try again with: ecfs mount-private"])
            if " " not in answer:
                self.assertEqual(self.mounts(user), [])
                session.logout()
        self.assertEqual(len(session.info), 1, session.info)
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)
        # Nothing was wrapped anew: with its TPM the password opens it as before, and elsewhere nobody is asked.
        self.assertFalse(self.stale(user))
        self.assertEqual(self.num_slots(user), 2)
        session = self.open(user)
        self.assertEqual((session.questions, self.mounts(user)), (["Password: "], []))
        session.logout()
        self.tpm.start()
        session = self.open(user, service=service)
        self.assertEqual((session.questions, session.info), (["Password: "], []))
        self.assert_open(user)

    def test_the_recovery_key_binds_nothing_to_a_changed_boot_state(self):
        user = self.user()
        recovery, _ = self.volume(user)
        self.bind(user, "--with-password", "--pcrs 7")
        self.ecfs(user, "key remove --passphrase-fd 0 Private password", "first-password")
        service = self.asking_service()
        self.tpm.extend(7)
        for _ in range(2):
            session = self.session(user, service)
            self.assertEqual(session.login("first-password", recovery), PAM_SUCCESS)
            self.assertEqual(session.questions, ["Password: ", QUESTION])
            self.assertIn("PCR 7 changed", session.info[0])
            self.assert_open(user)
            session.logout()
            self.assert_locked_soon(user)

    def test_the_recovery_key_is_asked_for_in_a_login_without_a_password(self):
        user = self.user()
        recovery, _ = self.volume(user)
        self.bind(user)
        service = self.asking_service()
        self.tpm.extend(7)
        session = self.session(user, service)
        self.assertEqual(session.do("open_session", recovery), PAM_SUCCESS)  # let in by a finger, a card
        self.assertEqual(session.questions, [QUESTION])
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.open(user, service=service).questions, ["Password: "])  # which opens it
        self.assert_open(user)

    def test_a_tpm_that_hangs_leaves_time_for_the_recovery_key(self):
        user = self.user()
        recovery, _ = self.volume(user)
        self.only_with_tpm(user)
        service = self.asking_service()
        os.kill(self.tpm.process.pid, signal.SIGSTOP)
        try:
            session = self.session(user, service)
            self.assertEqual(session.login("first-password", recovery), PAM_SUCCESS)
        finally:
            os.kill(self.tpm.process.pid, signal.SIGCONT)
        self.assertEqual(session.questions, ["Password: ", QUESTION])
        self.assertLess(session.seconds, 15)
        self.assert_open(user)

    def test_failed_logins_cost_no_try(self):
        user = self.user()
        self.volume(user)
        self.only_with_tpm(user)
        for i in range(50):
            session = self.session(user)
            self.assertEqual(session.do("authenticate", f"wrong-{i}"), PAM_AUTH_ERR)
            session.end()
        self.assertEqual(self.tpm.failed_tries(), 0)
        self.open(user)
        self.assert_open(user)
        self.assertEqual(self.tpm.failed_tries(), 0)

    def test_a_password_reset_by_root_costs_one_try(self):
        user = self.user()
        recovery, _ = self.volume(user)
        self.only_with_tpm(user)
        self.set_password(user, "second-password")
        for i in range(10):
            session = self.open(user, "second-password")
            self.assertEqual(self.mounts(user), [])
            self.assertEqual(len(session.info), 1, session.info)
            self.assertIn("your login password does not open Private", session.info[0])
            session.logout()
        self.assertTrue(self.stale(user))
        session = self.session(user, real_uid=self.uid(user))
        self.assertEqual(session.do("chauthtok", "second-password", "third-password", "third-password"), PAM_SUCCESS, session.errors + LOG)
        self.set_password(user, "second-password")
        self.assertEqual(self.tpm.failed_tries(), 1)
        # With the recovery key the TPM takes the new one.
        self.ecfs(user, f"key change {QUICK} --slot tpm2+password --passphrase-fd 0 --new-passphrase-fd 0 --allow-weak-passphrase Private", recovery, "second-password")
        self.assertFalse(self.stale(user))
        self.open(user, "second-password")
        self.assert_open(user)

    def test_several_volumes_share_the_one_try(self):
        user = self.user()
        for name in ("Private", "Work"):
            self.volume(user, "first-password", "--name", name)
            self.ecfs(user, f"key add tpm2 --with-password {QUICK} --passphrase-fd 0 --new-passphrase-fd 0 --allow-weak-passphrase {name}", "first-password", "first-password")
            self.ecfs(user, f"key remove --passphrase-fd 0 {name} password", "first-password")
        self.set_password(user, "second-password")
        self.open(user, "second-password")
        self.assertEqual(self.tpm.failed_tries(), 1)

    def test_a_tpm_that_hangs_costs_a_few_seconds(self):
        user = self.user()
        self.volume(user)
        self.bind(user, "--pcrs none")
        os.kill(self.tpm.process.pid, signal.SIGSTOP)
        try:
            session = self.open(user)
        finally:
            os.kill(self.tpm.process.pid, signal.SIGCONT)
        self.assert_open(user)
        self.assertLess(session.seconds, 14)
        self.assertEqual(session.info, ["ecfs: Private: the TPM did not answer within 5 s"])
        self.wait_until(lambda: not self.processes("ecfs-tpm2"), "nothing is left of the helper")

    def test_passwd_takes_the_key_of_the_tpm_along(self):
        user = self.user()
        self.volume(user)
        self.only_with_tpm(user)
        session = self.session(user, real_uid=self.uid(user))
        self.assertEqual(session.do("chauthtok", "first-password", "second-password", "second-password"), PAM_SUCCESS, session.errors + LOG)
        self.assertFalse([line for line in session.info if "former password" in line], LOG)
        self.assertFalse(self.stale(user))
        self.open(user, "second-password")
        self.assert_open(user)
        self.assertEqual(self.tpm.failed_tries(), 0)

    def test_passwd_without_the_tpm_leaves_its_key_and_says_so(self):
        user = self.user()
        self.volume(user)
        self.only_with_tpm(user)
        self.tpm.stop()
        session = self.session(user, real_uid=self.uid(user))
        self.assertEqual(session.do("chauthtok", "first-password", "second-password", "second-password"), PAM_SUCCESS, session.errors + LOG)
        self.assertTrue([line for line in session.info if "Private still opens with its former password only" in line], session.info)
        self.assertTrue(self.stale(user))
        self.tpm.start()
        before = self.tpm.failed_tries()  # a TPM that lost its power counts one by itself
        self.open(user, "second-password")
        self.assertEqual(self.mounts(user), [])
        self.assertEqual(self.tpm.failed_tries(), before)

    def test_without_keys_of_a_tpm_it_is_not_asked(self):
        user = self.user()
        self.volume(user)
        os.kill(self.tpm.process.pid, signal.SIGSTOP)
        try:
            session = self.open(user)
        finally:
            os.kill(self.tpm.process.pid, signal.SIGCONT)
        self.assert_open(user)
        self.assertFalse([line for line in LOG if "TPM" in line])


if __name__ == "__main__":
    harness.main()
