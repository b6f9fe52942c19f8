#!/usr/bin/python3 -IS
"""biom3d-gate: the only program that a person's SSH key may run on this server (a "forced command" of sshd).

    restrict,command="/usr/local/bin/biom3d-gate --name anna --workdir /home/anna/biom3d --config FILE" ssh-ed25519 ...

sshd gives what the client asked for in SSH_ORIGINAL_COMMAND. It is let through if and only if it is a line

    sh -c 'SCRIPT' NAME ARGUMENT ...

whose SCRIPT is, letter for letter, one of TABLE at the end of this file, and whose arguments fit their kinds. Then
/bin/sh runs that script with these arguments; no text of the client is ever read as shell. Paths must lead into the
working folder, also through symbolic links; lists of names on standard input are read and checked first. The kernel
(Landlock, Linux 5.19 and later) holds the script to the working folder as well, which no race can outrun.
The engine's socket is never handed out: `dial_engine` is answered by the filter for its HTTP below.
Everything else, from a shell to sftp, is refused with one line. All is noted in the log; without a log nothing runs.

The configuration is JSON, every key optional; it and the log must lie outside of the working folder:
    log             file for one JSON line per command (default ~/.biom3d-gate.log); best made append-only: chattr +a
    images          images that jobs may use: ids (sha256:...), repository digests, or tags
    engine_socket   the container engine's socket; without it there are no containers
    read_only       folders outside of the working folder that jobs may read
    gpus            true for all, or a list of numbers (default none)
    venv            true: jobs may run without a container. Not together with engine_socket: see docs/security.md
    quota_gb        what may lie in the working folder
    entry_point     an image (with venv: an environment) in which people may run steps by hand, on CPU cores only:
                    ssh HOST python -m biom3d.pred ...; they see the working folder and nothing else
    confine         "required": refuse where the kernel cannot confine
"""

# Runs on Python 3.9 with nothing but the standard library.
# ruff: noqa: B905, N818, PTH101, PTH102, PTH110, PTH111, PTH112, PTH114, PTH116, PTH118, S103, S108, S606
from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import stat
import sys
import time

# What few commands need is imported where it is needed: each command of a client starts this program.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Any

REFUSED = 77  # exit code, EX_NOPERM
ROOT = ".biom3d"  # below the working folder: store/, tmp/, jobs/
LEASES = "/tmp/biom3d-gpus"  # lock files of the GPUs, for all accounts
MOST_INPUT = 2**28  # bytes of names; a job has at most some ten thousand files
STORED = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")


class Refused(Exception):
    """What was asked for is not allowed; the message is for the person."""

    status = 403  # of HTTP


class NotThere(Refused):
    """The engine has no such container, or none that the person may know of."""

    status = 404


def need(is_so: object, message: str) -> None:
    """Refuse unless it is so."""
    if not is_so:
        raise Refused(message)


class Gate:
    """One person's limits, and the checks that keep them."""

    def __init__(self, name: str, workdir: str, config: str | None) -> None:
        self.name, self.home = name, os.path.realpath(os.path.expanduser("~"))
        self.workdir = os.path.realpath(workdir)
        self.root = f"{self.workdir}/{ROOT}"
        need(os.path.isdir(self.workdir), f"the working folder '{workdir}' does not exist; ask the administrator")
        # Whoever may write to the home folder may let new keys in.
        need(not below(self.home, self.workdir), "the working folder must not hold the home folder")
        settings = {}
        if config:
            need(not below(os.path.realpath(config), self.workdir), "the configuration lies in the working folder")
            with open(config, encoding="utf-8") as file:
                settings = json.load(file)
        self.log = os.path.expanduser(settings.pop("log", "~/.biom3d-gate.log"))
        need(not below(os.path.realpath(self.log), self.workdir), "the log lies in the working folder")
        self.images = settings.pop("images", [])
        self.socket = settings.pop("engine_socket", "")
        self.read_only = [os.path.realpath(folder) for folder in settings.pop("read_only", [])]
        self.gpus = settings.pop("gpus", False)
        self.venv = settings.pop("venv", False)
        self.quota = settings.pop("quota_gb", 0) * 10**9
        self.confine = settings.pop("confine", "if possible")
        self.entry_point = settings.pop("entry_point", "")
        need(not settings, f"the configuration has unknown keys: {', '.join(settings)}")
        need(not (self.venv and self.socket), "the configuration allows both venv and engine_socket")

    def note(self, verdict: str, what: str, **more: object) -> None:
        """Add a line to the log, in one write."""
        source = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"t": when, "who": self.name, "key": fingerprint(), "from": source, "verdict": verdict, "what": what}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.log, flags, 0o600)
        os.write(descriptor, json.dumps({**line, **more}).encode() + b"\n")
        os.close(descriptor)

    def note_job(self, folder: str) -> None:
        """Note what a job without a container took, from the records in its folder; it writes there itself."""
        found: dict[str, tuple[str, float]] = {}
        for name in ("pid", "labels", "log", "exit"):
            with contextlib.suppress(OSError):
                file = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                found[name] = os.read(file, 2**16).decode(errors="replace").strip(), os.fstat(file).st_mtime
                os.close(file)
        pid, begin = found.get("pid", ("", 0.0))
        code, end = found.get("exit") or ("", found.get("log", ("", begin))[1])
        if not pid or (not code and os.path.isdir(f"/proc/{pid.split()[0]}")):  # it is forgotten already, or runs
            return
        labels = {}
        with contextlib.suppress(ValueError):
            labels = dict(json.loads(found.get("labels", ("", 0.0))[0].partition("=")[2]))
        self.note("ok", "job", **facts_of(labels), seconds=round(max(0.0, end - begin), 1), exit=number(code))

    # --- command lines ---

    def read_step(self, line: str) -> list[str]:
        """Return step and arguments of a line such as `python -m biom3d.pred ...`; nothing if it is none."""
        try:
            signs = shlex.shlex(line, posix=True, punctuation_chars=True)
            signs.whitespace_split = True
            signs.commenters = ""
            words, tokens = shlex.split(line), list(signs)
        except ValueError:
            return []
        if words[:2] in (["python", "-m"], ["python3", "-m"]) and len(words) > 2 and words[2].startswith("biom3d."):
            step, given = words[2][len("biom3d.") :], words[3:]
        elif words[:1] == ["biom3d"] and len(words) > 1:
            step, given = words[1], words[2:]
        else:
            return []
        need(
            self.entry_point,
            "steps by hand are not allowed on this server (biom3d server init --entry-point); run them as jobs, with"
            " biom3d-workflow (`biom3d remote`)",
        )
        need(step in STEPS, f"'{step}' is no step that runs here; these do: {', '.join(STEPS)}")
        signs_of_shell = [token for token in tokens if not token.strip("();<>|&")]
        need(not signs_of_shell, f"no shell reads this line: leave out '{' '.join(signs_of_shell[:1])}'")
        return [step, *given]

    def run_step(self, words: list[str]) -> int:
        """Run a step by hand in the environment, held by the kernel to the working folder."""
        folder = os.path.realpath(os.path.join(self.home, self.entry_point))
        need(any(below(folder, place) for place in (f"{self.workdir}/env", *self.read_only, *READABLE)), "entry_point")
        need(self.confine_process(), "the kernel cannot confine steps by hand (Landlock, Linux 5.19)")
        os.chdir(self.workdir)
        python = f"{folder}/bin/python"
        environment = {"PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": self.workdir, "LANG": "C.UTF-8"}
        environment["PYTHONSAFEPATH"] = "1"  # a folder `biom3d` of the person never stands in for the real one
        os.execve(python, [python, "-m", f"biom3d.{words[0]}", *words[1:]], environment)

    def decide(self, line: str) -> tuple[str, str, list[str], str]:
        """Return name, script, arguments and use of standard input of a line of the table, all checked."""
        try:
            words = shlex.split(line)
        except ValueError:
            words = []
        ours = words[:2] == ["sh", "-c"] and len(words) > 3
        need(
            ours,
            "this key is for biom3d-workflow (`biom3d remote`), whose own commands alone are allowed; the remote mode"
            " of Biom3d's window and other programs cannot use it",
        )
        script, given = words[2], words[4:]
        need(script in TABLE, f"not a command of this gate, which is of version {VERSION}; is the client of another?")
        name, kinds, stdin = TABLE[script]
        fixed = [kind for kind in kinds if not kind.endswith("*")]
        more = [kind[:-1] for kind in kinds if kind.endswith("*")] * (len(given) - len(fixed))
        need(len(given) == len(fixed + more), f"{name}: wrong number of arguments")
        folder = self.workdir
        for kind, word in zip(fixed + more, given):
            self.check(name, kind, word, folder)
            folder = word if word.startswith("/") else folder
        need(name != "dial_engine" or self.socket, "no containers with this key")
        need(not name.startswith("venv_") or self.venv, "jobs need a container with this key")
        return name, script, given, stdin

    def check(self, name: str, kind: str, word: str, folder: str) -> None:
        """Refuse an argument that does not fit its kind; `folder` is where relative names begin."""
        wrong = f"{name}: '{word}' is no {kind} in the working folder '{self.workdir}'"
        need("\0" not in word, wrong)
        if kind in WORDS:
            need(re.fullmatch(WORDS[kind], word), wrong)
        elif kind == "workdir":  # as the person wrote it, relative to the home folder
            need(os.path.realpath(os.path.join(self.home, word)) == self.workdir, wrong)
        elif kind == "socket":
            need(word in ("", self.socket), wrong)
        elif kind == "leases":
            need(word == LEASES, wrong)
        elif kind == "environment":
            real = os.path.realpath(os.path.join(self.home, word))
            need(any(below(real, place) for place in (f"{self.workdir}/env", *self.read_only)), wrong)
        elif kind == "name":
            self.check_name(word, folder)
        else:
            need(word == os.path.normpath(word) and below(word, self.workdir), wrong)
            self.inside(word)
            part = word[len(self.root) :].split("/")[1:] if below(word, self.root) else None
            need(self.fits(kind, word, part), wrong)
            if kind in ("job", "work"):
                self.check_job("/".join([self.root, *(part or [])[:2]]))

    def fits(self, kind: str, path: str, part: list[str] | None) -> bool:
        """Say whether a path is where its kind belongs; `part` is what follows .biom3d, None outside of it."""
        if kind in ("whole", "data", "tree") and part is None:
            return kind == "tree" or (path == self.workdir) == (kind == "whole")
        depth = len(part) if part and part[0] == "jobs" else 0
        return {
            "root": part == [],
            "job": depth == 2,  # .biom3d/jobs/ID
            "work": depth == 3 and path.endswith("/work"),
            "injob": depth >= 2,
            "tree": depth >= 2 or part in ([], ["store"]),
        }.get(kind, False)

    def check_job(self, folder: str) -> None:
        """Refuse a job's folder that is a link, or whose own entries lead elsewhere: jobs write there."""
        need(not os.path.islink(folder), f"'{folder}' is a symbolic link")
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            self.inside(entry.path)

    def check_name(self, name: str, folder: str) -> None:
        """Refuse a name that does not lead to a place below the working folder."""
        need(name and not name.startswith("/") and ".." not in name.split("/"), f"'{name}' leads out of its folder")
        real = self.inside(f"{folder}/{name}")
        need(not below(real, f"{self.root}/tmp"), f"'{name}' is not there")

    def inside(self, path: str) -> str:
        """Return what a path leads to; refuse if that is outside of the working folder."""
        folder, name = os.path.split(os.path.normpath(path))
        real = f"{real_folder(folder)}/{name}"
        real = os.path.realpath(real) if os.path.islink(real) else real
        need(below(real, self.workdir), f"'{path}' leads out of the working folder")
        return real

    # --- standard input ---

    def filter_input(self, kind: str, arguments: list[str]) -> tuple[bytes, bool] | None:
        """Return what the script reads instead of standard input, and whether that is all; None to leave it alone.

        Kinds: `` nothing; `bytes`, `ignored` contents, or what means nothing; `names`, each ended by a zero byte, below
        the last folder among the arguments; `keys`, names of the store, perhaps packed; `links`, an archive of hard
        links; `names+links`, `links+bytes` both, the last argument being the length of the first.
        """
        if kind in ("bytes", "ignored"):
            return None
        first, _, second = kind.partition("+")
        count = int(arguments[-1]) if second else MOST_INPUT + 1
        need(count <= MOST_INPUT + (not second), "too many names")
        with open(0, "rb", buffering=0, closefd=False) as stdin:
            given = read_up_to(stdin, count) if kind else b""
            rest = read_up_to(stdin, MOST_INPUT + 1) if second == "links" else b""
        need(max(len(given), len(rest)) <= MOST_INPUT, "too many names")
        if second == "bytes" and not given:
            return None
        if first == "links":
            links = self.filter_links(given, True) if given else b""
            arguments[-1] = str(len(links)) if second else arguments[-1]
            return links, not second
        folder = next((word for word in reversed(arguments) if word.startswith("/")), self.workdir)
        names = self.filter_names(given, folder if first == "names" else "", "gzip" in arguments)
        return names + (self.filter_links(rest, False) if second else b""), True

    def filter_names(self, given: bytes, folder: str, is_packed: bool) -> bytes:
        """Return the names if all of them lead to something in `folder`; without one they are names of the store."""
        import gzip
        import io

        if is_packed:
            with gzip.GzipFile(fileobj=io.BytesIO(given)) as file:
                names = read_up_to(file, MOST_INPUT)
        else:
            names = given
        need(not names or names.endswith(b"\0"), "names are cut off")
        for name in names.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            if folder:
                self.check_name(name, folder)
            else:
                need(STORED.fullmatch(name), f"'{name}' is no name of a content")
        return gzip.compress(names, 1) if is_packed else names

    def filter_links(self, packed: bytes, to_job: bool) -> bytes:
        """Return a new archive (tar, gzip) with the same hard links, between the store and jobs only."""
        import io
        import tarfile
        import zlib

        made = io.BytesIO()
        try:
            with (
                tarfile.open(fileobj=io.BytesIO(packed)) as given,
                tarfile.open(fileobj=made, mode="w:gz", format=tarfile.GNU_FORMAT, compresslevel=1) as new,
            ):
                for member in given:
                    content, name = (member.linkname, member.name) if to_job else (member.name, member.linkname)
                    is_stored = content.startswith("store/") and STORED.fullmatch(content[6:])
                    need(member.islnk() and is_stored, f"'{content}' is no content")
                    parts = name.split("/")
                    need(parts[0] == "jobs" and len(parts) > 2, f"'{name}' is not in a job's folder")
                    self.check_name(name, self.root)
                    is_plain = stat.S_ISREG(mode_of(f"{self.root}/{member.linkname}"))
                    need(is_plain, f"'{member.linkname}' is no plain file")
                    link = tarfile.TarInfo(member.name)
                    link.type, link.linkname, link.mode = tarfile.LNKTYPE, member.linkname, 0o444
                    new.addfile(link)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise Refused(f"not a list of links ({error})") from error
        return made.getvalue()

    def check_quota(self) -> None:
        """Refuse if the working folder holds more than the person may have."""
        if self.quota:
            used = disk_usage(self.workdir)
            text = f"{used / 1e9:.1f} of {self.quota / 1e9:.1f} GB are used"
            need(used < self.quota, f"Disk quota exceeded: {text}; 'biom3d remote clean' shows what could go")

    # --- the kernel's part ---

    def confine_process(self) -> bool:
        """Let this process, and all that it starts, write only below the working folder, and read little else.

        Landlock is asked for by its numbers, which are the same on all machines. Returns False where it is too old.
        """
        if self.gpus:
            with contextlib.suppress(OSError):  # made by whoever comes first; the sticky bit is for all others
                os.mkdir(LEASES)
                os.chmod(LEASES, 0o1777)
        import ctypes

        system = ctypes.CDLL(None, use_errno=True).syscall
        version = system(444, None, 0, 1)  # landlock_create_ruleset
        if version < 2:  # the first version forbids links from one folder to another, which the store is made of
            return False
        everything = 0x7FFF if version > 2 else 0x3FFF
        read, write = 0b1101, 0b10  # execute, read files and folders; write to files
        handled = everything.to_bytes(8, sys.byteorder)
        ruleset = system(444, handled, 8, 0)
        rules = [(folder, read) for folder in READABLE] + [("/dev", read | write)]
        rules += [(self.workdir, everything), (LEASES, everything), *((folder, read) for folder in self.read_only)]
        rules += [("/dev/shm", everything)] if self.venv else []
        for folder, allowed in rules:
            try:
                place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            rule = allowed.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
            need(system(445, ruleset, 1, rule, 0) == 0, "the kernel refuses a rule")  # landlock_add_rule
            os.close(place)
        no_new_rights = ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # which Landlock demands
        need(no_new_rights == 0 and system(446, ruleset, 0) == 0, "the kernel does not confine this process")
        os.close(ruleset)
        return True

    def run(self, name: str, script: str, arguments: list[str]) -> None:
        """Become the shell that runs a script of the table."""
        user = os.environ.get("USER", "")
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.home, "USER": user, "LOGNAME": user}
        words = ["sh", "-c", script, name, *arguments]
        os.execve("/bin/sh", [word.encode("utf-8", "surrogateescape") for word in words], environment)


STEPS = ("check", "plan", "preprocess", "train", "preprocess_train", "pred", "eval", "quality", "export", "report")
READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys")
FOLDERS: dict[str, str] = {}  # folder -> what it leads to, for this one command


def real_folder(folder: str) -> str:
    """Return what a folder leads to."""
    if folder not in FOLDERS:
        FOLDERS[folder] = os.path.realpath(folder)
    return FOLDERS[folder]


def mode_of(path: str) -> int:
    """Return the mode of what lies there; that of a plain file for nothing."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return stat.S_IFREG


def read_up_to(file: Any, count: int) -> bytes:
    """Return the next `count` bytes, fewer only at the end."""
    parts = []
    while count and (data := file.read(min(count, 2**20))):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def below(path: str, folder: str) -> bool:
    """Say whether a path is `folder` or in it, by its words."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def number(text: str) -> int | None:
    """Return a whole number; None for what is none."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def facts_of(labels: dict[str, Any]) -> dict[str, Any]:
    """Return what the log says of a job, as the client's labels name it; `data` is a hash of all inputs."""
    facts = {word: labels.get(f"{LABEL}.{word}", "") for word in ("name", "threads", "data")}
    gpus = str(labels.get(f"{LABEL}.gpus", "")).split()
    return {"job": labels.get(LABEL), **facts, "image": labels.get(f"{LABEL}.software", ""), "gpus": gpus}


def disk_usage(folder: str) -> int:
    """Return the bytes that a folder takes on the disk; what has many names counts once."""
    total, seen, folders = 0, set(), [folder]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:  # removed meanwhile
            continue
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(facts.st_mode):
                folders.append(entry.path)
            if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
                if facts.st_ino in seen:
                    continue
                seen.add(facts.st_ino)
            total += facts.st_blocks * 512
    return total


def fingerprint() -> str:
    """Return the key that was used, as sshd tells it where ExposeAuthInfo is on."""
    if "SSH_USER_AUTH" not in os.environ:
        return ""
    import base64
    import hashlib

    try:
        with open(os.environ["SSH_USER_AUTH"], encoding="ascii") as file:
            words = file.readline().split()
        blob = base64.b64decode(words[2])
    except (KeyError, OSError, ValueError, IndexError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


# --- the container engine ---

Words = list[str]  # the filter below has a method `list`
OWNER = "biom3d.gate"  # label: whose container this is; only the gate can set it
FOLDER = "biom3d.gate.folder"  # label: of which working folder; whoever's key opens that may follow, stop and remove it
LABEL = "biom3d.job"
VERSIONED = r"(?:/v[0-9]\.[0-9]{1,2})?"
NAME = r"([a-zA-Z0-9][a-zA-Z0-9_.-]{0,99})"
LOGS = {"stdout", "stderr", "timestamps", "follow", "tail", "since", "until"}
MOST_BODY = 2**22
PUBLIC = ("Id", "Names", "Name", "Image", "ImageID", "Created", "State", "Status")  # of others' containers


class Request:
    """A request that stands in the table; `words` are the parts of its path that vary."""

    def __init__(
        self, method: str, version: str, path: str, words: tuple[str, ...], options: dict[str, str], body: bytes
    ) -> None:
        self.method, self.version, self.path, self.words = method, version, path, words
        self.options, self.body = options, body

    def url(self, full_id: str = "") -> str:
        """Return path and options as the engine gets them, with the container's full id for what the client said."""
        import urllib.parse

        path = self.path.replace(f"/{self.words[0]}", f"/{full_id}", 1) if full_id else self.path
        options = f"?{urllib.parse.urlencode(self.options)}" if self.options else ""
        return f"{self.version}{urllib.parse.quote(path, safe='/:@')}{options}"


class EngineFilter:
    """HTTP from the client to the engine: what the table of requests names, and nothing else."""

    def __init__(self, gate: Gate, source: Any, target: Any) -> None:
        self.gate, self.source, self.target = gate, source, target
        rootless = os.stat(gate.socket).st_uid == os.getuid() != 0  # its root is then the person's own account
        own = f"{os.getuid()}:{os.getgid()}"
        self.users, self.namespaces = ({own, "0:0"}, {"keep-id"}) if rootless else ({own}, set())
        self.requests = [
            ("GET", r"/_ping", set(), self.pass_on),
            ("GET", r"/(?:version|info)", set(), self.pass_on),
            ("GET", r"/images/([a-zA-Z0-9][a-zA-Z0-9_.:/@-]{0,300})/json", set(), self.pass_on),
            ("GET", r"/containers/json", {"all", "limit", "size", "trunc_cmd", "filters"}, self.list),
            ("GET", rf"/containers/{NAME}/json", set(), self.inspect),
            ("GET", rf"/containers/{NAME}/logs", LOGS, self.on_own),
            ("POST", rf"/containers/{NAME}/wait", {"condition"}, self.on_own),
            ("POST", rf"/containers/{NAME}/stop", {"t"}, self.on_own),
            ("POST", rf"/containers/{NAME}/kill", {"signal"}, self.on_own),
            ("POST", r"/containers/create", {"name"}, self.create),
            ("POST", rf"/containers/{NAME}/start", set(), self.start),
            ("DELETE", rf"/containers/{NAME}", {"v", "link", "force"}, self.remove),
        ]

    def serve(self) -> None:
        """Answer requests until the client has no more."""
        while request := self.read_request():
            method, path, query, body = request
            try:
                self.answer(method, path, query, body)
            except NotThere as error:
                self.send(error.status, {"message": str(error)})
            except (Refused, ValueError, TypeError, AttributeError, KeyError) as error:
                why = str(error) if isinstance(error, Refused) else f"not understood ({error!r})"
                self.gate.note("refused", f"{method} {path}"[:300], why=why)
                self.send(Refused.status, {"message": f"biom3d-gate: {why}"})

    def read_request(self) -> tuple[str, str, str, bytes] | None:
        """Read one request, strictly; what is not plain HTTP/1.1 with a known length ends the connection."""
        line = self.source.readline(8192)
        if not line:
            return None
        first = re.fullmatch(rb"([A-Z]{3,7}) (/[!-~]*) HTTP/1\.1\r\n", line)
        if not first:
            raise Refused("no HTTP")
        headers: dict[str, str] = {}
        while (line := self.source.readline(8192)) != b"\r\n":
            one = re.fullmatch(rb"([A-Za-z0-9-]+):[ \t]*([ -~]*?)[ \t]*\r\n", line)
            if not one or len(headers) > 50:
                raise Refused("no HTTP header")
            key = one[1].decode().lower()
            need(key not in headers and key not in ("transfer-encoding", "upgrade", "expect"), f"header {key}")
            headers[key] = one[2].decode()
        length = headers.get("content-length", "0")
        need(re.fullmatch("[0-9]{1,7}", length) and int(length) <= MOST_BODY, "a body of this size")
        body = self.source.read(int(length))
        need(len(body) == int(length), "a body that is cut off")
        path, _, query = first[2].decode().replace("%40", "@").partition("?")
        return first[1].decode(), path, query, body

    def answer(self, method: str, path: str, query: str, body: bytes) -> None:
        """Find the request in the table, and do what stands there."""
        import urllib.parse

        for verb, pattern, allowed, act in self.requests:
            found = re.fullmatch(VERSIONED + pattern, path)
            if verb == method and found and ".." not in path and "//" not in path:
                pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
                options = dict(pairs)
                need(len(pairs) == len(options) and options.keys() <= allowed, "options of this request")
                version = path[: path.index("/", 1)] if path.startswith("/v") and path[2:3].isdigit() else ""
                return act(Request(method, version, path[len(version) :], found.groups(), options, body))
        raise Refused(f"{method} {path[:200]} is not allowed")

    # --- what a request does ---

    def pass_on(self, request: Request) -> None:
        """Let the engine answer, and hand its answer on as it comes."""
        self.relay(self.ask(request.method, request.url(), request.body))

    def on_own(self, request: Request) -> None:
        """The same for one of the person's own containers, called by its full id."""
        container = self.own(request)
        self.relay(self.ask(request.method, request.url(container["Id"])))

    def list(self, request: Request) -> None:
        """List jobs; of other people's only what a queue needs."""
        given = json.loads(request.options.get("filters") or "{}").get("label", [])
        labels = [label for label in given if isinstance(label, str) and label.startswith(LABEL)]
        request.options["filters"] = json.dumps({"label": [LABEL, *labels]})
        status, found = self.fetch("GET", request.url())
        if status == 200:
            found = [{**(one if self.is_own(one) else public(one)), "Labels": self.labels_of(one)} for one in found]
        self.send(status, found)

    def inspect(self, request: Request) -> None:
        """Describe a container; another person's job only as far as a queue needs, others are not there."""
        status, found = self.fetch("GET", request.url())
        if status == 200:
            config, labels = found["Config"], self.labels_of(found)
            if LABEL not in labels:
                raise NotThere(f"No such container: {request.words[0]}")
            if self.is_own(found):
                config["Labels"] = labels
            else:
                found = {**public(found), "Config": {"Labels": labels, "User": config.get("User")}}
        self.send(status, found)

    def create(self, request: Request) -> None:
        """Create a job's container from the fields that are allowed, marked as the person's."""
        job = re.fullmatch(r"biom3d-([0-9a-f]{24})", request.options.get("name", ""))
        if not job:
            raise Refused("a job's container is called biom3d-ID")
        self.gate.check_quota()
        body = self.check_container(json.loads(request.body), job[1])
        answer = self.ask("POST", request.url(), json.dumps(body).encode())
        data = body["Labels"].get(f"{LABEL}.data", "")
        self.gate.note("ok", "create", job=job[1], image=body["Image"], data=data, status=answer.status)
        self.relay(answer)

    def start(self, request: Request) -> None:
        """Start a container that never ran; its folders are looked at again, for they may have changed."""
        container = self.own(request)
        need(container["State"]["Status"] == "created", "a container starts once; make a new one")
        job = container["Config"]["Labels"][LABEL]
        for mount in container["HostConfig"].get("Mounts") or []:
            same = self.check_mount(mount, job)["Source"] == mount["Source"]
            need(same, f"'{mount['Source']}' has been changed")
        self.gate.note("ok", "start", job=job)
        self.relay(self.ask("POST", request.url(container["Id"])))

    def remove(self, request: Request) -> None:
        """Remove a container, and note what the job took."""
        container = self.own(request)
        labels, state = container["Config"]["Labels"], container["State"]
        has_ended = state["Status"] in ("exited", "dead")
        end = moment(state.get("FinishedAt", "")) if has_ended else time.time()
        begin = moment(state.get("StartedAt", ""))
        requests = container["HostConfig"].get("DeviceRequests") or []
        if begin:
            gpus = [one for wanted in requests for one in wanted["DeviceIDs"]]
            facts = {**facts_of(labels), "image": container["Image"], "gpus": gpus}  # which the engine knows better
            facts["who"] = labels.get(OWNER, self.gate.name)  # whoever takes its results, it is its starter's
            code = state.get("ExitCode") if has_ended else None
            self.gate.note("ok", "job", **facts, seconds=round(max(0.0, end - begin), 1), exit=code)
        self.relay(self.ask("DELETE", request.url(container["Id"])))

    def own(self, request: Request) -> dict[str, Any]:
        """Return what the engine says of the person's container; refuse another's."""
        status, found = self.fetch("GET", f"{request.version}/containers/{request.words[0]}/json")
        if status != 200:
            raise NotThere(f"No such container: {request.words[0]}")
        need(self.is_own(found), f"container '{request.words[0]}' is not yours")
        return dict(found)

    def is_own(self, one: dict[str, Any]) -> bool:
        """Say whether a container works in the person's folder.

        The gate labels what it makes. What somebody with a full key has started, who shares the folder, shows it by
        where it writes; nobody behind a gate can make a container without labels.
        """
        labels = labels_in(one)
        if FOLDER in labels or OWNER in labels:
            return bool(labels.get(FOLDER) == self.gate.root if FOLDER in labels else labels[OWNER] == self.gate.name)
        jobs = f"{self.gate.root}/jobs"
        places = [mount for mount in one.get("Mounts") or [] if mount.get("Destination") == "/job" and mount.get("RW")]
        return LABEL in labels and any(below(os.path.realpath(place["Source"]), jobs) for place in places)

    def labels_of(self, one: dict[str, Any]) -> dict[str, str]:
        """Return the labels that say what a job takes and whose it is, and what the person may do with it."""
        is_own, given = self.is_own(one), labels_in(one)
        owner = given.get(OWNER)
        access = "others" if not is_own else "yours" if owner == self.gate.name else "shared"
        labels = dict(given) if is_own else job_labels(given)
        return {**labels, **({f"{LABEL}.owner": owner} if owner else {}), f"{LABEL}.access": access} if labels else {}

    # --- steps by hand ---

    def run_step(self, words: Words) -> int:
        """Run a step by hand in a container that sees the working folder only; return its exit code."""
        job = os.urandom(12).hex()
        made = self.ask(
            "POST", f"/containers/create?name=biom3d-{job}", json.dumps(self.describe_step(words, job)).encode()
        )
        answer = json.loads(made.read() or b"{}")
        need(made.status == 201, f"the engine makes no container: {answer.get('message', made.status)}")
        place = f"/containers/{answer['Id']}"
        begin = time.time()
        code: int | None = None
        try:
            status, answer = self.fetch("POST", f"{place}/start")
            need(status in (204, 304), f"the engine starts no container: {answer.get('message', status)}")
            self.copy_log(self.ask("GET", f"{place}/logs?follow=1&stdout=1&stderr=1"))
            code = int(self.fetch("POST", f"{place}/wait")[1]["StatusCode"])
        finally:
            if code is None:  # nobody reads its answers any more: it gets time to save what it has
                self.fetch("POST", f"{place}/stop?t=40")
            self.fetch("DELETE", f"{place}?force=1")
            labels = {LABEL: job, f"{LABEL}.name": f"{words[0]} by hand"}
            self.gate.note("ok", "job", **facts_of(labels), seconds=round(time.time() - begin, 1), exit=code)
        return code

    def describe_step(self, words: Words, job: str) -> dict[str, Any]:
        """Return what the engine is told of a step by hand: cores that no job holds, the working folder, no more."""
        import urllib.parse

        name = urllib.parse.quote(self.gate.entry_point, safe="/:@")
        need(
            self.fetch("GET", f"/images/{name}/json")[0] == 200,
            f"image '{self.gate.entry_point}' is not there; the administrator runs: biom3d server init --entry-point",
        )
        others = self.fetch("GET", f"/containers/json?filters={urllib.parse.quote(json.dumps({'label': [LABEL]}))}")[1]
        held = sum(number(str((one.get("Labels") or {}).get(f"{LABEL}.threads", "0"))) or 0 for one in others)
        cores = max(1, int(self.fetch("GET", "/info")[1]["NCPU"]) - held)
        user = "0:0" if "0:0" in self.users else f"{os.getuid()}:{os.getgid()}"
        hidden = {self.gate.root: "size=64k,mode=000"} if os.path.isdir(self.gate.root) else {}
        folder = {"Type": "bind", "Source": self.gate.workdir, "Target": self.gate.workdir}
        labels = {LABEL: job, f"{LABEL}.name": f"{words[0]} by hand", f"{LABEL}.threads": str(cores)}
        return {
            "Image": self.gate.entry_point,
            "User": user,
            "Entrypoint": ["python", "-m", f"biom3d.{words[0]}", *words[1:]],
            "Cmd": [],
            "WorkingDir": self.gate.workdir,
            "Env": [f"{word}_NUM_THREADS={cores}" for word in ("OMP", "OPENBLAS", "MKL")],
            "Labels": {**labels, f"{LABEL}.mem_mb": "0", OWNER: self.gate.name, FOLDER: self.gate.root},
            "HostConfig": {
                "Mounts": [folder],
                "Tmpfs": {"/tmp": "", **hidden},  # the store and jobs are not for hands
                "NetworkMode": "none",
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "Init": True,
                "NanoCpus": cores * 10**9,
                "ShmSize": 2**30,
            },
        }

    def copy_log(self, answer: Any) -> None:
        """Write what a container says to our own outputs, as it comes; stop reading when nobody reads us."""
        need(answer.status == 200, "the engine shows no log")
        while len(head := answer.read(8)) == 8:
            data, target = answer.read(int.from_bytes(head[4:], "big")), 2 if head[0] == 2 else 1
            while data:
                data = data[os.write(target, data) :]

    # --- what a container may be ---

    def check_container(self, given: dict[str, Any], job: str) -> dict[str, Any]:
        """Return the description of a container, made anew from the allowed fields of the one given."""
        fields = {"User", "Entrypoint", "Env", "Labels", "WorkingDir", "Image", "HostConfig"}
        body = only("container", given, fields, ignored={"AttachStdout", "AttachStderr"})
        need(body.get("User") in self.users, f"User must be {' or '.join(sorted(self.users))}")
        words = body.get("Entrypoint", [])
        need(words[:2] == ["bash", "/job/run.sh"] and len(words) <= 3, "Entrypoint must be bash /job/run.sh")
        need(all(word.startswith(f"{LABEL}={{") for word in words[2:]), "Entrypoint")  # for the list of processes
        need(body.get("WorkingDir") == "/job", "WorkingDir must be /job")
        # Other variables could ask the NVIDIA runtime for GPUs.
        need(all(re.fullmatch(r"BIOM3D_[A-Z_]+=[ -~]*", word) for word in body.get("Env", [])), "Env")
        labels = body.get("Labels", {})
        need(labels.get(LABEL) == job, f"label {LABEL} must be the container's id")
        need(all(re.fullmatch(r"biom3d\.job(\.[a-z_]+)?", key) for key in labels), "Labels")
        own = {OWNER: self.gate.name, FOLDER: self.gate.root}
        body["Labels"] = {**{key: str(value) for key, value in labels.items()}, **own}
        body["Image"] = self.find_image(str(body.get("Image")))
        body["HostConfig"] = self.check_host(body.get("HostConfig", {}), job)
        return body

    def find_image(self, name: str) -> str:
        """Return the id of an image if it is allowed."""
        import urllib.parse

        need(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.:/@-]{0,300}", name) and ".." not in name, "Image")
        status, found = self.fetch("GET", f"/images/{urllib.parse.quote(name, safe='/:@')}/json")
        need(status == 200, f"image '{name}' is not there")
        names = {found["Id"], *(found.get("RepoDigests") or []), *(found.get("RepoTags") or [])}
        need(
            names & set(self.gate.images),
            f"image '{name}' is not one of those allowed with this key; the administrator allows it: biom3d server"
            " allow-image",
        )
        return str(found["Id"])

    def check_host(self, given: dict[str, Any], job: str) -> dict[str, Any]:
        """Return the part of the description that says what the container may do to the host."""
        numbers = {"Memory", "MemorySwap", "NanoCpus", "ShmSize"}
        flags = {"Init", "ReadonlyRootfs"}
        fixed = {"NetworkMode": "none", "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]}
        other = {"Tmpfs", "LogConfig", "Mounts", "DeviceRequests", "UsernsMode"}
        host = only("HostConfig", given, numbers | flags | fixed.keys() | other)
        for key, value in fixed.items():
            need(host.get(key) == value, f"HostConfig.{key} must be {value}")
        need(all(type(host[key]) is int and host[key] > 0 for key in numbers & host.keys()), "a limit")
        need(all(host[key] is True for key in flags & host.keys()), "a flag")
        need("UsernsMode" not in host or host["UsernsMode"] in self.namespaces, "UsernsMode")
        need(host.get("Tmpfs", {}) in ({}, {"/tmp": ""}), "Tmpfs")
        log = only("LogConfig", host.get("LogConfig", {}), {"Type", "Config"})
        need(log.get("Type", "json-file") == "json-file", "LogConfig")
        limits = only("LogConfig.Config", log.get("Config", {}), {"max-size", "max-file"})
        host["LogConfig"] = {"Type": "json-file", "Config": limits}
        host["Mounts"] = [self.check_mount(mount, job) for mount in host.get("Mounts", [])]
        targets = [mount["Target"] for mount in host["Mounts"]]
        need(len(targets) == len(set(targets)), "two mounts at one place")
        if "DeviceRequests" in host:
            host["DeviceRequests"] = [self.check_gpus(one) for one in host["DeviceRequests"]]
        return host

    def check_mount(self, given: dict[str, Any], job: str) -> dict[str, Any]:
        """Return a mount whose source is what its name leads to: the job's own folder, or something to be read only.

        No container writes to any of these but to its own job's folder, and that one runs once: nothing on the way to
        the source can be turned into a link between this look and the engine's.
        """
        mount = only("Mounts", given, {"Type", "Source", "Target", "ReadOnly"})
        source, target = str(mount.get("Source")), str(mount.get("Target"))
        need(mount.get("Type") == "bind" and source.startswith("/"), "only bind mounts")
        need(re.fullmatch(r"/[^/\0][^\0]*", target) and os.path.normpath(target) == target, f"mount at '{target}'")
        real, own = os.path.realpath(source), f"{self.gate.root}/jobs/{job}"
        writes = mount.get("ReadOnly") is not True
        if writes:
            need(source == real == own and target == "/job", f"'{source}' may not be written to")
        else:
            shared = [*self.gate.read_only, LEASES]
            is_data = below(real, self.gate.workdir) and not below(real, self.gate.root)
            is_shared = any(below(real, folder) for folder in shared)
            need(is_data or is_shared or below(real, own), f"'{source}' may not be mounted")
            need(os.path.exists(real), f"'{source}' does not exist")
        return {"Type": "bind", "Source": real, "Target": target, "ReadOnly": not writes}

    def check_gpus(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a request for GPUs that the person may use."""
        wanted = only("DeviceRequests", given, {"DeviceIDs", "Capabilities"}).get("DeviceIDs", [])
        need(wanted and given.get("Capabilities") == [["gpu"]], "DeviceRequests")
        allowed = self.gate.gpus if isinstance(self.gate.gpus, list) else None
        for device in wanted:
            is_number = isinstance(device, str) and re.fullmatch("[0-9]{1,3}", device)
            need(is_number and self.gate.gpus and (allowed is None or int(device) in allowed), f"GPU {device!r}")
        return {"DeviceIDs": wanted, "Capabilities": [["gpu"]]}

    # --- HTTP to both sides ---

    def ask(self, method: str, url: str, body: bytes = b"") -> Any:
        """Send a request to the engine; return its answer, not yet read."""
        import http.client
        import socket

        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.gate.socket)
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, url, body or None, headers)
        answer = connection.getresponse()
        self.connection = connection  # or it is closed
        return answer

    def fetch(self, method: str, url: str) -> tuple[int, Any]:
        """Return status and content of the engine's answer."""
        answer = self.ask(method, url)
        return answer.status, json.loads(answer.read() or b"{}")

    def relay(self, answer: Any) -> None:
        """Hand on an answer as it comes: logs may take hours."""
        import threading

        has_body = answer.status not in (204, 304)
        self.head(
            answer.status, answer.headers.get("Content-Type", ""), "Transfer-Encoding: chunked" if has_body else ""
        )
        if has_body:
            over = threading.Event()
            threading.Thread(target=leave_with_client, args=(over,), daemon=True).start()
            while data := answer.read1(2**16):
                self.target.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.target.flush()
            self.target.write(b"0\r\n\r\n")
            over.set()
        self.target.flush()

    def send(self, status: int, content: Any) -> None:
        """Send an answer of JSON."""
        body = json.dumps(content).encode()
        self.head(status, "application/json", f"Content-Length: {len(body)}")
        self.target.write(body)
        self.target.flush()

    def head(self, status: int, kind: str, length: str) -> None:
        """Begin an answer."""
        lines = [f"HTTP/1.1 {status} -", f"Content-Type: {kind}" if kind else "", length]
        self.target.write("".join(f"{line}\r\n" for line in (*filter(None, lines), "")).encode())


def only(what: str, given: dict[str, Any], allowed: Any, ignored: Any = ()) -> dict[str, Any]:
    """Return the fields that are allowed; refuse others unless they are empty or off."""
    for key, value in given.items():
        need(key in allowed or key in ignored or not value, f"{what}: '{key}' is not allowed")
    return {key: value for key, value in given.items() if key in allowed and value}


def public(one: dict[str, Any]) -> dict[str, Any]:
    """Return what anybody may know of a job's container."""
    return {key: one[key] for key in PUBLIC if key in one}


def labels_in(one: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a container, from a list or from its description."""
    return (one.get("Config") or one).get("Labels") or {}


def job_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels that say what a job takes."""
    return {key: value for key, value in labels.items() if key.startswith(LABEL)}


def moment(stamp: str) -> float:
    """Return an engine's time stamp (UTC) as seconds since 1970; 0 for none."""
    if not stamp or stamp.startswith("0001"):
        return 0.0
    import calendar

    return float(calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")))


def leave_with_client(over: threading.Event) -> None:
    """End this process when nobody reads its answers any more, while the engine is silent."""
    import select

    poll = select.poll()
    poll.register(1, 0)  # errors are always told
    while not over.is_set():
        if poll.poll(1000):
            os._exit(0)


OPTIONS = {
    "--name": "the person, for the log and as the owner of containers",
    "--workdir": "the working folder; nothing outside of it is touched",
    "--config": "what is allowed besides, JSON",
}


def main() -> int:
    """Do what SSH_ORIGINAL_COMMAND says, if it is allowed."""
    words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    if len(sys.argv) % 2 == 0 or not {"--name", "--workdir"} <= words.keys() <= {*OPTIONS}:
        print(__doc__, *(f"    {name:<16}{what}" for name, what in OPTIONS.items()), sep="\n")
        return 0 if "--help" in sys.argv else 2
    os.umask(0o077)
    line = os.environb.get(b"SSH_ORIGINAL_COMMAND", b"").decode("utf-8", "surrogateescape")
    try:
        gate = Gate(words["--name"], words["--workdir"], words.get("--config"))
    except (Refused, OSError, ValueError, TypeError, AttributeError) as error:
        print(f"biom3d-gate: refused: {error}", file=sys.stderr)
        return REFUSED
    try:
        need(line, "this key opens no shell, only Biom3d's own commands")
        if step := gate.read_step(line):
            gate.check_quota()
            gate.note("ok", "step", args=[word[:300] for word in step[:20]])
            if gate.socket:
                return serve_step(gate, step)
            return gate.run_step(step)
        name, script, arguments, stdin = gate.decide(line)
        if name == "dial_engine":
            return serve_engine(gate)
        if "bytes" in stdin:
            gate.check_quota()
        if name == "place_dataset" and gate.socket:  # a job that still runs could change what is then a data set
            import urllib.parse

            job = urllib.parse.quote(arguments[0].split("/")[-2], safe="")
            status, _ = EngineFilter(gate, None, None).fetch("GET", f"/containers/biom3d-{job}/json")
            need(status == 404, "the job has a container yet; remove it first")
        content = gate.filter_input(stdin, arguments)
        gate.note("ok", name, args=[word[:300] for word in arguments[:20]])
        if name == "venv_drop_job":
            gate.note_job(arguments[0])
        if not gate.confine_process():
            is_needed = gate.confine == "required" or name.startswith("venv_")
            need(not is_needed, "the kernel cannot confine commands (Landlock, Linux 5.19)")
        if content is not None:
            replace_input(*content)
        gate.run(name, script, arguments)
    except Refused as error:
        gate.note("refused", line[:300], why=str(error))
        print(f"biom3d-gate: refused: {error}", file=sys.stderr)
    except OSError as error:
        print(f"biom3d-gate: {error}", file=sys.stderr)
    return REFUSED


def replace_input(content: bytes, is_all: bool) -> None:
    """Let standard input be these bytes, followed by what still comes there unless that is all."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        for other in (reading, 1, 2):  # sshd waits until nobody holds the output
            os.close(other)
        with open(writing, "wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(content)
            while not is_all and (data := os.read(0, 2**20)):
                pipe.write(data)
        os._exit(0)
    os.dup2(reading, 0)
    os.close(reading)
    os.close(writing)


def serve_step(gate: Gate, step: list[str]) -> int:
    """Run a step by hand in a container; it is stopped when the person's connection ends."""
    import signal
    import threading

    over = threading.Event()
    threading.Thread(target=interrupt_with_client, args=(over,), daemon=True).start()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        return EngineFilter(gate, None, None).run_step(step)
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    finally:
        over.set()


def interrupt_with_client(over: threading.Event) -> None:
    """Press Ctrl-C in this process when nobody reads its answers any more."""
    import select
    import signal

    poll = select.poll()
    poll.register(1, 0)  # errors are always told
    while not over.is_set():
        if poll.poll(500) and not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            return


def serve_engine(gate: Gate) -> int:
    """Answer requests for the engine; a refusal ends the connection only where it is not even HTTP."""
    try:
        EngineFilter(gate, sys.stdin.buffer, sys.stdout.buffer).serve()
    except BrokenPipeError:  # the client has gone
        pass
    except OSError as error:
        print(f"biom3d-gate: dial unix {gate.socket}: connect: {str(error.strerror).lower()}", file=sys.stderr)
        return 1
    return 0


# --- filled in when the gate is installed: `biom3d server gate` prints the whole file ---
VERSION = "not installed"
WORDS: dict[str, str] = {}  # kind of argument -> regular expression
TABLE: dict[str, tuple[str, tuple[str, ...], str]] = {}  # script -> name, kinds of arguments, use of standard input

if __name__ == "__main__":
    sys.exit(main())
