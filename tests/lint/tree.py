#!/usr/bin/env python3
"""Rules of the tree: every source is listed in a CMakeLists.txt, every header has #pragma once and begins with a comment,
every command has a man page, every fuzzer a corpus, nothing promises to be finished later."""
import pathlib
import re
import subprocess
import sys

faults = []
tracked = subprocess.run(["git", "-c", "safe.directory=*", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
tracked = [t for t in tracked if t and pathlib.Path(t).is_file()]
cmake = "\n".join(pathlib.Path(t).read_text() for t in tracked if t.endswith("CMakeLists.txt"))

for name in tracked:
    path = pathlib.Path(name)
    listed = path.name if not name.startswith("tests/fuzz/") else path.stem.removeprefix("fuzz_")
    if path.suffix == ".cc" and listed not in cmake:
        faults.append(f"{name}: in no CMakeLists.txt")
    if path.suffix == ".h":
        text = path.read_text()
        if not text.startswith("//"):
            faults.append(f"{name}: does not begin by saying what it is for")
        if "#pragma once" not in text:
            faults.append(f"{name}: no #pragma once")
    if path.suffix in (".h", ".cc", ".py", ".sh", ".md", ".scd", "") and path.stat().st_size < 1 << 20 and name != "tests/lint/tree.py":
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for mark in re.findall(r"\b(TODO|FIXME|XXX)\b", text):
            faults.append(f"{name}: {mark}")

commands = re.findall(r'add_command\(\s*"([a-z-]+)"', "\n".join(pathlib.Path(t).read_text() for t in tracked if re.fullmatch(r"setup/(swap/options|[a-z_]+)\.cc", t)))
pages = {pathlib.Path(t).name for t in tracked if t.endswith(".scd")}
for command in commands:
    if not {f"ecfs-{command}.1.scd", f"ecfs-{command}.8.scd"} & pages and command not in ("list", "add", "remove", "change", "password", "recovery"):
        faults.append(f"ecfs {command}: no man page ecfs-{command}.1.scd")
if not commands:
    faults.append("no command was found in setup/")

for name in (pathlib.Path(t).stem for t in tracked if t.startswith("tests/fuzz/fuzz_")):
    if not any(t.startswith(f"tests/fuzz/corpus/{name}/") for t in tracked):
        faults.append(f"{name}: no corpus in tests/fuzz/corpus/{name}")

print("\n".join(faults))
print(f"{len(tracked)} files, {len(commands)} commands, {len(faults)} faults")
sys.exit(1 if faults else 0)
