//! The one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cutover::cli::main(std::env::args_os().collect())
}
