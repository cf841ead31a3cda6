//! What a command prints: answers on standard output, one line on standard error when it fails.

use std::io::{self, Write};

/// Prints the line that says why the command ends: what was being tried, then each cause.
pub(super) fn failure(error: &anyhow::Error) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr().lock(), "holdfast: {}", chain(error)));
}

/// Prints a line beside the answer, where it does not disturb who reads the answer.
pub(super) fn notice(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints text and a line end; a reader that went away (`| head`) is no failure.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The whole chain of causes on one line, each said once: some errors print their source themselves.
pub(super) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace('\n', " ");
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Rows under headings, in columns that are as wide as they need to be.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let lines = std::iter::once(&headings).chain(&rows).map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The text with control characters escaped: a client chooses its own id, and an id must not move
/// the cursor of whoever lists it.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_chain_says_each_cause_once() {
        let error = Err::<(), _>(anyhow!("refused")).context("connect: refused").context("cannot start");
        assert_eq!(chain(&error.expect_err("an error")), "cannot start: connect: refused");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["düne".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "N"], &rows), "ID    N\na     1\ndüne");
    }

    #[test]
    fn a_client_id_cannot_drive_the_terminal() {
        assert_eq!(table(&["ID"], &[vec!["a\u{1b}[2J\n".to_owned()]]), "ID\na\\u{1b}[2J\\n");
    }
}
