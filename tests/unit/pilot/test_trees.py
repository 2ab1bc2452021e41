"""The cache of unpacked software: made once, looked at before every use, never removed while somebody uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest
from iceprod_pilot.trees import Lease, TreeCache, entry_name

from iceprod_p2p.base.errors import BadInput, IntegrityError, Unavailable
from tests.integration.node_processes import wait_for

MIB = 1024 * 1024


def go_on(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def name(word: str) -> str:
    return entry_name(sha256(word.encode()).hexdigest(), "tree")


class Maker:
    """Makes a tree of a known size, and counts how often."""

    def __init__(self, size: int = 1_000, *, text: str = "content") -> None:
        self.made = 0
        self.size = size
        self.text = text

    def __call__(self, directory: Path) -> None:
        self.made += 1
        (directory / "bin").mkdir(parents=True)
        (directory / "bin" / "run").write_text(self.text)
        (directory / "data").write_bytes(bytes(self.size))
        (directory / "link").symlink_to("bin/run")


def use(cache: TreeCache, word: str, maker: Maker) -> Lease:
    return cache.lease(name(word), maker, wait=go_on)


def test_an_entry_is_made_once_and_without_write_permission(tmp_path: Path) -> None:
    cache, maker = TreeCache(tmp_path, size_mib=10), Maker()
    first, second = use(cache, "a", maker), use(cache, "a", maker)
    assert first.path == second.path and maker.made == 1
    assert (first.path / "bin" / "run").read_text() == "content"
    assert not (first.path / "bin" / "run").stat().st_mode & 0o222
    assert not (first.path / "bin").stat().st_mode & 0o222
    first.close()
    second.close()
    assert TreeCache(tmp_path, size_mib=10).lease(name("a"), maker, wait=go_on).path == first.path
    assert maker.made == 1, "another pilot uses it as well"


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: (os.chmod(path / "data", 0o600), (path / "data").write_bytes(b"x" * 1_000)),
        lambda path: (os.chmod(path, 0o700), (path / "new").write_text("x")),
        lambda path: (os.chmod(path / "bin", 0o700), (path / "bin" / "run").unlink()),
        lambda path: ((path / "link").unlink(), (path / "link").symlink_to("/etc/passwd")),
        lambda path: os.chmod(path / "bin" / "run", 0o755),
    ],
    ids=["content", "new file", "gone", "link", "mode"],
)
def test_an_altered_entry_is_dropped_and_made_again(harm, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cache, maker = TreeCache(tmp_path, size_mib=10), Maker()
    lease = use(cache, "a", maker)
    harm(lease.path)
    again = use(cache, "a", maker)
    assert maker.made == 2 and again.path != lease.path
    assert (again.path / "bin" / "run").read_text() == "content"
    assert lease.path.exists(), "a task may still be using it"
    lease.close()
    again.close()
    cache.drop_unused()
    assert not lease.path.exists() and again.path.exists()


def test_bits_that_flip_below_the_file_system_are_found_by_the_next_pilot(tmp_path: Path) -> None:
    maker = Maker()
    lease = use(TreeCache(tmp_path, size_mib=10), "a", maker)
    inventory = lease.path.with_name(lease.path.name + ".json")
    content = sha256(b"content").hexdigest()
    assert content in inventory.read_text()
    inventory.write_text(inventory.read_text().replace(content, sha256(b"other").hexdigest()))
    lease.close()
    again = use(TreeCache(tmp_path, size_mib=10), "a", maker)
    assert maker.made == 2 and again.path != lease.path


def test_a_damaged_inventory_makes_the_entry_be_made_again(tmp_path: Path) -> None:
    maker = Maker()
    lease = use(TreeCache(tmp_path, size_mib=10), "a", maker)
    lease.path.with_name(lease.path.name + ".json").write_text("{")
    lease.close()
    assert use(TreeCache(tmp_path, size_mib=10), "a", maker).path.exists() and maker.made == 2


def test_what_is_altered_as_soon_as_it_is_made_is_given_up(tmp_path: Path) -> None:
    cache, maker = TreeCache(tmp_path, size_mib=10), Maker()
    for generation in range(8):
        (tmp_path / f"{name('a')}-{generation}.bad").touch()
    with pytest.raises(IntegrityError):
        use(cache, "a", maker)


def test_the_least_recently_used_goes_first_and_never_what_is_in_use(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path, size_mib=4)
    leases = {word: use(cache, word, Maker(MIB)) for word in ("a", "b", "c")}
    for word in ("b", "c", "a"):
        use(cache, word, Maker(MIB)).close()
        time.sleep(0.01)
    leases["c"].close()
    leases["a"].close()  # b is still in use, though it was used longest ago.
    use(cache, "d", Maker(MIB)).close()
    use(cache, "e", Maker(MIB)).close()
    left = {word for word in "abcde" if (tmp_path / f"{name(word)}-0").exists()}
    assert "b" in left and "e" in left and "c" not in left
    assert len(left) <= 4
    leases["b"].close()
    cache.drop_unused(bytes_max=0)
    assert not list(tmp_path.glob("*.lock")) and not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_threads_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    cache, maker = TreeCache(tmp_path, size_mib=10), Maker()
    found: list[Path] = []

    def work() -> None:
        found.append(use(cache, "a", maker).path)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(set(found)) == 1 and len(found) == 8 and maker.made == 1


PROCESS = """
import sys, time, pathlib
from iceprod_pilot.trees import TreeCache
root, name, how = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def make(directory):
    directory.mkdir()
    (directory / "file").write_text("whole")
    with (root.parent / "makes").open("a") as log: log.write("made\\n")
    if how == "die":
        print("half", flush=True)
        time.sleep(240)
def wait(seconds):
    time.sleep(seconds)
    return False
lease = TreeCache(root, size_mib=10).lease(name, make, wait=wait)
assert (lease.path / "file").read_text() == "whole"
print("used", flush=True)
if how == "hold": time.sleep(240)
"""


def process(root: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(root), name("p"), how], stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str], word: str) -> bool:
    """Read what a process prints, log lines included, up to a word."""
    assert process.stdout is not None
    return any(line == f"{word}\n" for line in process.stdout)


def test_many_pilots_of_one_machine_share_what_one_of_them_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    running = [process(root, "use") for _ in range(6)]
    assert [one.wait(240) for one in running] == [0] * 6
    assert (tmp_path / "makes").read_text() == "made\n"


def test_what_a_killed_pilot_left_half_done_is_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    dying = process(root, "die")
    assert said(dying, "half")
    waiting = process(root, "use")
    dying.send_signal(signal.SIGKILL)
    dying.wait(60)
    assert waiting.wait(240) == 0
    assert (tmp_path / "makes").read_text() == "made\nmade\n"


def test_what_a_living_pilot_uses_stays_and_goes_when_it_was_killed(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    holder = process(root, "hold")
    assert said(holder, "used")
    cache = TreeCache(root, size_mib=0)
    assert cache.drop_unused() == 0 and (root / f"{name('p')}-0").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait(60)
    wait_for(
        "the entry to be free", lambda: cache.drop_unused() > 0 or not (root / f"{name('p')}-0").exists()
    )
    assert not (root / f"{name('p')}-0").exists()


def test_the_wait_for_another_ends_when_the_task_does(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    dying = process(root, "die")
    assert said(dying, "half")
    try:
        with pytest.raises(Unavailable):
            TreeCache(root, size_mib=1).lease(name("p"), Maker(), wait=lambda seconds: True)
    finally:
        dying.kill()
        dying.wait(60)


def test_a_full_disk_empties_the_cache_of_what_nobody_uses(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path, size_mib=100)
    use(cache, "old", Maker()).close()
    tries = []

    def make(directory: Path) -> None:
        tries.append(directory)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        Maker()(directory)

    assert cache.lease(name("new"), make, wait=go_on).path.exists()
    assert not (tmp_path / f"{name('old')}-0").exists()


def test_only_a_digest_can_name_an_entry() -> None:
    with pytest.raises(BadInput):
        entry_name("../../etc")
