"""Logins on a real Debian: the package installed in it with apt, on a serial console, over ssh, by su, sudo, cron and systemd;
and its swap, over a reboot.
The short run leaves some situations out, and names them.

Users: alice and carol have a volume each, bob has none, dave gets an encrypted home. The machine has a TPM 2.0 (swtpm). One table is printed, a line for each situation with what was
seen in it; a situation in which something else was seen than ecfs promises is WRONG, and the test fails.
"""

import contextlib
import glob
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import uuid

import debian
import disks
import vm

BUILD = os.environ["VM_BUILD"]
PASSWORDS = {"dave": "walnut stairs after rain", "alice": "violet kettle argues north", "bob": "seven plain doors stay shut", "carol": "amber tide counts to nine"}
LOCKED_SOON_S = 15
LONG = bool(os.environ.get("ECFS_LONG"))
NUM_AT_ONCE = 20 if LONG else 8  # tests/pam has 20 on a machine that is not emulated
FSTAB = "# a remark\nUUID=%s none swap sw,pri=7 0 0\n"
CRYPTTAB_READER = "/usr/lib/systemd/system-generators/systemd-cryptsetup-generator"
SITUATIONS = []


def mountpoint(user):
    return "/home/dave" if user == "dave" else "/home/%s/Private" % user


class Wrong(Exception):
    pass


def check(is_so, what):
    if not is_so:
        raise Wrong(what)


def situation(name, long_only=False):
    """long_only: what tests/pam and tests/package try too, on a machine that is not emulated, or takes minutes here."""
    def add(function):
        SITUATIONS.append((name, function, long_only))
        return function
    return add


class Logins:
    """The machine, and what is looked at in it."""

    def __init__(self, machine, swap_uuid):
        self.m = machine
        self.swap_uuid = swap_uuid

    def is_open(self, user):
        return self.m.sh("grep -q ' %s fuse.ecfs ' /proc/self/mounts" % (mountpoint(user)))[0] == 0

    def open_mounts(self):
        return [line.split()[1] for line in self.m.sh("grep ' fuse.ecfs ' /proc/self/mounts")[1].splitlines()]

    def servers(self, user):
        """How many mounts are served, how many watchers run."""
        return tuple(int(n) for n in self.m.must(
            "pgrep -c -P 1 -u %s -x ecfs-mountd; pgrep -c -f 'ecfs-login [w]atch --uid=%s$'; true" % (user, self.uid(user))).split())

    def uid(self, user):
        return self.m.must("id -u " + user)

    def locked(self, user, within_s=LOCKED_SOON_S):
        """Waits until the volume is locked, and nothing of it is left; gives the seconds."""
        begun = time.monotonic()
        path, uid = mountpoint(user), self.uid(user)
        status, _ = self.m.sh("for i in $(seq %d); do grep -q ' %s ' /proc/self/mounts || exit 0; sleep 0.1; done; exit 1" %
                                (within_s * 10, path))
        took = time.monotonic() - begun
        check(status == 0, "still mounted after %.0f s" % took)
        status, left = self.m.sh("for i in $(seq 50); do [ -e /run/ecfs/%s ] || pgrep -u %s -x ecfs-mountd >/dev/null || exit 0; "
                                   "sleep 0.1; done; ls /run/ecfs/%s; pgrep -a -u %s -x ecfs-mountd; exit 1" % (uid, user, uid, user))
        check(status == 0, "locked, and this is left: " + left)
        return took

    def log(self, since):
        return self.m.sh("journalctl -q -o cat -t ecfs-login -t ecfs-mountd -t pam_ecfs --since=@%s" % since)[1]

    def now(self):
        return self.m.must("date +%s.%N")

    def note(self, session, text):
        status, said = session.run("echo %s >Private/note && cat Private/note" % text)
        check((status, said) == (0, text), "a note cannot be written: " + said)

    def reads(self, session, text):
        status, said = session.run("cat Private/note")
        check((status, said) == (0, text), "the note cannot be read: " + said)

    def ssh(self, user):
        return self.m.ssh(user).log_in(PASSWORDS[user])

    def quiet(self):
        """After a situation that went wrong: nobody is logged in, nothing is open."""
        self.m.sh("pkill -KILL -u alice; pkill -KILL -u bob; pkill -KILL -u carol; pkill -KILL -u dave; pkill -KILL -x login; sleep 2; "
                    "umount -l /home/*/Private /home/dave; true")


# ---- Opening and locking ----

@situation("login at a console, logout")
def console(t):
    session = t.m.console().log_in("alice", PASSWORDS["alice"])
    check(session.ours == [], "it said: %s" % session.ours)
    check(t.is_open("alice"), "not mounted")
    t.note(session, "the-first-note")
    options = session.run("grep ' /home/alice/Private ' /proc/self/mounts")[1]
    check("nosuid,nodev" in options, options)
    session.log_out()
    took = t.locked("alice")
    check(t.m.sh("grep -r the-first-note /home/alice/.Private")[0] == 1, "the note is readable in ~/.Private")
    left = t.m.must("ls /home/alice/Private")
    return "open, nothing said; locked %.1f s after the logout, %s in its place" % (took, left)


@situation("ssh with the password")
def ssh_password(t):
    session = t.ssh("alice")
    check(session.ours == [], "it said: %s" % session.ours)
    t.reads(session, "the-first-note")
    session.log_out()
    return "open, nothing said; locked %.1f s after the logout" % t.locked("alice")


@situation("ssh with a key")
def ssh_key(t):
    session = t.m.with_key("alice")
    said = session.ours
    check(not t.is_open("alice"), "mounted without a password")
    check(said == ["ecfs: Private is locked; open it with: ecfs mount-private"], "it said: %s" % said)
    session.send("ecfs mount-private")
    session.expect("assphrase.*: ")
    session.password(PASSWORDS["alice"])
    t.reads(session, "the-first-note")
    session.log_out()
    return "locked, \"%s\"; that opens it; locked %.1f s after the logout" % (said[0], t.locked("alice"))


@situation("ssh, keyboard-interactive", long_only=True)
def ssh_keyboard(t):
    session = t.m.ssh("alice", "-o", "PreferredAuthentications=keyboard-interactive").log_in(PASSWORDS["alice"])
    said = session.ours
    check(not t.is_open("alice"), "mounted")
    check(len(said) == 1 and "ecfs mount-private" in said[0], "it said: %s" % said)
    session.log_out()
    return "the password stays in sshd's other process: locked, \"%s\"" % said[0]


@situation("a user without a volume", long_only=True)
def without(t):
    on_console = t.m.console().log_in("bob", PASSWORDS["bob"])
    over_ssh = t.ssh("bob")
    check(on_console.ours + over_ssh.ours == [], "it said something")
    check(t.open_mounts() == [] and t.m.sh("ls /run/ecfs")[1] in ("", "ls: cannot access '/run/ecfs': No such file or directory"),
          "something was started")
    on_console.log_out()
    over_ssh.log_out()
    return "console and ssh: nothing said, nothing started"


@situation("su and su - to a user with a volume", long_only=True)
def su(t):
    for command in ("su - alice -c true", "su alice -c true"):
        status, said = t.m.sh(command)
        check((status, said) == (0, ""), "root's %s said: %s" % (command, said))
    check(not t.is_open("alice"), "root's su opened it")
    session = t.ssh("bob")
    session.send("su - alice")
    session.expect("Password: ")
    session.password(PASSWORDS["alice"])
    t.reads(session, "the-first-note")
    session.send("exit")
    session.to_prompt()
    took = t.locked("alice")
    session.log_out()
    return "root: nothing said, locked; another user, with the password: open, locked %.1f s after it" % took


@situation("sudo, su to a user without a volume", long_only=True)
def sudo(t):
    root = t.m.sh("sudo -u alice ls /home/alice/Private")
    check(root[0] == 0 and "ecfs:" not in root[1] and not t.is_open("alice"), "root's sudo: %s" % root[1])
    session = t.ssh("bob")
    session.send("sudo -u alice cat /home/alice/Private/note")
    session.expect("password for bob: ")
    session.password(PASSWORDS["bob"])
    check("ecfs:" not in session.said and not t.is_open("alice"), "sudo to alice said: " + session.said)
    session.log_out()
    session = t.ssh("alice")
    session.send("sudo -u bob true")
    session.expect("password for alice: ")
    session.password(PASSWORDS["alice"])
    check("ecfs:" not in session.said, "sudo to bob said: " + session.said)
    session.send("su bob -c 'echo I am $USER'")
    session.expect("Password: ")
    session.password(PASSWORDS["bob"])
    check("ecfs:" not in session.said, "su to bob said: " + session.said)
    t.reads(session, "the-first-note")
    session.log_out()
    t.locked("alice")
    return "no question, nothing said, nothing mounted or unmounted"


# ---- Several sessions ----

@situation("%d logins at the same instant" % NUM_AT_ONCE, long_only=True)
def twenty(t):
    sessions = [t.m.ssh("alice") for _ in range(NUM_AT_ONCE)]
    for session in sessions:
        session.expect("assword: ")
    for session in sessions:
        session.send(PASSWORDS["alice"])
    said = []
    for session in sessions:
        session.to_prompt()
        said += session.ours
    # An emulated machine on a busy one may take longer than the 15 seconds that a login gives it, and says so.
    late = [line for line in said if "took too long for a login" in line]
    check(len(late) == len(said) and len(late) <= NUM_AT_ONCE // 4, "they said: %s" % said)
    check(t.open_mounts() == [mountpoint("alice")], "mounts: %s" % t.open_mounts())
    served, watchers = t.servers("alice")
    check((served, watchers) == (1, 1), "%d servers, %d watchers" % (served, watchers))
    for session in sessions:
        t.reads(session, "the-first-note")
    for session in sessions[:-1]:
        session.send("exit")
    for session in sessions[:-1]:
        session.expect(debian.pexpect.EOF)
    check(t.is_open("alice"), "locked although one is there")
    t.reads(sessions[-1], "the-first-note")
    sessions[-1].log_out()
    return "one mount, one watcher, all read it%s; open while the last one was there, then locked in %.1f s" % (
        ", %d were told that it took too long" % len(late) if late else "", t.locked("alice"))


@situation("console logout while ssh goes on", long_only=True)
def first_logout(t):
    on_console = t.m.console().log_in("alice", PASSWORDS["alice"])
    over_ssh = t.ssh("alice")
    status, _ = over_ssh.run("exec 7>>Private/open && echo before >&7")
    check(status == 0, "a file cannot be opened")
    on_console.log_out()
    time.sleep(3)
    check(t.is_open("alice"), "the first logout locked it")
    status, said = over_ssh.run("echo after >&7 && cat Private/open && rm Private/open && exec 7>&-")
    check((status, said) == (0, "before\nafter"), "the open file: " + said)
    over_ssh.log_out()
    return "open, with the file that was open; locked %.1f s after the second logout" % t.locked("alice")


@situation("the same with KillUserProcesses=yes", long_only=True)
def kill_user_processes(t):
    t.m.must("mkdir -p /etc/systemd/logind.conf.d; printf '[Login]\\nKillUserProcesses=yes\\n' >/etc/systemd/logind.conf.d/test.conf; "
             "systemctl restart systemd-logind")
    try:
        first, second = t.ssh("alice"), t.m.console().log_in("alice", PASSWORDS["alice"])
        status, _ = first.run("sleep 1000 & disown")
        check(status == 0 and t.m.sh("pgrep -u alice -x sleep")[0] == 0, "no program was left behind")
        first.log_out()
        time.sleep(3)
        check(t.m.sh("pgrep -u alice -x sleep")[0] == 1, "the session's program was not ended: the setting is not in force")
        check(t.is_open("alice"), "the first logout locked it")
        t.reads(second, "the-first-note")
        second.log_out()
        took = t.locked("alice")
    finally:
        t.m.must("rm /etc/systemd/logind.conf.d/test.conf; systemctl restart systemd-logind")
    return "the session's programs ended, the mount stayed; locked %.1f s after the second logout" % took


@situation("logout while a program keeps a file open", long_only=True)
def busy(t):
    since = t.now()
    session = t.ssh("alice")
    session.run("sleep 1000 <Private/note & disown")
    pid = t.m.must("pgrep -u alice -x sleep")
    session.log_out()
    t.m.must("for i in $(seq 300); do journalctl -q -o cat -t ecfs-login --since=@%s | grep -q 'in use by' && exit 0; sleep 0.3; done; exit 1"
             % since)
    line = [line for line in t.log(since).splitlines() if "in use by" in line][0]
    check("sleep (%s)" % pid in line, line)
    check(t.is_open("alice"), "not open any more")
    t.m.must("kill " + pid)
    return "the journal: \"%s\"; locked %.1f s after its end" % (line[line.index("stays open"):], t.locked("alice"))


@situation("sshd's session killed (SIGKILL)", long_only=True)
def killed(t):
    session = t.ssh("alice")
    t.reads(session, "the-first-note")
    t.m.must("pkill -KILL -f '^sshd: alice'")
    took = t.locked("alice")
    session.terminal.close(force=True)
    return "locked in %.1f s" % took


@situation("a whole home: made by root, ssh with the password")
def whole_home(t):
    t.m.must("cd /home/dave; echo precious >letter; mkdir .ssh; cp /root/.ssh/authorized_keys .ssh; chmod 700 .ssh; chmod 600 .ssh/authorized_keys; chown -R dave: .")
    t.m.must("printf '%%s\\n' '%s' | ecfs setup-private --whole-home --user dave --yes --kdf-memory 19 --kdf-time 2 "
             "--recovery-key-file /root/dave.key --passphrase-fd 0" % PASSWORDS["dave"], 240)
    check(not t.m.sh("ls /home/dave/letter")[0] == 0, "its files are seen while it is locked")
    session = t.ssh("dave")
    check(session.ours == [] and t.is_open("dave"), "it said: %s" % session.ours)
    status, said = session.run("pwd; cat letter; echo new >fresh && rm fresh && ls -a .ssh")
    check(status == 0 and said.splitlines()[:2] == ["/home/dave", "precious"], said)
    check(t.m.sh("cat /home/dave/letter") == (0, "precious"), "root cannot read it: no allow_other")
    session.log_out()
    return "begins in the open home; locked %.1f s after the logout" % t.locked("dave")


@situation("a whole home, ssh with a key")
def whole_home_key(t):
    session = t.m.with_key("dave")
    said = session.ours
    check(not t.is_open("dave") and len(said) == 1 and "ecfs mount-private" in said[0], "it said: %s" % said)
    session.send("ecfs mount-private; cd")
    session.expect("assphrase.*: ")
    session.password(PASSWORDS["dave"])
    check(session.run("cat letter") == (0, "precious"), "it does not open")
    session.log_out()
    took = t.locked("dave")
    t.m.must("ecfs setup-private --whole-home --user dave --remove-original")
    check(t.m.sh("ls -d /home/dave.unencrypted")[0] != 0, "the original is still there")
    return "sshd finds the key in the locked home, \"%s\", which opens it; locked %.1f s after the logout; the original removed" % (said[0], took)


# ---- Not logins ----

@situation("a cron job, locked and open", long_only=True)
def cron(t):
    t.m.must("printf '* * * * * cat Private/note >>cron.out 2>&1 || echo locked >>cron.out\\n' | crontab -u alice -")
    # cron begins at the next minute, to which the clock is put forward.
    ran = ("date -s @$(($(date +%%s) / 60 * 60 + 58)) >/dev/null; systemctl restart cron; "
           "for i in $(seq 100); do grep -q %s /home/alice/cron.out && exit 0; sleep 1; done; exit 1")
    t.m.must(ran % "locked")
    check(not t.is_open("alice"), "the job opened it")
    session = t.ssh("alice")
    t.m.must(ran % "the-first-note")
    t.reads(session, "the-first-note")
    session.log_out()
    took = t.locked("alice")
    t.m.must("crontab -u alice -r")
    return "does not open it, reads it while it is open; locked %.1f s after the logout" % took


@situation("systemd --user, and lingering", long_only=True)
def user_services(t):
    t.m.must("loginctl enable-linger alice; for i in $(seq 100); do systemctl -q is-active user@%s && exit 0; sleep 0.2; done; exit 1" %
             t.uid("alice"))
    check(not t.is_open("alice"), "lingering opened it")
    session = t.ssh("alice")
    status, said = session.run("systemd-run --user --wait --pipe -q cat Private/note")
    check((status, said) == (0, "the-first-note"), "a user service: " + said)
    status, said = session.run("systemd-run --user --wait --pipe -q grep -c ' ecfs:' /proc/keys")
    check(status == 0, "a user service does not find the key in the keyring: " + said)
    session.log_out()
    took = t.locked("alice")
    check(t.m.sh("systemctl -q is-active user@" + t.uid("alice"))[0] == 0, "the user's systemd has ended")
    t.m.must("loginctl disable-linger alice")
    return "not opened by lingering; a user service reads it and finds the key; locked %.1f s after the logout, while the user's systemd goes on" % took


@situation("a console that logs in by itself", long_only=True)
def autologin(t):
    drop_in = "/etc/systemd/system/serial-getty@ttyS1.service.d"
    t.m.must("mkdir -p %s; printf '[Service]\\nExecStart=\\nExecStart=-/sbin/agetty --autologin alice --keep-baud 115200 - vt220\\n' >%s/test.conf; "
             "systemctl daemon-reload; systemctl restart serial-getty@ttyS1" % (drop_in, drop_in))
    session = t.m.console()
    try:
        session.to_prompt()
        said = session.ours
        check(not t.is_open("alice"), "mounted without a password")
        check(said == ["ecfs: Private is locked; open it with: ecfs mount-private"], "it said: %s" % said)
    finally:
        t.m.must("rm -r %s; systemctl daemon-reload; systemctl restart serial-getty@ttyS1" % drop_in)
    session.expect("login: ")
    return "locked, \"%s\"" % said[0]


@situation("ecfs status --all, and the journal", long_only=True)
def status(t):
    since = t.now()
    session = t.ssh("alice")
    told = t.m.must("ecfs status --all")
    check(re.search(r"alice \(\d+\)\n  Private: open at /home/alice/Private since .*, by slot \d+ \(password\), served by process \d+", told), told)
    line = [line for line in t.log(since).splitlines() if "Private is open" in line][0]
    unit = t.m.must("systemctl status ecfs-user@%s | cat" % t.uid("alice"))
    check("Encrypted files of user" in unit and "ecfs-mountd" in unit, unit)
    session.log_out()
    t.locked("alice")
    check(t.m.must("ecfs status --all") == "Nothing is open, for any user.", "after the logout")
    return "%s; the journal: \"%s\"" % (told.splitlines()[1].strip(), line)


@situation("AppArmor")
def apparmor(t):
    session = t.ssh("alice")
    loaded = t.m.must("grep -E '^ecfs-' /sys/kernel/security/apparmor/profiles | sort").splitlines()
    check(loaded == ["ecfs-login (enforce)", "ecfs-mountd (enforce)", "ecfs-tpm2 (enforce)"], "loaded: %s" % loaded)
    for what, profile in (("pgrep -o -u alice -x ecfs-mountd", "ecfs-mountd"), ("pgrep -o -f 'ecfs-login [w]atch'", "ecfs-login")):
        confined = t.m.must("cat /proc/$(%s)/attr/current" % what)
        check(confined == profile + " (enforce)", "%s runs as %s" % (profile, confined))
        # ecfs-login may ask a directory service over the network who a user is.
        refused = [("another program", "/bin/true; true")] + [("a connection", "exec 3<>/dev/tcp/127.0.0.1/22")] * (profile == "ecfs-mountd")
        for what, command in refused:
            check(t.m.sh("bash -c '%s'" % command)[0] == 0, "without AppArmor not even " + what)
            check(t.m.sh("aa-exec -p %s -- /bin/bash -c '%s'" % (profile, command.replace("; true", "")))[0] != 0, what + " is made in " + profile)
    session.log_out()
    t.locked("alice")
    return "both profiles are enforced, for the server and the watcher; no other program is started in them, and no connection made by the server"


@situation("the machine sleeps while it is open", long_only=True)
def suspend(t):
    profile = "/home/alice/.ecfs/Private/profile.json"
    t.m.must("systemctl -q enable ecfs-suspend && cp -p %s /root/profile.json && "
             "sed -i 's/\"options\": *\\[\\]/\"options\": [\"suspend\"]/' %s && grep -q '\"suspend\"' %s" % ((profile,) * 3))
    try:
        session = t.ssh("alice")
        check(session.run("exec 7>>Private/open")[0] == 0, "a file cannot be opened")
        slept = t.m.must("date +%s; rtcwake -m no -s 8 >/dev/null && systemctl suspend && sleep 15; date +%s; journalctl -q -k -b | grep -c 'PM: suspend exit'", 240)
        check(slept.splitlines()[-1] == "1", "it did not sleep: " + slept)
        told = t.m.must("setpriv --reuid=alice --regid=alice --init-groups --reset-env ecfs status")
        check("Private: suspended" in told, told)
        status, said = session.run("cat Private/note")
        check(status == 1 and "Required key not available" in said, "read while it was suspended: " + said)
        again = t.ssh("alice")
        check(any("open again" in line for line in again.ours), "the next login said: %s" % again.ours)
        t.reads(session, "the-first-note")
        again.log_out()
        session.run("exec 7>&-; rm Private/open")
        session.log_out()
        t.locked("alice")
    finally:
        t.m.must("cp -p /root/profile.json %s; systemctl -q disable ecfs-suspend" % profile)
    return "its keys are wiped, although a file is open; the next login: \"%s\"" % again.ours[0]


# ---- Passwords ----

def change_password(session, old, new):
    session.send("passwd")
    for question, answer in (("urrent password: ", old), ("New password: ", new), ("new password: ", new)):
        session.expect(question)
        session.send(answer)
    session.to_prompt()
    check("updated successfully" in session.said, session.said)
    check(session.ours == [], "it said: %s" % session.ours)


@situation("passwd by the user", long_only=True)
def passwd(t):
    session = t.ssh("alice")
    change_password(session, PASSWORDS["alice"], "harbour lamp under glass")
    PASSWORDS["alice"] = "harbour lamp under glass"
    session.log_out()
    t.locked("alice")
    session = t.ssh("alice")
    check(session.ours == [], "it said: %s" % session.ours)
    t.reads(session, "the-first-note")
    session.log_out()
    t.locked("alice")
    return "the next login opens it"


@situation("passwd by root, then ssh, then the console")
def passwd_by_root(t):
    old, PASSWORDS["alice"] = PASSWORDS["alice"], "copper bell chosen by root"
    said = t.m.must("printf 'alice:%s\\n' | chpasswd" % PASSWORDS["alice"])
    session = t.ssh("alice")
    told = session.ours
    check(not t.is_open("alice"), "opened by a password that it does not have")
    check(len(told) == 1 and "does not open Private" in told[0] and "ecfs mount-private" in told[0], "ssh said: %s" % told)
    session.send("ecfs mount-private")
    session.expect("assphrase.*: ")
    session.password(old)
    t.reads(session, "the-first-note")
    session.log_out()
    t.locked("alice")
    asked = t.m.console()
    asked.send("")
    asked.expect("login: ")
    asked.send("alice")
    asked.expect("Password: ")
    asked.send(PASSWORDS["alice"])
    asked.expect("Old password or recovery key")
    asked.password(old)
    check(any("from now on" in line for line in asked.ours), "the console said: %s" % asked.ours)
    t.reads(asked, "the-first-note")
    asked.log_out()
    t.locked("alice")
    session = t.ssh("alice")
    check(session.ours == [], "the login after it said: %s" % session.ours)
    t.reads(session, "the-first-note")
    session.log_out()
    t.locked("alice")
    return "root is told: %s. ssh: \"%s\", the old one opens it by hand; the console asks for the old one, once, and then it opens" % (
        "yes" if "still open with the former password" in said else "NO", told[0])


@situation("passwd by root, then ecfs key change", long_only=True)
def key_change(t):
    old, PASSWORDS["carol"] = PASSWORDS["carol"], "granite moth chosen by root"
    t.m.must("printf 'carol:%s\\n' | chpasswd" % PASSWORDS["carol"])
    session = t.ssh("carol")
    check(not t.is_open("carol"), "opened by a password that it does not have")
    session.send("ecfs key change --kdf-memory 19 --kdf-time 2 Private")
    for question, answer in (("assphrase .*: ", old), ("New passphrase: ", PASSWORDS["carol"]), ("more: ", PASSWORDS["carol"])):
        session.expect(question)
        session.send(answer)
    session.to_prompt()
    session.log_out()
    session = t.ssh("carol")
    check(session.ours == [] and t.is_open("carol"), "the next login said: %s" % session.ours)
    session.log_out()
    t.locked("carol")
    return "the next login opens it"


# ---- The TPM ----

def extend(t, pcr):
    """As a boot into something else does: TPM2_PCR_Extend, in bytes."""
    command = (b"\x80\x02" + (65).to_bytes(4, "big") + (0x182).to_bytes(4, "big") + pcr.to_bytes(4, "big") +
               (9).to_bytes(4, "big") + (0x40000009).to_bytes(4, "big") + bytes(5) +
               (1).to_bytes(4, "big") + (0xB).to_bytes(2, "big") + b"\x07" * 32)
    before = t.m.must("cat /sys/class/tpm/tpm0/pcr-sha256/%d" % pcr)
    t.m.must("printf '%s' >/dev/tpmrm0" % "".join("\\%03o" % byte for byte in command))
    check(t.m.must("cat /sys/class/tpm/tpm0/pcr-sha256/%d" % pcr) != before, "the register did not change")


def opens_by_tpm(t, user):
    """A login with an ssh key, which brings no password."""
    session = t.m.with_key(user)
    check(session.ours == [] and t.is_open(user), "it said: %s" % session.ours)
    told = t.m.must("ecfs status --all")
    check("(tpm2)" in told, told)
    t.reads(session, "kept")
    session.log_out()
    return t.locked(user)


def falls_back(t, user, why):
    """The TPM does not open it: the login goes on and says why; the password opens it, and so does the recovery key."""
    session = t.m.with_key(user)
    said = session.ours
    check(not t.is_open(user) and len(said) == 1 and re.search(why, said[0]), "it said: %s" % said)
    check(session.run("ecfs mount-private --passphrase-file recovery")[0] == 0, "the recovery key does not open it")
    t.reads(session, "kept")
    session.log_out()
    t.locked(user)
    session = t.m.console().log_in(user, PASSWORDS[user])
    check(t.is_open(user), "the password does not open it: %s" % session.ours)
    session.log_out()
    t.locked(user)
    return said[0]


@situation("a key in the TPM, ssh with a key")
def tpm(t):
    session = t.ssh("carol")
    t.note(session, "kept")
    session.log_out()
    t.locked("carol")
    t.m.must("usermod -aG tss carol; printf '%%s\\n' '%s' | setpriv --reuid=carol --regid=carol --init-groups --reset-env "
             "ecfs key add tpm2 --pcrs 7 --passphrase-fd 0 Private" % PASSWORDS["carol"])
    return "open without a password, nothing said; locked %.1f s after the logout" % opens_by_tpm(t, "carol")


@situation("ecfs setup-boot /secret")
def setup_boot(t):
    said = t.m.must("ecfs setup-boot --yes --recovery-key-file /root/secret.key /secret && echo boots >/secret/file && systemctl is-active ecfs-mount@secret", 120)
    check(said.endswith("active"), said)
    check(t.m.sh("setpriv --reuid=bob --regid=bob --clear-groups cat /secret/file") == (0, "boots"), "another user cannot read it")
    check(t.m.sh("grep -r boots /.secret")[0] == 1, "it can be read in /.secret")
    return "open at once, other users read it as modes allow"


# ---- Swap ----

def swaps(t):
    """(name, priority) of each that is on."""
    return [tuple(line.split()) for line in t.m.must("swapon --show=NAME,PRIO --noheadings | sed 's|^/dev/dm-0 |/dev/mapper/ecfs_swap1 |'").splitlines()]


def swap_is_encrypted(t, unit):
    """`unit` brought it on at the boot; None: this boot did not."""
    if unit and swaps(t) == [] and "Dependency failed for dev-mapper-ecfs_swap1.swap" in t.m.must("journalctl -q -b -o cat -u dev-mapper-ecfs_swap1.swap"):
        print("the emulated machine took longer than systemd waits for a disk; once more by hand")
        came = any(t.m.sh("systemctl start dev-mapper-ecfs_swap1.swap")[0] == 0 for _ in range(4))
        check(came, "not by hand either: " + t.m.sh("journalctl -q -b -o short-monotonic --grep 'ecfs_swap1|vdc|disk-by'; systemctl list-jobs; "
                                                    "udevadm info /dev/vdc2")[1])
    check(swaps(t) == [("/dev/mapper/ecfs_swap1", "7")], "swap: %s" % swaps(t))
    check(t.m.must("cat /sys/block/dm-0/dm/name /sys/block/dm-0/dm/uuid").splitlines() == ["ecfs_swap1", "CRYPT-PLAIN-ecfs_swap1"], "what is it?")
    check(t.m.sh("head -c 65536 /dev/vdc2 | grep -q SWAPSPACE")[0] == 1, "a plain header is on the disk")
    check("Swap: encrypted" in t.m.must("ecfs status"), "ecfs status: " + t.m.sh("ecfs status")[1])
    for each in ("dev-mapper-ecfs_swap1.swap", unit):
        check(not each or t.m.sh("systemctl -q is-active " + each)[0] == 0, "systemd: %s is not active" % each)


@situation("swap encrypted while systemd runs")
def swap(t):
    check(swaps(t) == [("/dev/vdc2", "7")], "swap before: %s" % swaps(t))
    check("NOT ENCRYPTED" in t.m.must("ecfs status"), "ecfs status: " + t.m.sh("ecfs status")[1])
    t.m.must("ecfs setup-swap --yes", 240)
    t.m.must("systemctl daemon-reload; sleep 1")
    swap_is_encrypted(t, None)
    check(t.m.must("systemctl show -p FragmentPath --value systemd-cryptsetup@ecfs_swap1").endswith("systemd-cryptsetup@ecfs_swap1.service"),
          "systemd does not read crypttab")
    failed = t.m.must("systemctl --failed --no-legend --plain | cat")
    check(failed == "", "systemd: " + failed)
    return "/dev/vdc2 is /dev/mapper/ecfs_swap1 now, with its priority, before and after a daemon-reload"


# ---- The machine ----

def median(times):
    return "%.2f s (%.2f to %.2f)" % (statistics.median(times), min(times), max(times))


@situation("seconds from the password to the prompt", long_only=True)
def seconds(t):
    times = {"alice": [], "bob": []}
    rounds = 20
    for user in list(times) * rounds:
        session = t.m.console().log_in(user, PASSWORDS[user])
        times[user].append(session.seconds)
        session.log_out()
        if user == "alice":
            t.locked("alice")
    return "with a volume %s, without %s, median of %d at the console" % (median(times["alice"]), median(times["bob"]), rounds)


@situation("reboot while it is open")
def reboot(t):
    since, boot = t.now(), t.m.must("tr -d - </proc/sys/kernel/random/boot_id")
    session = t.ssh("alice")
    session.run("exec 7>>Private/log; cd Private; for i in 1 2 3 4 5; do echo line $i; done >&7")
    second = t.ssh("carol")
    second.run("echo kept >Private/note")
    log = t.m.at("console.log")
    begun, size = time.monotonic(), os.path.getsize(log)
    t.m.sh("systemctl --no-block reboot")
    for each in (session, second):
        with contextlib.suppress(debian.Ended):
            each.expect(debian.pexpect.EOF)
        each.terminal.close(force=True)
    t.m.shell.kill()
    t.m.shell.wait()
    while "TEST: the disk" not in open(log, errors="replace").read()[size:]:
        check(time.monotonic() - begun < 150, "it did not reboot")
        time.sleep(0.1)
    down = time.monotonic() - begun
    t.m.is_up()
    said = open(log, errors="replace").read()[size:]
    disk = re.search(r"TEST: the disk (.*)", said).group(1).strip()
    check(disk == "is clean", "the disk " + disk)
    check(not re.search(r"FAILED|Failed|timed out|Timed out|remains|not responding", said.split("TEST:")[0]), "the console: " + said[:2000])
    # By its id: "the boot before" is told by the clock, which the situation with cron puts forward.
    journal = t.m.must("journalctl -q _BOOT_ID=%s -o short-monotonic --since=@%s" % (boot, since))
    check("locked" in journal, "the journal of the boot before: " + journal[:500])
    complaints = [line for line in journal.splitlines()
                  if re.search(r"(ecfs|Private).*([Ff]ail|busy|unexpected|in use|left-over|remains|cannot)|[Ff]ail.*(ecfs|Private)|SIGKILL", line)]
    check(not complaints, "the journal: " + " / ".join(complaints))
    session = t.ssh("alice")
    status, text = session.run("cat Private/log")
    check((status, text.count("line")) == (0, 5), "what was written before: " + text)
    t.reads(session, "the-first-note")
    session.log_out()
    t.locked("alice")
    return "down in %.0f s, no complaint; the disk %s; opens after it, with all that was written" % (down, disk)


@situation("the key in the TPM after the reboot; a changed boot state")
def tpm_state(t):
    check(t.m.sh("cat /secret/file") == (0, "boots"), "/secret did not open at boot: " + t.m.sh("systemctl status ecfs-mount@secret | cat")[1])
    before = t.m.must("systemctl show -P ActiveEnterTimestampMonotonic ecfs-mount@secret systemd-user-sessions | grep .").split()
    check(len(before) == 2 and int(before[0]) < int(before[1]), "it came behind the logins: %s" % before)
    opens_by_tpm(t, "carol")
    extend(t, 7)
    said = falls_back(t, "carol", "PCR 7")
    t.m.must("setpriv --reuid=carol --regid=carol --init-groups --reset-env ecfs key reseal --passphrase-file /home/carol/recovery Private")
    opens_by_tpm(t, "carol")
    return "it and /secret open after the reboot, /secret before logins; PCR 7 changed: \"%s\", password and recovery key open; resealed: opens" % said


@situation("swap after the reboot")
def swap_rebooted(t):
    swap_is_encrypted(t, "systemd-cryptsetup@ecfs_swap1")
    return "on, by systemd-cryptsetup, with a new key"


@situation("swap where systemd does not read crypttab", long_only=True)
def swap_unit(t):
    t.m.must("ecfs setup-swap --undo --yes", 240)
    check(swaps(t) == [("/dev/vdc2", "7")], "swap undone: %s" % swaps(t))
    fstab = t.m.must("cat /etc/fstab")
    check(fstab + "\n" == FSTAB % t.swap_uuid, "fstab: " + fstab)
    t.m.must("mv %s /root; systemctl daemon-reload; ecfs setup-swap --yes; systemctl daemon-reload; sleep 1" % CRYPTTAB_READER, 240)
    swap_is_encrypted(t, None)
    check(t.m.must("systemctl is-enabled ecfs-swap@ecfs_swap1") == "enabled", "the unit is not enabled")
    return "undone: as it was; done again: ecfs-swap@ecfs_swap1 is enabled"


@situation("the package removed while it is open", long_only=True)
def removed(t):
    session = t.ssh("alice")
    t.m.must("DEBIAN_FRONTEND=noninteractive apt-get -q -y remove ecfs")
    t.reads(session, "the-first-note")
    session.log_out()
    took = t.locked("alice")
    for user in PASSWORDS:
        again = t.ssh(user)
        check(again.ours == [], "%s's login said: %s" % (user, again.ours))
        again.log_out()
    check(t.m.sh("grep -l pam_ecfs /etc/pam.d/*")[0] == 1, "a line of PAM is left")
    on_console = t.m.console().log_in("alice", PASSWORDS["alice"])
    on_console.log_out()
    return "serves to the logout, locked %.1f s after it; then all log in, at the console and over ssh" % took


@situation("the journals of all of it")
def journals(t):
    bad = "ended unexpectedly|segfault|core dump|apparmor=.DENIED.*profile=.ecfs"
    found = t.m.sh("journalctl -q -o cat | grep -E '%s' | grep -vE 'comm=.(bash|aa-exec)'" % bad)[1]
    check(not found, found)
    return "no crash, and nothing that AppArmor refused; %s lines of ecfs" % t.m.must(
        "journalctl -q -o cat -t ecfs-login -t ecfs-mountd -t pam_ecfs -t ecfs-sessions | wc -l")


@situation("installed again, power-off while it is open", long_only=True)
def power_off(t):
    t.m.must("DEBIAN_FRONTEND=noninteractive apt-get -q -y install /root/ecfs_*.deb", 240)
    session = t.ssh("alice")
    t.reads(session, "the-first-note")
    log = t.m.at("console.log")
    begun, size = time.monotonic(), os.path.getsize(log)
    t.m.sh("systemctl --no-block poweroff")
    with contextlib.suppress(debian.Ended):
        session.expect(debian.pexpect.EOF)
    session.terminal.close(force=True)
    while t.m.process.poll() is None:
        check(time.monotonic() - begun < 150, "it did not power off")
        time.sleep(0.1)
    said = open(log, errors="replace").read()[size:]
    check(not re.search(r"FAILED|Failed|timed out|Timed out|remains|not responding", said), "the console: " + said[:2000])
    return "off in %.0f s, no complaint" % (time.monotonic() - begun)


@situation("switched on again, in the state that was resealed", long_only=True)
def tpm_resealed(t):
    t.m.start()
    extend(t, 7)
    return "opens; locked %.1f s after the logout" % opens_by_tpm(t, "carol")


@situation("swap by ecfs-swap@ after it", long_only=True)
def swap_unit_booted(t):
    swap_is_encrypted(t, "ecfs-swap@ecfs_swap1")
    t.m.must("systemctl stop ecfs-swap@ecfs_swap1")
    check(swaps(t) == [] and t.m.sh("ls /dev/mapper/ecfs_swap1")[0] != 0, "stopped, and still on")
    t.m.must("systemctl start ecfs-swap@ecfs_swap1 dev-mapper-ecfs_swap1.swap")
    swap_is_encrypted(t, "ecfs-swap@ecfs_swap1")
    return "on, with a new key; stopped: off, and the mapping is gone; started: on"


@situation("switched on with another TPM, and without the disk of the swap", long_only=True)
def tpm_other(t):
    t.m.end(keep=True)
    t.m.tpm, t.m.more_disks = t.m.at("another-tpm"), ()
    begun = time.monotonic()
    t.m.start()
    check(time.monotonic() - begun < 100 and swaps(t) == [], "the boot took %.0f s" % (time.monotonic() - begun))
    said = falls_back(t, "carol", "TPM")
    failed = t.m.sh("systemctl is-failed ecfs-mount@secret; journalctl -q -b -o cat -u ecfs-mount@secret")[1]
    check(failed.startswith("failed") and "another TPM" in failed and t.m.sh("ls /secret/file")[0] != 0, failed)
    check("/secret stays locked" in failed and "ecfs-mount" not in t.m.must("systemctl list-jobs"), failed)
    # What the journal says is to be typed.
    by_hand = re.search("To open it by hand, with the recovery key: (.*)", failed).group(1)
    t.m.must(by_hand.replace("mount", "mount --passphrase-file /root/secret.key", 1) + " && grep boots /secret/file && ecfs umount /secret")
    bind = re.search("To bind it .*: (ecfs key reseal .*)", failed).group(1)
    t.m.must(bind.replace("reseal", "reseal --passphrase-file /root/secret.key", 1) + " && grep boots /secret/file")
    t.m.must("ecfs setup-boot --undo /secret && ! grep -q /secret /proc/self/mounts && ls -d /.secret")
    left = t.m.sh("ls /etc/ecfs/boot.d; ls /etc/systemd/system/*.wants | grep ecfs-mount; systemctl list-units --all --plain --no-legend 'ecfs-mount@*'")[1]
    check("secret" not in left, "--undo left: " + left)
    return "\"%s\", password and recovery key open; /secret stays locked, the boot goes on, what the journal says opens it and binds it anew" % said


# ---- All of it ----

def make_package(work):
    for program in ("dpkg-shlibdeps", "file"):
        if shutil.which(program) is None:
            vm.skip_all("the package cannot be made: %s is missing (setup/install-packages package)" % program)
    vm.run(os.environ["VM_CPACK"], "-G", "DEB", "--config", os.path.join(BUILD, "CPackConfig.cmake"), "-B", work,
           capture_output=True)
    return glob.glob(os.path.join(work, "ecfs_*.deb"))[0]


def install(m, deb):
    begun = time.monotonic()
    m.must("DEBIAN_FRONTEND=noninteractive apt-get -q -y install /root/" + deb, 240)
    took = time.monotonic() - begun
    m.must("systemctl restart ssh")
    for user, password in PASSWORDS.items():
        m.must("useradd --create-home --shell /bin/bash %s; printf '%s:%s\\n' | chpasswd; usermod -aG sudo %s" % (user, user, password, user))
        if user in ("bob", "dave"):
            continue
        m.must("printf '%s\\n' | setpriv --reuid=%s --regid=%s --init-groups --reset-env -- sh -c 'cd; ecfs setup-private --yes "
               "--kdf-memory 19 --kdf-time 2 --recovery-key-file recovery --passphrase-fd 0'" % (password, user, user))
        m.must("install -d -m 700 -o %s -g %s /home/%s/.ssh; install -m 600 -o %s -g %s /root/.ssh/authorized_keys /home/%s/.ssh/" % ((user,) * 6))
    return took


def main():
    work = vm.work_folder("login")
    begun = time.monotonic()
    deb = make_package(os.path.join(work, "package"))
    depends = subprocess.run(["dpkg-deb", "-f", deb, "Depends"], check=True, capture_output=True, text=True).stdout.strip()
    image = debian.image(depends)
    made = time.monotonic()
    with open(deb, "rb") as f:
        package = f.read()
    swap_disk, swap_uuid = os.path.join(work, "swap-disk"), uuid.uuid4()
    disks.gpt(swap_disk, 96 * disks.MIB, [(1, 1, disks.DATA_TYPE, uuid.uuid4()), (4, 64, disks.SWAP_TYPE, uuid.uuid4())])
    disks.swap_header(swap_disk, 4 * disks.MIB, 64 * disks.MIB, swap_uuid, "")
    machine = debian.Machine(work, image, {
        "root/" + os.path.basename(deb): package,
        "etc/ssh/sshd_config.d/test.conf": b"MaxStartups 100\nMaxSessions 100\nKbdInteractiveAuthentication yes\nUseDNS no\n",
        "etc/fstab": (FSTAB % swap_uuid).encode(),
    }, os.path.join(work, "tpm-state"), (swap_disk,))
    wrong = 0
    t = Logins(machine, swap_uuid)
    width = max(len(name) for name, _, _ in SITUATIONS)

    def row(name, seen, seconds, is_right=True):
        print("%-*s  %4.0f s  %s  %s" % (width, name, seconds, "ok   " if is_right else "WRONG", seen), flush=True)

    only = sys.argv[1:]
    chosen = [(name, function) for name, function, long_only in SITUATIONS
              if (function.__name__ in only if only else LONG or not long_only)]
    try:
        started = time.monotonic()
        machine.start()
        row("boot", "from nothing to the prompt and sshd", time.monotonic() - started)
        installed = time.monotonic()
        took = install(machine, os.path.basename(deb))
        row("apt install ./%s" % os.path.basename(deb)[:4] + "_*.deb", "%.0f s; then four users, two volumes" % took, time.monotonic() - installed)
        for name, function in chosen:
            since = time.monotonic()
            try:
                row(name, function(t), time.monotonic() - since)
            except (Wrong, debian.Ended, RuntimeError, OSError) as error:
                wrong += 1
                row(name, str(error), time.monotonic() - since, False)
                with open(os.path.join(work, "journal-%s.txt" % function.__name__), "w") as f, contextlib.suppress(debian.Ended):
                    f.write(machine.sh("journalctl -q -b -o short-monotonic | tail -n 400")[1])
                with contextlib.suppress(debian.Ended):
                    t.quiet()
    finally:
        machine.end()
    print("%d situations, %d wrong; %.0f s, of them %.0f s for package and image" %
          (len(chosen), wrong, time.monotonic() - begun, made - begun))
    if not only and len(chosen) < len(SITUATIONS):
        print("with --long, %d more: %s" % (len(SITUATIONS) - len(chosen), "; ".join(name for name, _, long_only in SITUATIONS if long_only)))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
