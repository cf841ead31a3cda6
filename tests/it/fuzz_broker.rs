//! The corpus of the broker's fuzz target, replayed: whole conversations of any clients with a cluster.

use std::path::Path;

#[path = "../../fuzz/src/any_clients.rs"]
mod any_clients;

#[test]
fn the_corpus_does_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/broker");
    let mut inputs = 0;
    for entry in std::fs::read_dir(&corpus).expect("the corpus is committed") {
        let path = entry.expect("an entry").path();
        let input = std::fs::read(&path).expect("a file");
        println!("{}", path.display());
        any_clients::check(&input);
        inputs += 1;
    }
    assert!(inputs >= 16, "{inputs} inputs in {}", corpus.display());
}

#[test]
fn any_bytes_do_no_harm() {
    // A generator that knows nothing: most of it is refused, which must do no harm either.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    for _ in 0..500 {
        let input: Vec<u8> = (0..400).map(|_| next()).collect();
        any_clients::check(&input);
    }
}
