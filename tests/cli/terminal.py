"""Dialogs of the tool in a shell on a terminal; run by t_terminal.sh as the test user, in an empty home."""
import os
import re

from terminal_shell import ECFS, Shell, check, quiet_about

QUICK = "--kdf-memory 19 --kdf-time 2"
PASS, NEW, WRONG = "correct horse 4711 battery", "entirely other 1882 words", "nothing of the kind 99"
KEY = re.compile(r"(?:[0-9A-Z]{5}-){12}[0-9A-Z]{5}")


def test_init():
    print("# init: two that differ, a weak one, a key typed wrongly")
    s = Shell()
    s.send(f"{ECFS} init {QUICK} low")
    s.wait("New passphrase: "); s.send(PASS)
    s.wait("Once more: "); s.send(WRONG)
    s.wait("the two differ")
    s.wait("New passphrase: "); s.send("abc")
    s.wait("Once more: "); s.send("abc")
    s.wait("is weak: "); s.wait("Use it all the same? [y/N] "); s.send("")
    s.wait("New passphrase: "); s.send(PASS)
    s.wait("Once more: "); s.send(PASS)
    s.wait(KEY); key = s.p.after
    s.wait("Show it as a QR code as well? [y/N] "); s.send("maybe")
    s.wait("answer y or n"); s.wait("[y/N] "); s.send("y")
    s.wait("\u2588")
    s.wait("Type the recovery key again, to be sure that it was written down: "); s.send("A" + key[1:] if key[0] != "A" else "B" + key[1:])
    s.wait("group 1")
    s.wait("written down: "); s.send(key.lower().replace("-", " "))
    s.wait("Made the volume")
    s.wait("READY> ")
    check("made", s.status() == 0 and os.path.exists("low/.ecfs-volume"))
    check("the key was shown once", s.seen.count(key) == 1)
    quiet_about(s, "init", PASS, WRONG, key.lower())
    check("the terminal echoes again", s.echoes())
    return key


def test_mount(key):
    print("# mount: three tries; the recovery key at the same question")
    s = Shell()
    os.mkdir("m")
    s.send(f"{ECFS} mount low m")
    for _ in range(3):
        s.wait("low: "); s.send(WRONG)
        s.wait("wrong passphrase")
    s.wait("READY> ")
    check("three wrong ones: status 4, no mount", s.status() == 4 and not os.path.ismount("m"))
    s.send(f"{ECFS} mount low m")
    s.wait("low: "); s.send("")
    s.wait("wrong passphrase"); s.wait("low: "); s.send(key)
    s.wait("is open at m"); s.wait("READY> ")
    check("opened with the recovery key", os.path.ismount("m"))
    quiet_about(s, "mount", WRONG, key)
    s.run(f"{ECFS} umount m")


def test_interrupts():
    print("# Ctrl-C, SIGTERM, Ctrl-Z at a question")
    s = Shell()
    s.send(f"{ECFS} init {QUICK} new")
    s.wait("New passphrase: ")
    s.p.sendintr()
    s.wait("READY> ")
    check("Ctrl-C: the shell sees the signal", s.status() == 130)
    check("nothing is left", not os.path.exists("new"))
    check("the terminal echoes again", s.echoes())

    s.send(f"{ECFS} init {QUICK} new")
    s.wait("New passphrase: "); s.send(PASS)
    s.wait("Once more: "); s.send(PASS)
    s.wait(KEY)
    s.wait("[y/N] "); s.send("n")
    s.wait("written down: ")
    s.p.sendintr()
    s.wait("READY> ")
    check("Ctrl-C at the recovery key: nothing is left", s.status() == 130 and not os.path.exists("new"))

    s.send(f"{ECFS} mount low m")
    s.wait("low: ")
    other = Shell()
    other.run("pkill -TERM -x ecfs -u " + str(os.getuid()))
    s.wait("READY> ")
    check("SIGTERM: the shell sees it", s.status() == 143)
    check("the terminal echoes again", s.echoes())

    s.send(f"{ECFS} mount low m")
    s.wait("low: ")
    s.p.sendcontrol("z")
    s.wait("Stopped"); s.wait("READY> ")
    check("Ctrl-Z: the terminal echoes while it is stopped", s.echoes())
    s.send("fg")
    s.wait("low: ")
    s.send(PASS)
    s.wait("is open at m"); s.wait("READY> ")
    check("and the question is asked again", os.path.ismount("m"))
    quiet_about(s, "fg", PASS)
    s.run(f"{ECFS} umount m")


def test_remove():
    print("# key remove: the last recovery key is asked about")
    s = Shell()
    s.send(f"{ECFS} key remove low recovery")
    s.wait("low: "); s.send(PASS)
    s.wait("Remove it all the same? [y/N] "); s.send("n")
    s.wait("nothing was removed"); s.wait("READY> ")
    check("not removed", s.status() == 1 and "recovery" in s.run(f"{ECFS} key list low"))
    s.send(f"{ECFS} key change {QUICK} low")
    s.wait("low: "); s.send(PASS)
    s.wait("New passphrase: "); s.send(NEW)
    s.wait("Once more: "); s.send(NEW)
    s.wait("changed the passphrase"); s.wait("READY> ")
    quiet_about(s, "key change", PASS, NEW)


def test_wrapped():
    print("# wrap-passphrase, rewrap-passphrase, unwrap-passphrase: questions in the order of the lines of a script")
    s = Shell()
    s.send(f"{ECFS} wrap-passphrase w")
    s.wait("Passphrase to wrap: "); s.send(PASS)
    s.wait("Once more: "); s.send(PASS)
    s.wait("Wrapping passphrase: "); s.send(WRONG)
    s.wait("Once more: "); s.send(NEW)
    s.wait("the two differ")
    s.wait("Wrapping passphrase: "); s.send(NEW)
    s.wait("Once more: "); s.send(NEW)
    s.wait("READY> ")
    s.send(f"{ECFS} rewrap-passphrase w")
    s.wait("Old wrapping passphrase: "); s.send(WRONG)
    s.wait("does not fit"); s.wait("READY> ")
    check("a wrong one: status 4, before the second question", s.status() == 4)
    s.send(f"{ECFS} rewrap-passphrase w")
    s.wait("Old wrapping passphrase: "); s.send(NEW)
    s.wait("New wrapping passphrase: "); s.send(WRONG)
    s.wait("Once more: "); s.send(WRONG)
    s.wait("READY> ")
    quiet_about(s, "rewrap-passphrase", PASS, NEW, WRONG)
    s.send(f"{ECFS} unwrap-passphrase w")
    s.wait("Passphrase: "); s.send(WRONG)
    s.wait(PASS); s.wait("READY> ")
    quiet_about(s, "unwrap-passphrase", WRONG)


def test_wizard():
    print("# setup-private: the whole dialog, interrupted and then finished")
    os.mkdir("Private")
    for number in range(20):
        with open(f"Private/file {number}", "w") as file:
            file.write("text\n" * number)
    before = sorted(os.listdir("."))
    s = Shell()

    def until_key():
        s.send(f"{ECFS} setup-private {QUICK}")
        s.wait("Move them inside, so that they are encrypted? [Y/n] "); s.send("")
        s.wait("Go on? [Y/n] "); s.send("y")
        s.wait("Your login password: "); s.send(PASS)
        s.wait("Once more: "); s.send(PASS)
        s.wait(KEY)
        key = s.p.after
        s.wait("[y/N] "); s.send("n")
        s.wait("written down: ")
        return key

    until_key()
    s.p.sendintr()
    s.wait("READY> ")
    check("Ctrl-C takes everything back", s.status() == 130 and sorted(os.listdir(".")) == before and len(os.listdir("Private")) == 20)
    until_key()
    for _ in range(3):
        s.send(WRONG); s.wait(["groups of 13", "not a character", "mistake", "another key"])
    s.wait("not confirmed"); s.wait("READY> ")
    check("a key that was not confirmed makes nothing", s.status() == 1 and sorted(os.listdir(".")) == before)
    s.send(f"{ECFS} setup-private {QUICK}")
    s.wait("[Y/n] "); s.send("y")
    s.wait("Go on? [Y/n] "); s.send("n")
    s.wait("nothing was changed"); s.wait("READY> ")
    check("no is no", sorted(os.listdir(".")) == before)
    key = until_key()
    s.send(key)
    s.wait("Done. ")
    s.wait("READY> ")
    check("set up", s.status() == 0)
    check("locked", os.listdir("Private") == ["README.txt"])
    s.send(f"{ECFS} mount-private")
    s.wait("Private: "); s.send(PASS)
    s.wait("is open at"); s.wait("READY> ")
    check("the files are inside", len(os.listdir("Private")) == 20 and not os.path.exists("Private.unencrypted"))
    s.run(f"{ECFS} umount-private")
    s.send(f"{ECFS} mount-private --recovery")
    s.wait("Recovery key of Private: "); s.send(key)
    s.wait("is open at"); s.wait("READY> ")
    check("the recovery key opens it", os.path.ismount("Private"))
    s.run(f"{ECFS} umount-private")
    quiet_about(s, "the wizard", PASS, WRONG)


test_mount(test_init())
test_interrupts()
test_remove()
test_wrapped()
test_wizard()
