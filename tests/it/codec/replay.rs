//! The fuzz target's corpus, replayed.

use std::path::Path;

use super::any_bytes;

#[test]
fn the_corpus_does_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode");
    let mut inputs = 0;
    for entry in std::fs::read_dir(&corpus).expect("the corpus is committed") {
        let path = entry.expect("an entry").path();
        let input = std::fs::read(&path).expect("a file");
        println!("{}", path.display());
        any_bytes::check(&input);
        inputs += 1;
    }
    assert!(inputs >= 40, "{inputs} inputs in {}", corpus.display());
}
