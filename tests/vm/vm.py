"""Debian's own kernel in a virtual machine, for what the machine of the tests may not or cannot do: eCryptfs in the
kernel, device-mapper, a TPM. A machine boots in a few seconds, runs one script as root and is gone.

    guest = vm.Guest(folder)                    # files, programs and kernel modules of an initramfs
    guest.program("/usr/bin/keyctl")            # with its shared libraries
    guest.modules("ecryptfs")                   # with what they depend on
    guest.script("...")                         # sh; "set -eu", a status other than 0 is the test's failure
    answer = guest.boot(tree=folder)            # `folder` lies at /disk, an ext4 file system, and is brought back

The packages are downloaded once, as setup/packages [vm] names them, and unpacked into VM_PACKAGES; none of it is
installed. What cannot run here is skipped aloud with exit status 77. Environment, set by CMake: VM_PACKAGES, where
packages are kept; VM_WORK, for the rest; VM_LIST, setup/packages.
"""

import fcntl
import glob
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time

PACKAGES = os.environ.get("VM_PACKAGES", "vm-packages")
QEMU = "qemu-system-x86_64"
DISK_MB = 1024  # of /disk; a sparse file
LONGEST_S = 1200  # that a machine may take, however busy the one is on which it runs

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm /run /tmp /var/tmp
mount -t devpts none /dev/pts; mount -t tmpfs none /dev/shm; mount -t tmpfs none /run
chmod 1777 /tmp /var/tmp /dev/shm
ip link set lo up
while read -r module; do insmod "$module" || echo "cannot load $module"; done </modules.list
sh /run-all </dev/null; status=$?
sync
echo "status $status" >/dev/ttyS1
poweroff -f
"""
# By full paths where busybox has an applet of that name: its sh takes the applet.
RUN_ALL = """set -eu
exec 3>/dev/ttyS1
tree=$(cat /tree)
if [ "$tree" = 1 ]; then
  mount -t ext4 /dev/vda /disk
  /usr/bin/tar -C /disk --xattrs --xattrs-include='user.*' --numeric-owner -xpf /dev/vdb
fi
sh -eu /script 3>&3
if [ "$tree" = 1 ]; then
  rmdir /disk/lost+found
  /usr/bin/tar -C /disk --xattrs --xattrs-include='user.*' --numeric-owner -cf /dev/vdc .
fi
"""


def skip_all(why):
    print("SKIPPED:", why)
    sys.exit(77)


def run(*command, **more):
    return subprocess.run([str(c) for c in command], check=True, **more)


def wanted_packages():
    with open(os.environ["VM_LIST"]) as f:
        section = f.read().split("[vm]\n", 1)[1].split("\n[", 1)[0]
    return [name for name in (line.split("#")[0].strip() for line in section.splitlines()) if name]


def download(names, folder):
    """Gives whether all were had. The lists of packages are renewed if they do not say enough."""
    for update in (False, True):
        if update and subprocess.run(["apt-get", "update", "-q"], capture_output=True).returncode != 0:
            return False
        exact = []
        for name in names:
            shown = subprocess.run(["apt-cache", "show", "--no-all-versions", name], capture_output=True, text=True)
            real = re.search(r"^Depends: (linux-image-[0-9][^ ,]*)", shown.stdout, re.M)  # of linux-image-amd64
            exact.append(real.group(1) if real else name)
        done = subprocess.run(["apt-get", "download", "-q"] + exact, cwd=folder, capture_output=True, text=True)
        if done.returncode == 0:
            return True
    print(done.stderr)
    return False


def packages():
    """The folder into which all are unpacked; downloaded if they are not there yet."""
    names = wanted_packages()
    root = os.path.join(PACKAGES, "root")
    os.makedirs(PACKAGES, exist_ok=True)
    with open(os.path.join(PACKAGES, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = os.path.join(PACKAGES, "unpacked")
        if os.path.exists(stamp) and open(stamp).read().split() == names:
            return root
        debs = os.path.join(PACKAGES, "debs")
        for folder in (root, debs):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
        if not download(names, debs):
            skip_all("the packages for the virtual machine cannot be downloaded: " + " ".join(names))
        for deb in glob.glob(os.path.join(debs, "*.deb")):
            run("dpkg-deb", "-x", deb, root)
        with open(stamp, "w") as f:
            f.write("\n".join(names) + "\n")
    return root


def cpio_entry(number, name, mode, data=b"", rdev=(0, 0)):
    """One entry of a newc archive, which is what the kernel unpacks."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def watch(command, outputs, timeout_s):
    """Runs it, for as long as its outputs grow; gives what went wrong, or "". A busy machine may be slow, one that
    hangs is ended; so is one that takes LONGEST_S."""
    end = time.monotonic() + LONGEST_S
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        size, heard = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if sum(os.path.getsize(path) for path in outputs) != size:
                size, heard = sum(os.path.getsize(path) for path in outputs), now
            if now - heard > timeout_s or now > end:
                process.kill()
                return "the machine was silent for %d s" % timeout_s if now <= end else "the machine took too long"
    return "" if process.returncode == 0 else "%s ended with %d" % (command[0], process.returncode)


class Guest:
    """What one virtual machine has in it. `work` is a folder for its images; the log stays there."""

    def __init__(self, work):
        if shutil.which(QEMU) is None:
            skip_all(QEMU + " is not installed")
        self.work = work
        os.makedirs(work, exist_ok=True)
        self.root = packages()
        self.entries = {}  # path in the guest: (mode, bytes)
        self.module_files = []
        self.text = ""
        kernels = glob.glob(os.path.join(self.root, "boot/vmlinuz-*"))
        self.kernel = kernels[0]
        self.version = os.path.basename(self.kernel).removeprefix("vmlinuz-")
        self.all_modules = {
            os.path.basename(path)[:-3].replace("-", "_"): path
            for path in glob.glob(self.host("lib/modules/%s/kernel/**/*.ko" % self.version), recursive=True)}
        for folder in ("proc", "sys", "dev", "disk", "mnt", "root", "tmp", "run", "etc", "home"):
            self.entries[folder] = (stat.S_IFDIR | 0o755, b"")
        self.file("bin/busybox", self.host("bin/busybox"), 0o755)
        for applet in run(self.host("bin/busybox"), "--list", capture_output=True, text=True).stdout.split():
            if applet != "busybox":
                self.entries["bin/" + applet] = (stat.S_IFLNK | 0o777, b"busybox")
        self.program("/usr/bin/tar")
        self.data("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.data("etc/group", "root:x:0:\n")
        self.data("etc/nsswitch.conf", "passwd: files\ngroup: files\n")
        self.data("init", INIT, 0o755)
        self.data("run-all", RUN_ALL)
        self.modules("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")

    def host(self, path):
        """Where a file of the packages lies."""
        return os.path.join(self.root, path)

    def data(self, path, content, mode=0o644):
        self.parents(path)
        self.entries[path] = (stat.S_IFREG | mode, content.encode() if isinstance(content, str) else content)

    def file(self, path, source, mode=None):
        with open(source, "rb") as f:
            self.data(path, f.read(), stat.S_IMODE(os.stat(source).st_mode) if mode is None else mode)

    def parents(self, path):
        while "/" in path:
            path = path.rsplit("/", 1)[0]
            self.entries.setdefault(path, (stat.S_IFDIR | 0o755, b""))

    def program(self, source, path=None, mode=None):
        """A program or shared library with the libraries it needs; `path` is where it is to be. Without a '/' in front
        `source` is a file of the packages. The script calls it by its path if busybox has one of that name."""
        path = path or source.lstrip("/")
        source = source if source.startswith("/") else self.host(source)
        self.file(path, source, mode)
        own = [self.host("usr/lib/x86_64-linux-gnu"), self.host("lib/x86_64-linux-gnu")]
        said = subprocess.run(["ldd", source], capture_output=True, text=True,
                              env=dict(os.environ, LD_LIBRARY_PATH=":".join(own))).stdout
        missing = re.findall(r"^\s*(\S+) => not found", said, re.M)
        if missing:
            raise RuntimeError("%s needs %s" % (source, " ".join(missing)))
        for library in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.M):
            name = os.path.basename(library)
            folder = "lib64/" if name.startswith("ld-linux") else "lib/x86_64-linux-gnu/"
            self.file(folder + name, library, 0o755)

    def modules(self, *names):
        """Kernel modules, after those they depend on. What is built into the kernel has no file and is no error."""
        with open(self.host("lib/modules/%s/modules.builtin" % self.version)) as f:
            built_in = {os.path.basename(line.strip())[:-3].replace("-", "_") for line in f}
        for name in (n.replace("-", "_") for n in names):
            if name in built_in or any(name == have for have, _ in self.module_files):
                continue
            with open(self.all_modules[name], "rb") as f:
                content = f.read()
            for depends in re.findall(rb"\0depends=([^\0]*)\0", content):
                self.modules(*filter(None, depends.decode().split(",")))
            self.module_files.append((name, content))

    def user(self, name, uid):
        for path, line in (("etc/passwd", "%s:x:%d:%d::/home/%s:/bin/sh\n" % (name, uid, uid, name)),
                           ("etc/group", "%s:x:%d:\n" % (name, uid))):
            self.data(path, self.entries[path][1].decode() + line)

    def script(self, text):
        self.text += text

    def initramfs(self, path, tree):
        self.data("tree", "1" if tree else "0")
        self.data("script", self.text)
        for name, content in self.module_files:
            self.data("modules/%s.ko" % name, content)
        self.data("modules.list", "".join("/modules/%s.ko\n" % name for name, _ in self.module_files))
        with open(path, "wb") as out:
            for number, name in enumerate(sorted(self.entries)):  # a folder before what is in it
                out.write(cpio_entry(number + 1, name, *self.entries[name]))
            out.write(cpio_entry(0, "dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1)))
            out.write(cpio_entry(0, "TRAILER!!!", 0))

    def boot(self, tree=None, timeout_s=180, memory_mb=768, options=()):
        """Runs the script; gives what it wrote to descriptor 3. `tree` is replaced by what it left at /disk. `options`
        are more ones of QEMU. Raises RuntimeError, with the console's end, if the script or the machine failed, or
        nothing was heard of it for `timeout_s`."""
        def at(name):
            return os.path.join(self.work, name)
        self.initramfs(at("initramfs"), tree is not None)
        # no_timer_check: on a busy machine the kernel finds its timer too slow, and panics.
        command = [QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(memory_mb), "-nodefaults",
                   "-no-user-config", "-display", "none", "-no-reboot", "-kernel", self.kernel,
                   "-initrd", at("initramfs"), "-append",
                   "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check",
                   "-serial", "file:" + at("console.log"), "-serial", "file:" + at("answer")]
        if tree is not None:
            run("tar", "-C", tree, "--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-cf", at("in.tar"), ".")
            for image in ("disk", "out.tar"):
                with open(at(image), "wb") as f:
                    f.truncate(DISK_MB << 20)
            run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", at("disk"), capture_output=True)
            for image in ("disk", "in.tar", "out.tar"):
                command += ["-drive", "if=virtio,format=raw,cache=unsafe,file=" + at(image)]
        for name in ("console.log", "answer"):
            open(at(name), "w").close()
        why = watch(command + list(options), (at("console.log"), at("answer")), timeout_s)
        with open(at("answer"), errors="replace") as f:
            answer = f.read().replace("\r\n", "\n")
        status = re.search(r"^status (\d+)\n\Z", answer, re.M)
        if not why and (status is None or status.group(1) != "0"):
            why = "the machine stopped before its script ended"
            if status is not None:
                why = "the script ended with " + status.group(1)
        if why:
            with open(at("console.log"), errors="replace") as f:
                raise RuntimeError("%s\n%s\nThe end of %s:\n%s" % (why, answer, at("console.log"), f.read()[-6000:]))
        if tree is not None:
            shutil.rmtree(tree)
            os.makedirs(tree)
            run("tar", "-C", tree, "--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-xpf", at("out.tar"))
            for image in ("disk", "in.tar", "out.tar"):
                os.unlink(at(image))
        os.unlink(at("initramfs"))
        return answer[:status.start()]


def work_folder(name):
    """An empty folder for a test, which stays until the test runs again."""
    folder = os.path.join(os.environ.get("VM_WORK") or tempfile.mkdtemp(prefix="ecfs-vm-"), name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder
