//! The hidden halves of a start: `cutover keeper` and `cutover exec`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    match command.to_str() {
        Some("keeper") => cutover::supervisor::keeper::main(args.collect()),
        Some("exec") => cutover::supervisor::launch::main(args.collect()),
        _ => ExitCode::from(2),
    }
}
