"""Read-only settings, from a TOML file and from `a.b=c` on the command line. An unknown key is an error.

The environment is never read. The docstring of a field is its description, and `example` prints all fields as a
commented TOML file.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from unijudge.errors import DataError, SettingsError
from unijudge.shown import LONGEST, NAMED, listed, shown_name
from unijudge.storage.files import read_text


class Settings(BaseModel):
    """The base class of every group of settings: frozen, without unknown keys, with docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy with some values changed. The new values are not validated.

        Raises:
            TypeError: A name is not a setting. Pydantic would silently keep its value.
        """
        kind = type(self)
        unknown = set(update or {}) - set(kind.model_fields)
        if unknown:
            raise TypeError(f"{kind.__name__} has no setting {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


S = TypeVar("S", bound=Settings)
COMMAND_LINE = "command line"
"""The name of the command line in an error, as the source of a faulty value."""


def load_settings(kind: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Reads a TOML file, applies the overrides in order, and validates the result.

    Args:
        kind: The settings class.
        path: The TOML file; None for the defaults.
        overrides: Settings as `dotted.key=value`. A value is read as TOML (`8`, `0.5`, `true`, `["a"]`), else as a
            list of words without quotes (`[a,b]`), else as a string.

    Raises:
        SettingsError: The file is missing or not TOML, a key is unknown (the message names the nearest known key), or a
            value is invalid. The message lists the faults.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(read_text(path))
        except DataError as error:
            raise SettingsError(f"{error}. Check the path of the settings file") from error
        except (ValueError, RecursionError) as error:
            raise SettingsError(
                f"{path}: not valid TOML ({error}). Strings need quotes, tables [brackets]"
            ) from error
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines, faults = [], error.errors()
        for fault in faults[:NAMED]:
            place = _place(fault["loc"], path, overrides)
            lines.append(f"{place}: {_explain(kind, fault['loc'], fault['type'], fault['msg'])}")
        if len(faults) > NAMED:
            lines.append(f"and {len(faults) - NAMED:,} more faults")
        raise SettingsError("\n".join(lines)) from error


def example(kind: type[Settings]) -> str:
    """Returns the settings of `kind` as a TOML file: every key with its meaning, unit and default.

    Optional keys without a default are commented out. Required keys are marked.

    Example:
        >>> from pydantic import Field
        >>> class Bench(Settings):
        ...     timeout_s: float = Field(2.5, description="How long to wait, in seconds.")
        >>> print(example(Bench), end="")
        # How long to wait, in seconds.
        timeout_s = 2.5
    """
    return "\n".join(_example_lines(kind, prefix="")) + "\n"


def overrides_of(settings: Settings, context: dict[str, str] | None = None) -> list[str]:
    """Returns the overrides that turn the defaults into these settings. `load_settings` reads them back.

    Args:
        settings: The settings.
        context: The context of pydantic's serialisation; see `unijudge/storage/locations.py`.

    Example:
        >>> class Bench(Settings):
        ...     sizes: tuple[int, ...] = (1,)
        ...     name: str = "a"
        >>> overrides_of(Bench(sizes=(1, 2)))
        ['sizes=[1, 2]']
    """
    values = settings.model_dump(mode="json", exclude_defaults=True, context=context)
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in flattened(values)]


def flattened(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted names and the values of nested tables.

    Example:
        >>> list(flattened({"steps": 3, "lora": {"rank": 8}}))
        [('steps', 3), ('lora.rank', 8)]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, raw = override.partition("=")
    if not separator or not key.strip():
        raise SettingsError(f"{shown_name(override)}: expected key=value, as in batch_size=8")
    value = _value(raw)
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise SettingsError(
                f"{shown_name(override)}: {shown_name(table)} is a value, not a table of settings. Check the key"
            )
    values[last] = value


def _value(raw: str) -> Any:
    """Parses a word as TOML, else as a list of words in brackets, else as a text.

    Example:
        >>> _value("[0.1, 0.01]"), _value("[small, large]"), _value("small")
        ([0.1, 0.01], ['small', 'large'], 'small')
    """
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):  # not TOML, or too many digits or nested brackets
        inner = raw.strip()[1:-1]
        if raw.strip() == f"[{inner}]" and not {"[", "]", '"'} & set(inner):
            return [word.strip() for word in inner.split(",")]
        return raw


def _place(location: tuple[int | str, ...], path: Path | None, overrides: Sequence[str]) -> str:
    """Returns the source of a value: the file, the command line, or both if an override set only part of the value."""
    place = [str(part) for part in location]
    sets_all, sets_part = False, False
    for override in overrides:
        name = override.partition("=")[0]
        key = name.strip().split(".")
        if key == place[: len(key)]:
            sets_all = True
        elif key[: len(place)] == place:
            sets_part = True

    if sets_all or (sets_part and path is None):
        return COMMAND_LINE
    if sets_part:
        return f"{path} with the {COMMAND_LINE}"
    return str(path or "settings")


def _explain(
    kind: type[Settings], location: tuple[int | str, ...], fault: str, message: str
) -> str:
    key = shown_name(".".join(str(part) for part in location))
    if fault == "extra_forbidden":
        group = _group(kind, location[:-1])
        near = difflib.get_close_matches(str(location[-1])[:LONGEST], list(group.model_fields), n=1)
        if near:
            return f"{key}: unknown setting. Did you mean {near[0]}?"
        known = listed(list(group.model_fields))
        return f"{key}: unknown setting. Known: {known}. See --example"
    if fault in ("model_type", "model_attributes_type"):
        own = [f"{key}.{name}" for name in _group(kind, location).model_fields]
        return f"{key}: is a table of settings. Set a key of this table: {listed(own)}"
    if fault == "string_type":
        return f"{key}: must be a text. Put quotes around a number: '{key}=\"…\"'"
    if fault == "missing":
        return f"{key}: required, and not set"
    return f"{key or 'settings'}: {message[0].lower()}{message[1:]}"


def _group(kind: type[Settings], location: Sequence[int | str]) -> type[Settings]:
    for part in location:
        field = kind.model_fields.get(str(part))
        if field and isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            kind = field.annotation
    return kind


def _example_lines(kind: type[Settings], prefix: str) -> list[str]:
    lines: list[str] = []
    tables: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            doc = [f"# {line}" for line in (inner.__doc__ or "").strip().splitlines()[:1]]
            tables += ["", *doc, f"[{prefix}{name}]", *_example_lines(inner, f"{prefix}{name}.")]
            continue
        lines += [
            f"# {line.strip()}" for line in (field.description or "").splitlines() if line.strip()
        ]
        lines.append(_example_value(name, field))
    return lines + tables


def _example_value(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return f"# {name} =  (required)"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return f"# {name} ="
    if isinstance(default, tuple | frozenset):
        default = list(default)
    return f"{name} = {json.dumps(default, ensure_ascii=False, default=str)}"
