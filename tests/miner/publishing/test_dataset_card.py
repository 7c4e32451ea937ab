"""The card of a published dataset: its facts, and no information about the machine that made the dataset."""

import json
import re

import pytest
import yaml

from miner.publishing.dataset_card import FOLDERS, columns
from miner.publishing.publish import publish
from tests.folders import files_of
from tests.promised import check_command, commands
from unijudge.errors import DataError
from unijudge.formats.corpus import CorpusManifest
from unijudge.formats.datasets import pull
from unijudge.formats.inventory import check
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.triples import TripleManifest
from unijudge.provenance import Provenance
from unijudge.settings import Settings
from unijudge.storage.files import file_sha256, publish_json, read_json
from unijudge.storage.locations import Location


def test_the_card_lists_the_contents(parts, tmp_path, identity):
    publish(tmp_path / "colors", *parts, license="cc-by-4.0")
    text = (tmp_path / "colors" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-4.0"
    assert facts["pretty_name"] == "colors"
    assert facts["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in facts["configs"]] == [
        "triples",
        "scores",
        "items",
        "queries",
    ]
    for config in facts["configs"]:
        assert list((tmp_path / "colors").glob(config["data_files"])), config
    for said in (
        f"| model | {identity.model} |", f"| prompt_fingerprint | {identity.prompt_fingerprint} |",
        "| suspect positives | 0 |", "| preset | paper |", "| imported from | test \\| here |", "holds 3 images",
        "cc-by-4.0, as stated by the publisher of this dataset", "| `negatives[].beta` | float |",
        "unijudge train pull URL-OF-THIS-DATASET dataset",
    ):  # fmt: skip
        assert said in body, said


def test_the_code_of_the_card_runs(parts, tmp_path, monkeypatch, capsys):
    """The code runs without a change."""
    publish(tmp_path / "dataset", *parts)
    (code,) = re.findall(
        r"```python\n(.+?)```", (tmp_path / "dataset" / "README.md").read_text(), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102
    rows, names = capsys.readouterr().out.split(maxsplit=1)
    assert int(rows) == 3
    assert "negatives" in names


@pytest.mark.parametrize("kept", [(0, 1, 2), (0, 1)])
def test_the_cards_commands_settings_and_routes_exist(parts, tmp_path, kept):
    """Every command and every setting on the card exists in this program."""
    publish(
        tmp_path / "dataset", *(part if place in kept else None for place, part in enumerate(parts))
    )
    text = (tmp_path / "dataset" / "README.md").read_text()
    assert [words[:2] for words in commands(text)][:2] == [["train", "pull"], ["check", "dataset"]]
    for words in commands(text):
        check_command([word for word in words if word != "..."])


def test_the_card_names_missing_parts(parts, tmp_path):
    publish(tmp_path / "rows", parts[0], None, parts[2], images=False)
    text = (tmp_path / "rows" / "README.md").read_text()
    assert "The dataset does not contain the images" in text
    assert str(tmp_path) not in text
    assert "license:" not in text
    assert "stated no licence" in text
    assert "## The judge" not in text
    assert check(tmp_path / "rows").endswith("scored dataset, whole: 6 files read")
    assert (
        json.loads((tmp_path / "rows" / "corpus" / "corpus.json").read_text())["images"]
        == "../images"
    )
    with pytest.raises(
        DataError,
        match=r"cannot be read, because .*rows/images does not exist\. A dataset may be published",
    ):
        check(tmp_path / "rows" / "corpus")


@pytest.mark.parametrize("name", FOLDERS)
def test_every_column_has_a_meaning(name):
    described = {column: meaning for column, _, meaning in columns(FOLDERS[name].table)}
    assert set(FOLDERS[name].table.schema.names) <= set(described)
    assert all(described.values())


@pytest.mark.parametrize("was", [None, "s3://bucket/corpus-of-mine"])
def test_no_path_of_this_machine_is_published(parts, tmp_path, monkeypatch, was):
    """Text files and tables contain no such path: not in the command, in the settings or in the source."""
    corpus, scores, triples = parts
    words = [f"corpus={corpus}", f'reuse=["{scores}"]', str(corpus), "https://me:secret@host/x"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/unijudge", "mine", "score", *words])
    made = Provenance.now(_Settings(corpus=corpus, other=(str(scores), "a/b", "s3://bucket/x")))
    for folder, name, kind in [
        (corpus, "corpus.json", CorpusManifest), (scores, "manifest.json", ScoreManifest),
        (triples, "triples.json", TripleManifest),
    ]:  # fmt: skip
        found = read_json(folder / name, kind).model_copy(update={"made": made})
        if kind is CorpusManifest:
            found = found.model_copy(update={"source": f"{tmp_path}/pairs.jsonl (original)"})
        if kind is TripleManifest:
            new = {"corpus": was or str(corpus), "scores": [str(scores)], "preset": "paper"}
            sha = file_sha256(scores / "manifest.json")
            found = found.model_copy(update={"selection": new, "scores": sha})
        publish_json(folder / name, found)
    publish(tmp_path / "out", corpus, scores, triples)
    for name, data in files_of(tmp_path / "out").items():
        assert str(tmp_path).encode() not in data, name
        assert b"secret" not in data, name
    published = tmp_path / "out"
    assert check(published).endswith("scored dataset, whole: 12 files read")
    assert check(published / "triples").endswith("triples, whole: 3 rows read")
    kept = read_json(published / "corpus" / "corpus.json", CorpusManifest)
    assert kept.source == "pairs.jsonl (original)"
    assert kept.made.command == (
        "unijudge mine score corpus=corpus 'reuse=[\"scores\"]' corpus https://host/x"
    )
    assert kept.made.settings == {"corpus": "corpus", "other": ["scores", "a/b", "s3://bucket/x"]}
    assert read_json(published / "triples" / "triples.json", TripleManifest).selection == {
        "corpus": "corpus", "scores": ["scores"], "preset": "paper",
    }  # fmt: skip
    pull(published, tmp_path / "pulled")
    assert check(tmp_path / "pulled").endswith("scored dataset, whole: 12 files read")


class _Settings(Settings):
    corpus: Location
    other: tuple[str, ...]


def test_the_hubs_library_reads_every_table_by_the_card(parts, tmp_path):
    """The configurations of the card name the files of each table.

    Without them, the library would read all files as one table, and their columns differ.
    """
    datasets = pytest.importorskip("datasets")
    publish(tmp_path / "colors#1", *parts)
    for name, rows in {"triples": 3, "scores": 3, "items": 3, "queries": 3}.items():
        read = datasets.load_dataset(
            str(tmp_path / "colors#1"), name, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert (read.num_rows, read.column_names) == (rows, FOLDERS[name].table.schema.names)
