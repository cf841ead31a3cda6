//! The conformance ledger held against the sources.
//!
//! `tests/conformance/*.toml` lists every normative statement of MQTT 5.0 and of MQTT 3.1.1 with what
//! becomes of it and the tests that show it. Here a statement that is missing, made up, listed twice, or
//! that has neither test nor reason fails, and so does one that names a test that is not there or not run.
//! Whether a named test really shows its statement is for the reader; the packet scripts say it
//! themselves, and both must agree.
//!
//! The figures: `cargo test --test it conformance -- --nocapture`.

mod ledger;
mod sources;

use std::collections::BTreeMap;
use std::path::Path;

use ledger::{Ledger, Status};
use sources::Evidence;

/// The ledgers, by the word that packet scripts use for them, with how many statements each standard has.
/// The counts are those of the standards' appendices, so that a ledger cannot shrink by itself.
const LEDGERS: [(&str, usize); 2] = [("v5", 251), ("v3_1_1", 141)];

#[test]
fn every_normative_statement_is_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let evidence = Evidence::collect(root);
    assert!(evidence.len() > 50, "the sources were not found");
    let mut faults = Vec::new();
    for (name, count) in LEDGERS {
        let ledger = read(root, name);
        faults.extend(
            ledger.faults(name, count, &evidence).into_iter().map(|fault| format!("{name}: {fault}")),
        );
        summarise(&ledger);
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn read(root: &Path, name: &str) -> Ledger {
    let path = root.join(format!("tests/conformance/{name}.toml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Prints how many statements have which status.
fn summarise(ledger: &Ledger) {
    let mut totals = BTreeMap::<Status, usize>::new();
    for statement in &ledger.statements {
        *totals.entry(statement.status).or_default() += 1;
    }
    println!("{}: {} statements", ledger.standard, ledger.statements.len());
    for (status, count) in totals {
        println!("{count:>5} {status:?}");
    }
}
