//! Our findings are node's own, for every form of import and export.

mod corpus;

use cutover_imports::{Cache, Finding, Interpreter, Kind, Limits, Root, Scope, Trees, check};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One fault as both sides tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Fault {
    file: String,
    specifier: String,
    name: Option<String>,
    text: String,
}

#[test]
fn our_findings_are_those_of_node_itself() {
    let (interpreter, directory) = (interpreter(), tempfile::tempdir().unwrap());
    let root = directory.path().canonicalize().unwrap();
    let trees: Vec<(String, PathBuf, Vec<String>)> = corpus::trees()
        .into_iter()
        .enumerate()
        .map(|(number, tree)| {
            let root = root.join(number.to_string());
            tree.write(&root);
            let entries = tree.entries();
            (tree.name, root, entries)
        })
        .collect();
    let theirs = asked(&trees);
    let mut disagreements = Vec::new();
    for ((name, root, entries), theirs) in trees.iter().zip(&theirs) {
        let ours = found(root, entries, interpreter);
        disagreements.extend(theirs.difference(&ours).map(|it| format!("{name}: only node: {it:?}")));
        disagreements.extend(ours.difference(theirs).map(|it| format!("{name}: only we: {it:?}")));
    }
    let faults: usize = theirs.iter().map(BTreeSet::len).sum();
    println!("{} trees, {faults} faults", trees.len());
    assert!(trees.len() > 40 && faults > 90, "the corpus was read: {} trees, {faults} faults", trees.len());
    assert!(disagreements.is_empty(), "{} disagreements:\n{}", disagreements.len(), disagreements.join("\n"));
}

/// The node to ask: the variable names another one than the machine's.
fn node() -> OsString {
    std::env::var_os("CUTOVER_TEST_NODE").unwrap_or_else(|| "node".into())
}

fn interpreter() -> Interpreter {
    let output = Command::new(node()).arg("--version").output().expect("node is on PATH");
    let version = String::from_utf8(output.stdout).unwrap();
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(|number| number.parse().unwrap());
    Interpreter { major: numbers.next().unwrap(), minor: numbers.next().unwrap() }
}

/// What node says of each tree.
fn asked(trees: &[(String, PathBuf, Vec<String>)]) -> Vec<BTreeSet<Fault>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/oracle.cjs");
    let mut node = Command::new(node())
        .args(["--expose-internals", "--experimental-vm-modules", "--no-warnings"])
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = node.stdin.take().unwrap();
    for (_, root, entries) in trees {
        writeln!(questions, "{}", serde_json::to_string(&(root, entries)).unwrap()).unwrap();
    }
    drop(questions);
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "node asks {}", output.status);
    let answers: Vec<BTreeSet<Fault>> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let faults: Vec<Fault> = serde_json::from_str(line).unwrap();
            faults.into_iter().map(without_wording).collect()
        })
        .collect();
    assert_eq!(answers.len(), trees.len());
    answers
}

fn found(root: &Path, entries: &[String], interpreter: Interpreter) -> BTreeSet<Fault> {
    let trees = Trees {
        roots: vec![Root {
            directory: root.to_owned(),
            entries: entries.iter().map(Into::into).collect(),
            scope: Scope::Reachable,
        }],
        aliases: Vec::new(),
        interpreter,
        limits: Limits::default(),
    };
    let checked = check(&trees, &mut Cache::default()).unwrap();
    let said = checked.findings.iter().filter(|finding| finding.kind != Kind::UndefinedName);
    said.map(|finding| without_wording(fault(root, finding))).collect()
}

fn fault(root: &Path, finding: &Finding) -> Fault {
    Fault {
        file: finding.file.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        specifier: finding.specifier.clone(),
        name: finding.name.clone(),
        text: finding.text.lines().next().unwrap().to_owned(),
    }
}

/// The parsers' words differ, and so does what is said of CommonJS, which the loader puts in other words than the
/// linker that the oracle asks.
fn without_wording(mut fault: Fault) -> Fault {
    if fault.text.contains("ERR_INVALID_PACKAGE_CONFIG")
        || fault.text.starts_with("SyntaxError: Error parsing")
    {
        fault.text = "not a manifest".to_owned();
    }
    if fault.text.starts_with("SyntaxError") && fault.name.is_none() {
        fault.text = "SyntaxError".to_owned();
    }
    if fault.text.starts_with("SyntaxError: Named export") || fault.text.contains(".cjs' does not provide") {
        fault.text = "SyntaxError: not exported by CommonJS".to_owned();
    }
    fault
}
