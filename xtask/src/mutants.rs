//! `cargo xtask mutants`: deliberate mistakes in the core, each of which a named test must notice.
//!
//! Knows patches and how to run one test; must not know what the core decides. A patch in `crates/core/mutants` begins
//! with `what:` (the mistake, in words) and `killed-by:` (a test file and the test in it).

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// One deliberate mistake.
struct Mutant {
    name: String,
    patch: PathBuf,
    what: String,
    test: Test,
}

/// One test of the core.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    file: String,
    name: String,
}

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    Passed,
    Failed,
    /// Nothing ran: the mutant does not compile, or there is no such test.
    Nowhere,
}

/// Applies every mutant to a copy of the core and requires that its test fails there, and passes without it.
///
/// # Errors
/// If a test fails without a mutant, if a mutant survives, or if something cannot be copied, patched or run.
pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let mutants = mutants(&root.join("crates/core/mutants"))?;
    let copy = tempfile::tempdir().context("a directory for the copy")?;
    let target = root.join("target/mutants");
    copy_core(root, copy.path())?;
    let tests: BTreeSet<&Test> = mutants.iter().map(|mutant| &mutant.test).collect();
    for test in &tests {
        let (went, _) = run_test(copy.path(), &target, test)?;
        ensure!(went == Went::Passed, "{} {} must pass without a mutant: {went:?}", test.file, test.name);
    }
    println!("{} tests pass without a mutant", tests.len());
    let mut survivors = Vec::new();
    for mutant in &mutants {
        copy_core(root, copy.path())?;
        apply(copy.path(), &mutant.patch)?;
        let (went, took) = run_test(copy.path(), &target, &mutant.test)?;
        let verdict = match went {
            Went::Failed => "killed",
            Went::Passed => "SURVIVED",
            Went::Nowhere => "DID NOT RUN",
        };
        let Mutant { name, what, test, .. } = mutant;
        println!("{verdict:<11} {took:>5.1?}  {name:<36} {what}\n{:20}by {}::{}", "", test.file, test.name);
        if went != Went::Failed {
            survivors.push(name.as_str());
        }
    }
    println!("mutants: {} passed, {} failed", mutants.len() - survivors.len(), survivors.len());
    ensure!(survivors.is_empty(), "not killed: {}", survivors.join(", "));
    Ok(())
}

fn mutants(directory: &Path) -> Result<Vec<Mutant>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut patches = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    ensure!(!patches.is_empty(), "no mutants in {}", directory.display());
    patches.into_iter().map(parse).collect()
}

fn parse(patch: PathBuf) -> Result<Mutant> {
    let text = fs::read_to_string(&patch).with_context(|| patch.display().to_string())?;
    let head = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|line| line.trim().to_owned()).with_context(|| format!("{}: no `{key}`", patch.display()))
    };
    let what = head("what:")?;
    let killed_by = head("killed-by:")?;
    let Some((file, name)) = killed_by.split_once(' ') else {
        bail!("{}: `killed-by:` names a test file and a test", patch.display());
    };
    let test = Test { file: file.to_owned(), name: name.to_owned() };
    let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Mutant { name, patch, what, test })
}

/// The core alone, as a workspace of its own: the shared target directory then knows it from run to run.
fn copy_core(root: &Path, to: &Path) -> Result<()> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("the workspace's Cargo.toml")?;
    let alone: Vec<&str> = manifest
        .lines()
        .filter(|line| !line.starts_with("default-members"))
        .map(|line| if line.starts_with("members") { "members = [\"crates/core\"]" } else { line })
        .collect();
    write_new(&to.join("Cargo.toml"), alone.join("\n").as_bytes())?;
    if !to.join("Cargo.lock").exists() {
        fs::copy(root.join("Cargo.lock"), to.join("Cargo.lock")).context("Cargo.lock")?;
    }
    fs::create_dir_all(to.join("docs")).context("docs")?;
    write_new(&to.join("docs/states.md"), &fs::read(root.join("docs/states.md")).context("docs/states.md")?)?;
    for entry in walkdir::WalkDir::new(root.join("crates/core")) {
        let entry = entry?;
        let path = to.join(entry.path().strip_prefix(root)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        } else {
            write_new(&path, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Writes only what differs, so that only what differs is compiled again.
fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|known| known == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| path.display().to_string())
}

fn apply(copy: &Path, patch: &Path) -> Result<()> {
    let status =
        Command::new("git").arg("apply").arg(patch).current_dir(copy).status().context("git apply")?;
    ensure!(status.success(), "{} does not apply to today's core", patch.display());
    Ok(())
}

fn run_test(copy: &Path, target: &Path, test: &Test) -> Result<(Went, Duration)> {
    let began = Instant::now();
    let output = Command::new(env!("CARGO"))
        .args([
            "test",
            "--offline",
            "--package",
            "cutover-core",
            "--test",
            &test.file,
            "--",
            "--exact",
            &test.name,
        ])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("UPDATE")
        .output()
        .context("cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let went = match output.status.success() {
        true if said.contains("test result: ok. 1 passed") => Went::Passed,
        false if said.contains("test result: FAILED. 0 passed; 1 failed") => Went::Failed,
        _ => Went::Nowhere,
    };
    Ok((went, began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_applies_to_todays_core() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for mutant in mutants(&root.join("crates/core/mutants")).unwrap() {
            let mut check = Command::new("git");
            check.args(["apply", "--check"]).arg(&mutant.patch).current_dir(root);
            let output = check.output().unwrap();
            assert!(output.status.success(), "{}: {}", mutant.name, String::from_utf8_lossy(&output.stderr));
        }
    }
}
