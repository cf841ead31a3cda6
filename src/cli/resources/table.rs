//! The resources that commands work on, and what can be done to each: a row here is a command.

use super::{Does, How, Resource, Verb};
use crate::cli::remote::Column;

const LIST: Verb =
    Verb { name: "list", about: "List them", of_one: false, below: &[], does: Does::List(&[]) };
const GET: Verb = Verb { name: "get", about: "Show one", of_one: true, below: &[], does: Does::Show };
const CREATE: Verb = Verb {
    name: "create",
    about: "Make one, of a JSON file",
    of_one: false,
    below: &[],
    does: Does::Change(How::PostBody),
};
const PUT: Verb = Verb {
    name: "put",
    about: "Replace one, or make it, by a JSON file",
    of_one: true,
    below: &[],
    does: Does::Change(How::Put),
};
const PATCH: Verb = Verb {
    name: "patch",
    about: "Change what a JSON file names",
    of_one: true,
    below: &[],
    does: Does::Change(How::Patch),
};
const DELETE: Verb =
    Verb { name: "delete", about: "Delete one", of_one: true, below: &[], does: Does::Change(How::Delete) };

const fn list(columns: &'static [Column]) -> Verb {
    Verb { does: Does::List(columns), ..LIST }
}

const fn whole(columns: &'static [Column]) -> Verb {
    Verb { does: Does::ListWhole(columns), ..LIST }
}

const fn resource(name: &'static str, about: &'static str, verbs: &'static [Verb]) -> Resource {
    Resource { name, about, path: name, in_cluster: true, id: "ID", verbs }
}

const fn global(resource: Resource) -> Resource {
    Resource { in_cluster: false, ..resource }
}

/// Every resource, in the order of the help.
pub(super) const ALL: &[Resource] = &[
    resource(
        "quota",
        "What a cluster may use",
        &[
            Verb { about: "Show limits, what sets them and what is used", of_one: false, ..GET },
            Verb {
                about: "Replace what the cluster sets over its plan, by a JSON file",
                of_one: false,
                ..PUT
            },
        ],
    ),
    resource(
        "usage",
        "How many connections a cluster has, and had",
        &[
            Verb { about: "Show the counts, now or at a time (-p at=TIME)", of_one: false, ..GET },
            Verb {
                name: "history",
                about: "List peak and 95th percentile by the hour",
                below: &["history"],
                ..list(&[
                    ("HOUR", "/hour"),
                    ("LIMIT", "/limit"),
                    ("TOTAL PEAK", "/total/peak"),
                    ("TOTAL P95", "/total/p95"),
                    ("ONLINE PEAK", "/online/peak"),
                    ("ONLINE P95", "/online/p95"),
                ])
            },
        ],
    ),
    resource(
        "refusals",
        "What clients were refused, and why",
        &[list(&[
            ("LAST", "/last_at"),
            ("CLIENT ID", "/client_id"),
            ("KIND", "/kind"),
            ("REASON", "/reason"),
            ("CODE", "/code"),
            ("COUNT", "/count"),
            ("DETAIL", "/detail"),
        ])],
    ),
    resource(
        "admission-checks",
        "Whether a client would get in",
        &[Verb { name: "check", about: "Ask with a CONNECT that is described in a JSON file", ..CREATE }],
    ),
    resource(
        "events",
        "What happens to sessions",
        &[Verb {
            name: "follow",
            about: "Print events as they are committed (-p since=SEQ: those after that one, too)",
            does: Does::Follow,
            ..LIST
        }],
    ),
    Resource {
        id: "USERNAME",
        ..resource(
            "users",
            "Whom clients may prove to be",
            &[
                list(&[
                    ("USERNAME", "/username"),
                    ("SUPERUSER", "/is_superuser"),
                    ("CREATED", "/created_at"),
                    ("UPDATED", "/updated_at"),
                ]),
                GET,
                PUT,
                DELETE,
            ],
        )
    },
    resource(
        "block-rules",
        "Clients that are kept out",
        &[
            list(&[
                ("ID", "/id"),
                ("SUBJECT", "/subject"),
                ("PATTERN", "/pattern"),
                ("EXPIRES", "/expires_at"),
                ("REASON", "/reason"),
            ]),
            GET,
            CREATE,
            PUT,
            DELETE,
        ],
    ),
    Resource {
        path: "authorization-policies",
        ..resource(
            "policies",
            "What clients may do",
            &[
                list(&[
                    ("ID", "/id"),
                    ("PRIORITY", "/priority"),
                    ("EFFECT", "/effect"),
                    ("ACTIONS", "/actions"),
                    ("RESOURCES", "/resources"),
                    ("DESCRIPTION", "/description"),
                ]),
                GET,
                CREATE,
                PUT,
                DELETE,
            ],
        )
    },
    resource(
        "authenticators",
        "How clients are known, link by link",
        &[
            list(&[
                ("ID", "/id"),
                ("POSITION", "/position"),
                ("KIND", "/kind"),
                ("ENABLED", "/enabled"),
                ("ALLOWED", "/asked/allowed"),
                ("DENIED", "/asked/denied"),
                ("FAILURES", "/asked/failures"),
                ("LAST FAILURE", "/asked/last_failure"),
            ]),
            GET,
            CREATE,
            PUT,
            DELETE,
        ],
    ),
    resource(
        "message-rules",
        "What is added to messages",
        &[
            list(&[
                ("ID", "/id"),
                ("PRIORITY", "/priority"),
                ("NAME", "/name"),
                ("ENABLED", "/enabled"),
                ("CONDITION", "/condition"),
                ("EFFECTS", "/effects"),
            ]),
            GET,
            CREATE,
            PUT,
            DELETE,
        ],
    ),
    resource(
        "auto-subscriptions",
        "What clients are subscribed to when they connect",
        &[
            list(&[
                ("ID", "/id"),
                ("CLIENT ID", "/client_id"),
                ("USERNAME", "/username"),
                ("FILTER", "/filter"),
                ("QOS", "/qos"),
                ("DESCRIPTION", "/description"),
            ]),
            GET,
            CREATE,
            PUT,
            DELETE,
        ],
    ),
    Resource {
        id: "GROUP",
        ..resource(
            "shared-groups",
            "Shared subscriptions, by their whole filters",
            &[
                list(&[
                    ("GROUP", "/group"),
                    ("MEMBERS", "/members"),
                    ("ONLINE", "/members_online"),
                    ("LAG", "/lag"),
                    ("UNACKNOWLEDGED", "/unacknowledged"),
                    ("STRATEGY", "/strategy"),
                ]),
                GET,
                PUT,
                Verb { about: "End one (-p force=true: though it has members)", ..DELETE },
                Verb {
                    name: "move",
                    about: "Have one go on elsewhere, as a JSON file says",
                    of_one: true,
                    below: &["progress"],
                    ..CREATE
                },
            ],
        )
    },
    resource(
        "webhooks",
        "Where events are delivered to",
        &[
            list(&[
                ("ID", "/id"),
                ("NAME", "/name"),
                ("URL", "/url"),
                ("ENABLED", "/enabled"),
                ("LAG", "/delivery/lag"),
                ("DEAD LETTERS", "/delivery/dead_letters"),
                ("LAST ERROR", "/delivery/last_error"),
            ]),
            GET,
            CREATE,
            PATCH,
            DELETE,
            Verb {
                name: "dead-letters",
                about: "List what was given up",
                of_one: true,
                below: &["dead-letters"],
                ..list(&[
                    ("SEQ", "/seq"),
                    ("DIED", "/died_at"),
                    ("ATTEMPTS", "/attempts"),
                    ("ERROR", "/error"),
                ])
            },
            Verb {
                name: "retry",
                about: "Deliver what was given up once more",
                of_one: true,
                below: &["dead-letters", "retry"],
                does: Does::Change(How::Post),
            },
        ],
    ),
    global(resource(
        "api-keys",
        "What programs send in place of a token",
        &[
            list(&[
                ("ID", "/id"),
                ("NAME", "/name"),
                ("ROLE", "/role"),
                ("CLUSTER", "/cluster"),
                ("EXPIRES", "/expires_at"),
                ("REVOKED", "/revoked_at"),
                ("LAST USED", "/last_used_at"),
            ]),
            GET,
            Verb { about: "Make one, of a JSON file; the key is shown this once", ..CREATE },
            Verb { name: "revoke", about: "Take one back", ..DELETE },
        ],
    )),
    global(resource(
        "operations",
        "Work that outlasts its request",
        &[
            GET,
            Verb { name: "wait", about: "Wait until one has ended, and show it", does: Does::Wait, ..GET },
            Verb {
                name: "cancel",
                about: "End one; what is not done yet is not done",
                of_one: true,
                below: &["cancel"],
                does: Does::Change(How::Post),
            },
            Verb {
                name: "sessions",
                about: "List its sessions, and what became of each",
                of_one: true,
                below: &["sessions"],
                ..list(&[("CLIENT ID", "/client_id"), ("OUTCOME", "/outcome"), ("SESSION ID", "/session_id")])
            },
        ],
    )),
    global(resource(
        "audit-log",
        "Who asked for which change, and what became of it",
        &[list(&[
            ("AT", "/at"),
            ("ACTOR", "/actor"),
            ("OPERATION", "/operation"),
            ("CLUSTER", "/cluster"),
            ("CLIENT ID", "/client_id"),
            ("OUTCOME", "/outcome"),
            ("STATUS", "/status"),
            ("REQUEST", "/request_id"),
        ])],
    )),
    global(resource(
        "plans",
        "Named sets of quotas",
        &[whole(&[
            ("PLAN", "/name"),
            ("CONNECTIONS", "/connections"),
            ("SUBSCRIPTIONS", "/subscriptions"),
            ("FILTERS PER CLIENT", "/filters_per_client"),
        ])],
    )),
    global(resource(
        "nodes",
        "The processes that serve",
        &[whole(&[
            ("NODE", "/id"),
            ("VERSION", "/version"),
            ("STARTED", "/started_at"),
            ("CLUSTERS", "/clusters"),
            ("ONLINE", "/sessions_online"),
        ])],
    )),
];
