//! The sample gateway as an executable of its own, for tests that have no `cutover` to copy.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|first| first.as_os_str() == OsStr::new(sample_gateway::process::SUBCOMMAND))
    {
        args.remove(0);
    }
    sample_gateway::process::main(args)
}
