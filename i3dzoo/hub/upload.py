"""Push a package to the Hub as a single commit."""

from dataclasses import dataclass

import huggingface_hub

from i3dzoo.errors import I3DZooError, PushError
from i3dzoo.hub import client
from i3dzoo.hub.address import MAIN, Address
from i3dzoo.hub.answers import read_repository, read_tags
from i3dzoo.hub.failures import translate_errors
from i3dzoo.hub.package import ONNX, PICTURES, Package
from i3dzoo.hub.session import without_xet


@dataclass(frozen=True)
class Pushed:
    """The result of a push."""

    repository: str
    commit: str  # the new commit, or the old one if nothing differed
    url: str  # address of its page
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
    """Push a package in one commit on top of the branch, and create a missing repository.

    Large files are uploaded first and become visible with the commit, so an interrupted push leaves
    the branch unchanged. Of two simultaneous pushes the later one fails. Pictures and other formats
    of an earlier push are deleted if this package does not have them, because they belong to other
    weights.

    Args:
        package: The package, from `prepare`.
        repository: `USER/NAME`.
        private: Make the repository private; an existing one must already be private.
        tag: Name of a new tag for the commit.
        message: First line of the commit message.
        parent: Commit that the branch must be at; None accepts the current one.
        branch: Branch to push to.
        token: Token for the Hub; None uses the one of this machine.

    Raises:
        PushError: The Hub refuses; the message says why.
        OfflineError: HF_HUB_OFFLINE is set.
    """
    with translate_errors(repository, PushError), client.clean_warnings(), without_xet():
        api = client.api(token)
        api.create_repo(repository, private=True if private else None, exist_ok=True)
        info, listed = read_repository(Address(repository, branch), token)
        if private and not info.private:
            raise PushError(
                f"{repository}: is already public, but --private was given; "
                "make it private on its page first, or leave --private out"
            )
        tagged = read_tags(repository, token).get(tag) if tag else None
        if tagged:
            raise PushError(
                f"{repository}: has a tag {tag} already, on commit {tagged[:8]}; "
                "choose another, nothing was pushed"
            )
        names = sorted(name for name, _, _ in package.files)
        extras = listed.keys() & {ONNX, *PICTURES}
        commit = api.create_commit(
            repository,
            [huggingface_hub.CommitOperationAdd(name, package.folder / name) for name in names]
            + [huggingface_hub.CommitOperationDelete(name) for name in sorted(extras - {*names})],
            commit_message=message or f"Push {package.metadata.zoo or 'I3D'} with i3dzoo",
            revision=branch,
            parent_commit=parent or info.sha,
        ).oid
    try:
        with translate_errors(repository, PushError):
            if tag:
                api.create_tag(repository, tag=tag, revision=commit)
    except I3DZooError as error:
        raise PushError(
            f"{error}; the files were pushed as commit {commit[:8]}, only the tag {tag} is missing"
        ) from error
    url = f"{api.endpoint}/{repository}/commit/{commit}"  # not as the server writes it
    return Pushed(repository, commit, url, tag)
