//! Figures: several runs of the release binary, medians and ratios. Nothing here is asserted: times depend on the
//! machine, so only ratios within one run mean anything.

mod bed;
mod cost;
mod imports;

use anyhow::{Context, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Command;

/// Flags of `cargo xtask measure`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// What is measured, if not the scripted demonstration.
    #[command(subcommand)]
    what: Option<What>,
    /// How often each scenario runs.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Only these scenarios.
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The reading of imports, beside parsing alone and beside other programs that look at imports.
    Imports(imports::Arguments),
}

/// One scenario as the demonstration prints it with `--lines`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    scenario: String,
    sent: u64,
    failed: u64,
    cut: u64,
    longest_wait_ms: u64,
    restart_ms: u64,
    wrong: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        Some(What::Imports(arguments)) => imports::run(arguments),
        None => demonstration(arguments),
    }
}

fn demonstration(arguments: &Arguments) -> anyhow::Result<()> {
    let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let mut order = Vec::new();
    for _ in 0..arguments.runs {
        for line in demo(&arguments.only)? {
            if !order.contains(&line.scenario) {
                order.push(line.scenario.clone());
            }
            lines.entry(line.scenario.clone()).or_default().push(line);
        }
    }
    println!(
        "{:<28} {:>5} {:>7} {:>7} {:>5} {:>13} {:>12} {:>12}",
        "scenario (medians)", "runs", "sent", "failed", "cut", "stop->ready", "longest wait", "wait/restart"
    );
    for scenario in order {
        let rows = &lines[&scenario];
        let ratio = median(
            rows.iter()
                .filter(|row| row.restart_ms > 0)
                .map(|row| row.longest_wait_ms * 1000 / row.restart_ms),
        );
        println!(
            "{scenario:<28} {:>5} {:>7} {:>7} {:>5} {:>10} ms {:>9} ms {:>12}",
            rows.len(),
            rows.iter().map(|row| row.sent).sum::<u64>(),
            rows.iter().map(|row| row.failed).sum::<u64>(),
            rows.iter().map(|row| row.cut).sum::<u64>(),
            median(rows.iter().map(|row| row.restart_ms)),
            median(rows.iter().map(|row| row.longest_wait_ms)),
            format!("{}.{:03}", ratio / 1000, ratio % 1000),
        );
        for wrong in rows.iter().flat_map(|row| &row.wrong) {
            println!("    WRONG: {wrong}");
        }
    }
    Ok(())
}

fn demo(only: &[String]) -> anyhow::Result<Vec<Line>> {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "run",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "cutover",
        "--",
        "demo",
        "--scripted",
        "--lines",
    ]);
    for name in only {
        command.args(["--only", name]);
    }
    let output = command.output().context("running the demonstration")?;
    let text = String::from_utf8(output.stdout).context("the demonstration printed no text")?;
    let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if lines.is_empty() {
        bail!("the demonstration told nothing: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(lines)
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
