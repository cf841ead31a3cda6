"""A program against the client that openapi-python-client makes of openapi/holdfast.json: an operator's errand.

  program.py URL    with the administrator's token in HOLDFAST_TOKEN

Makes a cluster, sessions that wait for their clients, lists them page by page, changes one unless it has
changed meanwhile, and deletes what it made. Every answer is read by the generated models, and mypy holds this file
against their types. It prints what it did.
"""

import os
import sys
from http import HTTPStatus
from typing import TypeVar

from holdfast_client import AuthenticatedClient
from holdfast_client.api.clusters import create_cluster, delete_cluster, get_quota, put_quota
from holdfast_client.api.sessions import delete_session, get_session, list_sessions, patch_session, put_session
from holdfast_client.models import (
    ClusterCreate,
    Code,
    Ended,
    ExpiryInterval,
    ExpirySource,
    Labels,
    PageSession,
    PlanName,
    Problem,
    QuotaOverrides,
    Session,
    SessionPatch,
    SessionPut,
    SessionPutSubscriptions,
    SessionState,
    SubscriptionOptions,
)
from holdfast_client.types import UNSET, Response, Unset

CLUSTER = "generated"
PAGE_SIZE = 2

T = TypeVar("T")


def good(answer: Response[Problem | T], *statuses: HTTPStatus) -> T:
    """What was answered, when it is no problem and nothing that the specification does not tell of."""
    parsed = answer.parsed
    if isinstance(parsed, Problem):
        raise SystemExit(f"{parsed.status} {parsed.code.value}: {parsed.detail}")
    if parsed is None or answer.status_code not in statuses:
        raise SystemExit(f"{answer.status_code}: {answer.content!r}")
    return parsed


def problem(answer: Response[Problem | T]) -> Problem:
    """What went wrong, when something should."""
    if not isinstance(answer.parsed, Problem):
        raise SystemExit(f"{answer.status_code} is no problem: {answer.content!r}")
    return answer.parsed


def make(client: AuthenticatedClient, client_id: str) -> Session:
    """A session that waits for its client."""
    subscriptions = SessionPutSubscriptions()
    subscriptions["site/+/update"] = SubscriptionOptions(qos=1)
    labels = Labels()
    labels["site"] = "north"
    body = SessionPut(expiry=ExpiryInterval(3600), labels=labels, subscriptions=subscriptions)
    session = put_session.sync(CLUSTER, client_id, client=client, body=body)
    assert isinstance(session, Session), session
    return session


def pages(client: AuthenticatedClient) -> list[PageSession]:
    """The sessions of the site, page by page."""
    found: list[PageSession] = []
    token: str | Unset = UNSET
    while True:
        page = good(
            list_sessions.sync_detailed(
                CLUSTER,
                client=client,
                state=SessionState.OFFLINE,
                label="site=north",
                page_size=PAGE_SIZE,
                page_token=token,
            ),
            HTTPStatus.OK,
        )
        found.append(page)
        token = page.next_page_token
        if isinstance(token, Unset):
            return found


def main() -> None:
    client = AuthenticatedClient(sys.argv[1], os.environ["HOLDFAST_TOKEN"], raise_on_unexpected_status=True)

    to_make = ClusterCreate(CLUSTER, plan=PlanName.PRO)
    cluster = good(create_cluster.sync_detailed(client=client, body=to_make), HTTPStatus.CREATED)
    print(f"cluster {cluster.id} on {cluster.plan}")

    made = [make(client, f"meter-{n}") for n in range(5)]
    print("made", *(f"{session.client_id}:{session.subscription_count}" for session in made))
    print("pages", *("+".join(session.client_id for session in page.items) for page in pages(client)))

    read = get_session.sync_detailed(CLUSTER, "meter-0", client=client)
    good(read, HTTPStatus.OK)
    etag = read.headers["ETag"]
    sooner = SessionPatch(expiry=ExpiryInterval(60))
    patched = good(
        patch_session.sync_detailed(CLUSTER, "meter-0", client=client, body=sooner, if_match=etag), HTTPStatus.OK
    )
    assert patched.expiry_source is ExpirySource.OPERATOR, patched
    assert patched.expires_at is not None and made[0].expires_at is not None, patched
    assert patched.expires_at < made[0].expires_at, patched
    print("patched", patched.expiry_interval_seconds)

    late = problem(
        patch_session.sync_detailed(CLUSTER, "meter-0", client=client, body=sooner, if_match=etag)
    )
    assert late.code is Code.PRECONDITION_FAILED, late
    print("again", late.status, late.code.value)

    read_quota = get_quota.sync_detailed(CLUSTER, client=client)
    good(read_quota, HTTPStatus.OK)
    quota = good(
        put_quota.sync_detailed(
            CLUSTER, client=client, body=QuotaOverrides(connections=10), if_match=read_quota.headers["ETag"]
        ),
        HTTPStatus.OK,
    )
    print("quota", quota.connections.limit, quota.connections.source.value)

    ended = delete_session.sync(CLUSTER, "meter-0", client=client)
    assert isinstance(ended, Ended), ended
    gone = problem(get_session.sync_detailed(CLUSTER, "meter-0", client=client))
    print("deleted", gone.status, gone.code.value)

    deleted = delete_cluster.sync_detailed(CLUSTER, client=client)
    print("cluster deleted", deleted.status_code.value)


main()
