#!/usr/bin/env python3
"""Logins and logouts: what opens, what stays open, what locks."""
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import statistics
import subprocess
import sys
import threading
import time
import unittest

import harness
from harness import PAM_AUTH_ERR, PAM_PERM_DENIED, PAM_SUCCESS, LOG, LoginCase

harness.enter(sys.argv)


class Login(LoginCase):
    def test_opens_at_login_and_locks_at_logout(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        self.assertEqual(session.info + session.errors, [])
        self.assert_open(user)
        status, text = session.run("echo hello > ~/Private/note && cat ~/Private/note && stat -c '%U %a' ~/Private")
        self.assertEqual((status, text.split("\n")[0]), (0, "hello"))
        lower = [p for p in pathlib.Path(f"/home/{user}/.Private").rglob("*") if p.is_file() and not p.name.startswith(".ecfs")]
        self.assertEqual(len(lower), 1)
        self.assertNotIn(b"hello", lower[0].read_bytes())
        session.logout()
        self.assert_locked_soon(user)
        self.assertEqual(os.listdir(f"/home/{user}/Private"), [])
        session = self.open(user)
        self.assertEqual(session.run("cat ~/Private/note"), (0, "hello"))
        session.logout()
        self.assert_locked_soon(user)

    def test_CVE_2012_3409_the_mount_is_nosuid_nodev_and_the_users_alone(self):
        user = self.user()
        self.volume(user)
        other = self.user()
        self.open(user)
        line = [l for l in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " fuse.ecfs " in l]
        self.assertEqual(len(line), 1)
        self.assertIn(" rw,nosuid,nodev,", line[0])
        self.assertIn("default_permissions", line[0])
        self.assertNotIn("allow_other", line[0])
        self.assertNotEqual(self.as_user(other, f"ls /home/{user}/Private").returncode, 0)
        uid = str(self.uid(user))
        states = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.processes(str(harness.PROGRAMS / "ecfs-mountd"))]
        for state in states:
            self.assertIn(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}", state)
            self.assertIn("CapEff:\t0000000000000000", state)
        self.assertTrue(any("NoNewPrivs:\t1" in state for state in states))

    def test_a_mount_nobody_uses_is_unmounted_where_the_profile_says_so(self):
        user = self.user()
        self.volume(user, "first-password", "--options", "idle=6s,noatime")
        session = self.open(user)
        self.assertEqual(session.run("echo kept > ~/Private/note && exec 7<~/Private/note && sleep 14 && cat <&7"), (0, "kept"))
        self.wait_until(lambda: not self.mounts(user), "unmounted during the session")
        self.assertEqual(os.listdir(f"/home/{user}/Private"), [])
        self.assertEqual(self.open(user).run("cat ~/Private/note"), (0, "kept"))

    def test_a_suspended_mount_opens_at_the_next_login(self):
        user = self.user()
        self.volume(user)
        first = self.open(user)
        self.assertEqual(first.run("echo hello > ~/Private/note && cat ~/Private/note"), (0, "hello"))
        header = pathlib.Path(f"/home/{user}/.Private/.ecfs-volume").read_bytes()
        name = b"\0ecfs-mountd/%d/%s/0" % (self.uid(user), header[16:32].hex().encode())

        def told():
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
                    control.settimeout(20)
                    control.connect(name)
                    control.send(b"s")
                    return control.recv(100)
            except OSError:
                return b""

        self.wait_until(lambda: told() == b"+s", "the server listens")
        time.sleep(1.2)
        status, text = first.run("cat ~/Private/note")
        self.assertEqual((status, "Required key" in text), (1, True), text)
        second = self.open(user)
        self.assertEqual(second.info, ["ecfs: Private: open again"])
        self.assertEqual(first.run("cat ~/Private/note"), (0, "hello"))
        self.assertEqual(self.open(user).info, [])

    def test_it_stays_open_until_the_last_logout(self):
        user = self.user()
        self.volume(user)
        first, second = self.open(user), self.open(user)
        # The second login's watcher sees the first's, and ends.
        self.wait_until(lambda: len(self.processes("ecfs-login\0watch")) == 1, "one watcher")
        first.logout()
        time.sleep(1)
        self.assert_open(user)
        self.assertEqual(second.run("echo x > ~/Private/x && cat ~/Private/x"), (0, "x"))
        second.logout()
        self.assert_locked_soon(user)
        self.wait_until(lambda: not self.processes("ecfs-login\0watch"), "the watcher has ended")
        self.wait_until(lambda: not self.processes("ecfs-mountd"), "the server has ended")

    def test_a_killed_session_counts_as_ended(self):
        user = self.user()
        self.volume(user)
        first, second = self.open(user), self.open(user)
        first.kill()
        time.sleep(0.5)
        self.assert_open(user)
        begun = time.monotonic()
        second.kill()
        self.assert_locked_soon(user)
        self.assertLess(time.monotonic() - begun, 30)

    def test_the_end_of_a_forked_copy_ends_no_session(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        session.do("fork_end")
        time.sleep(1)
        self.assert_open(user)
        session.end()  # without close_session
        self.assert_locked_soon(user)

    def test_opening_twice_on_one_handle_holds_once(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assert_open(user)
        session.do("close_session")
        self.assert_locked_soon(user)

    def test_a_login_while_the_last_logout_is_worked_on(self):
        user = self.user()
        self.volume(user)
        self.open(user).logout()
        for pause in [0, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05] * 2:
            session = self.open(user)
            self.assert_open(user)
            self.assertEqual(session.run("echo y > ~/Private/y && cat ~/Private/y"), (0, "y"))
            session.logout()
            time.sleep(pause)
        self.assert_locked_soon(user)

    def test_LP_1052038_twenty_logins_at_one_instant_make_one_mount(self):
        user = self.user()
        self.volume(user)
        for _ in range(3 if not os.environ.get("ECFS_LONG") else 20):
            sessions = [self.session(user) for _ in range(20)]
            codes = []
            threads = [threading.Thread(target=lambda s=s: codes.append(s.login("first-password"))) for s in sessions]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(codes, [PAM_SUCCESS] * 20)
            self.assert_open(user)
            self.assertEqual([s.info for s in sessions if s.info], [])
            self.assertEqual(sessions[7].run("echo z > ~/Private/z && cat ~/Private/z"), (0, "z"))
            self.wait_until(lambda: len(self.processes("ecfs-login\0watch")) == 1, "one watcher")
            for session in sessions[1:]:
                session.logout()
            self.assert_open(user)
            sessions[0].logout()
            self.assert_locked_soon(user)

    def test_wrong_password_opens_nothing(self):
        user = self.user()
        self.volume(user)
        session = self.session(user)
        self.assertEqual(session.do("authenticate", "wrong"), PAM_AUTH_ERR)
        self.assert_no_trace(user)

    def test_without_a_password_one_line_says_how_to_open(self):
        user = self.user()
        self.volume(user)
        session = self.session(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)  # as with an ssh key: no auth phase
        self.assertEqual(session.info, ["ecfs: Private is locked; open it with: ecfs mount-private"])
        self.assertEqual(self.mounts(user), [])
        self.assertFalse(self.stale(user))
        harness.write_service("su")
        quiet = self.session(user, "su")
        self.assertEqual(quiet.do("open_session"), PAM_SUCCESS)
        self.assertEqual(quiet.info, [])
        silent = self.session(user)
        silent.send("silent")
        self.assertEqual(silent.do("open_session"), PAM_SUCCESS)
        self.assertEqual(silent.info, [])
        for s in (session, quiet, silent):
            s.logout()
        self.assert_locked_soon(user)

    def test_a_password_of_somebody_else_is_not_tried(self):
        # sudo: the one who types is not the one whose session it becomes
        typist, target = self.user("typed"), self.user("first-password")
        self.volume(target)
        session = self.session(typist)
        self.assertEqual(session.do("authenticate", "typed"), PAM_SUCCESS)
        self.assertEqual(session.do(f"set_user {target}"), PAM_SUCCESS)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assertEqual(session.info, ["ecfs: Private is locked; open it with: ecfs mount-private"])
        self.assertFalse(self.stale(target), "the other's password was tried")

    def test_users_without_ecfs_notice_nothing(self):
        user = self.user()
        session = self.open(user)
        self.assertEqual(session.info + session.errors, [])
        self.assertEqual(session.questions, ["Password: "])
        self.assert_no_trace(user)
        session.logout()
        self.assertEqual([l for l in LOG if "ecfs-login" in l and re.search(rf"\b{user}\b", l)], [])
        pathlib.Path("/etc/pam.d/ecfs-test-time").write_text(
            f"session required pam_permit.so\nsession optional {harness.MODULE} helper={harness.HELPER}\n")
        times = []
        for _ in range(15):
            session = self.session(user, "ecfs-test-time")
            self.assertEqual(session.do("open_session"), PAM_SUCCESS)
            times.append(session.seconds)
            session.logout()
        print(f"\n  without ecfs: open_session takes {min(times) * 1000:.1f} ms, median {sorted(times)[7] * 1000:.1f} ms")
        if not os.environ.get("ECFS_SANITIZED"):
            self.assertLess(min(times), 0.02)

    def test_where_the_time_of_a_login_goes(self):
        rounds = 20 if os.environ.get("ECFS_LONG") else 3
        medians = {}
        for case, memory_kib in (("without a volume", 0), ("with one, least costs of a guess (19 MiB)", 19456), ("with one, usual costs (256 MiB)", 262144)):
            user, times = self.user(), []
            if memory_kib:
                self.volume(user, "first-password", "--memory-kib", str(memory_kib))
            for _ in range(rounds):
                session, took = self.session(user), []
                for command, *answers in (("authenticate", "first-password"), ("acct_mgmt",), ("open_session",), ("close_session",)):
                    self.assertEqual(session.do(command, *answers), PAM_SUCCESS)
                    took.append(session.seconds * 1000)
                    if command == "open_session":
                        self.assertEqual(len(self.mounts(user)), 1 if memory_kib else 0)
                session.end()
                self.assert_locked_soon(user)
                times.append(took)
            medians[case] = [statistics.median(column) for column in zip(*times)]
        print("")
        for case, (authenticate, account, opening, closing) in medians.items():
            print(f"  {case}: authenticate {authenticate:.1f} ms, acct_mgmt {account:.1f}, open_session {opening:.1f}, close_session {closing:.1f}; median of {rounds}")

    def test_root_and_nobody_are_left_alone(self):
        for user in ("root", "nobody"):
            session = self.session(user)
            self.assertEqual(session.do("open_session"), PAM_SUCCESS)
            self.assertEqual(session.info, [])
            session.logout()
        self.assertFalse(os.path.exists("/run/ecfs/0"))

    def test_several_volumes(self):
        user = self.user()
        self.volume(user)
        self.volume(user, "first-password", "--name", "Second")
        self.volume(user, "first-password", "--name", "Manual", "--no-auto-mount")
        self.volume(user, "another", "--name", "Third")
        session = self.open(user)
        self.assertEqual(sorted(self.mounts(user)), [f"/home/{user}/Private", f"/home/{user}/Second"])
        self.assertEqual(session.info, ["ecfs: your login password does not open Third (it was changed elsewhere). Open it with: ecfs mount-private Third"])
        session.logout()
        self.assert_locked_soon(user)

    def test_auto_unmount_can_be_off(self):
        user = self.user()
        self.volume(user, "first-password", "--no-auto-unmount")
        self.open(user).logout()
        self.wait_until(lambda: not self.processes("ecfs-login\0watch"), "the watcher has ended")
        self.assert_open(user)
        session = self.open(user)
        self.assert_open(user)
        session.logout()
        self.wait_until(lambda: not self.processes("ecfs-login\0watch"), "the watcher has ended")
        self.assert_open(user)
        subprocess.check_call(["umount", f"/home/{user}/Private"])

    def test_files_in_the_mountpoint_are_not_hidden(self):
        user = self.user()
        self.volume(user)
        own = pathlib.Path(f"/home/{user}/Private/precious")
        own.write_text("mine")
        session = self.open(user)
        self.assertEqual(len(session.info), 1)
        self.assertIn("holds files of its own (precious)", session.info[0])
        self.assertEqual(self.mounts(user), [])
        own.unlink()
        pathlib.Path(f"/home/{user}/Private/README.txt").write_text("how to open")
        self.assertEqual(self.session(user).login("first-password"), PAM_SUCCESS)
        self.assert_open(user)

    def test_an_empty_lower_directory_is_not_opened(self):
        # its disk is not there
        user = self.user()
        self.volume(user)
        lower = f"/home/{user}/.Private"
        os.rename(lower, lower + "-disk")
        os.mkdir(lower, 0o700)
        os.chown(lower, self.uid(user), -1)
        session = self.open(user)
        self.assertEqual(self.mounts(user), [])
        self.assertIn(f"the encrypted directory {lower} is empty, as if its disk were not there", session.info[0])
        self.assertEqual(os.listdir(lower), [])

    def test_a_lower_header_that_was_lost_is_made_again(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        session.run("echo kept > ~/Private/kept")
        session.logout()
        self.assert_locked_soon(user)
        header = pathlib.Path(f"/home/{user}/.Private/.ecfs-volume")
        for file in header.parent.glob(".ecfs-volume*"):
            file.unlink()
        session = self.open(user)
        self.assertEqual(session.info, [f"ecfs: Private: the header {header} is missing; the other copy was used"])
        self.assertEqual(session.run("cat ~/Private/kept"), (0, "kept"))
        self.assertTrue(header.is_file())

    def test_what_the_user_mounted_by_hand_is_locked_too(self):
        user = self.user()
        self.volume(user)
        session = self.session(user)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)  # with an ssh key
        self.assertEqual(self.mounts(user), [])
        by_hand = f"echo first-password | ECFS_LIBEXEC={harness.PROGRAMS} {harness.PROGRAMS}/ecfs mount-private --passphrase-fd 0 2>&1"
        status, text = session.run(by_hand)
        self.assertEqual(status, 0, text)
        self.assert_open(user)
        second = self.open(user)  # finds it open
        self.assertEqual(second.info, [])
        self.assert_open(user)
        self.assertEqual(second.run("echo h > ~/Private/h && cat ~/Private/h"), (0, "h"))
        second.logout()
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)

    def test_mounting_again_by_hand_in_a_session_needs_no_password(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        tool = f"ECFS_LIBEXEC={harness.PROGRAMS} {harness.PROGRAMS}/ecfs"
        status, text = session.run(f"{tool} umount ~/Private 2>&1")
        self.assertEqual(status, 0, text)
        self.assertEqual(self.mounts(user), [])
        status, text = session.run(f"{tool} mount-private </dev/null 2>&1")
        self.assertEqual(status, 0, text)
        self.assert_open(user)
        self.assertEqual(session.run(f"{tool} umount-private 2>&1")[0], 0)  # this one drops the key
        self.assertNotEqual(session.run(f"{tool} mount-private </dev/null 2>&1")[0], 0)
        self.assertEqual(self.mounts(user), [])
        session.logout()
        self.assert_locked_soon(user)

    def test_a_link_on_the_way_to_the_mountpoint_is_no_obstacle(self):
        # /home may be a link to another disk
        user = self.user()
        os.rename(f"/home/{user}", f"/home/{user}-disk")
        os.symlink(f"{user}-disk", f"/home/{user}")
        try:
            self.volume(user)
            session = self.open(user)
            self.assert_open(user, f"/home/{user}-disk/Private")
            second = self.open(user)
            self.assert_open(user, f"/home/{user}-disk/Private")
            session.logout()
            second.logout()
            self.assert_locked_soon(user)
        finally:
            os.unlink(f"/home/{user}")
            os.rename(f"/home/{user}-disk", f"/home/{user}")

    def test_a_whole_home(self):
        user = self.user()
        home, base = f"/home/{user}", f"/home/.ecfs/{user}"
        os.makedirs(base)
        os.chmod("/home/.ecfs", 0o755)
        subprocess.check_call(["chown", f"{user}:", base])
        subprocess.check_call(f"rm -rf {home}; mkdir {home}; chown {user}: {home}; chmod 500 {home}", shell=True)
        os.makedirs(f"{base}/.ecfs", mode=0o700, exist_ok=True)
        subprocess.check_call(["chown", f"{user}:", f"{base}/.ecfs"])
        self.volume(user, "first-password", "--name", "home", "--lower", f"{base}/.Private", "--mountpoint", home)
        self.assertTrue(os.path.exists(f"{base}/.ecfs/home/profile.json"))
        session = self.open(user)
        self.assert_open(user, home)
        self.assertEqual(session.run("echo in > ~/file && cat ~/file"), (0, "in"))
        session.logout()
        self.assert_locked_soon(user)

    def test_the_token_is_in_the_keyring_while_logged_in(self):
        user = self.user()
        token = self.volume(user)[1]
        session = self.open(user)
        status, text = session.run(f"keyctl search @s user {token} | xargs keyctl rdescribe")
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"user;\d+;\d+;3f[0-9a-f]{2}0000;" + token)  # the possessor's rights only
        session.logout()
        self.assert_locked_soon(user)
        again = self.session(user)  # without a password: nothing opens, nothing is found
        again.do("open_session")
        self.assertNotEqual(again.run(f"keyctl search @u user {token}")[0], 0)

    def test_a_host_that_ignores_its_children(self):
        user = self.user()
        self.volume(user)
        session = self.session(user)
        session.send("ignore_children")
        self.assertEqual(session.login("first-password"), PAM_SUCCESS)
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)

    def test_limits_of_the_login_are_not_ours(self):
        user = self.user()
        self.volume(user)
        # The soft ones; a root that lacks CAP_SYS_RESOURCE, as in some containers, could not undo more.
        limits = ["prlimit", "--fsize=0:", "--nofile=64:", "--memlock=0:", "--core=unlimited", "--nproc=40:"]
        session = self.session(user, argv_prefix=limits)
        session.login("first-password")
        self.assert_open(user)
        server = self.processes(str(harness.PROGRAMS / "ecfs-mountd"))[0]
        self.assertRegex(pathlib.Path(f"/proc/{server}/limits").read_text(), r"Max core file size +0 +0")

    def test_hostile_umask_leaves_modes_as_they_should_be(self):
        user = self.user()
        self.volume(user)
        session = self.session(user, preexec_fn=lambda: os.umask(0))
        session.login("first-password")
        uid = self.uid(user)
        for path in ("/run/ecfs", f"/run/ecfs/{uid}"):
            info = os.stat(path)
            self.assertEqual((stat.S_IMODE(info.st_mode), info.st_uid), (0o700, 0), path)
        for name in os.listdir(f"/run/ecfs/{uid}"):
            self.assertEqual(stat.S_IMODE(os.stat(f"/run/ecfs/{uid}/{name}").st_mode), 0o600, name)

    def test_CVE_2019_12210_nothing_leaks_into_the_session(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        _, text = session.run("ls -l /proc/self/fd | sed -n 's/.*-> //p'")
        for line in text.split("\n"):
            self.assertNotRegex(line, "ecfs/|session.lock|/dev/fuse|socket:", text)
        _, environment = session.run("env")
        self.assertNotIn("first-password", environment)
        names = {line.partition("=")[0] for line in environment.split("\n")}
        self.assertLessEqual(names, set(os.environ) | {"PWD", "OLDPWD", "SHLVL", "_", "HOME"})

    def test_the_helper_missing_changes_nothing(self):
        user = self.user()
        self.volume(user)
        harness.write_service("ecfs-test-broken", "helper=/nonexistent/ecfs-login")
        session = self.session(user, "ecfs-test-broken")
        self.assertEqual(session.login("first-password"), PAM_SUCCESS)
        self.assertEqual(session.info, [])
        self.wait_until(lambda: any("/nonexistent/ecfs-login" in l for l in LOG), "it stands in the log")

    def test_the_session_process_killed_while_opening(self):
        user = self.user()
        self.volume(user)
        for pause in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3):
            session = self.session(user)
            self.assertEqual(session.do("authenticate", "first-password"), PAM_SUCCESS)
            session.send("open_session")
            time.sleep(pause)
            session.kill()
        self.assert_locked_soon(user)
        self.wait_until(lambda: not self.processes("ecfs-login"), "no helper is left")
        session = self.open(user)
        self.assert_open(user)
        session.logout()
        self.assert_locked_soon(user)

    def test_the_helper_killed_while_opening(self):
        user = self.user()
        self.volume(user)
        for pause in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2):
            session = self.session(user)
            self.assertEqual(session.do("authenticate", "first-password"), PAM_SUCCESS)
            session.send("open_session")
            time.sleep(pause)
            self.signal("ecfs-login\0open", signal.SIGKILL)
            self.assertEqual(session.wait_result(), PAM_SUCCESS)
            session.logout()
            self.wait_until(lambda: not self.mounts(user), "locked")
        self.open(user).logout()
        self.assert_locked_soon(user)

    def test_a_crashed_server_leaves_no_dead_mountpoint(self):
        user = self.user()
        self.volume(user)
        session = self.open(user)
        self.signal(str(harness.PROGRAMS / "ecfs-mountd"), signal.SIGKILL)
        self.wait_until(lambda: not self.mounts(user), "the watcher has unmounted")
        second = self.open(user)
        self.assert_open(user)
        self.signal(str(harness.PROGRAMS / "ecfs-mountd"), signal.SIGKILL)
        third = self.open(user)  # at once: the login itself clears it away
        self.assert_open(user)
        self.assertEqual(third.run("touch ~/Private/t")[0], 0)
        for s in (session, second, third):
            s.logout()
        self.assert_locked_soon(user)

    def test_a_dead_watcher_is_replaced_by_the_next_login(self):
        user = self.user()
        self.volume(user)
        first = self.open(user)
        self.signal("ecfs-login\0watch", signal.SIGKILL)
        second = self.open(user)
        self.wait_until(lambda: len(self.processes("ecfs-login\0watch")) == 1, "a watcher again")
        first.logout()
        second.logout()
        self.assert_locked_soon(user)

    def test_a_watcher_told_to_end_locks_although_there_are_sessions(self):
        user = self.user()
        token = self.volume(user)[1]
        first = self.open(user)
        self.tell_the_watcher_to_end()
        self.wait_until(lambda: not self.mounts(user), "locked")
        self.wait_until(lambda: not self.processes("ecfs-login\0watch"), "the watcher has ended")
        self.assertNotEqual(first.run(f"keyctl search @u user {token}")[0], 0)
        second = self.open(user)
        self.assert_open(user)
        first.logout()
        time.sleep(1)
        self.assert_open(user)
        second.logout()
        self.assert_locked_soon(user)

    def test_an_administrator_sees_what_is_open_for_whom(self):
        status = lambda *more: subprocess.run([harness.PROGRAMS / "ecfs", "status", "--all", *more], text=True, capture_output=True)
        alice, bob = self.user(), self.user()
        self.assertNotRegex(status().stdout, f"{alice}|{bob}")
        self.volume(alice)
        self.volume(bob, "another-password")
        session = self.open(alice)
        refused = self.session(bob)
        self.assertEqual(refused.login("first-password"), PAM_SUCCESS)
        told = [user for user in json.loads(status("--json").stdout)["users"] if user["user"] in (alice, bob)]
        self.assertEqual([user["user"] for user in told], [alice, bob])
        volume, = told[0]["volumes"]
        self.assertEqual((volume["name"], volume["state"], volume["by"], volume["mountpoint"]), ("Private", "open", "login", f"/home/{alice}/Private"))
        self.assertEqual(volume["slot"]["type"], "password")
        self.assertLess(abs(time.time() - volume["since"]), 60)
        self.assertIn(volume["server"], self.processes(str(harness.PROGRAMS / "ecfs-mountd")))
        volume, = told[1]["volumes"]
        self.assertEqual((volume["name"], volume["state"]), ("Private", "locked"))
        self.assertTrue(volume["why"])
        text = status().stdout
        self.assertRegex(text, rf"(?m)^{alice} \(\d+\)\n  Private: open at /home/{alice}/Private since .*, by slot {told[0]['volumes'][0]['slot']['id']} \(password\), served by process \d+$")
        self.assertRegex(text, rf"(?m)^{bob} \(\d+\)\n  Private: refused at .*: .+$")
        self.wait_until(lambda: any("Private is open, by its slot" in line for line in LOG), "the log tells the slot")
        self.assertNotEqual(self.as_user(alice, f"{harness.PROGRAMS}/ecfs status --all").returncode, 0)
        # By hand.
        refused.logout()
        self.assert_locked_soon(bob)
        done = self.as_user(bob, f"ECFS_LIBEXEC={harness.PROGRAMS} {harness.PROGRAMS}/ecfs mount-private --passphrase-fd 0", input="another-password\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        # What an ended watcher left behind names a device that was given out again.
        stale = f"/run/ecfs/{self.uid(self.user())}"
        os.mkdir(stale)
        self.addCleanup(shutil.rmtree, stale)
        device = next(line.split()[2] for line in open("/proc/self/mountinfo") if line.split()[4] == f"/home/{bob}/Private")
        with open(stale + "/mount-Private", "w") as record:
            record.write("%d 1 %s 1 1 0\n" % (2 ** 22 - 1, device.replace(":", " ")))
        self.assertIn(f"  (by hand): open at /home/{bob}/Private", status().stdout)
        subprocess.check_call(["umount", f"/home/{bob}/Private"])
        session.logout()
        self.assert_locked_soon(alice)

    def test_acct_and_setcred_do_nothing(self):
        user = self.user()
        session = self.session(user)
        self.assertEqual(session.do("authenticate", "first-password"), PAM_SUCCESS)
        self.assertEqual(session.do("setcred"), PAM_SUCCESS)
        self.assertEqual(session.do("acct_mgmt"), PAM_SUCCESS)

    def test_CVE_2025_23013_a_stack_with_nothing_but_us_denies(self):
        user = self.user()
        self.volume(user)
        harness.write_service("ecfs-test-alone", only_ours=True)
        for call in ("authenticate", "acct_mgmt", "open_session", "chauthtok"):
            session = self.session(user, "ecfs-test-alone")
            self.assertEqual(session.do(call, "first-password"), PAM_PERM_DENIED, call)
            session.kill()


class Busy(LoginCase):
    """Programs that keep files open at the last logout."""

    def holder(self, user):
        process = subprocess.Popen(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "sh", "-c", "exec sleep 300 3> ~/Private/held"],
                                   env={"HOME": f"/home/{user}", "PATH": "/usr/bin:/bin"})
        self.wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("/sleep"), "it is the program")
        self.assertTrue(os.readlink(f"/proc/{process.pid}/fd/3").endswith("/held"))
        self.addCleanup(lambda: (process.kill(), process.wait()))
        return process

    def test_wait(self):
        harness.write_config(unmount_wait=1, unmount_busy="wait")
        user = self.user()
        self.volume(user)
        session = self.open(user)
        process = self.holder(user)
        session.logout()
        self.wait_until(lambda: any("in use by sleep" in l for l in LOG), "the log names the program")
        self.assert_open(user)
        self.assertEqual(sum("in use by sleep" in l for l in LOG), 1)
        again = self.open(user)  # finds it open, and is a session again
        self.assert_open(user)
        process.kill()
        process.wait()
        time.sleep(4)
        self.assert_open(user)
        again.logout()
        self.assert_locked_soon(user)

    def test_it_locks_when_the_program_ends(self):
        harness.write_config(unmount_wait=1)
        user = self.user()
        self.volume(user)
        session = self.open(user)
        process = self.holder(user)
        session.logout()
        time.sleep(2)
        process.kill()
        process.wait()
        self.assert_locked_soon(user)

    def test_told_to_end_it_detaches_what_is_in_use(self):
        harness.write_config(unmount_wait=1)
        user = self.user()
        self.volume(user)
        self.open(user)
        process = self.holder(user)
        self.tell_the_watcher_to_end()
        self.wait_until(lambda: not self.mounts(user), "detached")
        self.wait_until(lambda: not self.processes("ecfs-login\0watch"), "the watcher has ended")
        self.assertTrue(any("in use by sleep" in l for l in LOG))
        self.assertIsNone(process.poll())

    def test_lazy(self):
        harness.write_config(unmount_wait=0, unmount_busy="lazy")
        user = self.user()
        self.volume(user)
        session = self.open(user)
        process = self.holder(user)
        session.logout()
        self.assert_locked_soon(user)
        self.assertIsNone(process.poll())

    def test_kill(self):
        harness.write_config(unmount_wait=0, unmount_busy="kill")
        user = self.user()
        self.volume(user)
        session = self.open(user)
        process = self.holder(user)
        session.logout()
        self.assert_locked_soon(user)
        self.assertIsNotNone(process.wait(1))

    def test_somebody_elses_process_is_not_killed(self):
        harness.write_config(unmount_wait=0, unmount_busy="kill")
        user = self.user()
        self.volume(user)
        session = self.open(user)
        # root's own: it has the descriptor from the user's process
        process = self.holder(user)
        libc = ctypes.CDLL(None)
        held = libc.syscall(438, os.pidfd_open(process.pid), 3, 0)  # pidfd_getfd
        self.assertGreaterEqual(held, 0)
        root = subprocess.Popen(["sleep", "300"], stdin=held)
        os.close(held)
        self.addCleanup(lambda: (root.kill(), root.wait()))
        session.logout()
        self.wait_until(lambda: process.poll() is not None, "the user's process is gone")
        time.sleep(1)
        self.assertIsNone(root.poll())
        self.assert_open(user)
        root.kill()
        root.wait()
        self.assert_locked_soon(user)


if __name__ == "__main__":
    harness.main()
