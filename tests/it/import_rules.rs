//! Who may import whom: the table of ARCHITECTURE.md, held by reading the sources.
//!
//! Every path in `src/` is looked at, wherever it stands (in a `use`, an expression, a type, inside a
//! macro call, in a test): a `crate::`, `super::` or `self::` path is resolved to the room it enters, and
//! a path into another crate is held against what the room may never hold. Comments and texts do
//! not count. A name that a macro builds out of pieces is not seen.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One room of the program: where it is, whom it may import beside itself, what it never holds.
struct Room {
    /// Path below `src/`; a room inside another one has the longer path and its own rules.
    path: &'static str,
    /// Rooms; `a/*` is `a` and every room in it, `*` every room there is.
    may_import: &'static [&'static str],
    /// Paths of other crates, and the word `async`.
    never: &'static [&'static str],
}

const EVERYTHING: &[&str] = &["*"];

const HALL: &str = "data_plane";

/// No way to wait, to ask for the time or to reach the world: what makes a room testable by calling it.
const PURE: &[&str] = &[
    "async",
    "tokio",
    "tokio_util",
    "futures_util",
    "sqlx",
    "axum",
    "hyper",
    "tracing",
    "parking_lot",
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

const ROOMS: &[Room] = &[
    Room { path: "model", may_import: &[], never: PURE },
    Room { path: "secrets", may_import: &["model"], never: PURE },
    Room { path: "credentials", may_import: &["model"], never: PURE },
    Room { path: "clock", may_import: &["model"], never: &["tokio", "sqlx", "axum"] },
    Room { path: "seam", may_import: &["model"], never: &["sqlx", "axum"] },
    Room { path: "config", may_import: &["model"], never: &["async", "tokio", "sqlx", "axum"] },
    Room { path: "outbound", may_import: &["model"], never: &["sqlx", "axum"] },
    Room { path: "lifecycle", may_import: &[], never: &["sqlx", "axum"] },
    Room { path: "telemetry", may_import: &["config"], never: &["sqlx", "axum"] },
    Room { path: "store", may_import: &["model", "seam", "clock"], never: &["axum"] },
    Room {
        path: "control_plane",
        may_import: &[
            "model",
            "secrets",
            "credentials",
            "store",
            "seam",
            "config",
            "clock",
            "lifecycle",
            "outbound",
        ],
        never: &["sqlx"],
    },
    // A hall: names its rooms and the bounds they share. A module in it is a room of its own.
    Room { path: HALL, may_import: &["data_plane/*"], never: PURE },
    Room { path: "data_plane/protocol", may_import: &["model"], never: PURE },
    Room {
        path: "data_plane/session",
        may_import: &["model", "secrets", "data_plane/protocol"],
        never: PURE,
    },
    Room { path: "data_plane/broker", may_import: &["model", "data_plane/protocol"], never: PURE },
    Room { path: "data_plane/message_log", may_import: &["model"], never: &["sqlx", "axum"] },
    Room {
        path: "data_plane/cluster",
        may_import: &[
            "model",
            "seam",
            HALL,
            "data_plane/protocol",
            "data_plane/session",
            "data_plane/broker",
            "data_plane/message_log",
        ],
        never: PURE,
    },
    Room {
        path: "data_plane/runtime",
        may_import: &[
            "data_plane/*",
            "model",
            "secrets",
            "credentials",
            "seam",
            "config",
            "clock",
            "lifecycle",
            "outbound",
        ],
        never: &["sqlx", "axum"],
    },
    Room { path: "app", may_import: EVERYTHING, never: &[] },
    Room { path: "cli", may_import: EVERYTHING, never: &[] },
    Room { path: "lib", may_import: &[], never: &[] },
    Room { path: "main", may_import: EVERYTHING, never: &[] },
];

#[test]
fn every_room_imports_only_what_it_may() {
    let mut sources = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), "", &mut sources);
    assert!(sources.len() > 20, "the sources were not found");
    let broken: Vec<String> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Every Rust file below `directory`, with its path below `src/`.
fn collect(directory: &Path, prefix: &str, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("an entry");
        let path = format!("{prefix}{}", entry.file_name().into_string().expect("UTF-8"));
        if entry.file_type().expect("a type").is_dir() {
            collect(&entry.path(), &format!("{path}/"), into);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            into.push((path, fs::read_to_string(entry.path()).expect("UTF-8")));
        }
    }
}

/// What breaks the rules in one file; `path` is below `src/`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let module = module_of(path);
    let Some(room) = room_of(&module.join("/")) else {
        return vec![format!(
            "src/{path}: belongs to no room; add it to the table of tests/it/import_rules.rs"
        )];
    };
    let tokens: TokenStream = match text.parse() {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("src/{path}: not Rust: {error}")],
    };
    let mut paths = Vec::new();
    Reader { module, paths: &mut paths }.read(tokens);
    paths.sort();
    paths.dedup();
    paths.iter().filter_map(|named| judge(room, named)).map(|why| format!("src/{path}: {why}")).collect()
}

/// Why a room may not name a path; `None` when it may.
fn judge(room: &Room, named: &Named) -> Option<String> {
    match named {
        Named::Ours(target) => {
            let target = target.join("/");
            let entered = match room_of(&target) {
                // By its name, or by `*`, the hall opens every room in it.
                Some(room) if room.path == target && target == HALL => "data_plane/*",
                Some(room) => room.path,
                None => target.as_str(),
            };
            let opens = |may: &&str| match may.strip_suffix('*') {
                Some(above) => is_within(entered, above.trim_end_matches('/')),
                None => entered == *may,
            };
            let may = entered == room.path || room.may_import.iter().any(opens);
            (!may).then(|| format!("{} may not import {entered} (crate/{target})", room.path))
        }
        Named::Theirs(path) => {
            // A whole module stands for all that is in it: `use std::time;` brings the clock.
            let held = |never: &&&str| is_within(path, never) || is_within(never, path);
            let never = room.never.iter().find(held)?;
            Some(format!("{} never holds {never} ({path})", room.path))
        }
    }
}

fn room_of(path: &str) -> Option<&'static Room> {
    let owns = |room: &&Room| match path.strip_prefix(HALL) {
        // A type or a constant of the hall itself; a module would be a room.
        Some(rest) if room.path == HALL => {
            rest.is_empty() || rest.strip_prefix('/').is_some_and(|name| name.starts_with(char::is_uppercase))
        }
        _ => is_within(path, room.path),
    };
    ROOMS.iter().filter(owns).max_by_key(|room| room.path.len())
}

/// Whether a path is another one or lies below it; everything lies below the empty one.
fn is_within(path: &str, above: &str) -> bool {
    above.is_empty()
        || path
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with("::"))
}

/// The module a file is: `a/b.rs` and `a/b/mod.rs` are both `a::b`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// A path that a source names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// In this crate, from its root.
    Ours(Vec<String>),
    /// In another crate, as written; or a keyword.
    Theirs(String),
}

/// Reads the paths out of tokens.
struct Reader<'a> {
    /// The module the tokens stand in.
    module: Vec<String>,
    paths: &'a mut Vec<Named>,
}

impl Reader<'_> {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match (token, word(&tokens, at + 1), tokens.get(at + 2)) {
                (TokenTree::Ident(ident), Some(name), Some(TokenTree::Group(body)))
                    if *ident == "mod" && body.delimiter() == Delimiter::Brace =>
                {
                    self.module.push(name);
                    self.read(body.stream());
                    self.module.pop();
                    at += 3;
                }
                (TokenTree::Ident(ident), ..) if *ident == "use" => at = self.tree(&tokens, at + 1, &[]),
                (TokenTree::Ident(ident), ..) if *ident == "async" || *ident == "await" => {
                    self.paths.push(Named::Theirs("async".to_owned()));
                    at += 1;
                }
                (TokenTree::Ident(_), ..) if begins_path(&tokens, at) => at = self.tree(&tokens, at, &[]),
                // `pub(in crate::room)` narrows who sees an item and imports nothing.
                (TokenTree::Group(group), ..) if !is_visibility(&tokens, at) => {
                    self.read(group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Reads a path, or a whole tree of a `use`, that begins at `at` and lies below `above`.
    /// Returns where it ends.
    fn tree(&mut self, tokens: &[TokenTree], mut at: usize, above: &[String]) -> usize {
        let mut path = above.to_vec();
        if path.is_empty() && is_separator(tokens, at) {
            at += 2;
        }
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(_)) => path.extend(word(tokens, at)),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.branches(group.stream(), &path);
                    return at + 1;
                }
                Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => path.push("*".to_owned()),
                // The `<` of `Vec::<u8>`.
                _ => break,
            }
            at += 1;
            if !is_separator(tokens, at) {
                break;
            }
            at += 2;
        }
        self.name(&path);
        at
    }

    fn branches(&mut self, tokens: TokenStream, above: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
        for branch in tokens.split(comma).filter(|branch| !branch.is_empty()) {
            self.tree(branch, 0, above);
        }
    }

    fn name(&mut self, path: &[String]) {
        let mut words = path.iter().map(String::as_str).peekable();
        let mut module = match words.peek() {
            Some(&"crate") => Vec::new(),
            Some(&("super" | "self")) => self.module.clone(),
            Some(_) => {
                return self.paths.push(Named::Theirs(path.join("::").trim_end_matches("::*").to_owned()));
            }
            None => return,
        };
        for word in words {
            match word {
                "crate" | "self" => {}
                "super" => drop(module.pop()),
                name => module.push(name.to_owned()),
            }
        }
        self.paths.push(Named::Ours(module));
    }
}

fn word(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

/// Whether `::` stands here.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// Whether the word here is the first of a path of several.
fn begins_path(tokens: &[TokenTree], at: usize) -> bool {
    let continues = at >= 3
        && is_separator(tokens, at - 2)
        && match &tokens[at - 3] {
            TokenTree::Ident(_) => true,
            TokenTree::Punct(punct) => punct.as_char() == '>',
            _ => false,
        };
    is_separator(tokens, at + 1) && !continues
}

fn is_visibility(tokens: &[TokenTree], at: usize) -> bool {
    at > 0 && word(tokens, at - 1).is_some_and(|before| before == "pub")
}

mod checker {
    //! The checker itself: a check that cannot fail holds nothing.

    use super::violations;

    #[track_caller]
    fn refused(path: &str, text: &str) {
        assert_eq!(violations(path, text).len(), 1, "{path}: {text}: {:?}", violations(path, text));
    }

    #[track_caller]
    fn allowed(path: &str, text: &str) {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{text}");
    }

    #[test]
    fn a_path_from_the_root_is_held_wherever_it_stands() {
        let session = "data_plane/session/inbound.rs";
        refused(session, "use crate::store::Pool;");
        refused(session, "use crate::{model::QoS, data_plane::{protocol::Packet, broker::Trie}};");
        refused(session, "fn f() { crate::clock::Clock::new(); }");
        refused(session, "fn f() -> Vec<crate::seam::command::Reply<u8>> {}");
        refused(session, "fn f() { assert!(crate::config::x()); }");
        refused(session, "pub use crate::app;");
        allowed(session, "use crate::model::{QoS, ClientId}; use crate::data_plane::protocol::*;");
        allowed(session, "use crate::data_plane::session::Will;");
        allowed(session, "pub(in crate::data_plane) fn f() {} pub(crate) struct S;");
    }

    #[test]
    fn a_path_from_here_is_resolved() {
        refused("data_plane/session/inbound.rs", "use super::super::broker::Trie;");
        refused("data_plane/session/mod.rs", "use super::broker::Trie;");
        refused("data_plane/session/mod.rs", "use super::*;");
        refused("data_plane/session/inbound.rs", "mod tests { use super::super::super::broker::Trie; }");
        refused("store/sessions.rs", "fn f() { super::super::control_plane::f() }");
        allowed("data_plane/session/mod.rs", "use super::protocol::Packet; use self::will::Will;");
        allowed("data_plane/session/inbound.rs", "use super::will::Will; mod tests { use super::*; }");
    }

    #[test]
    fn the_words_of_other_crates_are_held() {
        refused("model/qos.rs", "use tokio::time::sleep;");
        refused("model/qos.rs", "fn f() { ::sqlx::query(SQL) }");
        refused("model/qos.rs", "use axum;");
        refused("seam/ports.rs", "#[derive(sqlx::FromRow)] struct S;");
        refused("control_plane/http/mod.rs", "fn f(x: sqlx::Error) {}");
        refused("store/mod.rs", "use {axum::Router};");
        allowed("seam/command.rs", "use tokio::sync::oneshot;");
        allowed(
            "model/qos.rs",
            "/// Not [`tokio::spawn`].\nconst A: &str = \"use tokio::x\"; // use sqlx::y",
        );
    }

    #[test]
    fn pure_rooms_do_not_wait_nor_ask_the_time() {
        for room in ["model", "data_plane/protocol", "data_plane/broker", "data_plane/cluster"] {
            let file = format!("{room}/x.rs");
            refused(&file, "async fn f() {}");
            refused(&file, "fn f() { x.await; }");
            refused(&file, "use std::time::{Duration, Instant};");
            refused(&file, "use std::time;");
            refused(&file, "fn f() { std::time::SystemTime::now() }");
            refused(&file, "use std::net::{IpAddr, TcpStream};");
            allowed(&file, "use std::{net::IpAddr, time::Duration}; fn f() { x.time::<u8>() }");
        }
    }

    #[test]
    fn the_planes_meet_only_at_the_seam() {
        refused("control_plane/http/auth.rs", "use crate::data_plane::cluster::Cluster;");
        refused("data_plane/runtime/worker.rs", "use crate::control_plane::http;");
        refused("data_plane/runtime/worker.rs", "use crate::store::Store;");
        refused("data_plane/message_log/memory.rs", "use crate::data_plane::broker::Trie;");
        allowed(
            "data_plane/runtime/worker.rs",
            "use crate::seam::ports::SessionStore; use crate::lifecycle::Tasks;",
        );
        allowed(
            "data_plane/cluster/mod.rs",
            "use super::{PACKET_BYTES_MAX, broker, message_log, protocol, session};",
        );
        refused("data_plane/cluster/mod.rs", "use super::runtime::Worker;");
        refused("data_plane/cluster/mod.rs", "use super::*;");
        refused("data_plane/cluster/mod.rs", "use crate::data_plane;");
        allowed("data_plane/runtime/mod.rs", "use super::*; use crate::data_plane;");
        allowed("data_plane/runtime/mod.rs", "use crate::data_plane::{PACKET_BYTES_MAX, cluster::Cluster};");
        allowed("app.rs", "use crate::{control_plane, data_plane, store}; async fn f() {}");
    }

    #[test]
    fn a_file_outside_the_table_is_refused() {
        refused("util/mod.rs", "");
        refused("model/qos.rs", "use crate::util::f;");
        refused("data_plane/session/x.rs", "use crate::data_plane::newroom::f;");
        refused("data_plane/runtime/x.rs", "use crate::newroom::f;");
        refused("data_plane/newroom/mod.rs", "");
    }
}
