//! `holdfast openapi`: the document of the HTTP API, as it is served at `/openapi.json`.

use std::process::ExitCode;

use super::output;
use crate::control_plane::http;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    output::line(&http::openapi().to_pretty_json()?)?;
    Ok(ExitCode::SUCCESS)
}
