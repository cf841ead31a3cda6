//! One ledger: its form and its rules.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::sources::Evidence;

/// The longest paraphrase: a line of the ledger.
const SAYS_CHARS_MAX: usize = 200;

/// The statements of one standard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    /// Which standard.
    pub(super) standard: String,
    /// How many statements it has.
    count: usize,
    /// Their ids; those that differ only in the last number as `MQTT-3.1.2-1..30`.
    known: Vec<String>,
    #[serde(rename = "statement")]
    pub(super) statements: Vec<Statement>,
}

/// One normative statement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    id: String,
    says: String,
    binds: Binds,
    pub(super) status: Status,
    reason: Option<String>,
    #[serde(default)]
    tests: Vec<String>,
}

/// Who has to obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Binds {
    Server,
    Client,
    Both,
}

/// What becomes of a statement; the ledger's head explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Tested,
    ByConstruction,
    ClientOnly,
    NotImplemented,
    NotApplicable,
}

impl Ledger {
    /// What is wrong with it. `name` is what packet scripts call it; `count` is how many statements the
    /// standard has.
    pub(super) fn faults(&self, name: &str, count: usize, evidence: &Evidence) -> Vec<String> {
        let mut faults = self.id_faults(count);
        for statement in &self.statements {
            let found = statement.faults(name, evidence);
            faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", statement.id)));
        }
        for (script, id) in evidence.shown_by_scripts(name) {
            let names_it = |statement: &Statement| {
                statement.id == id && statement.tests.iter().any(|test| test == script)
            };
            if !self.statements.iter().any(names_it) {
                faults.push(format!("{id}: {script} shows it, and the ledger does not say so"));
            }
        }
        faults
    }

    fn id_faults(&self, count: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let known: Vec<String> = self.known.iter().flat_map(|range| expand(range)).collect();
        let known_once: BTreeSet<&str> = known.iter().map(String::as_str).collect();
        for (what, counted) in
            [("count", self.count), ("known", known.len()), ("known once", known_once.len())]
        {
            if counted != count {
                faults.push(format!("{what}: {counted} ids, and the standard has {count}"));
            }
        }
        let mut listed = BTreeSet::new();
        for id in self.statements.iter().map(|statement| statement.id.as_str()) {
            if !listed.insert(id) {
                faults.push(format!("{id}: listed twice"));
            }
            if !known_once.contains(id) {
                faults.push(format!("{id}: no statement of the standard"));
            }
        }
        faults.extend(known_once.difference(&listed).map(|id| format!("{id}: missing")));
        faults
    }
}

impl Statement {
    fn faults(&self, ledger: &str, evidence: &Evidence) -> Vec<String> {
        let mut faults = Vec::new();
        let reason = self.reason.as_deref().map(str::trim);
        if self.says.trim().is_empty()
            || self.says.chars().count() > SAYS_CHARS_MAX
            || self.says.contains('\n')
        {
            faults.push("its paraphrase is not one line".to_owned());
        }
        if reason == Some("") {
            faults.push("its reason is empty".to_owned());
        }
        match self.status {
            Status::Tested if self.tests.is_empty() => faults.push("tested, but names no test".to_owned()),
            Status::Tested => {}
            status if reason.is_none() => faults.push(format!("{status:?} without a reason")),
            Status::ClientOnly if self.binds != Binds::Client => {
                faults.push("binds the server, so it is not the client's only".to_owned());
            }
            _ => {}
        }
        let mut named = BTreeSet::new();
        for test in &self.tests {
            if !named.insert(test) {
                faults.push(format!("{test}: named twice"));
            }
            if !evidence.has(test) {
                faults.push(format!("{test}: no such test, or it is not run"));
            } else if evidence.denies(test, ledger, &self.id) {
                faults.push(format!("{test}: does not say that it shows this"));
            }
        }
        faults
    }
}

/// The ids of one entry of `known`. What is no range stands for itself.
fn expand(range: &str) -> Vec<String> {
    let parts = || {
        let (section, numbers) = range.rsplit_once('-')?;
        let (first, last) = numbers.split_once("..")?;
        Some((section, first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    };
    match parts() {
        Some((section, first, last)) => (first..=last).map(|n| format!("{section}-{n}")).collect(),
        None => vec![range.to_owned()],
    }
}

mod checker {
    //! The checker itself: a check that cannot fail holds nothing.

    use super::*;

    const SOUND: &str = r#"
        standard = "a sample"
        count = 3
        known = ["MQTT-1.2.3-1..2", "MQTT-1.2.4-1"]

        [[statement]]
        id = "MQTT-1.2.3-1"
        says = "One."
        binds = "both"
        status = "tested"
        tests = ["a::tests::one", "packets/x.txt"]

        [[statement]]
        id = "MQTT-1.2.3-2"
        says = "Two."
        binds = "client"
        status = "client_only"
        reason = "Nobody sees it."

        [[statement]]
        id = "MQTT-1.2.4-1"
        says = "Three."
        binds = "server"
        status = "by_construction"
        reason = "It cannot be otherwise."
    "#;

    fn faults_of(text: &str) -> Vec<String> {
        let mut evidence = Evidence::of_source("a", "#[cfg(test)] mod tests { #[test] fn one() {} }");
        evidence.add_script("packets/x.txt", [("sample", "MQTT-1.2.3-1"), ("other", "MQTT-1.2.3-2")]);
        toml::from_str::<Ledger>(text).expect("a ledger").faults("sample", 3, &evidence)
    }

    /// The sample with one text replaced has exactly this fault.
    #[track_caller]
    fn broken(from: &str, to: &str, fault: &str) {
        assert!(SOUND.contains(from), "{from}");
        assert_eq!(faults_of(&SOUND.replacen(from, to, 1)), [fault]);
    }

    #[test]
    fn a_sound_ledger_has_no_faults() {
        assert_eq!(faults_of(SOUND), [""; 0]);
    }

    #[test]
    fn ids_are_those_of_the_standard_each_once() {
        broken("count = 3", "count = 4", "count: 4 ids, and the standard has 3");
        let text = SOUND.replacen("id = \"MQTT-1.2.4-1\"", "id = \"MQTT-1.2.4-2\"", 1);
        assert_eq!(faults_of(&text), ["MQTT-1.2.4-2: no statement of the standard", "MQTT-1.2.4-1: missing"]);
        let text = SOUND.replacen("id = \"MQTT-1.2.3-2\"", "id = \"MQTT-1.2.3-1\"", 1);
        assert_eq!(faults_of(&text), ["MQTT-1.2.3-1: listed twice", "MQTT-1.2.3-2: missing"]);
        let text = SOUND.replacen("\"MQTT-1.2.4-1\"]", "\"MQTT-1.2.3-2\"]", 1);
        assert_eq!(
            faults_of(&text),
            ["known once: 2 ids, and the standard has 3", "MQTT-1.2.4-1: no statement of the standard"]
        );
    }

    #[test]
    fn a_ledger_cannot_shrink_by_itself() {
        let cut = SOUND.find("[[statement]]\n        id = \"MQTT-1.2.4-1\"").expect("the third");
        let text = SOUND[..cut].replace("count = 3", "count = 2").replace(", \"MQTT-1.2.4-1\"]", "]");
        assert_eq!(
            faults_of(&text),
            [
                "count: 2 ids, and the standard has 3",
                "known: 2 ids, and the standard has 3",
                "known once: 2 ids, and the standard has 3"
            ]
        );
    }

    #[test]
    fn a_statement_has_a_test_or_a_reason() {
        let text = SOUND.replace("tests = [\"a::tests::one\", \"packets/x.txt\"]", "tests = []");
        assert_eq!(faults_of(&text)[0], "MQTT-1.2.3-1: tested, but names no test");
        let text = SOUND.replace("tests = [\"a::tests::one\", \"packets/x.txt\"]", "");
        assert_eq!(faults_of(&text)[0], "MQTT-1.2.3-1: tested, but names no test");
        broken("reason = \"It cannot be otherwise.\"", "", "MQTT-1.2.4-1: ByConstruction without a reason");
        broken("\"It cannot be otherwise.\"", "\" \"", "MQTT-1.2.4-1: its reason is empty");
        broken("says = \"One.\"", "says = \"\"", "MQTT-1.2.3-1: its paraphrase is not one line");
    }

    #[test]
    fn what_binds_the_server_is_not_left_to_the_client() {
        let fault = "MQTT-1.2.4-1: binds the server, so it is not the client's only";
        broken("status = \"by_construction\"", "status = \"client_only\"", fault);
    }

    #[test]
    fn a_named_test_exists_and_is_named_once() {
        let gone = "MQTT-1.2.3-1: a::tests::two: no such test, or it is not run";
        broken("\"a::tests::one\"", "\"a::tests::two\"", gone);
        let elsewhere = "MQTT-1.2.3-1: b::tests::one: no such test, or it is not run";
        broken("\"a::tests::one\"", "\"b::tests::one\"", elsewhere);
        let twice = "MQTT-1.2.3-1: a::tests::one: named twice";
        broken("\"a::tests::one\"", "\"a::tests::one\", \"a::tests::one\"", twice);
        // Also where a reason would do.
        let beside = "reason = \"Nobody sees it.\"\ntests = [\"a::one\"]";
        let fault = "MQTT-1.2.3-2: a::one: no such test, or it is not run";
        broken("reason = \"Nobody sees it.\"", beside, fault);
    }

    #[test]
    fn scripts_and_ledger_agree() {
        let unnamed = "MQTT-1.2.3-1: packets/x.txt shows it, and the ledger does not say so";
        broken(", \"packets/x.txt\"", "", unnamed);
        let beside =
            |script: &str| format!("reason = \"Nobody sees it.\"\ntests = [\"packets/{script}.txt\"]");
        let denied = "MQTT-1.2.3-2: packets/x.txt: does not say that it shows this";
        broken("reason = \"Nobody sees it.\"", &beside("x"), denied);
        let gone = "MQTT-1.2.3-2: packets/y.txt: no such test, or it is not run";
        broken("reason = \"Nobody sees it.\"", &beside("y"), gone);
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for (from, to) in [
            ("status = \"tested\"", "status = \"done\""),
            ("binds = \"both\"", "binds = \"nobody\""),
            ("says = \"One.\"", "says = \"One.\"\nshows = \"x\""),
            ("says = \"One.\"", ""),
        ] {
            assert!(toml::from_str::<Ledger>(&SOUND.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
