"""What mypy must refuse, each line in its own way; the test compares. Without that, a client whose every type is
unknown would pass too.
"""

from holdfast_client import AuthenticatedClient
from holdfast_client.api.clusters import put_quota
from holdfast_client.api.sessions import get_session
from holdfast_client.models import Code, QuotaOverrides, Session


def misuse(client: AuthenticatedClient, session: Session) -> None:
    print(session.expires)  # attr-defined
    print(session.expires_at.year)  # union-attr
    print(Code.NO_SUCH_CODE)  # attr-defined
    put_quota.sync("default", client=client, body=QuotaOverrides())  # call-arg
    get_session.sync("default", 7, client=client)  # arg-type
