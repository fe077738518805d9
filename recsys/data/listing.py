"""The local files behind a path, in their order, and whether they fit together."""

from pathlib import Path

from recsys.data import delta
from recsys.data.location import SUFFIXES, natural, suffix_of
from recsys.errors import InputError


def list_files(folder: Path, path: str) -> list[Path]:
    """Files of one format, numbers in their names in order of size. Raises InputError where there are none."""
    place = folder / path
    if place.is_file():
        files = [place]
    else:
        found = [place] if place.is_dir() else list(folder.glob(path))
        files = [file for each in found for file in (each.rglob("*") if each.is_dir() else [each]) if file.is_file()]
        files = [file for file in set(files) if not _is_hidden(file.relative_to(folder))]
    if not files:
        raise InputError(f"{place} does not exist or holds no files: name the folder of the raw logs with --data")
    files.sort(key=lambda file: natural(file.as_posix()))
    for file in files:
        suffix = suffix_of(file.name)
        if suffix not in SUFFIXES:
            raise InputError(
                f"{file} has the unknown suffix {suffix!r}: `path` must lead to {', '.join(SUFFIXES)} files only, text and "
                "NDJSON also with .gz or .zst behind"
            )
        if suffix != suffix_of(files[0].name):
            raise InputError(f"{file} has another format than {files[0]}: narrow `path` to one, as in {path}/*{suffix}")
    for above in {folder / parent for file in files for parent in file.relative_to(folder).parents}:
        if above != place and delta.is_table(above):
            raise InputError(f"{above} is a Delta table, not all of whose files are part of it: set `path` to it alone")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
