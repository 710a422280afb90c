"""Fetches published models from the Hugging Face Hub into its cache; uploads models and tables.

The list of files to fetch is fixed here, not by the repository, and a file is fetched only after
its size has been checked. The library handles tokens: HF_TOKEN, or `hf auth login`.
"""

import re
from pathlib import Path
from typing import NamedTuple

from jaxvae.config.paths import user_path
from jaxvae.data.readers.hub.client import held_offline, quiet, unreachable
from jaxvae.errors import InputError, one_line
from jaxvae.export import hub_files
from jaxvae.export.user_classes import check_trusted

PREFIX = "hf://"
_COMMIT = re.compile("[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
_LOGIN = "log in (hf auth login, or HF_TOKEN)"


class Contents(NamedTuple):
    """Contents of a repository.

    Attributes:
      kind: the Hub's name of such repositories, "model" or "dataset".
      message: the commit's.
      outdated: patterns of files that an earlier upload may have left.
    """

    kind: str
    message: str
    outdated: tuple[str, ...]


MODEL = Contents("model", "The model, its card and its pictures", ("*.png", "metrics.json"))
TABLE = Contents("dataset", "The table, its record and its card", ())


def is_address(path: object) -> bool:
    """Tests whether a path is the address of a model on the Hub: it begins with `hf://`."""
    return isinstance(path, str) and path.startswith(PREFIX)


def refuse_published(path: str, command: str) -> None:
    """Raises InputError if a path is a published model, by address or folder, and not a run."""
    if is_address(path) or hub_files.is_published(user_path(path)):
        raise InputError(
            f"{path}: {command} reads a run's folder; a published model has neither rows nor "
            f"history. Give the folder of the run that trained it"
        )


def check_repository(name: str) -> None:
    """Raises InputError unless `name` is a valid repository name, "user/name"."""
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name or len(name) > 96:
        raise InputError(f"{name[:100]!r}: a repository on the Hub is named user/name")


def check_revision(revision: str) -> None:
    """Raises InputError unless `revision` is a valid name of a branch, a tag or a commit."""
    if not _REVISION.fullmatch(revision) or {".", ".."} & set(revision.split("/")):
        raise InputError(f"{revision[:100]!r}: not a branch, a tag or a commit")


def fetch(address: str, *, trust_code: bool = False) -> tuple[Path, str]:
    """Downloads a published model's files into the Hub's cache.

    Args:
      address: `hf://user/name`, optionally followed by `@` and a branch, tag or commit.
      trust_code: whether code of a user's own that the model carries may run.

    Returns:
      (the files' folder, their commit).

    Raises:
      InputError: the address is invalid, the repository or revision does not exist or may not be
        read, it is not a jaxvae model, it needs code that may not run, or the Hub is unreachable
        and the files are not cached.
    """
    repository, separator, revision = address.removeprefix(PREFIX).partition("@")
    check_repository(repository)
    if separator:
        check_revision(revision)
    hub = _import_hub()
    offline = bool(hub.constants.HF_HUB_OFFLINE)
    trouble = "HF_HUB_OFFLINE is set" if offline else unreachable(hub.constants.ENDPOINT)
    with quiet("huggingface_hub"), held_offline([hub.constants], bool(trouble)):
        try:
            where = repository, revision or "main", address
            return _fetch(hub, *where, local=bool(trouble), trust_code=trust_code)
        except InputError:
            raise
        except Exception as error:  # Includes exceptions of the library's HTTP client.
            reason = _explain(hub, error, repository, revision, trouble)
            raise InputError(f"cannot load {address}: {reason}") from error


def _fetch(
    hub, repository: str, revision: str, address: str, *, local: bool, trust_code: bool
) -> tuple[Path, str]:
    limits = dict(hub_files.LIMITS)
    folder = Path()
    for name in hub_files.LIMITS:
        if not local:
            size = hub.get_hf_file_metadata(
                hub.hf_hub_url(repository, name, revision=revision)
            ).size
            if size is None or size > limits[name]:
                stated = "unknown" if size is None else f"{size:,} bytes"
                raise InputError(
                    f"cannot load {address}: the size of {name} is {stated}; a model of its config "
                    f"has at most {limits[name]:,}"
                )
        path = Path(
            hub.hf_hub_download(repository, name, revision=revision, local_files_only=local)
        )
        # The first file resolves the branch to its commit; all other files come from that commit.
        folder, revision = path.parent, path.parent.name
        if not _COMMIT.fullmatch(revision):
            raise InputError(f"cannot load {address}: the Hub names no commit")
        if name == hub_files.CONFIG:
            content, config = hub_files.read_config(folder, address)
            check_trusted(config["model"], address, trusted=trust_code)
        elif name == hub_files.TAXONOMY:
            taxonomy = hub_files.read_taxonomy(folder, content, address)
            limits[hub_files.WEIGHTS] = hub_files.largest_weights(config, taxonomy.num_tags)
    return folder, revision


def upload(
    folder: Path,
    repository: str,
    *,
    private: bool,
    revision: str | None,
    contents: Contents = MODEL,
) -> str:
    """Commits a folder's files to a repository, which is created if missing.

    Args:
      folder: a folder written by `publish.write_folder`, or as `contents` says.
      repository: "user/name".
      private: make a new repository private; an existing one must then be private already.
      revision: the branch, created if missing; None is the main one.
      contents: of the folder.

    Returns:
      The commit.

    Raises:
      InputError: the Hub is unreachable or refuses.
    """
    check_repository(repository)
    if revision is not None:
        check_revision(revision)
    hub = _import_hub()
    if hub.constants.HF_HUB_OFFLINE:
        raise InputError(f"cannot push to {repository}: HF_HUB_OFFLINE is set")
    if trouble := unreachable(hub.constants.ENDPOINT):
        raise InputError(f"cannot push to {repository}: {trouble}")
    api = hub.HfApi(library_name="jaxvae")
    with quiet("huggingface_hub"):
        try:
            kind = contents.kind
            api.create_repo(repository, private=private or None, exist_ok=True, repo_type=kind)
            if private and not api.repo_info(repository, repo_type=kind).private:
                raise InputError(f"{repository} exists and is public; nothing was uploaded")
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True, repo_type=kind)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                repo_type=kind,
                revision=revision,
                commit_message=contents.message,
                delete_patterns=list(contents.outdated) or None,
            )
        except InputError:
            raise
        except Exception as error:
            reason = _explain(hub, error, repository, revision, "")
            raise InputError(f"cannot push to {repository}: {reason}") from error
    return commit.oid


def _import_hub():
    import huggingface_hub
    from huggingface_hub import constants, errors

    del constants, errors  # Imported because the package loads these submodules lazily.
    return huggingface_hub


def _explain(hub, error: Exception, repository: str, revision: str | None, trouble: str) -> str:
    """Explains an error of the Hub on one line, with a remedy."""
    errors = hub.errors
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{trouble or one_line(error)}, and it is not in the cache"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated: accept its terms on its page on the Hub, then {_LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision or 'main'!r}"
    if isinstance(error, errors.EntryNotFoundError):
        return "not a jaxvae model: it lacks one of " + ", ".join(hub_files.LIMITS)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return f"no such repository on the Hub, or it is private; check the spelling, or {_LOGIN}"
    if status == 401:
        return f"the Hub knows no such token; {_LOGIN}"
    if status == 403:
        return f"the token may not do this with {repository}; {_LOGIN} with one that may"
    return one_line(error, kind=True)
