"""Every command line that is ever run on a host over SSH, each a function of typed arguments.

Lines are POSIX sh and need GNU coreutils, findutils, tar, util-linux (flock) and awk: any Linux server has them. Names
never stand in a line unquoted; lists of names travel on standard input, each ended by a zero byte.
"""

import re
import shlex
from pathlib import PurePosixPath
from typing import Literal

from biom3d.errors import HostError

STORE = "store"  # below the root: 2 hex digits / SHA-256 of the content
TMP = "tmp"  # below the root: what is under way
BLOCK = 65_536  # bytes; pieces of big files begin at a multiple of it
STAMP = 1_000_000_000  # time of change of all in the store; another one means that somebody wrote to it
STAMP_TEXT = "200109090146.40"  # the same for `touch`, in UTC
MARK = "biom3d-host"  # before the probe's answer, to tell it from what a login script prints
ABANDONED_MINUTES = 7 * 24 * 60

Hasher = Literal["openssl", "sha256sum"]
HASHERS: dict[Hasher, str] = {
    "openssl": "openssl dgst -sha256 -r",  # 1.1 GB/s where Debian's sha256sum reaches 0.22
    "sha256sum": "sha256sum -b",
}
# Messages in English, so that we can read them; folders that not every sshd has in its PATH.
START = "LC_ALL=C PATH=$PATH:/usr/local/bin:/usr/bin:/bin; export LC_ALL PATH; umask 022; "
# All folders of the store at once: programs that make the same one at the same moment get in each other's way.
_DIGITS = " ".join("0123456789abcdef")
_MAKE_STORE = (
    f"[ -d {STORE}/ff ] || (cd {STORE} && for first in {_DIGITS}; do"
    f" for second in {_DIGITS}; do echo $first$second; done; done | xargs mkdir -p) || exit;"
)
_WORD = re.compile(r"[0-9a-z-]+")


def probe(workdir: str) -> str:
    """Make our folder below `workdir` (absolute, or below the home folder), and say what the host is and has.

    Prints MARK and, line by line: our folder, uid, gid, and the names of the commands that are there.
    """
    folder = quote(workdir.removeprefix("~/") if workdir != "~" else ".")
    return (
        f"{START}cd && mkdir -p -- {folder} && cd -- {folder} && mkdir -p -m 700 .biom3d && cd .biom3d"
        f" && mkdir -p {STORE} {TMP} jobs || exit; {_MAKE_STORE} echo {MARK}; pwd -P; id -u; id -g;"
        " for tool in openssl sha256sum zstd gzip flock tar find xargs awk; do"
        " command -v $tool >/dev/null 2>&1 && echo $tool; done;"
        f" find {TMP} -mindepth 1 -maxdepth 1 -mmin +{ABANDONED_MINUTES} -exec rm -rf {{}} + 2>/dev/null; true"
    )


def free_bytes(root: PurePosixPath) -> str:
    """Print free blocks and the size of one."""
    return f"{START}stat -f --printf '%a %S' -- {quote(root)}"


def find_present(root: PurePosixPath) -> str:
    """Print size, time of change and name of each named file of the store that is there."""
    return f"{START}cd {quote(root / STORE)} && {{ xargs -0 -r stat --printf '%s %Y %n\\n' -- 2>/dev/null; true; }}"


def hash_files(folder: PurePosixPath, hasher: Hasher) -> str:
    """Print SHA-256 and name of each named file; names without line breaks and backslashes, beginning with `./`."""
    return f"{START}cd -- {quote(folder)} && xargs -0 -r {HASHERS[hasher]}"


def hash_odd_files(folder: PurePosixPath, hasher: Hasher) -> str:
    """Print a line with the SHA-256 of each named file, in their order."""
    inner = f'{HASHERS[hasher]} <"$1" || echo missing'
    return f"{START}cd -- {quote(folder)} && xargs -0 -r -n 1 sh -c {quote(inner)} sh"


def receive_files(root: PurePosixPath, upload: str, hasher: Hasher, is_packed: bool) -> str:
    """Unpack a tar stream of files that are named by their content, and put into the store those that arrived whole.

    Prints how many these are. When the stream breaks off, what was whole before is kept.
    """
    unpack = "zstd -dcq | " if is_packed else ""
    store = quote(root / STORE)
    good = '{ name = $2; sub(/.*\\//, "", name); if ($1 == name) print substr($2, 2) }'
    return (
        f"{START}cd {quote(root / TMP)} && mkdir {_word(upload)} && cd {_word(upload)} || exit;"
        f" {unpack}tar -xf - --no-same-owner; code=$?;"
        f" good=$(find . -type f -exec {HASHERS[hasher]} {{}} + | awk {quote(good)});"
        f' [ -z "$good" ] || printf \'%s\\n\' "$good" | xargs cp -lf --parents -t {store} -- || code=$?;'
        f" printf '%s' \"$good\" | grep -c ''; cd ..; rm -rf {_word(upload)}; exit $code"
    )


def begin_pieces(root: PurePosixPath, upload: str, key: str, size: int) -> str:
    """Take up an upload of this content that broke off, or begin one, and hold it until standard input ends.

    Prints the numbers of the pieces that are there, then `ready`. One client at a time looks for what broke off.
    """
    own, name = _word(upload), f"big-{_word(key)}"
    return (
        f"{START}cd {quote(root / TMP)} || exit; exec 8<.; flock 8; [ -d {own} ] || for old in {name}-*; do"
        f' [ -d "$old" ] && (exec 9<"$old" && flock -n 9) && mv "$old" {own} && break; done;'
        f" mkdir -p {own} && cd {own} || exit; exec 9<.; flock -s 9; exec 8<&-;"
        f' [ -e data ] || why=$(fallocate -l {int(size)} data 2>&1) || case $why in *pace*|*uota*) echo "$why" >&2;'
        f" cd ..; rm -rf {own}; exit 1;; *) truncate -s {int(size)} data || exit;; esac;"
        f" [ ! -e done ] || cat done; echo ready; exec cat >/dev/null"
    )


def receive_pieces(root: PurePosixPath, upload: str, hasher: Hasher) -> str:
    """Write pieces of a big file to their places, read them again, and say for each whether it arrived whole.

    Each comes as a line (number, first block, blocks, bytes that follow, `z` or `-`, SHA-256), then its bytes, packed
    by zstd if `z`.
    """
    return (
        f"{START}cd {quote(root / TMP / _word(upload))} || exit; exec 9<.; flock -s 9;"
        " while read -r number first blocks bytes coding want; do"
        f" if [ $coding = z ]; then head -c $bytes | zstd -dcq |"
        f" dd of=data bs={BLOCK} seek=$first conv=notrunc status=none;"
        f" elif [ $bytes -eq $((blocks * {BLOCK})) ]; then"
        f" dd of=data bs={BLOCK} seek=$first count=$blocks iflag=fullblock conv=notrunc status=none;"
        f" else head -c $bytes | dd of=data bs={BLOCK} seek=$first conv=notrunc status=none; fi || exit;"
        f" got=$(dd if=data bs={BLOCK} skip=$first count=$blocks status=none | {HASHERS[hasher]});"
        ' if [ "${got%% *}" = $want ]; then echo $number >>done && echo $number ok; else echo $number bad; fi; done'
    )


def end_pieces(root: PurePosixPath, upload: str, key: str) -> str:
    """Put a big file whose pieces have all arrived into the store."""
    own, target = _word(upload), quote(root / STORE / key[:2])
    return (
        f"{START}cd {quote(root / TMP)} && chmod 444 {own}/data && TZ=UTC0 touch -t {STAMP_TEXT} {own}/data"
        f" && mkdir -p {target} && mv -f {own}/data {target}/{_word(key)} && rm -rf {own}"
    )


def drop_upload(root: PurePosixPath, upload: str) -> str:
    """Remove an upload that cannot be used."""
    return f"{START}rm -rf {quote(root / TMP / _word(upload))}"


def link_files(root: PurePosixPath) -> str:
    """Unpack a tar stream (gzip) that holds hard links only: names of a job -> files of the store."""
    return f"{START}cd {quote(root)} && tar -xzf - --no-same-owner"


def keep_outputs(root: PurePosixPath, work: PurePosixPath, list_bytes: int) -> str:
    """Put outputs of a job that has ended into the store: first their names, then a tar stream of links as above."""
    inner = f'chmod a+r,a-w -- "$@" && TZ=UTC0 touch -t {STAMP_TEXT} -- "$@"'
    return (
        f"{START}cd -- {quote(work)} && head -c {int(list_bytes)} | xargs -0 -r sh -c {quote(inner)} sh"
        f" && cd {quote(root)} && tar -xzf - --skip-old-files --no-same-owner"
    )


def list_outputs(work: PurePosixPath, hasher: Hasher) -> str:
    """Print type, size and name of all that lies below the named files and folders, each ended by a zero byte.

    Then, after another zero byte, SHA-256 and name of files whose names have neither line breaks nor backslashes.
    """
    inner = (
        'find "$@" -printf "%y %s %p\\0"; printf "\\0";'
        " find \"$@\" -type f ! -path '*\\\\*' ! -path '*\n*' -print0 | xargs -0 -r " + HASHERS[hasher]
    )
    return f"{START}[ -d {quote(work)} ] || exit 0; cd -- {quote(work)} && xargs -0 -r sh -c {quote(inner)} sh; true"


def send_files(work: PurePosixPath, is_packed: bool) -> str:
    """Print the content of the named files, one after another."""
    pack = " | zstd -1cq" if is_packed else ""
    return f"{START}cd -- {quote(work)} && xargs -0 -r cat --{pack}"


def send_range(work: PurePosixPath, name: str, first: int, blocks: int, is_packed: bool) -> str:
    """Print some blocks of a file."""
    pack = " | zstd -1cq" if is_packed else ""
    source = quote(f"if=./{name}")
    return (
        f"{START}cd -- {quote(work)} && dd {source} bs={BLOCK} skip={int(first)} count={int(blocks)} status=none{pack}"
    )


def write_file(path: PurePosixPath, temporary: str, size: int) -> str:
    """Write standard input to a file; it appears when all of it is there."""
    new = quote(path.parent / f".{_word(temporary)}")
    return (
        f"{START}mkdir -p -- {quote(path.parent)} && cat >{new} && [ $(wc -c <{new}) -eq {int(size)} ]"
        f" && mv -fT -- {new} {quote(path)} || {{ rm -f -- {new}; exit 1; }}"
    )


def read_file(path: PurePosixPath) -> str:
    """Print a file; exit code 66 if there is none."""
    return f"{START}[ -e {quote(path)} ] || exit 66; cat -- {quote(path)}"


def remove_folder(folder: PurePosixPath) -> str:
    """Remove a folder of ours."""
    return f"{START}rm -rf -- {quote(folder)}"


def dial_engine(socket: str | None) -> str:
    """Connect standard input and output with the container engine, at `socket` or where the host's account says."""
    where = f"DOCKER_HOST={quote(f'unix://{socket}')}; export DOCKER_HOST; " if socket else ""
    podman = f"podman --url {quote(f'unix://{socket}')}" if socket else "podman"
    return (
        f"{START}{where}if command -v docker >/dev/null 2>&1; then exec docker system dial-stdio;"
        f" elif command -v podman >/dev/null 2>&1; then exec {podman} system dial-stdio;"
        " else echo 'neither docker nor podman is there' >&2; exit 127; fi"
    )


def quote(text: str | PurePosixPath) -> str:
    """Return `text` as one word of a shell line."""
    if "\0" in str(text):
        raise HostError(f"a name with a zero byte cannot be used: {str(text)!r}")
    return shlex.quote(str(text))


def _word(text: str) -> str:
    """Return a word of our own making, checked."""
    assert _WORD.fullmatch(text), text
    return text
