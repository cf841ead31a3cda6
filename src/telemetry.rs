//! Logs: text for a person at a terminal, one JSON object a line for a machine; standard error
//! either way, because standard output belongs to the answers of commands.
//!
//! A panic is an `ERROR` line like any other, with where it happened.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use thiserror::Error;
use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config;

/// What is logged when neither `HOLDFAST_LOG` nor `RUST_LOG` says otherwise.
///
/// Postgres' notices ("already exists, skipping") come at `info` and tell an operator nothing.
const FILTER_DEFAULT: &str = "info,sqlx=warn";

/// A filter that cannot be read.
#[derive(Debug, Error)]
#[error("{variable}={value}: expected a filter such as info,holdfast::data_plane=debug")]
pub struct FilterError {
    variable: &'static str,
    value: String,
    source: ParseError,
}

/// Sets up the logs of the process. Called once, first thing in `main`.
///
/// # Errors
/// [`FilterError`], by the name of the variable.
pub fn init() -> Result<(), FilterError> {
    let filter = match config::log_filter() {
        None => EnvFilter::new(FILTER_DEFAULT),
        Some((variable, value)) => {
            EnvFilter::try_new(&value).map_err(|source| FilterError { variable, value, source })?
        }
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().flatten_event(true).with_span_list(false).init();
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    // Captured only where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        error!(place, thread, %backtrace, "panic: {message}");
    } else {
        error!(place, thread, "panic: {message}");
    }
}
