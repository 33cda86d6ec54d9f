#!/bin/bash
# Every source is laid out as .clang-format says.    usage: format.sh CLANG_FORMAT
set -euo pipefail
[ -x "$1" ] || { echo "skipped: no clang-format"; exit 77; }
mapfile -t files < <(find wrap fs pam setup tests -name '*.h' -o -name '*.cc')
[ "${#files[@]}" -gt 0 ]
"$1" --dry-run --Werror "${files[@]}"
echo "${#files[@]} files"
