//! The `holdfast` program: telemetry, arguments, one command, an exit code.

use std::process::ExitCode;

/// Frees memory back to the system sooner and costs less per message than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::main()
}
