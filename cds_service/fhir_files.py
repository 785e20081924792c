"""The FHIR JSON files of the content as far as they are read; a wrong shape is named by place."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from cds_service.errors import ContentError


class _Read(Struct, rename="camel"):
    """A part of a FHIR resource; members that are not read are let pass, `check` validates them."""


class ExtensionFile(_Read):
    url: str
    value_string: str = ""
    value_code: str = ""


class ConceptFile(_Read):
    code: str
    display: str = ""


class FilterFile(_Read):
    op: str
    value: str


class IncludeFile(_Read):
    system: str = ""
    concept: list[ConceptFile] = []
    filter: list[FilterFile] = []
    value_set: list[str] = []


class ComposeFile(_Read):
    include: list[IncludeFile] = []
    exclude: list[IncludeFile] = []


class ContainsFile(_Read):
    system: str
    code: str


class ExpansionFile(_Read):
    contains: list[ContainsFile] = []


class ValueSetFile(_Read):
    """A ValueSet, enumerated or by prefix."""

    resource_type: str
    id: str
    url: str
    version: str
    title: str
    status: str
    extension: list[ExtensionFile] = []
    compose: ComposeFile = msgspec.field(default_factory=ComposeFile)
    expansion: ExpansionFile = msgspec.field(default_factory=ExpansionFile)


class CodingFile(_Read):
    system: str
    code: str
    display: str = ""


class CodeFile(_Read):
    coding: list[CodingFile]
    text: str = ""


class ActivityDefinitionFile(_Read):
    """An order template."""

    resource_type: str
    id: str
    url: str
    title: str
    kind: str
    code: CodeFile
    dynamic_value: Any = None
    library: Any = None
    transform: Any = None


K = TypeVar("K", ValueSetFile, ActivityDefinitionFile)


def read_fhir(path: Path, kind: type[K], root: Path) -> K:
    """The file as far as it is read; raises ContentError naming file and path in it."""
    name = path.relative_to(root).as_posix()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at ")
        raise ContentError(name, where.strip("`").removeprefix("$.") or "top level", why) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContentError(name, "", f"is not JSON: {error}") from error
    resource_type = kind.__name__.removesuffix("File")
    if found.resource_type != resource_type or found.id != path.stem:
        why = f'must be a {resource_type} with id "{path.stem}", the file\'s name'
        raise ContentError(name, "id", why)
    return found
