"""The text form of a location: always with host and port, never with the user."""

import copy
import logging
import pickle

import pytest

from unijudge.cli import _Safe
from unijudge.errors import SettingsError
from unijudge.provenance import Provenance, without_passwords, without_places
from unijudge.settings import Settings, overrides_of
from unijudge.storage.access_errors import unreadable
from unijudge.storage.locations import WHOLE, Location, address, inside_store, locate

URLS = {
    "https://me:s@cret@host:81/a": "https://host:81/a",
    "hdfs://me@namenode:8020/a": "hdfs://namenode:8020/a",
    "sftp://me:secret@host:22/a": "sftp://host:22/a",
    "ssh://me@host/a": "ssh://host/a",
    "smb://me:secret@host/share/a": "smb://host/share/a",
    "ftp://me:secret@host/a": "ftp://host/a",
    "webdav+https://me:secret@host/a": "webdav+https://host/a",
    "webhdfs://namenode:9870/a": "webhdfs://namenode:9870/a",
    "abfs://box@account.dfs.core.windows.net/a": "abfs://box@account.dfs.core.windows.net/a",
    "s3://bucket/a@b": "s3://bucket/a@b",
    "gs://bucket/a": "gs://bucket/a",
    "memory://host/a": "memory://host/a",
    "http://host:81/a": "http://host:81/a",
}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.filterwarnings("ignore:UPath 'webhdfs' filesystem not explicitly implemented")
def test_the_text_of_a_location_is_its_url_without_the_user(url):
    place = locate(url)
    assert f"{place}" == URLS[url]
    child = place / "b" / "c.png"
    assert str(child) == f"{URLS[url]}/b/c.png"
    assert "secret" not in repr(child)
    assert "s@cret" not in repr(child)
    assert address(child) == f"{url}/b/c.png"
    assert locate(address(child)) == child
    assert locate(child) is child
    assert str(child.parent.with_name("d")) == f"{URLS[url]}/d"
    assert child.relative_to(place).as_posix() == "b/c.png"
    assert child.storage_options == place.storage_options
    for again in (pickle.loads(pickle.dumps(child)), copy.deepcopy(child)):  # noqa: S301  our own bytes
        assert (again, str(again), address(again)) == (child, str(child), address(child))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "simplecache::https://me:secret@host/x",
            "simplecache::https://host/x: a chain of URLs may hold no user",
        ),
        (
            "zip://a::https://me:secret@host/x.zip",
            "zip://a::https://host/x.zip: a chain of URLs may hold no user",
        ),
        ("https://host/x?token=secret", "https://host/x: a location may have no query"),
        ("https://me:secret@host/x?a=secret", "https://host/x: a location may have no query"),
        (
            "zip://a::https://host/x.zip?a=secret",
            "zip://a::https://host/x.zip: a location may have no query",
        ),
    ],
)
def test_a_secret_that_would_be_shown_is_refused(url, reason):
    with pytest.raises(SettingsError) as refused:
        locate(url)
    assert str(refused.value).startswith(reason)
    assert "secret" not in str(refused.value).partition(": a ")[0]
    assert str(locate("s3://bucket/is it?")) == "s3://bucket/is it?", (
        "a name in a store may hold a question mark"
    )


class _Job(Settings):
    out: Location
    rest: tuple[Location, ...] = ()
    none: Location | None = None


@pytest.mark.parametrize("url", URLS)
@pytest.mark.filterwarnings("ignore:UPath 'webhdfs' filesystem not explicitly implemented")
def test_settings_are_written_without_the_user_and_handed_on_whole(url):
    job = _Job(out=url, rest=(url,))
    assert job.model_dump(mode="json") == {"out": URLS[url], "rest": [URLS[url]], "none": None}
    assert _Job.model_validate_json(job.model_dump_json(context=WHOLE)) == job
    assert overrides_of(job, context=WHOLE)[0] == f'out="{url}"'


def test_a_picture_root_in_the_same_store_is_opened_as_the_same_user():
    folder = locate("sftp://me:secret@host:22/corpus")
    near, far = (inside_store(folder, f"sftp://{host}/pictures") for host in ("host:22", "other"))
    assert (address(near), address(far)) == (
        "sftp://me:secret@host:22/pictures",
        "sftp://other/pictures",
    )


def test_messages_of_libraries_do_not_repeat_a_password():
    said = unreadable(locate("https://me:secret@host/a"), OSError("https://me:secret@host/a: 404"))
    assert str(said) == "https://host/a: cannot be read (https://host/a: 404)"
    record = logging.LogRecord(
        "x", logging.INFO, "", 0, "asked %s", ("https://me:s@cret@host/a",), None
    )
    assert _Safe("%(message)s").format(record) == "asked https://host/a"


@pytest.mark.parametrize("password", ["a'b", 'a"b', "a<b>", "a/b", "a@b", "a/b@c'd", "12a/b"])
@pytest.mark.parametrize(
    "text", ["https://me:{}@judge:8000/v1", "service=s3://me:{}@judge:8000", "me:{}@judge:8000"]
)
def test_every_character_of_a_password_is_removed(password, text):
    for words in ("{}", "asked {} twice", '["{}", 1]', "({}: 404)"):
        whole = words.format(text.format(password))
        assert without_passwords(whole) == words.format(text.replace("me:{}@", ""))


@pytest.mark.parametrize(
    "text",
    [
        "https://judge:8000/v1/a@b", "s3://bucket/a@b", "judge:8000/a@b", "abfs://box@account/x", "me@home",
        "git@github.com:org/name", "rows.jsonl:12: me@home", '["https://judge:8000","me@home"]', '{"a":"b@c"}',
    ],
)  # fmt: skip
def test_text_that_is_not_a_password_stays(text):
    assert without_passwords(text) == text


def test_a_command_is_kept_without_passwords_however_it_is_quoted(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["unijudge", "mine", "score", "service=https://me:a'b\"c@judge:8000"]
    )
    assert Provenance.now().command == "unijudge mine score service=https://judge:8000"


@pytest.mark.parametrize(
    ("word", "safe"),
    [
        ("/home/o'brien/data", "data"),
        ("corpus=/home/o'brien/data", "corpus=data"),
        ("file:///home/o'brien/data", "data"),
        ('scores=["/home/o\'brien/a", "/b/c"]', 'scores=["a", "c"]'),
        ("scores=['/home/me/a']", "scores=['a']"),
        ("it's a/b", "it's a/b"),
    ],
)
def test_published_files_contain_no_location(word, safe):
    assert without_places(word) == safe


def test_the_last_at_before_a_slash_ends_a_password():
    assert without_passwords("service=https://me:p@ss@judge/x") == "service=https://judge/x"
    assert (
        without_passwords('["s3://a/b", "https://k@c"] me@home')
        == '["s3://a/b", "https://c"] me@home'
    )
