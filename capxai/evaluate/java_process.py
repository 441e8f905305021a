"""Running Java so that it can neither hang, nor fill the memory, nor fail without saying why.

Every process gets limits for memory and time, a folder of its own that vanishes afterwards (it writes nowhere else), and is ended
and waited for however the caller leaves. What it says on its error stream is in the error that is raised.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from capxai.errors import ConfigError, DependencyError

INSTALL_JAVA = "Install Java 8 or newer, for instance: apt install default-jre-headless"
LONGEST_RUN = 30 * 86_400  # seconds
SHOWN_LINES = 8
"""Lines of Java's error stream in a message."""

_MEMORY = re.compile(r"[1-9][0-9]*[kKmMgG]?")
_NO_MEMORY = re.compile(r"OutOfMemoryError|(?:maximum|object) heap")
_TOO_MUCH = re.compile(r"not reserve enough space|exceeds the maximum")
_UTF8 = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8")


@dataclass(frozen=True)
class JavaLimits:
    """What a Java process may use.

    Attributes:
        memory: Largest heap, as Java writes it ("2G", "512m").
        seconds: Longest run.
    """

    memory: str = "2G"
    seconds: float = 1800.0

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ConfigError: The memory is no size, or the time is not above 0.
        """
        if not _MEMORY.fullmatch(self.memory):
            raise ConfigError(
                f"The memory of Java is '{self.memory}'. Expected a number and a unit as Java writes it. Use 2G or 512m."
            )
        if not 0 < self.seconds <= LONGEST_RUN:
            raise ConfigError(
                f"The time limit of Java is {self.seconds} s. Expected more than 0, and {LONGEST_RUN} at most. Use 1800."
            )


@dataclass
class JavaProcess:
    """A Java process that answers lines with lines.

    Attributes:
        purpose: What it is for, as it stands in messages ("METEOR").
        limits: What it may use.
        folder: Its working folder.
    """

    purpose: str
    limits: JavaLimits
    folder: Path
    _process: subprocess.Popen[str]
    _timed_out: threading.Event = field(default_factory=threading.Event)
    _heard: list[str] = field(default_factory=list)

    def ask(self, lines: Sequence[str], answers: int) -> list[str]:
        """Send lines and read a number of answers, at the same time, so that neither side waits for the other.

        Raises:
            DependencyError: The process ended, was stopped by its limits, or answered with less.
        """
        found = self._heard = []
        with self._sending(lines, close=False):
            for line in self._output():
                found.append(line.rstrip("\r\n"))
                if len(found) == answers:
                    return found
        raise self.failure(f"it ended after {len(found)} of {answers} answers")

    def ask_all(self, lines: Sequence[str]) -> list[str]:
        """Send lines, close the input and read until the process ends.

        Raises:
            DependencyError: The process failed or was stopped by its limits.
        """
        with self._sending(lines, close=True):
            found = self._heard = [line.rstrip("\r\n") for line in self._output()]
        code = self._process.wait()
        if code:
            raise self.failure(f"it ended with exit code {code}")
        return found

    def failure(self, what: str) -> DependencyError:
        """Word the error for a process that did not do its work."""
        self._process.kill()
        self._process.wait()
        said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = said or self._heard  # a virtual machine that cannot start complains in its output
        if self._timed_out.is_set():
            what, advice = f"it was stopped after {self.limits.seconds:g} s", "Allow more time (java_seconds)."
        elif any(_TOO_MUCH.search(line) for line in said):
            what, advice = f"{self.limits.memory} of memory are not to be had", "Allow less (java_memory), as in 1G."
        elif any(_NO_MEMORY.search(line) for line in said):
            what, advice = f"{self.limits.memory} of memory did not do", "Allow more memory (java_memory), as in 4G."
        else:
            advice = "Mend what Java says, or leave the metric out."
        shown = "\n".join(f"  {line}" for line in said[:SHOWN_LINES]) or "  (nothing)"
        return DependencyError(f"Java failed at {self.purpose}: {what}. {advice} Java says:\n{shown}")

    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    @contextmanager
    def _sending(self, lines: Sequence[str], close: bool) -> Iterator[None]:
        """Send lines from a thread of their own while the context lasts."""
        writer = threading.Thread(target=self._send, args=(lines, close), daemon=True)
        writer.start()
        yield
        writer.join()

    def _send(self, lines: Sequence[str], close: bool) -> None:
        stream = self._process.stdin
        assert stream is not None
        with suppress(OSError, ValueError):  # the process is gone: the reader finds out and says why
            stream.writelines(f"{line}\n" for line in lines)
            stream.flush()
            if close:
                stream.close()

    def _stop(self) -> None:
        self._timed_out.set()
        self._process.kill()


@contextmanager
def java(
    arguments: Sequence[str], purpose: str, limits: JavaLimits, files: Mapping[str, str] | None = None
) -> Iterator[JavaProcess]:
    """Start Java, and end it with the context, also on errors and Ctrl-C.

    Args:
        arguments: What follows the options of the virtual machine: ``-cp PATH CLASS ...`` or ``-jar FILE ...``.
        purpose: What it is for, as it should stand in messages.
        limits: What it may use.
        files: Texts that lie in its working folder when it starts, by file name.

    Raises:
        DependencyError: There is no Java, or it cannot be started.
    """
    program = find_java()
    with tempfile.TemporaryDirectory(prefix="capxai-java-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for file, text in (files or {}).items():
            (folder / file).write_text(text, encoding="utf-8")
        command = [program, f"-Xmx{limits.memory}", f"-Djava.io.tmpdir={name}", "-XX:-UsePerfData", *_UTF8, *arguments]
        with (folder / "stderr").open("wb") as errors:
            process = _start(command, folder, errors)
        running = JavaProcess(purpose, limits, folder, process)
        timer = threading.Timer(limits.seconds, running._stop)
        timer.daemon = True
        timer.start()
        try:
            yield running
        finally:
            timer.cancel()
            _end(process)


def find_java() -> str:
    """Return the path of Java.

    Raises:
        DependencyError: There is none.
    """
    program = shutil.which("java")
    if program is None:
        raise DependencyError(f"Java was not found on the PATH. Expected a program named java. {INSTALL_JAVA}")
    return program


def pycocoevalcap_file(name: str) -> Path:
    """Return the path of a file of the installed pycocoevalcap.

    Raises:
        DependencyError: The package or the file is not there.
    """
    found = importlib.util.find_spec("pycocoevalcap")
    folders = list(found.submodule_search_locations or ()) if found else []
    path = Path(folders[0], name) if folders else None
    if path is None or not path.exists():
        raise DependencyError(
            f"pycocoevalcap's file {name} was not found{f' in {folders[0]}' if folders else ''}. Expected the package as installed by "
            "pip. Install it again: pip install --force-reinstall pycocoevalcap"
        )
    return path.resolve()


def _start(command: Sequence[str], folder: Path, errors: IO[bytes]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise DependencyError(
            f"{command[0]} could not be started ({error.strerror or error}). Expected a working Java. {INSTALL_JAVA}"
        ) from error


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process, if it still runs, and wait for it, so that it does not stay as a zombie."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
