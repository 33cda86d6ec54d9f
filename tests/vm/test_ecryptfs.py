"""The eCryptfs format against the kernel's own eCryptfs and Debian's ecryptfs-utils, in a virtual machine.

For every cipher, key length, kind of names and place of the header that ecfs has (vm_ecryptfs_trees.cc says what the
trees hold):

    ecfs makes a tree  ->  the kernel reads it, changes it, makes another  ->  ecfs reads both, changes the kernel's,
    makes a third  ->  the kernel reads all

What is read must be, each time, what was to be there; and both sides print a digest of it, which must be the same. The
keys of the kernel's mounts are put into the keyring by Debian's program in the first machine, by ecfs in the second.
Then a Private that ecryptfs-setup-private makes goes the same way. Wrapped passphrases that were made by ecfs, and by
the description of the format, are unwrapped by Debian's program, and its own by ecfs.
"""

import json
import os
import shutil
import subprocess
import sys

import vm

TREES = os.path.join(os.environ["VM_BIN"], "vm_ecryptfs_trees")
ECFS = os.environ["VM_ECFS"]
VECTORS = os.path.join(os.environ["VM_VECTORS"], "ecryptfs")
DEFAULT_SALT = "0011223344556677"
LOGIN = "the login password"
# The short run's: each cipher, each kind of tree.
SHORT = ("aes-16-names", "des3_ede-24-names-xattr", "cast5-8-plain", "blowfish-8-plain-xattr", "twofish-16-names", "cast6-16-names-xattr",
         "aes-32-names-blowfish-16")
failures = []

# What is done in order, by ecfs and the kernel in turn.
OURS = "make/ours"
KERNELS = "change/ours,make/kernel"
OURS_AGAIN = "change/kernel,make/again"
ALL = ",".join((OURS, KERNELS, OURS_AGAIN))

FUNCTIONS = """
add() {  # add PROGRAM PASSPHRASE SALT: the keys of contents and names
  printf 'salt=%s\\n' "$3" >/root/.ecryptfsrc
  printf %s "$2" | $1 --fnek - >>/tmp/keys
}
unwrap() {  # unwrap FILE SALT WRAPPING-PASSPHRASE
  printf 'salt=%s\\n' "$2" >/root/.ecryptfsrc
  echo "wrapped $1 ok $(printf %s "$3" | ecryptfs-unwrap-passphrase "/disk/wrapped/$1" -)" >&3
}
use() {  # use KIND VARIANT DIRECTORY PAST NOW: a line of each state
  if trees mount "$3" "$2" "$4" "$5" >/tmp/out 2>/tmp/error; then sed "s|^|$1 $2 ok |" /tmp/out >&3
  else echo "$1 $2 failed $(cat /tmp/error)" >&3; fi
}
variant() {  # variant VARIANT OPTIONS PAST NOW: what NOW left is read again by another mount
  mount -i -t ecryptfs -o "$2" "/disk/lower/$1" /mnt || { echo "mount $1 failed $2" >&3; return 0; }
  use first "$1" /mnt "$3" "$4"
  umount /mnt
  if [ "$4" = - ]; then return 0; fi
  mount -i -t ecryptfs -o "$2" "/disk/lower/$1" /mnt
  use again "$1" /mnt "$3,$4" -
  umount /mnt
}
as_user() {  # the user's own session keyring, as after a login
  su user -c "export USER=user HOME=/home/user; cd /home/user; keyctl session - sh -eu $1" >/tmp/log 2>&1 ||
    { cat /tmp/log; echo "private private failed $1: $(tail -n 3 /tmp/log | tr '\\n' ' ')" >&3; return 0; }
  sed -n 's/^TREE //p' /tmp/log >&3
}
mkdir -p /disk/home
mount -o bind /disk/home /home
"""

OPEN_PRIVATE = """
keyctl link @u @s
printf %s "$LOGIN" | ecryptfs-insert-wrapped-passphrase-into-keyring .ecryptfs/wrapped-passphrase -
/sbin/mount.ecryptfs_private
trees mount Private private "$PAST" "$NOW" >out
sed 's/^/TREE private private ok /' out
rm out
/sbin/umount.ecryptfs_private
"""


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def check(what, is_so, why=""):
    if not is_so:
        failures.append("%s: %s" % (what, why) if why else what)
    return "ok" if is_so else "WRONG"


def guest(name):
    made = vm.Guest(vm.work_folder(os.path.join("ecryptfs", name)))
    # The ciphers by hand: nobody loads a module when it is asked for.
    made.modules("ecryptfs", "ecb", "cbc", "md5", "des_generic", "cast5_generic", "blowfish_generic",
                 "twofish_generic", "cast6_generic")
    made.program(TREES, "usr/bin/trees")
    made.program(ECFS, "usr/bin/ecfs")
    made.program("/usr/bin/keyctl")
    made.program("/usr/bin/getent")
    for tool in ("add-passphrase", "insert-wrapped-passphrase-into-keyring", "unwrap-passphrase", "wrap-passphrase"):
        made.program("usr/bin/ecryptfs-" + tool)
    for script in ("setup-private", "umount-private"):
        made.file("usr/bin/ecryptfs-" + script, made.host("usr/bin/ecryptfs-" + script))
    for tool in ("mount", "umount"):
        made.program("sbin/%s.ecryptfs_private" % tool, mode=0o4755)
    for library in ("libsoftokn3.so", "libfreebl3.so", "libfreeblpriv3.so", "libsqlite3.so.0"):  # loaded by name
        made.program("usr/lib/x86_64-linux-gnu/" + library, "lib/x86_64-linux-gnu/" + library)
    made.data("usr/bin/gettext", "#!/bin/sh\nprintf %s \"$1\"\n", 0o755)
    made.data("etc/mtab", "")
    made.user("user", 1000)
    made.script(FUNCTIONS)
    return made


def volume(lower, variant, past, now):
    """Lines that ecfs says of a tree: of its first state, and of the one after `now`."""
    done = subprocess.run([TREES, "volume", lower, variant, past, now], capture_output=True, text=True)
    if done.returncode != 0:
        failures.append("ecfs, %s: %s%s" % (variant, done.stdout, done.stderr))
    return done.stdout.splitlines() + [""] * 2


def answers(text):
    """(kind, variant): the lines, of each state."""
    out = {}
    for line in text.splitlines():
        kind, variant, outcome, rest = line.split(" ", 3)
        out.setdefault((kind, variant), []).append(rest if outcome == "ok" else "")
        if outcome != "ok":
            failures.append("kernel, %s: %s" % (variant, rest))
    return out


def lines_of(answered, kind, variant):
    return answered.get((kind, variant), []) + [""] * 2


def add_keys(made, program, variants):
    """`program` makes the keys and puts them into the keyring; the mounts name them by the signatures that ecfs has for
    them."""
    for passphrase, salt in sorted({(v[1], v[2]) for v in variants}):
        made.script("add '%s' %s %s\n" % (program, quoted(passphrase), salt))


def ecfs(arguments, lines):
    """What `ecfs` prints, given these lines."""
    done = subprocess.run([ECFS, *arguments], input="".join(line + "\n" for line in lines), capture_output=True,
                          text=True)
    if done.returncode != 0:
        failures.append("ecfs %s: %s" % (" ".join(arguments), done.stderr))
    return done.stdout.rstrip("\n")


def wrapped_cases(folder):
    """(file, salt of ~/.ecryptfsrc, wrapping passphrase, what comes out): both versions, made by the description of the
    format and not by Debian's program, and some that ecfs makes in `folder`."""
    with open(os.path.join(VECTORS, "keys.json")) as f:
        known = json.load(f)["wrapped"]
    cases = [(os.path.join(VECTORS, case["file"]), case["rc_salt"] or DEFAULT_SALT, case["wrapping_passphrase"],
              case["tool_unwrap"]) for case in known if case["made_by"] == "spec"]
    for number, (mount, wrapping) in enumerate((("8d1f0c3e5b7a69482716f5e4d3c2b1a0", "short"), ("m" * 64, "w" * 64),
                                                ("ein Satz mit Umlauten: äöü", "Schlüssel für alles"))):
        path = os.path.join(folder, "by-ecfs-%d" % number)
        ecfs(["wrap-passphrase", path, "-"], [mount, wrapping])
        cases.append((path, DEFAULT_SALT, wrapping, mount))
    return cases


def main():
    listed = subprocess.run([TREES, "list"], check=True, capture_output=True, text=True).stdout
    all_variants = [line.split("\t") for line in listed.splitlines()]
    private = next(v for v in all_variants if v[0] == "private")
    variants = [v for v in all_variants if v is not private]
    num_all = len(variants)
    if not os.environ.get("ECFS_LONG"):
        variants = [v for v in variants if v[0] in SHORT]
        check("the short run's variants", len(variants) >= len(SHORT) - 2, "there are %d" % len(variants))
    first, second = guest("first"), guest("second")
    tree = os.path.join(vm.work_folder("ecryptfs/tree"), "tree")
    lower = os.path.join(tree, "lower")
    os.makedirs(lower)

    ours = {}
    for name, *_ in variants:
        os.mkdir(os.path.join(lower, name))
        ours[name] = volume(os.path.join(lower, name), name, "-", OURS)[1]

    # The first machine: the kernel reads what ecfs wrote, and writes.
    add_keys(first, "ecryptfs-add-passphrase", variants)
    for name, _, _, options in variants:
        first.script("variant %s %s %s %s\n" % (name, options, OURS, KERNELS))
    first.data("home-setup", "ecryptfs-setup-private --nopwcheck -l %s -m %s\n" % (quoted(LOGIN), quoted(private[1])))
    first.data("home-use", "LOGIN=%s PAST=- NOW=make/kernel\n" % quoted(LOGIN) + OPEN_PRIVATE)
    first.script("mkdir -p /home/user; chown user:user /home/user; as_user /home-setup; as_user /home-use\n")
    os.mkdir(os.path.join(tree, "wrapped"))
    cases = wrapped_cases(vm.work_folder("ecryptfs/wrapped"))
    for path, salt, wrapping, _ in cases:
        shutil.copy(path, os.path.join(tree, "wrapped"))
        first.script("unwrap %s %s %s\n" % (os.path.basename(path), salt, quoted(wrapping)))
    said = answers(first.boot(tree=tree))

    # ecfs reads what the kernel wrote, and writes.
    back = {name: volume(os.path.join(lower, name), name, OURS + "," + KERNELS, OURS_AGAIN) for name, *_ in variants}
    home = os.path.join(tree, "home/user")
    private_back = volume(os.path.join(home, ".Private"), "private", "make/kernel", "change/kernel,make/ours")
    with open(os.path.join(home, ".ecryptfs/Private.sig")) as f:
        signatures = f.read().split()
    options = dict(option.split("=") for option in private[3].split(","))
    wanted = [options["ecryptfs_sig"], options["ecryptfs_fnek_sig"]]
    check("the signatures of Private", signatures == wanted, "%s, not %s" % (signatures, wanted))

    # The second machine: the kernel reads it all.
    add_keys(second, "ecfs add-passphrase", variants)
    for name, _, _, options in variants:
        second.script("variant %s %s %s -\n" % (name, options, ALL))
    second.data("home-use", "LOGIN=%s PAST=make/kernel,change/kernel,make/ours NOW=-\n" % quoted(LOGIN) + OPEN_PRIVATE)
    second.script("as_user /home-use\n")
    said_second = answers(second.boot(tree=tree))

    def row(name, counts, words):
        print("%-26s %6s %9s %6s  %-12s %-12s %-12s" % (name, *(counts.split() + ["?"] * 3)[:3], *words))

    def same(name, what, a, b):
        return check("%s, %s" % (name, what), bool(a) and a == b, "ecfs and kernel read '%s' and '%s'" % (a, b))

    row("variant", "files bytes links", ("ecfs->kernel", "kernel->ecfs", "ecfs->kernel"))
    for name, *_ in variants:
        kernel = lines_of(said, "first", name)
        check("%s, the kernel by itself" % name, kernel[1] == lines_of(said, "again", name)[0])
        row(name, back[name][1], (
            same(name, "made by ecfs", ours[name], kernel[0]),
            same(name, "changed by the kernel", back[name][0], kernel[1]),
            same(name, "changed by ecfs", back[name][1], lines_of(said_second, "first", name)[0])))
    row("~/Private", private_back[1], (
        "-",
        same("~/Private", "made in the machine", private_back[0], lines_of(said, "private", "private")[1]),
        same("~/Private", "changed by ecfs", private_back[1], lines_of(said_second, "private", "private")[0])))
    unwrapped = [check("unwrapped " + path, said.get(("wrapped", os.path.basename(path))) == [text])
                 for path, _, _, text in cases]
    print("wrapped passphrases that Debian's program unwraps: %d of %d" % (unwrapped.count("ok"), len(cases)))
    check("wrapped passphrases", len(cases) > 0)
    wrapped = os.path.join(home, ".ecryptfs/wrapped-passphrase")
    came_out = ecfs(["unwrap-passphrase", wrapped, "-"], [LOGIN])
    print("wrapped by ecryptfs-setup-private, unwrapped by ecfs:", check(
        "unwrapped by ecfs", came_out == private[1], "'%s'" % came_out))
    if not any(v[0].startswith("twofish") for v in variants):
        print("not compared: twofish and cast6, for which this build of ecfs has no library")
    print("%d of %d variants%s" % (len(variants), num_all, "" if len(variants) == num_all else "; all of them: tests/run --long"))
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
