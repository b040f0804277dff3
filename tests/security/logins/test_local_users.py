"""A second account of the machine reads nothing that is kept, puts nothing in its place, and learns nothing
of it from processes and logs.

As root, such an account really tries (a fork that has become it); otherwise what it left behind is made by
this one, and the rest is skipped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError

from api.gradio.routes import keep_gradio_to
from cli.files import Target
from jobs.data_dir.folder import DataFolder, ensure_temporary
from jobs.eta.cost_model import DeviceCosts, read_costs, write_costs
from jobs.queue import Queue
from jobs.store.event_log import LogReader, LogWriter, last_event
from jobs.store.log_names import log_path
from jobs.store.models import Choice, Owner
from jobs.store.retention import keep
from jobs.store.sqlite import SqliteStore
from jobs.workers.messages import Draw
from jobs.workers.worker import Worker
from pipeline.drawing import Drawing
from pipeline.errors import SettingError, StoreError
from pipeline.events import Event
from pipeline.request import Job
from tests.conftest import running
from tests.support.queues import begin
from tests.support.rest import TIMEOUT
from tests.support.steps import Steps
from tests.support.tiny import SMALL

STRANGER = 12345
"""The number of an account that there isn't."""
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can become another account")
UMASKS = pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids="{:03o}".format)
ID = "11111111-2222-4333-8444-555555555555"
PROMPT = "a fox that only its owner may read of"
JOB = Job(
    id=ID, model="tiny", prompt=PROMPT, negative_prompt="", width=64, height=64, steps=2, guidance=1.0,
    seed=1, images=1,
)  # fmt: skip
FILES = (
    "jobs.sqlite",
    "jobs.sqlite-wal",
    "jobs.sqlite-shm",
    "jobs.sqlite-journal",
    "pace.json",
    "lock",
    "pid",
)
FOLDERS = ("events", "inputs", "gradio", "tmp")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account may go through; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="local-users-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def as_stranger(attempt: Callable[[], object]) -> str:
    """What another account gets by this: the name of the error, or the result in words."""

    def become() -> None:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)

    return forked(become, attempt)


def forked(become: Callable[[], object], attempt: Callable[[], object]) -> str:
    """The same of a child of this process, which does the first of these before."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            become()
            said = repr(attempt())
        except BaseException as error:
            said = type(error).__name__
        os.write(writes, said.encode()[:1000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def plant(path: Path, to: Path) -> None:
    """A link that another account leaves there."""
    path.symlink_to(to)
    if ROOT:
        os.lchown(path, STRANGER, STRANGER)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_ones(folder: Path) -> list[str]:
    """What in a folder others may do anything with."""
    return [
        f"{path.relative_to(folder)} {mode(path):o}"
        for path in folder.rglob("*")
        if not path.is_symlink() and mode(path) & 0o077
    ]


def older(folder: Path, umask: int = 0o022) -> Path:
    """A data folder as an older version left it, which made all as the umask was."""
    with masked(umask):
        for name in FOLDERS:
            (folder / name / "within").mkdir(parents=True)
            (folder / name / "within" / "file").touch()
        SqliteStore(folder / "jobs.sqlite").close()
        for name in FILES:
            (folder / name).touch()
        (folder / "jobs.sqlite-journal").unlink()
        (folder / "pace.json.abc").touch()
        with LogWriter(log_path(folder / "events", ID, 1)) as log:
            log.append(Event(JOB, "finished"))
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
    return folder


# Modes.


@UMASKS
def test_all_that_is_made_is_closed_whatever_the_umask(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(
        "tempfile._candidate_tempdir_list", lambda: [path for path in [os.getenv("TMPDIR")] if path]
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr("gradio.routes.DEFAULT_TEMP_DIR", "replaced")
    data = tmp_path / "above" / "it" / "data"
    with masked(umask):
        ensure_temporary(data)
        folder = DataFolder(data)
        store = SqliteStore(folder.database)
        store.add(JOB, "line", Owner("address:192.0.2.1", "session"), "always", 9, 9)
        keep_gradio_to(folder.gradio)
        write_costs(folder.pace, {"device": DeviceCosts()})
        with LogWriter(log_path(folder.logs, ID, 1)) as log:
            log.append(Event(JOB, "finished"))
        assert (data / "jobs.sqlite-wal").exists()
        assert open_ones(tmp_path) == []
        store.close()
        folder.close()
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "named" / "for" / "gradio"))
        keep_gradio_to(folder.gradio)
    assert open_ones(tmp_path) == []


@UMASKS
def test_what_an_older_version_left_open_is_closed_at_the_next_start(
    tmp_path: Path, umask: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = older(tmp_path / "data", umask)
    with masked(umask), caplog.at_level(logging.WARNING, "stepwise"):
        folder = DataFolder(data)
        SqliteStore(folder.database).close()
        folder.close()
    assert open_ones(tmp_path) == []
    assert (str(data) in caplog.text) == (umask != 0o077)
    assert last_event(log_path(folder.logs, ID, 1)) == Event(JOB, "finished")


def test_a_database_by_itself_is_closed_with_what_sqlite_keeps_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "jobs.sqlite"
    SqliteStore(path).close()
    for name in ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"):
        (tmp_path / "folder" / name).touch()
        (tmp_path / "folder" / name).chmod(0o644)
    store = SqliteStore(path)
    assert open_ones(tmp_path) == []
    store.close()


@pytest.mark.parametrize("shared", ["somebody's file", "sticky", "a mounted disk"])
def test_a_folder_that_isnt_ours_alone_keeps_its_mode_and_what_is_ours_in_it_is_closed(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = older(tmp_path / "data")
    kept = 0o1777 if shared == "sticky" else 0o755
    data.chmod(kept)
    theirs: list[str] = []
    if shared == "somebody's file":
        (data / "notes.txt").touch(0o644)
        (data / "notes.txt").chmod(0o644)
        theirs = ["notes.txt 644"]
    if shared == "a mounted disk":
        monkeypatch.setattr(Path, "is_mount", lambda path: path == data)
    for _ in range(2):  # the second time it has our files alone in it, for sure
        caplog.clear()
        with caplog.at_level(logging.WARNING, "stepwise"):
            folder = DataFolder(data)
        folder.close()
        assert mode(data) == kept
        assert open_ones(data) == theirs
        assert f"may look into {data}: it isn't Stepwise's alone, and stays as it is" in caplog.text


@needs_root
def test_a_folder_right_below_the_root_keeps_its_mode(tmp_path: Path) -> None:
    """As /srv, /mnt and /opt, which are empty on a new machine; here of a root of the test's own."""
    DataFolder(tmp_path / "first").close()  # all is imported then
    data = older(tmp_path / "srv")

    def take() -> int:
        DataFolder(Path("/srv")).close()
        return mode(Path("/srv"))

    assert forked(lambda: os.chroot(tmp_path), take) == repr(0o755)
    assert mode(data) == 0o755 and open_ones(data) == []


def test_an_empty_folder_that_is_named_is_closed_and_pictures_for_a_person_keep_the_umask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    with caplog.at_level(logging.WARNING, "stepwise"):
        DataFolder(tmp_path / "data").close()
    assert mode(tmp_path / "data") == 0o700
    assert f"could look into {tmp_path / 'data'}; now it is closed" in caplog.text
    with masked(0o022):
        Target(str(tmp_path / "fox.png"), 1).save((b"picture",), PROMPT, 1)
    assert mode(tmp_path / "fox.png") == 0o644


# What another account left under a name of ours.


@pytest.mark.parametrize("to", ["something", "nothing"])
@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_link_under_a_name_of_ours_is_refused_in_words_and_nothing_outside_is_touched(
    place: Path, name: str, to: str
) -> None:
    outside, data = place / "outside", place / "data"
    outside.mkdir()
    outside.chmod(0o755)
    target = outside / "target"
    if to == "something" and name in FOLDERS:
        target.mkdir()
        log_path(target, ID, 1).write_bytes(b"theirs")
    elif to == "something":
        target.write_bytes(b"theirs")
    data.mkdir()
    data.chmod(0o1777)
    plant(data / name, target)
    before = [(path, path.stat()) for path in (outside, *outside.rglob("*"))]
    with pytest.raises(SettingError, match=rf"{name} is a symbolic link.*STEPWISE_DATA"):
        DataFolder(data)
    assert [path for path, _ in before] == [outside, *outside.rglob("*")]
    for path, status in before:
        assert (path.stat().st_mode, path.stat().st_mtime_ns) == (status.st_mode, status.st_mtime_ns)
    (data / name).unlink()
    DataFolder(data).close()  # and it has let go of the folder


@pytest.mark.parametrize("what", ["link", "link to nothing", "second name", "pipe"])
def test_a_database_is_made_through_nothing_that_isnt_its_own(tmp_path: Path, what: str) -> None:
    path, target = tmp_path / "jobs.sqlite", tmp_path / "target"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "second name":
        target.touch(0o644)
        path.hardlink_to(target)
    else:
        if what == "link":
            target.touch(0o644)
        path.symlink_to(target)
    with pytest.raises(StoreError, match=r"jobs\.sqlite is (a symbolic link|a file that has|no plain file)"):
        SqliteStore(path)
    assert not target.exists() or (target.stat().st_size == 0 and mode(target) == 0o644)


def test_sqlites_own_files_are_looked_at_once_more_when_it_has_opened_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp, another account may make one between the look and the opening."""
    connect = sqlite3.connect

    def after_a_stranger(path: Path, **options: object) -> sqlite3.Connection:
        plant(tmp_path / "jobs.sqlite-journal", tmp_path / "elsewhere")
        return connect(path, **options)  # type: ignore[call-overload,no-any-return]

    SqliteStore(tmp_path / "jobs.sqlite").close()
    monkeypatch.setattr("sqlite3.connect", after_a_stranger)
    with pytest.raises(StoreError, match=r"jobs\.sqlite-journal is a symbolic link"):
        SqliteStore(tmp_path / "jobs.sqlite")


def test_links_among_the_events_lead_nowhere(tmp_path: Path) -> None:
    data, outside = older(tmp_path / "data"), tmp_path / "outside"
    events = data / "events"
    shutil.copyfile(log_path(events, ID, 1), outside)
    outside.chmod(0o644)
    os.utime(outside, (1, 1))
    link = log_path(events, ID, 2)
    plant(link, outside)
    (events / "more").symlink_to(tmp_path)
    os.mkfifo(log_path(events, ID, 3), 0o666)
    DataFolder(data).close()
    assert mode(outside) == 0o644
    assert mode(log_path(events, ID, 1)) == 0o600
    assert last_event(link) is None
    assert last_event(log_path(events, ID, 3)) is None  # and nobody waits for its writer
    with LogReader(link) as reader:
        assert reader.read() == []
    assert outside.stat().st_mtime == 1
    keep(events, 0, 0, ())
    assert outside.exists()
    with LogWriter(link) as log:  # a new attempt: the link goes, and not what it leads to
        log.append(Event(JOB, "finished"))
    assert outside.stat().st_mtime == 1 and not link.is_symlink()


def test_the_pace_is_read_from_a_plain_file_alone_and_written_beside_a_link(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_costs(tmp_path / "outside", {"a: line": DeviceCosts()})
    before = (tmp_path / "outside").read_bytes()
    (tmp_path / "pace.json").symlink_to(tmp_path / "outside")
    assert read_costs(tmp_path / "pace.json") == {}
    write_costs(tmp_path / "pace.json", {"b: line": DeviceCosts()})
    assert (tmp_path / "outside").read_bytes() == before
    assert read_costs(tmp_path / "pace.json").keys() == {"b: line"}


@needs_root
@pytest.mark.parametrize("name", ["jobs.sqlite", "lock", "events", "gradio"])
def test_what_another_account_made_under_a_name_of_ours_is_refused(place: Path, name: str) -> None:
    data = place / "data"
    data.mkdir()
    data.chmod(0o1777)
    made = as_stranger(lambda: (data / name).mkdir(0o777) if name in FOLDERS else (data / name).touch(0o666))
    assert made == "None"
    with pytest.raises(SettingError, match=rf"{name} belongs to another account \(number {STRANGER}\)"):
        DataFolder(data)


@needs_root
def test_what_is_used_later_in_a_folder_that_many_share_is_ours_from_the_start(place: Path) -> None:
    """A server takes its folder seconds before it uses all of it."""
    data = place / "data"
    data.mkdir()
    data.chmod(0o1777)
    folder = DataFolder(data)
    for name in ("events", "gradio", "lock", "pid"):
        assert as_stranger((data / name).unlink) == as_stranger((data / name).rmdir) == "PermissionError"
        assert as_stranger(lambda name=name: (data / name).rename(data / "away")) == "PermissionError"  # type: ignore[misc]
    write_costs(place / "outside", {"a: line": DeviceCosts()})
    theirs = (place / "outside").read_bytes()
    assert as_stranger(lambda: (data / "pace.json").write_bytes(theirs)) == repr(len(theirs))
    assert as_stranger(lambda: (data / "jobs.sqlite").touch(0o666)) == "None"
    assert read_costs(folder.pace) == {}
    with pytest.raises(StoreError, match=r"jobs\.sqlite belongs to another account"):
        SqliteStore(folder.database)
    folder.close()


@needs_root
def test_a_folder_of_another_account_and_a_link_of_theirs_to_one_of_ours_are_refused(place: Path) -> None:
    open_to_all, ours = place / "open", place / "ours"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    ours.mkdir(0o700)
    assert as_stranger(lambda: (open_to_all / "data").mkdir(0o777)) == "None"
    with pytest.raises(SettingError, match=rf"belongs to another account \(number {STRANGER}\)"):
        DataFolder(open_to_all / "data")
    assert as_stranger(lambda: (open_to_all / "link").symlink_to(ours)) == "None"
    for path in (open_to_all / "link", open_to_all / "link" / "below"):
        with pytest.raises(SettingError, match="link is a symbolic link of another account's"):
            DataFolder(path)
    assert list(ours.iterdir()) == [] and list((open_to_all / "data").iterdir()) == []


def test_a_folder_that_every_account_may_write_to_is_refused_unless_it_is_a_mounted_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = older(tmp_path / "data")
    (data / "somebody's").touch()
    data.chmod(0o777)
    with pytest.raises(SettingError, match=rf"every account of this machine can write to {data}.*STEPWISE"):
        DataFolder(data)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == data)
    with caplog.at_level(logging.WARNING, "stepwise"):
        DataFolder(data).close()
    assert "Jobs aren't safe from other accounts of this machine: every account of this" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "stepwise"):
        DataFolder(data / "below").close()
    assert f"Another folder can be put in the place of {data / 'below'}: every account" in caplog.text


def test_the_owners_own_link_to_another_disk_goes_on_working(tmp_path: Path) -> None:
    older(tmp_path / "disk" / "jobs")
    (tmp_path / "data").symlink_to(Path("disk") / "jobs")
    folder = DataFolder(tmp_path / "data")
    assert folder.path == tmp_path.resolve() / "disk" / "jobs"
    with pytest.raises(SettingError, match="Another Stepwise"):
        DataFolder(tmp_path / "disk" / ".." / "disk" / "jobs", patience=0)
    SqliteStore(folder.database).close()
    folder.close()
    assert open_ones(tmp_path / "disk") == []
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(SettingError, match="symbolic links"):
        DataFolder(tmp_path / "round")


def test_a_folder_of_ours_among_the_temporary_files_isnt_deleted_for_a_lock_that_others_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("jobs.data_dir.folder.usual_path", lambda: tmp_path / "file")
    (tmp_path / "file").touch()
    (drop := tmp_path / "stepwise-drop").mkdir()
    drop.chmod(0o777)
    (drop / "lock").touch()
    DataFolder().close()
    assert drop.exists()


def test_a_picture_is_written_through_no_link_under_a_name_that_we_choose(tmp_path: Path) -> None:
    (tmp_path / "a-fox-1.png").symlink_to(tmp_path / "elsewhere.png")
    (path,) = Target(str(tmp_path), 1).save((b"picture",), "a fox", 1)
    assert path.endswith("a-fox-1-2.png")
    assert not (tmp_path / "elsewhere.png").exists()


# A server that another account looks at.


def child_of(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def opened(process: int) -> set[str]:
    """What a process has open, but for its standard streams."""
    found = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(link.name) > 2:
                found.add(str(link.readlink()))
    return found


@needs_root
def test_another_account_gets_nothing_from_a_server_that_draws(place: Path) -> None:
    data, key, token = older(place / "data", 0o000), "a-key-0123456789", "hf_no0123456789"
    umask = "import os, sys; os.umask(0); os.execv(sys.executable, [sys.executable, 'app.py'])"
    settings = {"STEPWISE_API_KEYS": key, "HF_TOKEN": token, "STEPWISE_WORKERS": "1"}
    with running(place, "-c", umask, **settings) as (url, server):
        asked = {"prompt": PROMPT, "size": "128x128", "steps": 2, "response_format": "url"}
        answer = httpx.post(
            f"{url}/v1/images/generations",
            json=asked,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT,
        )
        assert answer.status_code == 200, answer.text
        job = answer.headers["x-request-id"]
        client = Client(url, verbose=False)
        for wrong in ({"prompt": PROMPT * 2000}, {"prompt": PROMPT, "steps": -1}):
            with pytest.raises((AppError, ValidationError)):
                client.predict(**SMALL | wrong, api_name="/generate")
        assert client.predict(job, api_name="/stop")
        assert open_ones(data) == [] and mode(data) == 0o700
        there = [data, *data.rglob("*")]
        assert any(path.name.endswith(".1.events") for path in there)
        for path in there:
            assert job not in path.name
            assert as_stranger(lambda path=path: path.chmod(0o777)) == "PermissionError"  # type: ignore[misc]
            look = os.listdir if path.is_dir() else lambda path: os.open(path, os.O_RDONLY)
            assert as_stranger(lambda path=path, look=look: look(path)) == "PermissionError"  # type: ignore[misc]
        (worker,) = child_of(server.pid)
        for process in (server.pid, worker):
            shown = as_stranger(lambda process=process: Path(f"/proc/{process}/cmdline").read_bytes())  # type: ignore[misc]
            assert "python" in shown
            for secret in (key, token, PROMPT, job, job[:8]):
                assert secret not in shown
            for closed in ("environ", "fd", "maps", "mem", "cwd"):
                path = Path(f"/proc/{process}/{closed}")
                look = os.listdir if closed == "fd" else os.readlink if closed == "cwd" else Path.read_bytes
                assert as_stranger(lambda path=path, look=look: look(path)) == "PermissionError"  # type: ignore[misc]
        assert_worker_has_one_nameless_socket(server.pid, worker, data)
        known = Path(f"/proc/{worker}/environ").read_text()
        assert token in known and key not in known  # it may fetch weights, and lets nobody in
    log = (place / "server.log").read_text()
    assert "could look into" in log and job[:8] in log
    assert job not in log and PROMPT not in log and key not in log and token not in log


def assert_worker_has_one_nameless_socket(server: int, worker: int, data: Path) -> None:
    """Of what the server has open, the worker has nothing; and none of their sockets has a name by which
    somebody could come in, but for the web server's own port."""
    ours, its = opened(server), opened(worker)
    sockets = {one for one in its if one.startswith("socket:")}
    assert sockets and not sockets & ours
    assert not [one for one in its if one.startswith(str(data))]
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    inodes = {f"socket:[{fields[6]}]" for fields in named if len(fields) > 7}
    assert not inodes & (ours | its)
    listening = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A"
    }
    assert len(listening & ours) == 1 and not listening & its


# Logs.


def test_no_threads_name_has_a_jobs_key_in_it(tiny_queue: Queue, steps_here: Steps) -> None:
    """A thread's name is printed with what it dies of, and shown by whatever looks at a process."""
    steps_here.hold(1)
    following = begin(tiny_queue, {"model": "tiny", "prompt": PROMPT, "steps": 2})
    job = following.job.id
    next(event for event in following.events() if event.step == 1)
    names = [thread.name for thread in threading.enumerate()]
    steps_here.go_on()
    assert any(job[:8] in name for name in names)
    assert not any(job in name for name in names)


def test_a_workers_threads_have_no_jobs_key_in_their_names() -> None:
    ours, its = Pipe()
    drawing = Drawing(JOB)
    engine = SimpleNamespace(
        start=lambda job: drawing,
        find=lambda job: None,
        ready_models=tuple,
        gpu_memory=lambda: None,
        preloads=SimpleNamespace(all=dict),
    )
    threading.Thread(target=serve_until_closed, args=(engine, its), daemon=True).start()
    ours.recv()
    ours.send(Draw(JOB))
    while not (names := [thread.name for thread in threading.enumerate() if thread.name[:5] == "tells"]):
        pass
    drawing.finish("finished")
    while ours.recv().changes.get("phase") != "finished":
        pass  # all of it: a worker whose pipe is closed ends its process
    assert names == [f"tells {ID[:8]}"]
    ours.close()


def serve_until_closed(engine: SimpleNamespace, connection: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        Worker(engine, connection).serve(())  # type: ignore[arg-type]


def test_a_policy_that_chooses_a_job_which_doesnt_wait_is_told_without_its_key(tmp_path: Path) -> None:
    """The dispatch logs it with its traceback."""
    store = SqliteStore(tmp_path / "jobs.sqlite")
    store.add(JOB, "line", Owner("address:192.0.2.1", "session"), "always", 9, 9)
    other = ID.replace("1", "9")
    with pytest.raises(ValueError, match="doesn't wait") as raised:
        store.claim("line", lambda *_: Choice(other))
    assert other not in str(raised.value) and other[:8] in str(raised.value)
    store.close()
