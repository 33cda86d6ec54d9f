"""Dialogs of `ecfs mount` with eCryptfs trees, on a terminal; run by t_ecryptfs_terminal.sh as the test user, in an empty home."""
import os
import subprocess

from terminal_shell import ECFS, Shell, check, quiet_about

PASS, WRONG = "correct horse 4711 battery", "correct horse 4711 batterie"


def cached():
    try:
        with open(".ecryptfs/sig-cache.txt") as f:
            return f.read()
    except FileNotFoundError:
        return None


def answer(shell, question, line):
    shell.wait(question)
    shell.send(line)


def opened(shell):
    shell.wait("is open at m")
    shell.wait("READY> ")


def new_tree():
    print("# a new tree: every question")
    s = Shell()
    s.run("mkdir low m")
    s.send(f"{ECFS} mount -o ecryptfs low m")
    answer(s, "Passphrase of ", PASS)
    s.wait("has not been mounted with before")
    answer(s, "Mount with it all the same? [y/N] ", "n")
    answer(s, "Passphrase of ", PASS)
    answer(s, "Mount with it all the same? [y/N] ", "y")
    answer(s, "and not ask again? [y/N] ", "y")
    s.wait("Cipher of new files (aes, blowfish, des3_ede, cast5")
    answer(s, " [aes]: ", "rot13")
    s.wait("there is no cipher 'rot13'")
    answer(s, "[aes]: ", "aes")
    answer(s, "Length of its keys in bytes (16, 24, 32) [16]: ", "17")
    s.wait("takes no keys of 17 bytes")
    answer(s, "[16]: ", "32")
    answer(s, "(passthrough)? [y/N] ", "")
    answer(s, "Encrypt the names of files? [y/N] ", "y")
    s.wait("Signature of the key for names [")
    s.wait("]: ")
    signature = s.p.before
    s.send("")
    opened(s)
    check("open", os.path.ismount("m"))
    check("remembered", cached() == signature + "\n", cached())
    check("for its owner alone", os.stat(".ecryptfs/sig-cache.txt").st_mode & 0o777 == 0o600)
    s.run("echo text >m/file; mkdir m/d")
    s.run(f"{ECFS} umount m")
    check("names are encrypted", all(n.startswith("ECRYPTFS_FNEK_ENCRYPTED.") for n in os.listdir("low")))
    check("32-byte keys, as was said", 97 == len(open("low/" + max(os.listdir("low"), key=lambda n: os.path.isfile("low/" + n)),
                                                     "rb").read(8192).rstrip(b"\0")))
    quiet_about(s, "a new tree", PASS)
    return signature


def the_same_again():
    print("# the same again: what is there is what is proposed")
    s = Shell()
    s.send(f"{ECFS} mount low m")
    answer(s, "Passphrase of ", PASS)
    answer(s, "[aes]: ", "")
    answer(s, "(16, 24, 32) [32]: ", "")
    answer(s, "(passthrough)? [y/N] ", "")
    answer(s, "Encrypt the names of files? [Y/n] ", "")
    answer(s, "Signature of the key for names [", "")
    opened(s)
    check("read", s.run("cat m/file").strip() == "text")
    s.run(f"{ECFS} umount m")
    quiet_about(s, "again", PASS)


def mistyped(signature):
    print("# a mistyped passphrase")
    s = Shell()
    before = cached()
    s.send(f"{ECFS} mount low m")
    answer(s, "Passphrase of ", WRONG)
    s.wait("encrypted with the key " + signature)
    answer(s, "Mount with it all the same? [y/N] ", "")
    answer(s, "Passphrase of ", "")
    s.wait("the passphrase is empty")
    answer(s, "Passphrase of ", WRONG)
    answer(s, "Mount with it all the same? [y/N] ", "")
    s.wait("wrong passphrase")
    s.wait("READY> ")
    check("three tries: status 4, no mount", s.status() == 4 and not os.path.ismount("m"))
    check("nothing is remembered", cached() == before)
    s.send(f"{ECFS} mount -o ecryptfs_sig={signature},ecryptfs_cipher=aes,ecryptfs_key_bytes=32,ecryptfs_passthrough=n,"
           f"ecryptfs_fnek_sig={signature} low m")
    answer(s, f"(key {signature}): ", WRONG)
    s.wait("wrong passphrase")
    answer(s, f"(key {signature}): ", PASS)
    opened(s)
    check("with all options there is the passphrase alone to ask for", os.path.ismount("m"))
    s.run(f"{ECFS} umount m")
    s.send(f"{ECFS} mount low m")
    s.wait("Passphrase of ")
    s.p.sendintr()
    s.wait("READY> ")
    check("Ctrl-C: the shell sees the signal", s.status() == 130)
    check("the terminal echoes again", s.echoes())
    quiet_about(s, "mistyped", PASS, WRONG)


def tools():
    print("# fsck asks for the mount passphrase; recover-private for which one, and the login passphrase")
    login = "login 1882 words"
    for home in ("one", "two"):
        subprocess.run(["mkdir", "-p", home + "/.ecryptfs"], check=True)
        subprocess.run(["cp", "-a", "low", home + "/.Private"], check=True)
    subprocess.run([ECFS, "wrap-passphrase", "one/.ecryptfs/wrapped-passphrase", "-"], check=True, input=f"{PASS}\n{login}\n".encode())
    s = Shell()
    s.send(f"{ECFS} fsck low")
    answer(s, "Mount passphrase of ", WRONG)
    s.wait("wrong passphrase: its key is ")
    answer(s, "Mount passphrase of ", PASS)
    s.wait("No damage was found")
    s.wait("READY> ")
    check("fsck", s.status() == 0)
    s.send(f"{ECFS} recover-private .")
    answer(s, "Which one (number)? ", "9")
    s.wait("several volumes were found")
    s.wait("READY> ")
    s.send(f"{ECFS} recover-private .")
    s.wait("  2  " + os.path.realpath("one/.Private") + "  (eCryptfs)")
    answer(s, "Which one (number)? ", "2")
    answer(s, "Login passphrase of ", WRONG)
    s.wait("wrong login passphrase")
    answer(s, "Login passphrase of ", login)
    s.wait("The files of ")
    s.wait("READY> ")
    check("opened", s.run("cat ecfs-recovered-*/file").strip() == "text")
    s.run(f"{ECFS} umount ecfs-recovered-*")
    s.send(f"{ECFS} recover-private two")
    answer(s, "Mount passphrase of ", WRONG)
    s.wait("wrong passphrase: its key is ")
    answer(s, "Mount passphrase of ", PASS)
    s.wait("The files of ")
    s.wait("READY> ")
    check("without a wrapped-passphrase the mount passphrase", s.run("cat ecfs-recovered-*/file").strip() == "text")
    s.run(f"{ECFS} umount ecfs-recovered-*")
    s.send(f"{ECFS} recover-private one")
    s.wait("Login passphrase of ")
    s.p.sendintr()
    s.wait("READY> ")
    check("Ctrl-C leaves nothing", s.status() == 130 and s.run("ls -d ecfs-recovered-* 2>/dev/null").strip() == "")
    quiet_about(s, "tools", PASS, WRONG, login)


first = new_tree()
the_same_again()
mistyped(first)
tools()
