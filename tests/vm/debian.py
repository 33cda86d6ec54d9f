"""A whole Debian in a virtual machine: systemd, sshd, PAM, cron, Debian's own kernel. Driven as people do it: on a serial
console and over ssh. It runs until it is told to end, and may be rebooted.

    machine = debian.Machine(folder, image, {"root/file": b"..."})   # files that are put into it at its first boot
    machine.start()
    status, text = machine.sh("command")           # as root
    session = machine.console()                    # a person at a console, or machine.ssh("user")
    session.log_in("user", "password")             # what was said until the prompt
    status, text = session.run("command")
    session.log_out()

The image (tests/fresh-debian) is never changed: the machine has a copy, which goes with end(). A machine that was powered off may be
started again.
"""

import contextlib
import io
import os
import re
import select
import shutil
import socket
import subprocess
import tarfile
import time

import vm

try:
    import pexpect
    import pexpect.fdpexpect
except ImportError:
    vm.skip_all("python3-pexpect is not installed")

FOUND = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fresh-debian")
PACKAGES = ("systemd-sysv, udev, dbus, libpam-systemd, dbus-user-session, openssh-server, login, passwd, cron, sudo, procps, apt, "
            "iproute2, util-linux, e2fsprogs, apparmor, tpm-udev")
LONGEST_S = 120  # for one answer, on a busy machine
PROMPT = r"\w+@vm:\S*[$#] "

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
while read -r module; do insmod "$module" || echo "cannot load $module"; done </modules.list
case "$(/sbin/dumpe2fs -h /dev/vda 2>&1 | grep -e features: -e state:)" in
  *needs_recovery* | *"not clean"* | *error*) echo "TEST: the disk needs recovery" ;;
  *clean*) echo "TEST: the disk is clean" ;;
  *) echo "TEST: the disk cannot be read" ;;
esac
mount -t ext4 /dev/vda /disk
[ -e /disk/root/unpacked ] || /usr/bin/tar -C /disk -xpf /dev/vdb
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
umount /sys /proc; mount -o move /dev /disk/dev
exec switch_root /disk /sbin/init
"""


def image(depends):
    """The path of the image, made if it is not there; `depends`: what is to be installed besides PACKAGES."""
    done = subprocess.run([FOUND, "image", "login", depends, PACKAGES], stdout=subprocess.PIPE, text=True)
    if done.returncode == 77:
        print(done.stdout, end="")
        raise SystemExit(77)
    if done.returncode != 0:
        raise RuntimeError("the image cannot be made")
    return done.stdout.strip()


class Ended(Exception):
    """What was talked to is gone, or did not answer in time."""


class Talk:
    """A person at a terminal. `said` is what came between the password and the prompt."""

    def __init__(self, machine, terminal):
        self.machine = machine
        self.terminal = terminal
        self.said = ""
        self.seconds = 0.0  # from the password to the prompt

    def expect(self, patterns, timeout=LONGEST_S):
        try:
            return self.terminal.expect(patterns, timeout=timeout)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            raise Ended("no %r within %d s, but %r" % (patterns, timeout, self.terminal.before[-400:])) from error

    def send(self, line):
        try:
            self.terminal.sendline(line)
        except OSError as error:
            raise Ended(str(error)) from error

    def to_prompt(self, timeout=LONGEST_S):
        self.expect(PROMPT, timeout)
        self.said = self.terminal.before.replace("\r", "")
        return self.said

    @property
    def ours(self):
        """The lines of ecfs among what was said."""
        return [line.strip() for line in self.said.split("\n") if line.startswith("ecfs:")]

    def password(self, password):
        begun = time.monotonic()
        self.send(password)
        self.to_prompt()
        self.seconds = time.monotonic() - begun

    def run(self, command, timeout=LONGEST_S):
        self.send("echo '<'\"<\"; %s; echo \">\"'>'$?" % command)
        self.expect(r"<<\r?\n(.*?)>>(\d+)\r?\n", timeout)
        text, status = self.terminal.match.group(1), int(self.terminal.match.group(2))
        self.expect(PROMPT)
        return status, text.replace("\r", "").strip()


class Console(Talk):
    def log_in(self, user, password):
        self.send("")
        self.expect("login: ")
        self.send(user)
        self.expect("Password: ")
        self.password(password)
        return self

    def log_out(self):
        self.send("exit")
        self.expect("login: ")


class Ssh(Talk):
    def log_in(self, password):
        self.expect("assword: ")
        self.password(password)
        return self

    def log_out(self):
        self.send("exit")
        self.expect(pexpect.EOF)
        self.terminal.close()


class Machine(vm.Guest):
    """`tpm`: the folder of the state of its TPM 2.0, which is swtpm's; another folder is another TPM. None: it has no TPM.
    `more_disks`: images of its disks from /dev/vdc on. Both are what they are when it starts."""

    def __init__(self, work, disk, files, tpm=None, more_disks=()):
        super().__init__(work)
        for program in ("ssh", "ssh-keygen") + (("swtpm",) if tpm else ()):
            if shutil.which(program) is None:
                vm.skip_all(program + " is not installed")
        self.disk = disk
        self.tpm = tpm
        self.more_disks = more_disks
        self.process = self.shell = self.swtpm = None
        self.key = os.path.join(work, "key")
        vm.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        with open(self.key + ".pub", "rb") as f:
            self.public_key = f.read()
        files = {"root/.ssh/authorized_keys": self.public_key, "root/unpacked": b"", "etc/hostname": b"vm\n", "etc/machine-id": b"%032x\n" % 0xECF5,
                 "etc/hosts": b"127.0.0.1 localhost vm\n", **files}
        self.pack(files)
        self.data("init", INIT, 0o755)
        self.program("/usr/sbin/dumpe2fs", "sbin/dumpe2fs")
        self.modules("virtio_net", "fuse", "autofs4", *(("dm-crypt", "xts", "ecb") if more_disks else ()))

    def at(self, name):
        return os.path.join(self.work, name)

    def pack(self, files):
        with tarfile.open(self.at("files.tar"), "w") as tar:
            for folder, mode in (("root/.ssh", 0o700), ("var/log/journal", 0o755)):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, mode
                tar.addfile(entry)
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode, entry.mtime = len(content), 0o600 if path.startswith("root/") else 0o644, time.time()
                tar.addfile(entry, io.BytesIO(content))

    # ---- its life ----

    def start(self, timeout_s=240):
        self.initramfs(self.at("initramfs"), False)
        if not os.path.exists(self.at("disk")):
            vm.run("cp", "--sparse=always", "--reflink=auto", self.disk, self.at("disk"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["console=ttyS0", "quiet", "panic=0", "mitigations=off", "random.trust_cpu=on", "no_timer_check",
                 "net.ifnames=0", "systemd.show_status=yes", "systemd.wants=serial-getty@ttyS1.service"]
        words += ["systemd.mask=" + unit for unit in (
            "serial-getty@ttyS0.service", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer",
            "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer",
            "systemd-networkd-wait-online.service")]
        command = [vm.QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-nodefaults",
                   "-no-user-config", "-display", "none", "-kernel", self.kernel, "-initrd", self.at("initramfs"),
                   "-append", " ".join(words), "-serial", "file:" + self.at("console.log"),
                   "-serial", "unix:%s,server=on,wait=off" % os.path.relpath(self.at("ttyS1")),
                   "-drive", "if=virtio,format=raw,cache=unsafe,file=" + self.at("disk"),
                   "-drive", "if=virtio,format=raw,readonly=on,file=" + self.at("files.tar"),
                   *(word for path in self.more_disks for word in ("-drive", "if=virtio,format=raw,cache=unsafe,file=" + path)),
                   "-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22" % self.port,
                   "-device", "virtio-net-pci,netdev=net,romfile="]
        if self.tpm:
            command += self.start_tpm()
        self.log = open(self.at("ttyS1.log"), "w")
        self.qemu_log = open(self.at("qemu.log"), "w")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.qemu_log, stderr=self.qemu_log,
                                        env=dict(os.environ, TMPDIR=self.work))
        self.serial = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 20
        while True:
            try:
                self.serial.connect(os.path.relpath(self.at("ttyS1")))
                break
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError("qemu does not start: " + open(self.at("qemu.log")).read())
                time.sleep(0.05)
        self.serial.setblocking(False)
        self.is_up(timeout_s)

    def start_tpm(self):
        """It ends with qemu."""
        os.makedirs(self.tpm, exist_ok=True)
        path = os.path.relpath(self.at("tpm"))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.swtpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", "dir=" + self.tpm,
                                       "--ctrl", "type=unixio,path=" + path], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not os.path.exists(path):
            if time.monotonic() > end or self.swtpm.poll() is not None:
                raise RuntimeError("swtpm does not start")
            time.sleep(0.02)
        return ["-chardev", "socket,id=tpm,path=" + path, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"]

    def is_up(self, timeout_s=240):
        """Waits for the console's prompt, and for sshd. What was on the console before is forgotten."""
        with contextlib.suppress(BlockingIOError):
            while self.serial.recv(65536):
                pass
        self.terminal = pexpect.fdpexpect.fdspawn(self.serial.fileno(), encoding="utf-8", codec_errors="replace")
        self.terminal.logfile = self.log
        self.console().expect("login: ", timeout_s)
        self.connect(timeout_s)

    def end(self, keep=False):
        """`keep`: as if somebody pulled the plug; it may be started again."""
        if self.shell is not None:
            self.shell.kill()
            self.shell.wait()
        for process in (self.process, self.swtpm):
            if process is not None:
                process.kill()
                process.wait()
        for name in ("initramfs", "files.tar", "disk"):
            if not keep and os.path.exists(self.at(name)):
                os.unlink(self.at(name))

    # ---- talking to it ----

    def ssh_command(self, user, *options):
        return ["ssh", "-F", "/dev/null", "-p", str(self.port), "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", *options,
                user + "@127.0.0.1"]

    def connect(self, timeout_s):
        """root's shell, which stays."""
        end = time.monotonic() + timeout_s
        while True:
            self.shell = subprocess.Popen(
                self.ssh_command("root", "-i", self.key, "-o", "BatchMode=yes") + ["exec bash"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
            try:
                return self.sh("true", 30)
            except Ended:
                self.shell.kill()
                self.shell.wait()
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def sh(self, command, timeout=LONGEST_S):
        """Runs it with sh's rules in a subshell; gives status and output."""
        try:
            self.shell.stdin.write(("( %s\n) </dev/null 2>&1; echo \"<\"end\">\"$?\n" % command).encode())
        except OSError as error:
            raise Ended(str(error)) from error
        text, end = b"", time.monotonic() + timeout
        while True:
            found = re.search(rb"<end>(\d+)\n\Z", text)
            if found:
                return int(found.group(1)), text[:found.start()].decode("utf-8", "replace").strip()
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.shell.stdout], [], [], left)[0]:
                raise Ended("root's shell did not answer within %d s: %s" % (timeout, command))
            more = os.read(self.shell.stdout.fileno(), 65536)
            if not more:
                raise Ended("root's shell is gone")
            text += more

    def must(self, command, timeout=LONGEST_S):
        status, text = self.sh(command, timeout)
        if status != 0:
            raise RuntimeError("%s: status %d: %s" % (command, status, text))
        return text

    def console(self):
        return Console(self, self.terminal)

    def ssh(self, user, *options):
        if not options:
            options = ("-o", "PreferredAuthentications=password")
        command = self.ssh_command(user, "-tt", "-o", "NumberOfPasswordPrompts=1", *options)
        spawned = pexpect.spawn(command[0], command[1:], encoding="utf-8", codec_errors="replace", timeout=LONGEST_S,
                                env=dict(os.environ, TERM="dumb"), echo=False)
        return Ssh(self, spawned)

    def with_key(self, user):
        """A session of `user`, whose authorized_keys has this machine's key."""
        session = self.ssh(user, "-i", self.key, "-o", "PreferredAuthentications=publickey")
        session.to_prompt()
        return session

