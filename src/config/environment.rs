//! What is read from the environment beside the flags, which the argument parser reads itself.

/// The filter of the logs: `HOLDFAST_LOG`, else `RUST_LOG`; with the name of the variable.
///
/// The syntax is that of `tracing_subscriber::EnvFilter`: `info,holdfast::data_plane=debug`.
pub fn log_filter() -> Option<(&'static str, String)> {
    ["HOLDFAST_LOG", "RUST_LOG"].into_iter().find_map(|name| Some((name, variable(name)?)))
}

/// Where programs are looked for: `PATH`.
#[allow(clippy::disallowed_methods)] // the one place that may read it
pub fn search_path() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}

/// A variable that is set, readable and not empty.
#[allow(clippy::disallowed_methods)] // the one place that may read it
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
