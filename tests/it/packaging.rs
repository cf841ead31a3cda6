//! What is written down twice because a tool wants it so: the container's files agree with the program's.

use crate::support::server::program;

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_image_is_built_with_the_pinned_tool_chain() {
    let pinned = read("rust-toolchain.toml");
    let release = pinned.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a channel");
    let release = release.trim_matches('"');
    assert!(read("Dockerfile").contains(&format!("FROM rust:{release}-")), "not {release}");
    let least = read("Cargo.toml");
    let least = least.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(release.starts_with(least.trim_matches('"')), "{release} is not {least}");
}

#[tokio::test]
async fn the_container_s_settings_exist() {
    let help = program().args(["serve", "--help"]).output().await.expect("the program starts");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for file in ["Dockerfile", "docker-compose.yml"] {
        let text = read(file);
        let names: Vec<_> = text
            .split(|c: char| !c.is_ascii_uppercase() && c != '_')
            .filter(|word| word.starts_with("HOLDFAST_"))
            .collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(help.contains(&format!("[env: {name}")), "{file}: no setting is called {name}");
        }
    }
}
