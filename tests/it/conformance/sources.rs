//! What can show a statement: tests in the sources, rows of tables, packet scripts.
//!
//! A test is a function with an attribute whose path ends in `test` and without `#[ignore]`, wherever its
//! module stands: in a file of its own, in a `mod` block, inside a macro such as `proptest!`. A function
//! made by a macro out of pieces is not seen. A row of a table that a test reads is named `test#row`: the row is
//! the last column of a line of a `.txt` file in the folder of the test's file or of its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::packets::shown_by_scripts;

/// Everything that can show a statement, by its path.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    tests: BTreeSet<String>,
    /// Rows of tables, by the module whose folder has the table.
    rows: BTreeSet<(String, String)>,
    /// What each script says that it shows: ledger and statement.
    scripts: BTreeMap<String, Vec<(String, String)>>,
}

impl Evidence {
    /// Reads `src` and `tests/it`.
    pub(super) fn collect(root: &Path) -> Self {
        let mut evidence = Self::default();
        evidence.read_folder(&root.join("src"), &[]);
        evidence.read_folder(&root.join("tests/it"), &["it".to_owned()]);
        evidence.scripts = shown_by_scripts().into_iter().collect();
        evidence
    }

    /// Whether there is such a test, and it is run.
    pub(super) fn has(&self, test: &str) -> bool {
        match test.split_once('#') {
            Some((test, row)) => self.tests.contains(test) && self.has_row(test, row),
            None => self.tests.contains(test) || self.scripts.contains_key(test),
        }
    }

    /// Whether `test` is a script that does not say that it shows this statement.
    pub(super) fn denies(&self, test: &str, ledger: &str, id: &str) -> bool {
        let says_so = |shown: &Vec<(String, String)>| shown.iter().any(|(l, i)| l == ledger && i == id);
        self.scripts.get(test).is_some_and(|shown| !says_so(shown))
    }

    /// The scripts that say they show statements of a ledger, and which.
    pub(super) fn shown_by_scripts(&self, ledger: &str) -> impl Iterator<Item = (&str, &str)> {
        let shown =
            self.scripts.iter().flat_map(|(script, shown)| shown.iter().map(move |(l, id)| (script, l, id)));
        shown.filter(move |(_, l, _)| *l == ledger).map(|(script, _, id)| (script.as_str(), id.as_str()))
    }

    pub(super) fn len(&self) -> usize {
        self.tests.len()
    }

    /// What one source of module `path` holds.
    #[cfg(test)]
    pub(super) fn of_source(path: &str, text: &str) -> Self {
        let mut evidence = Self::default();
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        evidence.read_tokens(text.parse().expect("Rust"), &path);
        evidence
    }

    #[cfg(test)]
    pub(super) fn add_script<const N: usize>(&mut self, script: &str, shows: [(&str, &str); N]) {
        let shows = shows.map(|(ledger, id)| (ledger.to_owned(), id.to_owned())).to_vec();
        self.scripts.insert(script.to_owned(), shows);
    }

    fn has_row(&self, test: &str, row: &str) -> bool {
        let (module, _) = test.rsplit_once("::").unwrap_or_default();
        let (folder, _) = module.rsplit_once("::").unwrap_or_default();
        [module, folder].iter().any(|folder| self.rows.contains(&((*folder).to_owned(), row.to_owned())))
    }

    fn read_table(&mut self, text: &str, module: &str) {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let rows = lines.filter_map(|line| line.rsplit_once('|'));
        self.rows.extend(rows.map(|(_, row)| (module.to_owned(), row.trim().to_owned())));
    }

    fn read_folder(&mut self, folder: &Path, path: &[String]) {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            let below = |name: &str| [path, &[name.to_owned()]].concat();
            if entry.file_type().expect("a type").is_dir() {
                self.read_folder(&entry.path(), &below(&name));
            } else if name.ends_with(".txt") {
                let text = fs::read_to_string(entry.path()).expect("UTF-8");
                self.read_table(&text, &path.join("::"));
            } else if let Some(module) = name.strip_suffix(".rs") {
                let text = fs::read_to_string(entry.path()).expect("UTF-8");
                let tokens = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
                match module {
                    "mod" | "lib" | "main" => self.read_tokens(tokens, path),
                    module => self.read_tokens(tokens, &below(module)),
                }
            }
        }
    }

    fn read_tokens(&mut self, tokens: TokenStream, path: &[String]) {
        let (mut is_test, mut is_ignored) = (false, false);
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.peek() {
                        let name = attribute_name(attribute.stream());
                        is_test |= name == "test";
                        is_ignored |= name == "ignore";
                        tokens.next();
                    }
                }
                TokenTree::Ident(word) if word == "mod" => {
                    let name = tokens.next().map(|name| name.to_string()).unwrap_or_default();
                    if let Some(TokenTree::Group(body)) = tokens.peek() {
                        let stream = body.stream();
                        self.read_tokens(stream, &[path, &[name]].concat());
                        tokens.next();
                    }
                    (is_test, is_ignored) = (false, false);
                }
                TokenTree::Ident(word) if word == "fn" => {
                    if let (Some(name), true, false) = (tokens.peek(), is_test, is_ignored) {
                        self.tests.insert(format!("{}::{name}", path.join("::")));
                    }
                    (is_test, is_ignored) = (false, false);
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    self.read_tokens(group.stream(), path);
                }
                _ => {}
            }
        }
    }
}

/// The last word of an attribute's path: `test` of `#[tokio::test(flavor = "…")]`.
fn attribute_name(attribute: TokenStream) -> String {
    let path = attribute.into_iter().take_while(|token| !matches!(token, TokenTree::Group(_)));
    let words = path.filter_map(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    });
    words.last().unwrap_or_default()
}

mod checker {
    use super::*;

    fn tests_of(text: &str) -> Vec<String> {
        Evidence::of_source("a::b", text).tests.into_iter().collect()
    }

    #[test]
    fn finds_tests_wherever_they_stand() {
        let text = r#"
            #[test] fn bare() {}
            #[cfg(test)] mod tests {
                #[test] #[should_panic(expected = "x")] fn panics() {}
                #[tokio::test(flavor = "multi_thread")] async fn waits() { fn helper() {} }
                mod deeper { proptest! { #![x] #[test] fn holds(n in 0..9) {} } }
            }
        "#;
        let found = ["a::b::bare", "a::b::tests::deeper::holds", "a::b::tests::panics", "a::b::tests::waits"];
        assert_eq!(tests_of(text), found);
    }

    #[test]
    fn a_row_belongs_to_the_tests_beside_its_table() {
        let mut evidence = Evidence::of_source("a::b", "#[test] fn reads() {}");
        evidence.read_table("# x | y | gone\nx | y | flags of PUBREL: none\n", "a");
        assert!(evidence.has("a::b::reads#flags of PUBREL: none"));
        for wrong in
            ["a::b::reads#flags", "a::b::reads#gone", "a::b::other#flags of PUBREL: none", "a::b::reads#"]
        {
            assert!(!evidence.has(wrong), "{wrong}");
        }
        evidence.read_table("x | other", "c");
        assert!(!evidence.has("a::b::reads#other"));
    }

    #[test]
    fn a_function_that_is_not_run_is_no_test() {
        assert_eq!(tests_of("fn plain() {} #[inline] fn inlined() {}"), [""; 0]);
        assert_eq!(tests_of("#[test] #[ignore] fn later() {} fn next() {}"), [""; 0]);
        assert_eq!(tests_of("#[test] #[ignore = \"slow\"] fn later() {}"), [""; 0]);
        assert_eq!(tests_of("// #[test] fn gone() {}\nconst A: &str = \"#[test] fn text() {}\";"), [""; 0]);
        assert_eq!(tests_of("mod tests { #[test] fn here() {} } fn there() {}"), ["a::b::tests::here"]);
    }
}
