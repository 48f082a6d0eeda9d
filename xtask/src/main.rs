//! Chores of this repository: `cargo xtask --help`.

mod measure;
mod mutants;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the scripted demonstration several times and print medians and ratios; or, with `imports`, the check of
    /// imports beside other programs.
    Measure(measure::Arguments),
    /// Apply deliberate mistakes to a copy of the core; a named test must notice each.
    Mutants,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Measure(arguments) => measure::run(&arguments),
        Command::Mutants => mutants::run(),
    }
}
