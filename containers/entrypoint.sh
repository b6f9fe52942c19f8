#!/bin/sh
# `train --config ...` is `python -m biom3d.train --config ...`; anything else is run as it is, such as
# `bash -c '...'` or `python -m biom3d.train`. `exec` throughout: signals reach the program itself.
# shellcheck disable=SC2086 # words of their own
[ $# -gt 0 ] || set -- ${BIOM3D_COMMAND:---help}
case $1 in
"" | -*) exec python -m biom3d "$@" ;;
*[!a-z0-9_]*) exec "$@" ;;
esac
for folder in /opt/biom3d/biom3d /opt/venv/lib/python3*/site-packages/biom3d; do
    if [ -f "$folder/$1.py" ] || [ -f "$folder/$1/__main__.py" ]; then
        step=$1
        shift
        exec python -m "biom3d.$step" "$@"
    fi
done
exec "$@"
