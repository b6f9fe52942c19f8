"""The commands with which files come to a host and back, and jobs are prepared: constant scripts, typed arguments.

Scripts are POSIX sh and need GNU coreutils, findutils, tar, util-linux (flock) and awk: any Linux server has them.
Names never stand in a script: they are its arguments, or travel on standard input, each ended by a zero byte. What the
gate of a server lets through is made from these (server/gatefile.py), so what a script does has to be safe for every
argument of the right kind, and for every standard input.
"""

import shlex
from pathlib import PurePosixPath
from typing import Literal

from biom3d.errors import HostError
from biom3d.remote.job import RUN, STEPS
from biom3d.remote.template import START as START  # for those that have a few lines of their own
from biom3d.remote.template import Template, made

STORE = "store"  # below the root: 2 hex digits / SHA-256 of the content
TMP = "tmp"  # below the root: what is under way
BLOCK = 65_536  # bytes; pieces of big files begin at a multiple of it
STAMP = 1_000_000_000  # time of change of all in the store; another one means that somebody wrote to it
STAMP_TEXT = "200109090146.40"  # the same for `touch`, in UTC
MARK = "biom3d-host"  # before the probe's answer, to tell it from what a login script prints
ABANDONED_MINUTES = 7 * 24 * 60
TAR_BLOCKS = 128  # of 512 bytes, which tar reads and writes at once

Hasher = Literal["openssl", "sha256sum"]
HASHERS: dict[Hasher, str] = {
    "openssl": "openssl dgst -sha256 -r",  # 1.1 GB/s where Debian's sha256sum reaches 0.22
    "sha256sum": "sha256sum -b",
}
# All folders of the store at once: programs that make the same one at the same moment get in each other's way.
_PROBE = made(
    "probe",
    f"""
cd && mkdir -p -- "$1" && cd -- "$1" || exit
own=.biom3d; [ ! -e $own ] || [ -O $own ] || own=.biom3d-$(id -u)
mkdir -p -m 700 $own && cd $own && mkdir -p {STORE} {TMP} jobs || exit
digits="0 1 2 3 4 5 6 7 8 9 a b c d e f"
[ -d {STORE}/ff ] || (cd {STORE} && for first in $digits; do for second in $digits; do echo $first$second
done; done | xargs mkdir -p) || exit
echo {MARK}; pwd -P; id -u; id -g
for tool in openssl sha256sum zstd gzip flock tar find xargs awk; do
  command -v $tool >/dev/null 2>&1 && echo $tool
done
find {TMP} -mindepth 1 -maxdepth 1 -mmin +{ABANDONED_MINUTES} -exec rm -rf {{}} + 2>/dev/null; true
""",
    "workdir",
)


def probe(workdir: str) -> str:
    """Make our folder below `workdir` (absolute, or below the home folder), and say what the host is and has.

    Where another account has `.biom3d` there, ours gets another name: nobody is locked out of a folder of many.

    Prints MARK and, line by line: our folder, uid, gid, and the names of the commands that are there.
    """
    return _PROBE.line(workdir.removeprefix("~/") if workdir != "~" else ".")


_FREE_BYTES = made("free_bytes", "stat -f --printf '%a %S' -- \"$1\"", "root")


def free_bytes(root: PurePosixPath) -> str:
    """Print free blocks and the size of one."""
    return _FREE_BYTES.line(root)


_FIND_PRESENT = made(
    "find_present",
    f"""
cd -- "$1/{STORE}" || exit
find_them() {{ xargs -0 -r stat --printf '%s %Y %n\\n' -- 2>/dev/null; true; }}
if [ "$2" = gzip ]; then gzip -dc | find_them | gzip -1c; else find_them; fi
""",
    "root",
    "packing",
    stdin="keys",
)


def find_present(root: PurePosixPath, is_packed: bool) -> str:
    """Print size, time of change and name of each named file of the store that is there; packed by gzip both ways."""
    return _FIND_PRESENT.line(root, "gzip" if is_packed else "plain")


_LIST_STORE = made(
    "list_store",
    f"""
cd -- "$1/{STORE}" || exit
find . -mindepth 2 -type f ! -path '*[!./0-9a-f]*' -printf '%s %T@ %P\\n' | head -n "$2" | gzip -1c
""",
    "root",
    "number",
)


def list_store(root: PurePosixPath, most: int) -> str:
    """Print size, time of change and name of all files of the store, `most` at most; packed by gzip."""
    return _LIST_STORE.line(root, most)


_HASH_FILES = made("hash_files", 'cd -- "$1" && xargs -0 -r $2', "tree", "hasher", stdin="names")


def hash_files(folder: PurePosixPath, hasher: Hasher) -> str:
    """Print SHA-256 and name of each named file; names without line breaks and backslashes, beginning with `./`."""
    return _HASH_FILES.line(folder, HASHERS[hasher])


_HASH_ODD_FILES = made(
    "hash_odd_files",
    'cd -- "$1" && hash=$2 && export hash && xargs -0 -r -n 1 sh -c \'$hash <"$1" || echo missing\' sh',
    "tree",
    "hasher",
    stdin="names",
)


def hash_odd_files(folder: PurePosixPath, hasher: Hasher) -> str:
    """Print a line with the SHA-256 of each named file, in their order."""
    return _HASH_ODD_FILES.line(folder, HASHERS[hasher])


# A stream may hold anything: only plain files with names as contents have them are kept. It speaks last: a client that
# is gone would end it before it has cleaned up.
_RECEIVE_FILES = made(
    "receive_files",
    f"""
cd -- "$1/{TMP}" && mkdir -p "$2/in" && cd "$2/in" || exit
[ "$6" = 0 ] || head -c "$6" >../links || {{ cd ../..; rm -rf -- "$2"; exit 1; }}
unpack() {{ tar -b {TAR_BLOCKS} -xf - --no-same-owner; }}
if [ "$4" = zstd ]; then zstd -dcq | unpack; else unpack; fi
code=$?
count=$(find . -mindepth 1 \\( ! -type f ! -type d -o -path '*[!./0-9a-f]*' \\) -prune -exec rm -rf -- {{}} + \\
  -o -type f -exec $3 {{}} + |
  awk '{{ name = $2; sub(/.*\\//, "", name); if ($1 == name) {{ print substr($2, 2) >"../good"; count++ }} }}
    END {{ print count + 0 }}')
linked=
if [ "$count" = "$(find . -type f -printf x | wc -c)" ]; then cp -rlf . "$1/{STORE}" || code=$?
elif [ "$count" != 0 ]; then xargs cp -lf --parents -t "$1/{STORE}" -- <../good || code=$?; fi
cd ../..
rm -rf -- "$2/in" & # while the links are made
if [ "$6" != 0 ] && [ "$count" = "$5" ] && [ "$code" = 0 ]; then
  tar -xzf "$2/links" -C "$1" --no-same-owner && linked=linked
fi
wait
rm -rf -- "$2"
echo "$count" $linked
exit $code
""",
    "root",
    "small",
    "hasher",
    "packing",
    "number",
    "number",
    stdin="links+bytes",
)


def receive_files(
    root: PurePosixPath, upload: str, hasher: Hasher, is_packed: bool, files: int = 0, link_bytes: int = 0
) -> str:
    """Unpack a tar stream of files that are named by their content, and put into the store those that arrived whole.

    Prints how many these are. When the stream breaks off, what was whole before is kept. Before the stream come
    `link_bytes` of links as for `link_files`; they are made if all `files` arrived, which is told by `linked`.
    """
    return _RECEIVE_FILES.line(root, upload, HASHERS[hasher], "zstd" if is_packed else "plain", files, link_bytes)


_BEGIN_PIECES = made(
    "begin_pieces",
    f"""
cd -- "$1/{TMP}" || exit
exec 8<.; flock 8
[ -d "$2" ] || for old in big-"$3"-*; do
  [ -d "$old" ] && (exec 9<"$old" && flock -w 2 9) && mv "$old" "$2" && break
done
mkdir -p "$2" && cd "$2" || exit
exec 9<.; flock -s 9; exec 8<&-
[ -e data ] || why=$(fallocate -l "$4" data 2>&1) || case $why in
  *pace*|*uota*) echo "$why" >&2; cd ..; rm -rf "$2"; exit 1;;
  *) truncate -s "$4" data || exit;;
esac
[ ! -e done ] || cat done
echo ready
exec cat >/dev/null
""",
    "root",
    "big",
    "key",
    "number",
    stdin="bytes",
)


def begin_pieces(root: PurePosixPath, upload: str, key: str, size: int) -> str:
    """Take up an upload of this content that broke off, or begin one, and hold it until standard input ends.

    Prints the numbers of the pieces that are there, then `ready`. One client at a time looks for what broke off; what
    a client that was just killed has left may be held for a moment.
    """
    return _BEGIN_PIECES.line(root, upload, key, size)


# Numbers are looked at before use: some shells run commands that stand in what they compute with.
_RECEIVE_PIECES = made(
    "receive_pieces",
    f"""
cd -- "$1/{TMP}/$2" || exit
exec 9<.; flock -s 9
while read -r number first blocks bytes coding want; do
  case $number$first$blocks$bytes in *[!0-9]*|'') exit 65;; esac
  if [ "$coding" = z ]; then head -c "$bytes" | zstd -dcq | dd of=data bs={BLOCK} seek="$first" conv=notrunc status=none
  elif [ "$bytes" -eq $((blocks * {BLOCK})) ]; then
    dd of=data bs={BLOCK} seek="$first" count="$blocks" iflag=fullblock conv=notrunc status=none
  else head -c "$bytes" | dd of=data bs={BLOCK} seek="$first" conv=notrunc status=none; fi || exit
  got=$(dd if=data bs={BLOCK} skip="$first" count="$blocks" status=none | $3)
  if [ "${{got%% *}}" = "$want" ]; then echo "$number" >>done && echo "$number" ok; else echo "$number" bad; fi
done
""",
    "root",
    "big",
    "hasher",
    stdin="bytes",
)


def receive_pieces(root: PurePosixPath, upload: str, hasher: Hasher) -> str:
    """Write pieces of a big file to their places, read them again, and say for each whether it arrived whole.

    Each comes as a line (number, first block, blocks, bytes that follow, `z` or `-`, SHA-256), then its bytes, packed
    by zstd if `z`.
    """
    return _RECEIVE_PIECES.line(root, upload, HASHERS[hasher])


_END_PIECES = made(
    "end_pieces",
    f"""
cd -- "$1/{TMP}" && chmod 444 "$2/data" && TZ=UTC0 touch -t {STAMP_TEXT} "$2/data" || exit
folder=$1/{STORE}/${{3%${{3#??}}}}
mkdir -p -- "$folder" && mv -f -- "$2/data" "$folder/$3" && rm -rf -- "$2"
""",
    "root",
    "big",
    "key",
)


def end_pieces(root: PurePosixPath, upload: str, key: str) -> str:
    """Put a big file whose pieces have all arrived into the store."""
    return _END_PIECES.line(root, upload, key)


_DROP_UPLOAD = made("drop_upload", f'rm -rf -- "$1/{TMP}/$2"', "root", "big")


def drop_upload(root: PurePosixPath, upload: str) -> str:
    """Remove an upload that cannot be used."""
    return _DROP_UPLOAD.line(root, upload)


_LINK_FILES = made("link_files", 'cd -- "$1" && tar -xzf - --no-same-owner', "root", stdin="links")


def link_files(root: PurePosixPath) -> str:
    """Unpack a tar stream (gzip) that holds hard links only: names of a job -> files of the store."""
    return _LINK_FILES.line(root)


_KEEP_OUTPUTS = made(
    "keep_outputs",
    f"""
cd -- "$2" && head -c "$3" |
  xargs -0 -r sh -c 'chmod a+r,a-w -- "$@" && TZ=UTC0 touch -t {STAMP_TEXT} -- "$@"' sh || exit
cd -- "$1" && tar -xzf - --skip-old-files --no-same-owner
""",
    "root",
    "work",
    "number",
    stdin="names+links",
)


def keep_outputs(root: PurePosixPath, work: PurePosixPath, list_bytes: int) -> str:
    """Put outputs of a job that has ended into the store: first their names, then a tar stream of links as above."""
    return _KEEP_OUTPUTS.line(root, work, list_bytes)


_LIST_OUTPUTS = made(
    "list_outputs",
    """
[ -d "$1" ] || exit 0
cd -- "$1" && hash=$2 && export hash && xargs -0 -r sh -c '
  find "$@" -printf "%y %s %p\\0"; printf "\\0"
  find "$@" -type f ! -path "*\\\\*" ! -path "*
*" -print0 | xargs -0 -r $hash
' sh; true
""",
    "work",
    "hasher",
    stdin="names",
)


def list_outputs(work: PurePosixPath, hasher: Hasher) -> str:
    """Print type, size and name of all that lies below the named files and folders, each ended by a zero byte.

    Then, after another zero byte, SHA-256 and name of files whose names have neither line breaks nor backslashes.
    """
    return _LIST_OUTPUTS.line(work, HASHERS[hasher])


_SEND_FILES = made(
    "send_files",
    """
cd -- "$1" || exit
names() { if [ "$2" = gzip ]; then gzip -dc; else cat; fi; }
if [ "$3" = zstd ]; then names "$@" | xargs -0 -r cat -- | zstd -1cq; else names "$@" | xargs -0 -r cat --; fi
""",
    "work",
    "packing",
    "packing",
    stdin="names",
)


def send_files(work: PurePosixPath, is_packed: bool, has_packed_names: bool = False) -> str:
    """Print the content of the named files, one after another; their names may be packed by gzip."""
    return _SEND_FILES.line(work, "gzip" if has_packed_names else "plain", "zstd" if is_packed else "plain")


_SEND_RANGE = made(
    "send_range",
    f"""
cd -- "$1" || exit
part() {{ dd if="./$2" bs={BLOCK} skip="$3" count="$4" status=none; }}
if [ "$5" = zstd ]; then part "$@" | zstd -1cq; else part "$@"; fi
""",
    "work",
    "name",
    "number",
    "number",
    "packing",
)


def send_range(work: PurePosixPath, name: str, first: int, blocks: int, is_packed: bool) -> str:
    """Print some blocks of a file."""
    return _SEND_RANGE.line(work, name, first, blocks, "zstd" if is_packed else "plain")


# Without -C it would write through a link of the temporary name.
_WRITE_FILE = made(
    "write_file",
    """
folder=${1%/*}; new=$folder/.$2
mkdir -p -- "$folder" && set -C && cat >"$new" && [ "$(wc -c <"$new")" -eq "$3" ] && mv -fT -- "$new" "$1" ||
  { rm -f -- "$new"; exit 1; }
""",
    "injob",
    "temporary",
    "number",
    stdin="bytes",
)


def write_file(path: PurePosixPath, temporary: str, size: int) -> str:
    """Write standard input to a file; it appears when all of it is there."""
    return _WRITE_FILE.line(path, temporary, size)


_WRITE_SCRIPTS = made(
    "write_scripts",
    f"""
mkdir -p -- "$1" && cd -- "$1" && set -C || exit
{{ head -c "$3" >".$2-1" && head -c "$4" >".$2-2" && [ "$(cat ".$2-1" ".$2-2" | wc -c)" -eq $(($3 + $4)) ] &&
  mv -fT -- ".$2-1" {STEPS} && mv -fT -- ".$2-2" {RUN}; }} || {{ rm -f -- ".$2-1" ".$2-2"; exit 1; }}
""",
    "job",
    "temporary",
    "number",
    "number",
    stdin="bytes",
)


def write_scripts(folder: PurePosixPath, temporary: str, steps_size: int, run_size: int) -> str:
    """Write both scripts of a job, which come on standard input; each appears when all of it is there."""
    return _WRITE_SCRIPTS.line(folder, temporary, steps_size, run_size)


_READ_FILE = made("read_file", '[ -e "$1" ] || exit 66; cat -- "$1"', "tree")


def read_file(path: PurePosixPath) -> str:
    """Print a file; exit code 66 if there is none."""
    return _READ_FILE.line(path)


_REMOVE_FOLDER = made("remove_folder", 'rm -rf -- "$1"', "job")


def remove_folder(folder: PurePosixPath) -> str:
    """Remove a folder of ours."""
    return _REMOVE_FOLDER.line(folder)


_DIAL_ENGINE = made(
    "dial_engine",
    """
[ -z "$1" ] || { DOCKER_HOST=unix://$1; export DOCKER_HOST; }
if command -v docker >/dev/null 2>&1; then exec docker system dial-stdio
elif command -v podman >/dev/null 2>&1; then exec podman ${1:+--url "unix://$1"} system dial-stdio
else echo 'neither docker nor podman is there' >&2; exit 127; fi
""",
    "socket",
)


def dial_engine(socket: str | None) -> str:
    """Connect standard input and output with the container engine, at `socket` or where the host's account says."""
    return _DIAL_ENGINE.line(socket or "")


TEMPLATES = tuple(thing for thing in vars().values() if isinstance(thing, Template))


def quote(text: str | PurePosixPath) -> str:
    """Return `text` as one word of a shell line."""
    if "\0" in str(text):
        raise HostError(f"a name with a zero byte cannot be used: {str(text)!r}")
    return shlex.quote(str(text))
