"""What a request brings along is kept by its SHA-256 for its owner alone, whole or not at all, whenever the
process is killed and whatever the disk does. The files are real; the clock is the test's."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.data_dir.folder import DataFolder
from jobs.store.inputs.store import Inputs
from jobs.store.models import Owner
from pipeline.errors import DiskFull, InputNotFound, StoreError
from tests.conftest import ROOT
from tests.jobs.store.inputs.sent import ANN, BEN, BLOCK, HOUR, content, digests, put
from tests.jobs.waiting import Clock, owner


def test_an_input_is_named_by_its_sha256_and_read_back_by_its_owner(inputs: Inputs) -> None:
    picture = random.Random(1).randbytes(3 * 2**20)
    digest = put(inputs, picture)
    assert digest == hashlib.sha256(picture).hexdigest()
    assert content(inputs, digest) == picture
    assert content(inputs, put(inputs, b"")) == b""


def test_what_is_another_owners_is_answered_as_what_is_not_there(inputs: Inputs) -> None:
    digest = put(inputs, b"a picture")
    with pytest.raises(InputNotFound) as anothers:
        inputs.open(digest, BEN)
    digest = hashlib.sha256(b"nobody's").hexdigest()
    with pytest.raises(InputNotFound) as nobodys:
        inputs.open(digest, BEN)
    hidden = [str(error.value).replace(error.value.args[0][9:17], "") for error in (anothers, nobodys)]
    assert hidden[0] == hidden[1] and "Send it again" in hidden[0]


def test_the_same_address_in_another_session_is_another_owner_and_a_user_is_one_everywhere(
    inputs: Inputs,
) -> None:
    digest = put(inputs, b"a picture", owner("192.0.2.1", "one"))
    assert content(inputs, digest, owner("192.0.2.1", "two")) is None
    assert content(inputs, digest, owner("192.0.2.2", "one")) is None
    digest = put(inputs, b"another", Owner("user:ann", "one"))
    assert content(inputs, digest, Owner("user:ann", "two", first=True)) == b"another"


def test_two_owners_of_the_same_bytes_each_own_them_and_they_are_stored_once(
    inputs: Inputs, tmp_path: Path, clock: Clock
) -> None:
    digest = put(inputs, b"a picture")
    clock.now += 20 * HOUR
    assert put(inputs, b"a picture", BEN) == digest
    assert digests(tmp_path) == {digest}
    clock.now += 5 * HOUR
    inputs.expire()
    assert content(inputs, digest, ANN) is None
    assert content(inputs, digest, BEN) == b"a picture"
    clock.now += 25 * HOUR
    assert inputs.expire() == math.inf
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "../jobs.sqlite", "A" * 64, "a" * 63, "a" * 65, f"{'a' * 64}\n", "é" * 64, None, 7, b"a" * 64],
)
def test_a_name_that_is_no_digest_is_refused_and_never_looked_for(inputs: Inputs, name: Any) -> None:
    with pytest.raises(InputNotFound, match=r"names no file: .* SHA-256, 64 digits of 0-9 and a-f"):
        inputs.open(name, ANN)


def test_the_next_server_knows_owners_sizes_and_last_uses(
    inputs: Inputs, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(inputs, b"first"), put(inputs, bytes(2 * BLOCK), BEN)
    clock.now += 23 * HOUR
    assert content(inputs, first) == b"first"
    again = Inputs(tmp_path, lambda: (), clock)
    assert again._bytes == inputs._bytes
    clock.now += 2 * HOUR
    assert again.expire() == pytest.approx(22 * HOUR)
    assert (content(again, first), content(again, second, BEN)) == (b"first", None)


def test_the_start_deletes_what_is_unfinished_and_leaves_what_is_somebody_elses(
    inputs: Inputs, tmp_path: Path
) -> None:
    kept = put(inputs, b"kept")
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "upload-half").write_bytes(b"half")
    (tmp_path / ("a" * 64)).write_bytes(b"without an owner")
    (tmp_path / f"{'b' * 64}.{'c' * 32}.{'d' * 32}").touch()  # an owner of nothing
    others = {"notes.txt", "a" * 63, f"{kept}.txt"}
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ("e" * 64)).symlink_to(tmp_path / "notes.txt")
    again = Inputs(tmp_path, lambda: ())
    assert {path.name for path in tmp_path.iterdir()} == before | others | {"e" * 64}
    assert content(again, kept) == b"kept"


def test_a_damaged_file_is_refused_in_words_until_it_is_sent_again(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = put(inputs, b"a picture")
    for damage in (b"a pictur\0", b"a", b""):
        (tmp_path / digest).write_bytes(damage)
        with (
            caplog.at_level(logging.ERROR, "stepwise"),
            pytest.raises(InputNotFound, match=r"damaged on the server's disk\. Send it again"),
        ):
            inputs.open(digest, ANN)
    assert digest in caplog.text
    assert content(inputs, put(inputs, b"a picture")) == b"a picture"
    (tmp_path / digest).unlink()
    with pytest.raises(InputNotFound, match="Send it again"):
        inputs.open(digest, ANN)


def test_a_full_disk_is_said_and_leaves_nothing_behind(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at each of the calls that take room."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = put(inputs, b"kept", BEN)
    for call in ("tempfile.mkstemp", "memoryview", "os.fsync", "make_file"):
        with monkeypatch.context() as disk:
            disk.setattr(f"jobs.store.inputs.files.{call}", full, raising=False)
            with pytest.raises(DiskFull, match=r"disk is full.*STEPWISE_DATA"):
                put(inputs, b"a picture")
            with pytest.raises(DiskFull):
                put(inputs, b"kept")  # another's stays
        assert digests(tmp_path) == {kept}, call
        assert not list(tmp_path.glob("upload-*"))
    assert content(inputs, kept, BEN) == b"kept"
    assert list(inputs._bytes.values()) == [BLOCK]
    assert content(inputs, put(inputs, b"a picture")) == b"a picture"


def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"`inputs` in the folder of STEPWISE_DATA"):
        Inputs(tmp_path / "none", lambda: ())


def test_who_reads_an_input_while_it_goes_reads_it_to_its_end(inputs: Inputs, clock: Clock) -> None:
    with inputs.open(put(inputs, b"a picture"), ANN) as file:
        clock.now += 25 * HOUR
        assert inputs.expire() == math.inf
        assert file.read() == b"a picture"


def test_other_accounts_can_look_into_nothing_of_it(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    put(Inputs(folder.inputs, lambda: ()), b"a picture")
    modes = {path.stat().st_mode & 0o777 for path in folder.inputs.iterdir()}
    assert (folder.inputs.stat().st_mode & 0o777, modes) == (0o700, {0o600})
    folder.close()


SEND = """
import io, itertools, random, sys
from pathlib import Path
from jobs.store.inputs import store as module
from jobs.store.models import Owner
module.MOST_BYTES_EACH, module.RESERVED_SECONDS = 8 * 2**16, 0.0
inputs = module.Inputs(Path(sys.argv[1]), lambda: ())
print("begun", flush=True)
for number in itertools.count():
    sent = random.Random(number % 20).randbytes(1 + number % 20 * 9000)
    inputs.put(io.BytesIO(sent), 10**9, Owner(f"user:{number % 3}"))
"""


def test_a_kill_at_any_moment_leaves_every_input_whole_or_not_there(tmp_path: Path) -> None:
    chosen = random.Random(5)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", SEND, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            time.sleep(chosen.uniform(0, 0.3))
            process.kill()
        inputs = Inputs(tmp_path, lambda: ())
        names = {path.name for path in tmp_path.iterdir()}
        owned = {name.partition(".")[0] for name in names if "." in name}
        assert owned == {name for name in names if "." not in name}
        for digest in owned:
            assert hashlib.sha256((tmp_path / digest).read_bytes()).hexdigest() == digest
            people = [person for person in "012" if content(inputs, digest, Owner(f"user:{person}"))]
            assert people
