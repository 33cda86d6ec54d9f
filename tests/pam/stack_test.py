#!/usr/bin/env python3
"""The module as a file, and in stacks that are not our own: Debian's common files as pam-auth-update makes them, and a program without
privileges."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

import harness
from harness import PAM_SUCCESS, SOURCE, LoginCase, sh

harness.enter(sys.argv)

HOOKS = {"pam_sm_authenticate", "pam_sm_setcred", "pam_sm_acct_mgmt", "pam_sm_open_session", "pam_sm_close_session", "pam_sm_chauthtok"}


class Module(unittest.TestCase):
    @unittest.skipIf(os.environ.get("ECFS_SANITIZED"), "a sanitized module links the sanitizer")
    def test_shows_the_six_hooks_and_nothing_else(self):
        symbols = [line.split()[-1] for line in sh(f"nm -D --defined-only {harness.MODULE}").splitlines()]
        self.assertEqual(sorted(symbols), sorted(HOOKS))

    @unittest.skipIf(os.environ.get("ECFS_SANITIZED"), "a sanitized module links the sanitizer")
    def test_brings_nothing_into_the_host(self):
        dynamic = sh(f"readelf -d {harness.MODULE}")
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
        self.assertLessEqual(needed, {"libpam.so.0", "libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"})
        self.assertRegex(dynamic, r"FLAGS_1.*NODELETE")
        self.assertRegex(dynamic, r"BIND_NOW|FLAGS.*NOW")
        self.assertNotRegex(dynamic, "RPATH|RUNPATH")


class Debian(LoginCase):
    """The whole of Debian's common files, with ecfs switched on by pam-auth-update, and everything at its installed place."""

    @classmethod
    def setUpClass(cls):
        for path in ("/usr/share/pam-configs", "/var/lib/pam", "/usr/libexec"):
            copy = harness.WORK / path.strip("/").replace("/", "-")
            sh(f"mkdir {copy} && cp -a {path}/. {copy}/ && mount --bind {copy} {path}")
        shutil.copy(SOURCE / "etc/pam-configs/ecfs", "/usr/share/pam-configs/ecfs")
        security = next(pathlib.Path("/usr/lib").glob("*/security/pam_unix.so")).parent
        copy = harness.WORK / "security"
        sh(f"mkdir {copy} && cp -a {security}/. {copy}/ && mount --bind {copy} {security}")
        shutil.copy(harness.MODULE, security / "pam_ecfs.so")
        # Where the module looks for its helper when nothing is said.
        helper = pathlib.Path(os.environ.get("ECFS_TEST_LIBEXEC", "/usr/libexec/ecfs"), "ecfs-login")
        if helper.parents[1] != pathlib.Path("/usr/libexec"):
            raise unittest.SkipTest(f"built for another prefix than /usr: {helper}")
        helper.parent.mkdir(exist_ok=True)
        for name in ("ecfs-login", "ecfs-mountd"):
            shutil.copy(harness.PROGRAMS / name, helper.parent / name)
        pathlib.Path("/etc/pam.d/ecfs-test-debian").write_text(
            "auth optional pam_faildelay.so delay=0\n@include common-auth\n@include common-account\nsession optional pam_keyinit.so force revoke\n"
            "@include common-session\n@include common-password\n")
        cls.before = {name: pathlib.Path("/etc/pam.d", name).read_text() for name in os.listdir("/etc/pam.d") if name.startswith("common-")}
        print(sh("DEBIAN_FRONTEND=noninteractive pam-auth-update --enable ecfs 2>&1"))

    def lines(self, name):
        return [line.split() for line in pathlib.Path("/etc/pam.d", name).read_text().splitlines() if line.strip() and not line.startswith("#")]

    def modules(self, name):
        return [next(word for word in line if word.endswith(".so")) for line in self.lines(name)]

    def test_pam_auth_update_puts_the_lines_where_they_belong(self):
        auth, session, password = self.modules("common-auth"), self.modules("common-session"), self.modules("common-password")
        self.assertGreater(auth.index("pam_ecfs.so"), auth.index("pam_permit.so"))
        self.assertGreater(session.index("pam_ecfs.so"), session.index("pam_unix.so"))
        if "pam_systemd.so" in session:
            self.assertLess(session.index("pam_ecfs.so"), session.index("pam_systemd.so"))
        self.assertGreater(password.index("pam_ecfs.so"), password.index("pam_permit.so"))
        self.assertNotIn("pam_ecfs.so", self.modules("common-session-noninteractive"))
        self.assertNotIn("pam_ecfs.so", self.modules("common-account"))
        ours = [line for line in self.lines("common-password") if "pam_ecfs.so" in line]
        self.assertEqual(ours, [["password", "[success=ok", "authtok_recover_err=die", "default=ignore]", "pam_ecfs.so"]])
        for name in ("common-auth", "common-session"):
            self.assertEqual([line[1] for line in self.lines(name) if "pam_ecfs.so" in line], ["optional"])

    @unittest.skipIf(os.environ.get("ECFS_SANITIZED"), "the helper's programs are not the installed ones")
    def test_login_logout_and_passwd(self):
        user = self.user()
        self.volume(user)
        session = self.open(user, service="ecfs-test-debian")
        self.assert_open(user)
        change = self.session(user, "ecfs-test-debian", real_uid=self.uid(user))
        self.assertEqual(change.do("chauthtok", "first-password", "Quite-another-1", "Quite-another-1"), PAM_SUCCESS)
        refused = self.session(user, "ecfs-test-debian", real_uid=self.uid(user))
        self.set_password(user, "elsewhere-1")
        shadow = pathlib.Path("/etc/shadow").read_text()
        self.assertEqual(refused.do("chauthtok", "elsewhere-1", "Third-one-9", "Third-one-9"), harness.PAM_AUTHTOK_RECOVERY_ERR)
        self.assertEqual(pathlib.Path("/etc/shadow").read_text(), shadow)
        self.set_password(user, "Quite-another-1")
        session.logout()
        self.assert_locked_soon(user)
        self.open(user, "Quite-another-1", service="ecfs-test-debian").logout()
        self.assert_locked_soon(user)
        self.assertEqual(self.session(user, "ecfs-test-debian").do("authenticate", "first-password"), harness.PAM_AUTH_ERR)

    @unittest.skipIf(os.environ.get("ECFS_SANITIZED"), "a sanitized module cannot be loaded into su and passwd")
    def test_su_and_passwd_as_programs(self):
        user = self.user()
        self.volume(user)
        done = subprocess.run(["su", "-", user, "-c", "true"], text=True, capture_output=True)  # root: no password, no word
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assert_locked_soon(user)
        subprocess.run(["passwd", user], input="By-root-77\nBy-root-77\n", text=True, check=True, capture_output=True)
        self.assertTrue(self.stale(user))
        self.set_password(user, "first-password")
        other = self.user("Other-pass-5")
        # From another user: su asks on a terminal, or reads stdin.
        done = subprocess.run(["setpriv", "--reuid", other, "--regid", other, "--init-groups", "su", "-", user, "-c", "echo in > Private/x; cat Private/x"],
                              input="first-password\n", text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stdout), (0, "in\n"), done.stderr)
        self.assertFalse(self.stale(user))
        self.assert_locked_soon(user)

    def test_zz_removing_it_leaves_what_was_there(self):
        sh("DEBIAN_FRONTEND=noninteractive pam-auth-update --package --remove ecfs 2>&1")
        os.unlink("/usr/share/pam-configs/ecfs")
        for name, text in self.before.items():
            self.assertEqual(pathlib.Path("/etc/pam.d", name).read_text(), text, name)


class Unprivileged(LoginCase):
    """A screen locker runs as the user: authentication must work and leave nothing behind."""

    @unittest.skipIf(os.environ.get("ECFS_SANITIZED"), "two preloaded libraries do not go together")
    def test_a_screen_locker(self):
        wrapper = next(iter(pathlib.Path("/usr/lib").glob("*/libpam_wrapper.so")), None)
        matrix = next(iter(pathlib.Path("/usr/lib").glob("*/pam_wrapper/pam_matrix.so")), None)
        if wrapper is None or matrix is None:
            self.skipTest("libpam-wrapper is not installed")
        user = self.user()
        self.volume(user)
        services = harness.WORK / "services"
        services.mkdir()
        (services / "passdb").write_text(f"{user}:first-password:ecfs-test-locker\n")
        (services / "other").write_text("".join(f"{kind} required pam_deny.so\n" for kind in ("auth", "account", "session", "password")))
        (services / "ecfs-test-locker").write_text("".join(
            f"{kind} required {matrix} passdb={services}/passdb\n{kind} optional {harness.MODULE} helper={harness.HELPER}\n"
            for kind in ("auth", "account", "session")))
        sh(f"chmod -R a+rX {services}; mkdir -p /tmp; chmod 1777 /tmp")
        env = {"LD_PRELOAD": str(wrapper), "PAM_WRAPPER": "1", "PAM_WRAPPER_SERVICE_DIR": str(services), "PATH": "/usr/bin:/bin"}
        prefix = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        session = self.session(user, "ecfs-test-locker", argv_prefix=prefix, env=env)
        self.assertEqual(session.do("authenticate", "first-password"), PAM_SUCCESS)
        self.assertLess(session.seconds, 10)
        self.assertEqual(session.do("acct_mgmt"), PAM_SUCCESS)
        self.assertEqual(session.do("setcred"), PAM_SUCCESS)
        self.assertEqual(session.do("open_session"), PAM_SUCCESS)
        self.assertEqual(session.do("close_session"), PAM_SUCCESS)
        self.assertEqual([l for l in session.info + session.errors if l.startswith("ecfs")], [])
        session.end()
        self.assert_no_trace(user)
        wrong = self.session(user, "ecfs-test-locker", argv_prefix=prefix, env=env)
        self.assertNotEqual(wrong.do("authenticate", "wrong"), PAM_SUCCESS)


if __name__ == "__main__":
    harness.main()
