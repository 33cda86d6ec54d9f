"""Encrypted swap, in a virtual machine with a virtio and an nvme disk (GPT) and a logical volume (dm-linear).

    first machine     a dry run changes nothing; what is refused; pages are swapped out and found on the disk; setup-swap;
                      pages are swapped out and not found; the program is killed at every step, and brought to its end
    second machine    the nvme disk is gone: the other swap comes on, and nothing waits longer than it may
    third machine     all swap is on, and is dm-crypt; --undo

    two more (long)   small ones, in which a program needs more memory than there is: with swap on dm-crypt upon a disk it
                      comes to its end, upon a file the machine blocks, which is why setup-swap refuses files

The images are looked at from outside, too: with the second machine no header of swap is on them, and after the third the
headers, the partition tables and /etc are what they were, byte for byte. There is no systemd in these machines: what a
boot does with crypttab is done by the unit's program, as the unit calls it. Files of /etc stay in the tree between them.
"""

import os
import re
import resource
import shutil
import sys
import time
import uuid

import vm
from disks import DATA_TYPE, MIB, SECTOR, SWAP_TYPE, attributes, gpt, piece, swap_header

NO_AUTO = 1 << 63
PAGES_MIB = 8
LINES = PAGES_MIB * MIB // 64
LONG = 1 if os.environ.get("ECFS_LONG") else 0
failures = []


def check(what, is_so, why=""):
    print("%-6s %s%s" % ("ok" if is_so else "FAILED", what, "" if is_so or why == "" else ": %s" % (why,)))
    if not is_so:
        failures.append(what)


FUNCTIONS = r"""
export DM_DISABLE_UDEV=1 ECFS_LIBEXEC=/usr/libexec/ecfs
mkdir -p /run/cryptsetup /run/systemd/system /var/lib /etc/systemd/system /usr/lib/systemd/system
say() { echo "$*" >&3; }
swapon() { /usr/sbin/swapon "$@"; }  # busybox has less
swapoff() { /usr/sbin/swapoff "$@"; }
disks() { dmsetup create vg-swap --uuid LVM-ecfstest --table "0 65536 linear /dev/vde 0"; mkdir -p /dev/vg; ln -sf /dev/mapper/vg-swap /dev/vg/swap; }
load() { /usr/bin/tar -C /disk/etc -cf - . | /usr/bin/tar -C /etc -xf -; if [ -e /disk/ecfs ]; then cp -a /disk/ecfs /var/lib/ecfs; fi; }
store() { for f in fstab crypttab initramfs-tools systemd; do rm -rf "/disk/etc/$f"; if [ -e "/etc/$f" ]; then cp -a "/etc/$f" /disk/etc/; fi; done
  rm -rf /disk/ecfs; if [ -e /var/lib/ecfs ]; then cp -a /var/lib/ecfs /disk/ecfs; fi; }
swaps() { sed 1d /proc/swaps | while read -r path kind size used priority; do echo "$path:$priority"; done | sort | tr '\n' ' '; }
etc() { cat /etc/fstab; cat /etc/crypttab /etc/initramfs-tools/conf.d/resume 2>&1 || true; find /etc/systemd /var/lib/ecfs -name '*wap*' 2>/dev/null || true; }
# All that may change on a device of swap that is on: its header. And the table of its disk.
state() { etc | md5sum; for d in "$@"; do dd if=$d iflag=direct bs=4096 count=1 2>/dev/null | md5sum; done; swaps; }
out() { rm -f /tmp/stop; : >/tmp/held; pages hold 8 "$1" /tmp/stop >/tmp/held & holder=$!; while ! grep -q out /tmp/held; do sleep 0.1; done; }
back() { touch /tmp/stop; wait $holder || true; kept=$(grep -c intact /tmp/held || true); }
timed() { local t=$(date +%s); "$@" >/tmp/log 2>&1; status=$?; say "$(($(date +%s) - t)) s $status: $*"; return 0; }
"""

FIRST = r"""
set +e
load; disks
swapon -p 5 /dev/vdd2; swapon /dev/nvme0n1p1; swapon /dev/vg/swap
dd if=/dev/zero of=/disk/swapfile bs=1M count=4 2>/dev/null; chmod 600 /disk/swapfile; mkswap /disk/swapfile >/dev/null; swapon /disk/swapfile
say "before $(swaps)"
ecfs status >/tmp/log 2>&1; say "status $(grep -c 'NOT ENCRYPTED' /tmp/log)"
state /dev/vdd /dev/vdd2 /dev/nvme0n1 /dev/nvme0n1p1 /dev/vde >/tmp/1
ecfs setup-swap --dry-run >/tmp/log 2>&1; say "dry-run $?"; sed 's/^/| /' /tmp/log >&3
ecfs setup-swap --dry-run --json >/tmp/log 2>&1; say "json $(tr -d '\n ' </tmp/log)"
state /dev/vdd /dev/vdd2 /dev/nvme0n1 /dev/nvme0n1p1 /dev/vde >/tmp/2
cmp -s /tmp/1 /tmp/2; say "unchanged $?"
swapoff /disk/swapfile; rm /disk/swapfile

ecfs setup-swap --yes --device /dev/vdd2 >/tmp/log 2>&1; say "hibernation $? $(grep -c 'hibernates into it' /tmp/log)"
swapoff /dev/nvme0n1p1; swapoff /dev/vg/swap
out first
say "plain $(pages count first /dev/vdd2)"
timed ecfs setup-swap --yes --no-hibernation --wipe --device /dev/vdd2
sed 's/^/| /' /tmp/log >&3
say "wiped $(pages count first /dev/vdd2)"
back; say "kept $kept"
say "swaps $(swaps)"
swapon /dev/nvme0n1p1; swapon /dev/vg/swap
timed ecfs setup-swap --yes --no-hibernation
swapoff /dev/mapper/ecfs_swap2; swapoff /dev/mapper/ecfs_swap3
out second
say "encrypted $(pages count second /dev/vdd2) $(pages count second /dev/mapper/ecfs_swap1)"
say "written $(pages nonzero /dev/vdd2)"
back; say "kept $kept"
swapon /dev/mapper/ecfs_swap2; swapon /dev/mapper/ecfs_swap3
say "after $(swaps)"
etc | md5sum >/tmp/1
timed ecfs setup-swap --yes --no-hibernation
etc | md5sum >/tmp/2; cmp -s /tmp/1 /tmp/2; say "again-unchanged $?"
ecfs status >/tmp/log 2>&1; say "status-after $(grep -c 'Swap: encrypted' /tmp/log)"
say "initramfs $(cat /var/log/initramfs-updates | wc -l)"
store

# The kills, on an area of their own.
printf '# a remark\nUUID=%s none swap sw,discard 0 0\n' $KILL_UUID >/etc/fstab
swapon -p 3 /dev/vdd3
device=/dev/vdd3
tables() { etc | md5sum; dd if=/dev/vdd iflag=direct bs=512 count=34 2>/dev/null | md5sum; dd if=$device iflag=direct bs=4096 count=1 2>/dev/null | md5sum; }
is_on() { awk -v a=$device 'NR > 1 && (($1 == a) || ($1 == "/dev/mapper/ecfs_swap4")) && $5 == 3 { n++ } END { exit n != 1 }' /proc/swaps; }
# Nothing may be waited for at a boot: a line of fstab without nofail means a header that is there.
no_delay() { if grep swap /etc/fstab | grep -q "^UUID=$KILL_UUID [^#]*sw,discard 0"; then dd if=$device iflag=direct bs=4096 count=1 2>/dev/null | tail -c 10 | grep -q SWAPSPACE2; fi; }
tables >/tmp/original
restored() { tables >/tmp/now; cmp -s /tmp/original /tmp/now && grep -q "^$device[[:space:]].*[[:space:]]3$" /proc/swaps; }
killed() { env "$@" --yes --device $device >/tmp/log 2>&1; }  # killed VARIABLE=VALUE... $copy setup-swap
copy=/usr/libexec/ecfs/ecfs-swap-test
work() { /usr/libexec/ecfs/ecfs-swap "$@" --yes --device $device >/tmp/log 2>&1; }
killed ECFS_SWAP_POINTS=/tmp/points $copy setup-swap || { say "cannot: $(cat /tmp/log)"; }
encrypting=$(wc -l </tmp/points); rm /tmp/points
is_on && grep -q '^/dev/mapper/ecfs_swap4 ' /proc/swaps; say "kill-encrypted $?"
killed ECFS_SWAP_POINTS=/tmp/points $copy setup-swap --undo || { say "cannot: $(cat /tmp/log)"; }
undoing=$(wc -l </tmp/points)
restored; say "kill-undone $?"
say "points $encrypting $undoing"
wrong() { say "WRONG $* $(tail -n 2 /tmp/log | tr '\n' ' ') $(swaps)"; }
# Each step once: at an odd point (it is begun) the worker is killed, at an even one (it is done) its watcher, too; the long
# run does both at each point. What comes then is tried in turn.
both=0
count=0
n=1
while [ $n -le $encrypting ]; do
  if [ $((n % 4)) = 1 ] || [ $LONG = 1 ]; then
    count=$((count + 1))
    killed ECFS_SWAP_KILL_AT=$n $copy setup-swap && wrong "encrypt $n: not killed"
    is_on || wrong "encrypt $n worker: swap is off"
    work setup-swap --undo; restored || wrong "encrypt $n worker: not restored"
  fi
  if [ $((n % 4)) = 0 ] || [ $LONG = 1 ]; then
    [ $LONG = 1 ] || count=$((count + 1))
    killed ECFS_SWAP_KILL=all ECFS_SWAP_KILL_AT=$n $copy setup-swap && wrong "encrypt $n: not killed"
    sleep 0.1
    no_delay || wrong "encrypt $n all: a boot would wait"
    both=$((both + 1))
    if [ $((both % 2)) = 1 ]; then
      work setup-swap || wrong "encrypt $n all: rerun"
      is_on && grep -q '^/dev/mapper/ecfs_swap4 ' /proc/swaps || wrong "encrypt $n all: rerun did not encrypt"
    fi
    work setup-swap --undo; restored || wrong "encrypt $n all: not restored"
  fi
  n=$((n + 1))
done
say "killed encrypting $count"
n=1
count=0
while [ $n -le $undoing ]; do
  if [ $((n % 4)) -le 1 ] || [ $LONG = 1 ]; then  # each step once, when it is begun or done
    count=$((count + 1))
    work setup-swap || wrong "undo $n: cannot encrypt"
    if [ $((n % 2)) = 1 ]; then
      killed ECFS_SWAP_KILL_AT=$n $copy setup-swap --undo && wrong "undo $n: not killed"
    else
      killed ECFS_SWAP_KILL=all ECFS_SWAP_KILL_AT=$n $copy setup-swap --undo && wrong "undo $n: not killed"
      sleep 0.1
      no_delay || wrong "undo $n all: a boot would wait"
      work setup-swap --undo
    fi
    restored || wrong "undo $n: not restored"
  fi
  n=$((n + 1))
done
say "killed undoing $count"
say "up $(cut -d. -f1 /proc/uptime)"
for f in /dev/mapper/ecfs_swap1 /dev/mapper/ecfs_swap2 /dev/mapper/ecfs_swap3 /dev/vdd3; do swapoff $f; done
sync
"""

# What systemd does: the units of crypttab side by side, then swap of fstab.
BOOT = r"""
set +e
load; disks
start() { ecfs-swap start $1 >/tmp/log.$1 2>&1; echo $? >/tmp/status.$1; }
t=$(date +%s)
for name in $(sed -n 's/^\(ecfs_swap[0-9]*\) .*/\1/p' /etc/crypttab); do start $name & done
wait
say "waited $(($(date +%s) - t))"
for f in /tmp/status.*; do say "start ${f#/tmp/status.} $(cat $f) $(cat /tmp/log.${f#/tmp/status.})"; done
while read -r spec where kind options rest; do
  [ "$kind" = swap ] || continue
  priority=$(echo ",$options," | sed -n 's/.*,pri=\([0-9]*\),.*/-p \1/p')
  case $spec in '#'*) ;; *) swapon $priority $spec || say "swapon failed $spec" ;; esac
done </etc/fstab
say "swaps $(swaps)"
ecfs status >/tmp/log 2>&1; say "status $(grep -c 'Swap: encrypted' /tmp/log)"
"""

SECOND = BOOT + "sync\n"

THIRD = BOOT + r"""
out third
say "plain $(pages count third /dev/vdd2)"
back; say "kept $kept"
timed ecfs setup-swap --undo --yes
sed 's/^/| /' /tmp/log >&3
say "undone $(swaps)"
ecfs setup-swap --undo --yes >/tmp/log 2>&1; say "nothing-left $? $(cat /tmp/log)"
cat /var/log/initramfs-updates | wc -l >/tmp/n; say "initramfs $(cat /tmp/n)"
for f in /dev/vdd2 /dev/nvme0n1p1 /dev/vg/swap; do swapoff $f; done
store
sync
"""

# More is written than there is memory, and read back. Something is said all the time, so that a machine that is blocked is
# known by its silence.
PRESSURE = r"""
( while sleep 2; do echo alive >&3; done ) &
device=/dev/vda
if [ $FILE = 1 ]; then
  mount -t ext4 /dev/vda /mnt
  dd if=/dev/zero of=/mnt/swapfile bs=1M count=480 2>/dev/null; sync
  /usr/sbin/losetup --direct-io=on /dev/loop0 /mnt/swapfile; device=/dev/loop0
fi
sectors=$(($(blockdev --getsize64 $device) / 512))
dmsetup create swap --table "0 $sectors crypt aes-xts-plain64 $(head -c 64 /dev/urandom | od -An -tx1 | tr -d ' \n') 0 $device 0"
mkswap /dev/mapper/swap >/dev/null; /usr/sbin/swapon /dev/mapper/swap
echo begun >&3
touch /tmp/stop; pages hold 320 pressure /tmp/stop >&3
"""


def stands_pressure(name, script):
    made = vm.Guest(vm.work_folder(os.path.join("swap", name)))
    made.modules("dm-crypt", "xts", "ecb", "loop")
    for program in ("dmsetup", "losetup", "swapon"):
        made.program(shutil.which(program, path="/usr/sbin:/sbin"), "usr/sbin/" + program)
    made.program(os.path.join(os.environ["VM_BIN"], "vm_swap_pages"), "usr/bin/pages")
    made.script("export DM_DISABLE_UDEV=1\n" + script)
    disk = os.path.join(made.work, "disk")
    with open(disk, "wb") as f:
        f.truncate(640 * MIB)
    vm.run("mke2fs", "-q", "-F", "-t", "ext4", disk, capture_output=True)
    try:
        return "\nintact\n" in made.boot(memory_mb=256, timeout_s=60, options=["-drive", "if=virtio,format=raw,cache=unsafe,file=" + disk])
    except RuntimeError as error:
        if "was silent" not in str(error) or "\nbegun\n" not in str(error):
            raise
        return False
    finally:
        os.unlink(disk)


def guest(name, script):
    made = vm.Guest(vm.work_folder(os.path.join("swap", name)))
    made.modules("dm-crypt", "xts", "ecb", "nvme")
    for source, path in ((os.environ["VM_ECFS"], "usr/bin/ecfs"), (os.environ["VM_ECFS_SWAP"], "usr/libexec/ecfs/ecfs-swap"),
                         (os.path.join(os.environ["VM_BIN"], "ecfs-swap-test"), "usr/libexec/ecfs/ecfs-swap-test")):
        stripped = os.path.join(made.work, os.path.basename(path))  # what is for a debugger is much, in memory
        vm.run("strip", "-o", stripped, source)
        made.program(stripped, path)
    for name in ("swapon", "swapoff"):
        made.program(shutil.which(name, path="/usr/sbin:/sbin"), "usr/sbin/" + name)
    made.data("usr/bin/ecfs-swap", "#!/bin/sh\nexec /usr/libexec/ecfs/ecfs-swap \"$@\"\n", 0o755)
    made.program(os.path.join(os.environ["VM_BIN"], "vm_swap_pages"), "usr/bin/pages")
    made.program(shutil.which("dmsetup", path="/usr/sbin:/sbin") or vm.skip_all("there is no dmsetup"), "usr/sbin/dmsetup")
    made.data("usr/sbin/update-initramfs", "#!/bin/sh\necho \"$@\" >>/var/log/initramfs-updates\n", 0o755)
    made.data("var/log/initramfs-updates", "")
    made.script(FUNCTIONS + script)
    return made


def said(answer, word):
    found = re.findall(r"^%s (.*)$" % re.escape(word), answer, re.M)
    return found[-1].strip() if found else ""


def main():
    folder = vm.work_folder("swap/disks")
    at = {name: os.path.join(folder, name) for name in ("virtio", "volume", "nvme")}
    ids = {name: uuid.uuid4() for name in ("vdd2", "vdd3", "nvme", "volume")}
    parts = {name: uuid.uuid4() for name in ("data", "vdd2", "vdd3", "nvme")}
    gpt(at["virtio"], 80 * MIB, [(1, 1, DATA_TYPE, parts["data"]), (4, 32, SWAP_TYPE, parts["vdd2"]),
                                 (40, 8, SWAP_TYPE, parts["vdd3"])])
    gpt(at["nvme"], 24 * MIB, [(2, 16, SWAP_TYPE, parts["nvme"])])
    with open(at["volume"], "wb") as f:
        f.truncate(32 * MIB)
    headers = {"vdd2": ("virtio", 4 * MIB, 32 * MIB), "vdd3": ("virtio", 40 * MIB, 8 * MIB),
               "nvme": ("nvme", 2 * MIB, 16 * MIB), "volume": ("volume", 0, 32 * MIB)}
    for name, (disk, offset, size) in headers.items():
        swap_header(at[disk], offset, size, ids[name], "nvme-swap" if name == "nvme" else "")
    tables = {(disk, end): piece(at[disk], 0 if end == "start" else os.path.getsize(at[disk]) - 33 * SECTOR,
                                 (34 if end == "start" else 33) * SECTOR)
              for disk in ("virtio", "nvme") for end in ("start", "end")}
    first_pages = {name: piece(at[disk], offset, 4096) for name, (disk, offset, _) in headers.items()}

    tree = os.path.join(vm.work_folder("swap/tree"), "tree")
    os.makedirs(os.path.join(tree, "etc/initramfs-tools/conf.d"))
    texts = {"fstab": "# a remark, which stays\nUUID=%s\tnone\tswap\tsw,pri=5\t0\t0\n\n/dev/vg/swap none swap sw 0 0\nLABEL=nvme-swap none swap "
                      "defaults 0 0\n# the end" % ids["vdd2"],
             "crypttab": "# <target>\t<source>\n", "initramfs-tools/conf.d/resume": "RESUME=UUID=%s\n" % ids["vdd2"]}
    for name, text in texts.items():
        with open(os.path.join(tree, "etc", name), "w") as f:
            f.write(text)
    virtio = ["-drive", "if=virtio,format=raw,cache=unsafe,file=" + at["virtio"],
              "-drive", "if=virtio,format=raw,cache=unsafe,file=" + at["volume"]]
    nvme = ["-drive", "if=none,id=nvme0,format=raw,cache=unsafe,file=" + at["nvme"], "-device", "nvme,drive=nvme0,serial=ecfs"]
    begun = time.monotonic()

    def boot(name, script, options):
        started = time.monotonic()
        answer = guest(name, script).boot(tree=tree, memory_mb=768, options=options)
        print("---- %s machine, %.0f s\n%s" % (name, time.monotonic() - started, answer))
        return answer

    first = boot("first", "KILL_UUID=%s LONG=%d\n" % (ids["vdd3"], LONG) + FIRST, virtio + nvme)
    check("a dry run changes nothing", said(first, "unchanged") == "0")
    check("a dry run explains, and says that the swap file is refused", said(first, "dry-run") == "1" and "dm-crypt upon a file" in first)
    check("status tells of plain swap, and of encrypted", said(first, "status") == "1" and said(first, "status-after") == "1")
    check("hibernation is refused", said(first, "hibernation") == "1 1", said(first, "hibernation"))
    check("pages are on the disk before", said(first, "plain") == str(LINES), said(first, "plain"))
    check("--wipe: none of them after", said(first, "wiped") == "0", said(first, "wiped"))
    check("encrypted: on the disk none, in the mapping all", said(first, "encrypted") == "0 %d" % LINES, said(first, "encrypted"))
    check("it was written", int(said(first, "written") or 0) > PAGES_MIB * MIB // 2, said(first, "written"))
    check("no page was lost", first.count("\nkept 1\n") == 2)
    check("priority, and dm-crypt alone", re.fullmatch(r"/dev/mapper/ecfs_swap1:5 /dev/mapper/ecfs_swap2:-\d+ /dev/mapper/ecfs_swap3:-\d+",
                                                       said(first, "after")) is not None, said(first, "after"))
    check("a second run changes nothing", said(first, "again-unchanged") == "0")
    points = [int(n) for n in said(first, "points").split()] or [0, 0]
    check("points at which it was killed: %s" % points, points[0] >= 12 and points[1] >= 12)
    check("all points", said(first, "killed encrypting") == str(points[0] if LONG else points[0] // 2) and said(first, "killed undoing") == str(points[1] if LONG else points[1] // 2))
    check("kills leave nothing wrong", re.search("^(WRONG|cannot)", first, re.M) is None)
    check("encrypted and undone where it is killed", said(first, "kill-encrypted") == "0" and said(first, "kill-undone") == "0")
    for name, (disk, offset, _) in headers.items():
        if name != "vdd3":
            check("no header of swap on %s" % name, b"SWAPSPACE" not in piece(at[disk], offset, 65536))
    for disk, number in (("virtio", 2), ("nvme", 1)):
        check("%s: not to be switched on by itself" % disk, attributes(at[disk], number) == NO_AUTO)
    with open(os.path.join(tree, "etc/fstab")) as f:
        fstab = f.read()
    check("remarks stay", fstab.startswith("# a remark, which stays\n") and fstab.endswith("\n# the end"), fstab)
    with open(os.path.join(tree, "etc/crypttab")) as f:
        crypttab = f.read()
    check("names that stay", "PARTUUID=%s" % parts["vdd2"] in crypttab and "PARTUUID=%s" % parts["nvme"] in crypttab and
          " /dev/vg/swap " in crypttab and "/dev/vdd" not in crypttab, crypttab)
    with open(os.path.join(tree, "etc/initramfs-tools/conf.d/resume")) as f:
        check("the initramfs looks for no image", "\nRESUME=none\n" in f.read())

    second = boot("second", SECOND, virtio)
    check("a missing disk: the others are on", re.fullmatch(r"/dev/mapper/ecfs_swap1:5 /dev/mapper/ecfs_swap\d:-\d+", said(second, "swaps")) is not None,
          said(second, "swaps"))
    check("a missing disk is waited for 30 s at most", int(said(second, "waited") or 99) <= 45, said(second, "waited"))

    third = boot("third", THIRD, virtio + nvme)
    check("reboot: swap is on, and dm-crypt alone",
          re.fullmatch(r"/dev/mapper/ecfs_swap1:5 /dev/mapper/ecfs_swap2:-\d+ /dev/mapper/ecfs_swap3:-\d+", said(third, "swaps")) is not None, said(third, "swaps"))
    check("reboot: status says so", said(third, "status") == "1")
    check("reboot: no page on the disk", said(third, "plain") == "0" and said(third, "kept") == "1")
    check("undone: the old swap is on", re.fullmatch(r"/dev/mapper/vg-swap:-\d+ /dev/nvme0n1p1:-\d+ /dev/vdd2:5", said(third, "undone")) is not None,
          said(third, "undone"))
    check("undone: nothing left to undo", said(third, "nothing-left") == "0 Nothing to undo.", said(third, "nothing-left"))
    for name, (disk, offset, _) in headers.items():
        check("undone: header of %s, byte for byte" % name, piece(at[disk], offset, 4096) == first_pages[name])
    for (disk, end), bytes_ in tables.items():
        now = piece(at[disk], 0 if end == "start" else os.path.getsize(at[disk]) - 33 * SECTOR, len(bytes_))
        check("undone: GPT of %s, %s" % (disk, end), now == bytes_,
              [i for i in range(len(bytes_)) if now[i] != bytes_[i]][:8])
    for name, text in texts.items():
        with open(os.path.join(tree, "etc", name)) as f:
            now = f.read()
        check("undone: /etc/%s, byte for byte" % name, now == text, now)
    if LONG:
        check("swap on dm-crypt upon a disk stands a want of memory", stands_pressure("pressure-disk", "FILE=0\n" + PRESSURE))
        check("upon a file it does not (if it does: the refusal of files can go)", not stands_pressure("pressure-file", "FILE=1\n" + PRESSURE))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("%d checks failed; %.0f s in all, %.0f s of a CPU" % (len(failures), time.monotonic() - begun, used.ru_utime + used.ru_stime))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
