"""Files from people's editors, file managers and shells."""

import base64
import codecs

import pytest
from pydantic import ValidationError

from tests.pictures import png
from unijudge.client.keys import read_key
from unijudge.errors import DataError, SettingsError
from unijudge.formats.model_folders import AdapterConfig
from unijudge.judging.protocol import WireContent
from unijudge.settings import Settings, load_settings
from unijudge.storage.files import folder_sha256, names_in, publishing_folder, read_json, read_text
from unijudge.storage.outputs import check_absent, check_folder


class Bench(Settings):
    """Settings of a test."""

    size: int = 1


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_small_texts_may_begin_with_a_byte_order_mark(tmp_path, mark):
    (tmp_path / "settings.toml").write_bytes(mark + b"size = 3\r\n")
    (tmp_path / "key").write_bytes(mark + b"uj-1\r\n")
    (tmp_path / "a.json").write_bytes(
        mark + b'{"base_model_name_or_path": "x", "peft_type": "LORA"}'
    )
    (tmp_path / "a.txt").write_bytes(mark + b"a\r\nb")
    assert load_settings(Bench, tmp_path / "settings.toml").size == 3
    assert read_key(tmp_path / "key") == "uj-1"
    assert read_json(tmp_path / "a.json", AdapterConfig).peft_type == "LORA"
    assert read_text(tmp_path / "a.txt") == "a\nb"


def test_utf_16_is_named(tmp_path):
    (tmp_path / "settings.toml").write_bytes("size = 3".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"settings\.toml: .*is UTF-16, .*Save it as UTF-8"):
        load_settings(Bench, tmp_path / "settings.toml")
    (tmp_path / "latin").write_bytes("schön".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"latin: is not UTF-8 .byte 0xf6 in line 1.. Save it as UTF-8"
    ):
        read_text(tmp_path / "latin")


def test_files_of_operating_systems_are_ignored(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    before = folder_sha256(out)
    for name in (".DS_Store", "._config.json", "Thumbs.db", "desktop.ini"):
        (out / name).write_bytes(b"\0")
    assert names_in(out) == {"config.json"}
    assert folder_sha256(out) == before
    check_folder(out, {"config.json"})
    (out / "config.json").unlink()
    check_absent(out)
    with publishing_folder(out) as draft:
        (draft / "a.txt").write_text("a")
    assert [path.name for path in out.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "write",
    [
        lambda letters: letters + "\n",
        lambda letters: "\r\n".join(letters[at : at + 76] for at in range(0, len(letters), 76)),
        lambda letters: letters.rstrip("="),
        lambda letters: f"data:image/png;base64,{letters}",
        lambda letters: f" {letters} ",
    ],
)
def test_base64_is_read_in_common_forms(write):
    for data in (png(), png()[:-1], png()[:-2]):
        letters = base64.b64encode(data).decode()
        assert WireContent(image=write(letters)).image == data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://host/a.png", "URLs and paths are never opened"),
        ("ab_-", "uses the URL-safe characters"),
        ("abcde", "is truncated"),
        ("data:image/png,abc", "a data: URL without ;base64"),
        ("ä" * 8, "not base64"),
    ],
)
def test_other_text_is_named(text, reason):
    with pytest.raises(ValidationError, match=reason):
        WireContent(image=text)
