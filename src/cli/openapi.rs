//! `holdfast openapi`: the document of the HTTP API, as it is served at `/openapi.json`.

use std::process::ExitCode;

use super::{output, parts};

pub(super) fn run() -> anyhow::Result<ExitCode> {
    output::line(&parts::openapi()?)?;
    Ok(ExitCode::SUCCESS)
}
