//! `cargo xtask measure imports`: the check of imports, parsing alone and other makers' programs on the same trees, one
//! after the other in every round, so that what the machine does meanwhile happens to all of them.
//!
//! Knows what each is asked to do and which ratios are of interest; must not know how a process is measured.

use super::bed::{Bed, Tree};
use super::cost::{Cost, measured};
use anyhow::{Context as _, Result};
use cutover_testkit::openclaw::{LATEST, NEW, OLD};
use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// No single process takes this long: the slowest was seen to take three minutes.
const LIMIT: Duration = Duration::from_secs(1800);

/// Flags of `cargo xtask measure imports`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// How many of them include eslint, which takes a minute or more.
    #[arg(long, default_value_t = 1)]
    eslint_runs: u32,
    /// Only the pair that leads to this version.
    #[arg(long)]
    only: Option<String>,
    /// Where packages are kept.
    #[arg(long, env = "CUTOVER_TEST_CACHE", default_value = "target/ci")]
    cache: PathBuf,
}

/// One program, and what it cost in each round that it took part in, by the round.
struct Row {
    name: &'static str,
    costs: Vec<Cost>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let bed = Bed::made(&arguments.cache)?;
    let scratch = tempfile::tempdir().context("a directory for lists")?;
    for (old, new, has_plugin) in [(OLD, NEW, false), (LATEST[0], LATEST[1], true)] {
        if arguments.only.as_ref().is_some_and(|only| only != new) {
            continue;
        }
        let (old, new) = (bed.tree(old, has_plugin)?, bed.tree(new, has_plugin)?);
        side_by_side(&bed, &new, scratch.path(), arguments)?;
        second_version(&bed, &old, &new, scratch.path(), arguments.runs)?;
    }
    Ok(())
}

/// The files that a check of a tree reads, listed in a file of their own.
fn listed(bed: &Bed, tree: &Tree, scratch: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let list = scratch.join("files");
    let (_, text) = measured(&mut bed.measure(tree, &words("files", &[], tree)), &[0], LIMIT)?;
    fs::write(&list, &text).context("write a list")?;
    Ok((list, text.lines().map(PathBuf::from).collect()))
}

fn words<'w>(mode: &'w str, before: &[&'w Path], tree: &Tree) -> Vec<&'w Path> {
    let packages = tree.packages().iter().map(|package| Path::new(*package));
    std::iter::once(Path::new(mode)).chain(before.iter().copied()).chain(packages).collect()
}

fn side_by_side(bed: &Bed, tree: &Tree, scratch: &Path, arguments: &Arguments) -> Result<()> {
    let (list, files) = listed(bed, tree, scratch)?;
    let bytes: u64 = files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
    println!("\n{}: a check reads {} programs, {bytes} bytes", tree.name, files.len());
    let none = Path::new("-");
    let mut rows = ["parsing alone", "check", "oxlint", "rolldown", "eslint"]
        .map(|name| Row { name, costs: Vec::new() });
    for round in 0..arguments.runs {
        // Whoever comes first finds the files least warm: that is somebody else in each round.
        let order = (0..rows.len()).map(|place| (place + round as usize) % rows.len());
        for place in order.collect::<Vec<_>>() {
            let row = &mut rows[place];
            let mut command = match row.name {
                "parsing alone" => bed.measure(tree, &[Path::new("parse"), &list]),
                "check" => bed.measure(tree, &words("check", &[none], tree)),
                "oxlint" => oxlint(bed, tree)?,
                "rolldown" => bed.rival(tree, "bundle")?,
                _ if round >= arguments.eslint_runs => continue,
                _ => eslint(bed, tree)?,
            };
            if matches!(row.name, "oxlint" | "rolldown" | "eslint") {
                command.args(tree.packages());
            }
            // What finds something ends with 1, which is its work.
            let (cost, text) = measured(&mut command, &[0, 1], LIMIT).context(row.name)?;
            if row.costs.is_empty() {
                let end: Vec<&str> = text.trim().lines().rev().take(2).collect();
                println!("  {}: {}", row.name, end.into_iter().rev().collect::<Vec<_>>().join("; "));
            }
            row.costs.push(cost);
        }
    }
    rows.iter().for_each(Row::print);
    let [parsing, check, oxlint, rolldown, eslint] = &rows;
    ratio("check / parsing alone, CPU", check, parsing, Cost::cpu);
    ratio("check / oxlint, wall", check, oxlint, Cost::wall);
    ratio("check / oxlint, CPU", check, oxlint, Cost::cpu);
    ratio("rolldown / check, wall", rolldown, check, Cost::wall);
    ratio("rolldown / check, CPU", rolldown, check, Cost::cpu);
    ratio("eslint / check, wall", eslint, check, Cost::wall);
    ratio("eslint / check, CPU", eslint, check, Cost::cpu);
    Ok(())
}

fn oxlint(bed: &Bed, tree: &Tree) -> Result<Command> {
    let mut command = bed.rival(tree, "oxlint")?;
    command.args(["--import-plugin", "-A", "all", "--silent", "--ignore-pattern", "**/*.ts"]);
    command.args(["--ignore-pattern", "**/*.mts", "--ignore-pattern", "**/*.cts"]);
    command.args(["-D", "import/named", "-D", "import/namespace", "-D", "import/default"]);
    Ok(command)
}

fn eslint(bed: &Bed, tree: &Tree) -> Result<Command> {
    let mut command = bed.rival(tree, "eslint")?;
    command
        .arg("--config")
        .arg(bed.rivals().join("eslint.config.mjs"))
        .args(["--no-inline-config", "--quiet"]);
    Ok(command)
}

/// A check that remembers an older version, as a share of the first check, which remembered nothing.
fn second_version(bed: &Bed, old: &Tree, new: &Tree, scratch: &Path, runs: u32) -> Result<()> {
    let cache = scratch.join("cache");
    let (_, before) = listed(bed, old, scratch)?;
    let (_, after) = listed(bed, new, scratch)?;
    let known: HashSet<u64> = before.iter().filter_map(|file| content(file).ok()).map(|it| it.0).collect();
    let contents: Vec<(u64, u64)> = after.iter().map(|file| content(file)).collect::<Result<_>>()?;
    let same: Vec<&(u64, u64)> = contents.iter().filter(|(hash, _)| known.contains(hash)).collect();
    println!(
        "\n{}, then {}: of {} programs {} are the same, of {} bytes {}",
        old.name,
        new.name,
        contents.len(),
        same.len(),
        contents.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        same.iter().map(|(_, bytes)| bytes).sum::<u64>(),
    );
    let mut rows = ["first", "second version", "same version again", "second, nothing remembered"]
        .map(|name| Row { name, costs: Vec::new() });
    for _ in 0..runs {
        let _ = fs::remove_file(&cache);
        for row in &mut rows {
            let (tree, file) = match row.name {
                "first" => (old, cache.as_path()),
                "second, nothing remembered" => (new, Path::new("-")),
                _ => (new, cache.as_path()),
            };
            let mut command = bed.measure(tree, &words("check", &[file], tree));
            row.costs.push(measured(&mut command, &[0], LIMIT)?.0);
        }
    }
    rows.iter().for_each(Row::print);
    let [first, second, again, _] = &rows;
    ratio("second version / first, CPU", second, first, Cost::cpu);
    ratio("second version / first, wall", second, first, Cost::wall);
    ratio("same version again / first, CPU", again, first, Cost::cpu);
    Ok(())
}

fn content(file: &Path) -> Result<(u64, u64)> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok((hasher.finish(), bytes.len() as u64))
}

impl Row {
    fn print(&self) {
        if self.costs.is_empty() {
            return;
        }
        println!(
            "  {:<28} {:>2} runs  wall {:>8.3} s  CPU {:>8.3} s  peak {:>5} MiB",
            self.name,
            self.costs.len(),
            median(self.costs.iter().map(|cost| cost.wall.as_secs_f64())),
            median(self.costs.iter().map(|cost| cost.cpu.as_secs_f64())),
            self.costs.iter().map(|cost| cost.peak_kib).max().unwrap_or_default() >> 10,
        );
    }
}

impl Cost {
    fn cpu(&self) -> Duration {
        self.cpu
    }

    fn wall(&self) -> Duration {
        self.wall
    }
}

/// Prints the median of the rounds' ratios, and the least and the greatest.
fn ratio(name: &str, of: &Row, to: &Row, what: fn(&Cost) -> Duration) {
    let pairs = of.costs.iter().zip(&to.costs);
    let ratios: Vec<f64> = pairs.map(|(of, to)| what(of).as_secs_f64() / what(to).as_secs_f64()).collect();
    if ratios.is_empty() {
        return;
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    println!("  {name:<34} {:>7.2}  ({least:.2} to {most:.2})", median(ratios.into_iter()));
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
