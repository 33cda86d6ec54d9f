#!/bin/bash
# clang-tidy over the sources that handle keys, logins and files (fs, pam, wrap), those of them that the last commits
# touched or that are not committed; with ECFS_LONG set, or without git's history, over all, and those of the tool (setup),
# too. Tests are only compiled.
# usage: tidy.sh RUN_CLANG_TIDY BUILD_DIR
# The checks that find faults; with ECFS_LONG set all of .clang-tidy: those of style, too, and clang's static analyzer.
set -euo pipefail
[ -x "$1" ] || { echo "skipped: no run-clang-tidy"; exit 77; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# An option of GCC's that clang 14 does not take.
sed 's/ -ftrivial-auto-var-init=zero//' "$2/compile_commands.json" >"$work/compile_commands.json"
checks=-clang-analyzer-*,-performance-*,-google-*,-misc-*,-modernize-*,-readability-*
folders='wrap|fs|pam'
if [ -n "${ECFS_LONG:-}" ]; then checks= folders+='|setup'; fi
files="($folders)/.*\.cc"
if [ -z "${ECFS_LONG:-}" ] && touched=$(git -c safe.directory='*' log -n 20 --name-only --format= 2>/dev/null) && [ -n "$touched" ]; then
  touched+=$'\n'$(git -c safe.directory='*' diff --name-only HEAD)
  files=$(grep -E "^$files\$" <<<"$touched" | sort -u | while read -r file; do [ ! -e "$file" ] || echo "${file//./\\.}"; done | paste -sd '|')
  [ -n "$files" ] || { echo "no file that the last 20 commits touched is one of these"; exit 0; }
fi
status=0
"$1" -quiet -p "$work" -j "$(nproc)" -checks="$checks" "^$PWD/($files)$" >"$work/log" 2>&1 || status=$?
grep -E '(warning|error): ' "$work/log" | sort -u | head -n 200 || true
num=$(grep -cE '^[^ ]*clang-tidy[^ ]* ' "$work/log" || true)
echo "$num files"
[ "$num" -gt 0 ] || status=1
exit "$status"
