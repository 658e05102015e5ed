"""One commit that makes a repository what a package is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from i3dzoo.errors import I3DZooError, PushError
from i3dzoo.hub import client
from i3dzoo.hub.address import MAIN
from i3dzoo.hub.client import understood
from i3dzoo.hub.package import ONNX, PICTURES, Package

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

__all__ = ["Pushed", "push"]


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        repository: `USER/NAME`.
        commit: The new commit, or the old one where nothing differed.
        url: Its page.
        tag: That names it, if one was asked for.
    """

    repository: str
    commit: str
    url: str
    tag: str | None = None


def push(
    package: Package,
    repository: str,
    *,
    private: bool = False,
    tag: str | None = None,
    message: str | None = None,
    parent: str | None = None,
    branch: str = MAIN,
    token: str | bool | None = None,
) -> Pushed:
    """Push a package in one commit, on top of what is there when the push begins.

    A repository that does not exist is made. Large files are sent first; nobody sees them before
    the commit, so a push that is interrupted leaves the branch as it was. Of two pushes at once the
    later one fails. What an earlier push put there and this one has not goes: a picture or another
    format of other weights.

    Args:
        package: From `prepare`.
        repository: `USER/NAME`.
        private: Make it private; one that exists must be so already.
        tag: Name the commit so.
        message: First line of the commit's message.
        parent: Commit that the branch must be at; None takes the one that it is at.
        branch: That takes the commit.
        token: Of the Hub; None takes that of this machine.

    Raises:
        PushError: The Hub does not take it; the message says why.
        OfflineError: HF_HUB_OFFLINE is set.
    """
    api = client.api(token)
    text = message or f"Push {package.metadata.zoo or 'I3D'} with i3dzoo"
    with understood(repository, PushError):
        api.create_repo(repository, private=True if private else None, exist_ok=True)
        info = api.model_info(repository, revision=branch)
        if private and not info.private:
            raise PushError(
                f"{repository}: is public already, and --private was asked for; "
                "make it private on its page first, or leave --private out"
            )
        if tag:
            _check_tag(api, repository, tag)
        present = {file.rfilename for file in info.siblings or []}
        commit = api.create_commit(
            repository,
            _operations(package, present),
            commit_message=text,
            revision=branch,
            parent_commit=parent or info.sha,
        )
    if tag:
        _tag(api, repository, tag, commit.oid)
    return Pushed(repository, commit.oid, commit.commit_url, tag)


def _operations(
    package: Package, present: set[str]
) -> "list[CommitOperationAdd | CommitOperationDelete]":
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = {name for name, _, _ in package.files}
    stale = sorted((present & {ONNX, *PICTURES}) - names)
    return [
        *(CommitOperationAdd(name, package.folder / name) for name in sorted(names)),
        *(CommitOperationDelete(name) for name in stale),
    ]


def _check_tag(api: "HfApi", repository: str, tag: str) -> None:
    for found in api.list_repo_refs(repository).tags:
        if found.name == tag:
            raise PushError(
                f"{repository}: has a tag {tag} already, on commit {found.target_commit[:8]}; "
                "choose another, nothing was pushed"
            )


def _tag(api: "HfApi", repository: str, tag: str, commit: str) -> None:
    try:
        with understood(repository, PushError):
            api.create_tag(repository, tag=tag, revision=commit)
    except I3DZooError as error:
        raise PushError(
            f"{error}; the files were pushed as commit {commit[:8]}, only the tag {tag} is missing"
        ) from error
