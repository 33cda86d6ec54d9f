"""A shell on a terminal, for the dialogs of the tool."""
import os
import re

import pexpect

ECFS = os.environ["ECFS"]


class Shell:
    """A shell whose every output is kept, to look for secrets in it."""

    def __init__(self):
        self.p = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env={**os.environ, "PS1": "READY> ", "TERM": "dumb"},
                               encoding="utf-8", timeout=60, echo=True, dimensions=(60, 250))
        self.seen = ""
        self.wait("READY> ")

    def wait(self, what):
        found = self.p.expect_exact(what) if isinstance(what, (str, list)) else self.p.expect([what])
        self.seen += self.p.before + self.p.after
        return found

    def send(self, line):
        self.p.sendline(line)

    def run(self, line):
        """A command without questions: its output."""
        self.send(line)
        self.wait("READY> ")
        return self.p.before.split("\n", 1)[1] if "\n" in self.p.before else ""

    def status(self):
        return int(self.run("echo $?").strip())

    def echoes(self):
        return re.search(r"(?<!-)\becho\b", self.run("stty -a")) is not None


def check(what, good, more=""):
    print(("ok: " if good else "FAILED: ") + what + ("" if good else f" ({more})"))


def quiet_about(shell, what, *secrets):
    found = [number for number, secret in enumerate(secrets) if secret in shell.seen]
    check(what + ": nothing typed at a question is echoed", not found, found)
