//! Chores of this repository: `cargo xtask --help`.

mod measure;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the scripted demonstration several times and print medians and ratios.
    Measure(measure::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Measure(arguments) => measure::run(&arguments),
    }
}
