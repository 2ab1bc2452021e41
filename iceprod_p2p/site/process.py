"""The node as a process: in the foreground until a signal, or in the background with a pid file.

    DATA/node.pid    process id, and when it started after which boot, so that a reused id is never taken for the node
    DATA/node.log    what it logs in the background

Exit codes of a node: 0 stopped by SIGTERM or SIGINT, those of `base.errors` when it could not start.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from iceprod_p2p.base import logs
from iceprod_p2p.base.config import SiteConfig, load
from iceprod_p2p.base.errors import ConfigError, IceProdError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.grids.local_processes import boot_id, read_process
from iceprod_p2p.security.keyfiles import make_private_directory, write_secret
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.node import SiteNode
from iceprod_p2p.site.succession import require_none
from iceprod_p2p.store.verify import verify_store

PID_FILE: Final = "node.pid"
LOG_FILE: Final = "node.log"
READY_VARIABLE: Final = "ICEPROD_NODE_READY_FD"
START_S: Final = 60.0
STOP_S: Final = 40.0  # Handing over, ending calls and closing the store take a few seconds.
FILES_WANTED: Final = 65_536  # Thousands of pilots are thousands of sockets.
# The Raft thread returns from every commit into a busy event loop, and waits for it up to one switch interval
# (5 ms unless told).  Medians of five runs of `benchmarks/ledger.py` on two busy cores: with 1 ms 64 callers got
# 1.5 times as much done, 16 callers of 16 commands 0.9 times (within the noise); 0.4 ms was no better.
THREAD_SWITCH_S: Final = 0.001
START_CHECK_BYTES: Final = 256 << 20  # Some seconds; what is larger is read bit by bit while the node runs.
log = get_logger("node")


def run(config: SiteConfig) -> int:
    """Run the node in this process until SIGTERM or SIGINT; return the exit code."""
    _set_up_logs(config)
    _raise_file_limit()
    sys.setswitchinterval(THREAD_SWITCH_S)
    make_private_directory(config.node.data_dir)
    require_none(config.node.data_dir)
    raft = config.node.data_dir / RAFT_DIRECTORY
    verify_store(raft, bytes_max=START_CHECK_BYTES).raise_first(raft)
    node = SiteNode(config)
    pid_path = config.node.data_dir / PID_FILE
    write_secret(pid_path, _own_mark().encode())
    try:
        asyncio.run(_serve(node))
    finally:
        pid_path.unlink(missing_ok=True)
    return 0


async def _serve(node: SiteNode) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, node)
    await node.start()
    # What a start leaves (modules, classes, the store's tables) lives as long as the process: left out of the
    # collector's walks, for one over everything held all threads up for 80 ms, again and again.
    gc.collect()
    gc.freeze()
    _say_ready()
    try:
        await stop.wait()
        log.info("node is stopping", node=node.config.node.id)
    finally:
        await node.stop()


def _reload(node: SiteNode) -> None:
    """Read site.toml again, and open the log anew; whatever is wrong with it, the node goes on as before."""
    path = node.config.path
    try:
        config = load(path)
        node.reload(config)
        log.info("configuration reloaded", path=str(path))
        _set_up_logs(config)
    except IceProdError as fault:
        log.error("configuration not reloaded", path=str(path), fault=str(fault))


def start_in_background(config: SiteConfig) -> int:
    """Start the node as a process of its own and return its id once it serves.

    ConfigError when it runs already; otherwise, when it ends before it serves, the error that it printed.
    """
    pid = running_pid(config)
    if pid is not None:
        raise ConfigError(f"node {config.node.id} runs already (process {pid})", remedy="stop it first")
    make_private_directory(config.node.data_dir)
    log_path = Path(config.log.file or config.node.data_dir / LOG_FILE)
    read_end, write_end = os.pipe()
    command = [
        sys.executable,
        "-m",
        "iceprod_p2p.daemon",
        "start",
        "--foreground",
        "--config",
        str(config.path),
    ]
    try:
        with log_path.open("ab") as log_file:
            began_at = log_file.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
                pass_fds=(write_end,),
                env={**os.environ, READY_VARIABLE: str(write_end)},
            )
    except OSError as failure:
        raise ConfigError(
            f"cannot write the log {log_path}: {failure.strerror}",
            remedy=f"make {log_path.parent} writable for the node's user, or change `file` in [log]",
        ) from failure
    finally:
        os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], START_S)
        if ready and os.read(read_end, 16):
            return process.pid
    finally:
        os.close(read_end)
    if process.poll() is None and not ready:
        process.terminate()
        raise Unavailable(f"the node did not serve within {START_S:.0f} s", remedy=f"see {log_path}")
    raise _ended_early(process, log_path, began_at)


def stop(config: SiteConfig) -> int:
    """Ask the node to stop and return its process id when it has; NotFound when it does not run."""
    pid = running_pid(config)
    if pid is None:
        raise NotFound(f"node {config.node.id} does not run")
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_S
    while running_pid(config) == pid:
        if time.monotonic() > deadline_s:
            raise Unavailable(
                f"node {config.node.id} (process {pid}) has not stopped within {STOP_S:.0f} s",
                remedy=f"see its log; kill -9 {pid} loses nothing that was acknowledged",
            )
        time.sleep(0.05)
    return pid


def running_pid(config: SiteConfig) -> int | None:
    """Return the id of the process that runs this node, None when there is none."""
    try:
        mark = (config.node.data_dir / PID_FILE).read_text()
        pid = int(mark.partition(" ")[0])
    except (OSError, ValueError):
        return None
    return pid if _mark(pid) == mark else None


def _own_mark() -> str:
    return _mark(os.getpid())


def _mark(pid: int) -> str:
    """Return what tells a live process from every other one; empty for one that has ended.

    It counts from the boot: the time of day at which a process started moves whenever the clock is set.
    """
    process = read_process(pid)
    return f"{pid} {process.start_ticks} {boot_id()}" if process is not None else ""


def _say_ready() -> None:
    descriptor = os.environ.pop(READY_VARIABLE, "")
    if descriptor.isdigit():
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))


def _ended_early(process: subprocess.Popen[bytes], log_path: Path, began_at: int) -> IceProdError:
    code = process.wait()
    with log_path.open("rb") as log_file:
        log_file.seek(began_at)
        lines = log_file.read(64 * 1024).decode("utf-8", "replace").splitlines()
    message, remedy = _last_words(lines)
    error = IceProdError(message or f"the node ended with {code}", remedy=remedy or f"see {log_path}")
    error.exit_code = code if 0 < code < 128 else 1
    return error


def _last_words(lines: list[str]) -> tuple[str, str]:
    """Return the last error that a node printed among its log lines, every fault of it, and its remedy."""
    said = [number for number, line in enumerate(lines) if line.startswith("iceprod-node: ")]
    if not said:
        return "", ""
    message, remedy = [lines[said[-1]].removeprefix("iceprod-node: ")], ""
    for line in lines[said[-1] + 1 :]:
        if line.startswith("  "):
            remedy = line.strip()
            break
        if line.startswith(("line ", "no pilot of class ")):
            message.append(line)
    return "\n".join(message), remedy


def _set_up_logs(config: SiteConfig) -> None:
    stream = None
    if config.log.file and READY_VARIABLE not in os.environ:
        try:
            stream = open(config.log.file, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # For the whole life.
        except OSError as failure:
            raise ConfigError(
                f"cannot write the log {config.log.file}: {failure.strerror}",
                remedy="make its directory writable for the node's user, or change `file` in [log]",
            ) from failure
    logs.configure(
        style="json" if config.log.style == "json" else "text", level=config.log.level, stream=stream
    )


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
