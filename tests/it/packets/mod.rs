//! Packet scripts: conversations with the real server, byte by byte, as data.
//!
//! `tests/packets/**/*.txt` hold one script each, named after the statement it shows first. A script is read
//! line by line:
//!
//! ```text
//! # a comment
//! shows v5 MQTT-3.1.0-2          which statements of which ledger it shows
//! @a connect v5 [kept] [present] CONNECT as client `%a`, and CONNACK of success
//! @a > 10 ~ s'MQTT' …            sends bytes; opens the connection if there is none
//! @a < 20 ~ 00 00 { ... }        the next packet from the server is this
//! @a nothing                     the server has sent nothing else (PINGREQ, and the next packet is PINGRESP)
//! @a leave                       DISCONNECT, and the server closes the connection: it knows
//! @a close                       the server closes the connection and says nothing more
//! @a drop                        the client is gone without a word; the server may not know it yet
//! ```
//!
//! `kept` is clean start 0 and, in v5, an expiry of five minutes; `present` expects session present 1. Bytes
//! are in the notation of [`crate::support::notation`]. In texts `%` stands for a word that is this script's
//! own, so that scripts share a server. Every wait has a deadline; none sleeps.
//!
//! The scripts of a folder run one after the other against one server.

mod script;

use std::path::{Path, PathBuf};

use script::Script;

use crate::support::server::Server;

#[tokio::test]
async fn v5() {
    play_folder("v5").await;
}

#[tokio::test]
async fn v3_1_1() {
    play_folder("v3_1_1").await;
}

async fn play_folder(folder: &str) {
    let scripts = read_folder(&root().join(folder));
    assert!(!scripts.is_empty(), "no scripts in {folder}");
    let server = Server::start_dev().await;
    let mut failures = Vec::new();
    for (number, (path, script)) in scripts.iter().enumerate() {
        if let Err(why) = script.play(server.mqtt, &format!("p{number}")).await {
            let name = path.strip_prefix(root()).expect("a script of ours").display();
            failures.push(format!("tests/packets/{name}:{why}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), scripts.len(), failures.join("\n"));
    server.stop().await;
}

/// Where the scripts are.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets")
}

/// The scripts of a folder, in order of their names.
fn read_folder(folder: &Path) -> Vec<(PathBuf, Script)> {
    let entries = std::fs::read_dir(folder).expect("a folder of scripts");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a script");
        let script = Script::parse(&text).unwrap_or_else(|why| panic!("{}:{why}", path.display()));
        (path, script)
    };
    paths.into_iter().map(read).collect()
}

/// What every script says that it shows: its path below `tests`, and each ledger with the statement.
pub(crate) fn shown_by_scripts() -> Vec<(String, Vec<(String, String)>)> {
    let mut shown = Vec::new();
    for folder in ["v3_1_1", "v5"] {
        for (path, script) in read_folder(&root().join(folder)) {
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            shown.push((format!("packets/{folder}/{name}"), script.shows));
        }
    }
    shown
}
