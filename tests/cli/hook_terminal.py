"""adduser.local on a terminal, as root; run by t_whole_home.sh with its directory and the password."""
import os
import re
import sys

import pexpect

KEY = re.compile(r"(?:[0-9A-Z]{5}-){12}[0-9A-Z]{5}")


def check(what, good):
    print(f"ok: {what}" if good else f"FAILED: {what}")


def hook():
    child = pexpect.spawn(f"{top}/adduser.local", ["ecfsbob", "7302", "7302", f"{top}/home/ecfsbob"], encoding="utf-8", timeout=60)
    child.logfile_read = open(f"{top}/screen", "w")
    return child


top, password = sys.argv[1:]
child = hook()
child.expect_exact("Encrypt the home of ecfsbob, so that it opens with the password? [Y/n] ")
child.sendline("n")
child.expect(pexpect.EOF)
child.wait()
child.close()
check("not wanted: nothing is made", child.exitstatus == 0 and os.path.exists(f"{top}/home/ecfsbob/.profile"))

child = hook()
child.expect_exact("[Y/n] ")
child.sendline("y")
for _ in range(3):
    child.expect_exact("Login password of ecfsbob: ")
    child.sendline("nothing of the kind 99")
child.expect_exact("this is not the login password of ecfsbob")
child.expect(pexpect.EOF)
child.wait()
child.close()
check("a wrong password: nothing is made", child.exitstatus == 0 and os.path.exists(f"{top}/home/ecfsbob/.profile"))

child = hook()
child.expect_exact("[Y/n] ")
child.sendline("")
child.expect_exact("Login password of ecfsbob: ")
child.sendline("nothing of the kind 99")
child.expect_exact("this is not the login password of ecfsbob")
child.expect_exact("Login password of ecfsbob: ")
child.sendline(password)
child.expect(KEY)
key = child.after
child.expect_exact("[y/N] ")
child.sendline("n")
child.expect_exact("written down: ")
child.sendline(key)
child.expect_exact("Done. The home of ecfsbob opens at the next login with the password.")
child.expect(pexpect.EOF)
child.wait()
child.close()
check("encrypted, and no original is left", child.exitstatus == 0 and not os.path.exists(f"{top}/home/ecfsbob.unencrypted"))
check("the password was not shown", password not in open(f"{top}/screen").read())
