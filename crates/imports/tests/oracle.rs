//! Our findings are node's own, for every form of import and export.
#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

mod corpus;

use cutover_imports::{
    Builtins, Cache, Finding, Interpreter, Kind, Limits, Root, Scope, Trees, Weight, check,
};
use cutover_testkit::{openclaw, slow};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const INSTALL: Duration = Duration::from_secs(600);

/// Programs of other makers, bundled and not, old and new.
const PROGRAMS: [(&str, &str); 8] = [
    ("@angular/cli", "20.3.43"),
    ("eslint", "9.39.5"),
    ("next", "15.5.29"),
    ("pm2", "6.0.14"),
    ("prettier", "3.10.1"),
    ("typescript", "5.9.3"),
    ("vite", "7.3.8"),
    ("webpack", "5.112.2"),
];

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
    let node = &node();
    let (interpreter, builtins, directory) =
        (interpreter(node), builtins(node), tempfile::tempdir().unwrap());
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
    let theirs = asked(node, &trees);
    let mut disagreements = Vec::new();
    for ((name, root, entries), theirs) in trees.iter().zip(&theirs) {
        let ours = found(root, entries, interpreter, &builtins);
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

fn builtins(node: &OsStr) -> Builtins {
    let output = Command::new(node).arg("-e").arg(Builtins::QUESTION).output().unwrap();
    Builtins::told(&output.stdout).expect("node tells what it exports")
}

#[test]
fn real_programs_are_linked_by_node_where_we_find_nothing() {
    if !slow::is_asked_for("programs", "real_programs_are_linked_by_node_where_we_find_nothing") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept = runtime.block_on(openclaw::Runtime::kept_in(&cache(), INSTALL)).unwrap();
    let node = kept.node();
    let node = node.as_os_str();
    for version in [openclaw::OLD, openclaw::NEW] {
        let project = cache().join("openclaw").join(version);
        let package = runtime.block_on(kept.gateway(version, &project, INSTALL)).unwrap();
        let _ = agree(node, &[package], Scope::Whole);
    }
    for (name, version) in PROGRAMS {
        let _ = agree(node, &[installed(name, version)], Scope::Reachable);
    }
}

#[test]
fn a_gateway_and_its_plugin_are_linked_by_node_where_we_find_nothing() {
    if !slow::is_asked_for("programs", "a_gateway_and_its_plugin_are_linked_by_node_where_we_find_nothing") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept = runtime.block_on(openclaw::Runtime::kept_in(&cache(), INSTALL)).unwrap();
    let [older, newer] = openclaw::LATEST;
    for (host, version, missing) in
        [(older, older, 0), (newer, newer, 0), (older, newer, 2), (newer, openclaw::PLUGIN_VERSIONS[1], 1)]
    {
        let project = cache().join("openclaw").join(host);
        let host = runtime.block_on(kept.gateway(host, &project, INSTALL)).unwrap();
        // Beside one another, so that node finds the host from the plugin.
        let directory = tempfile::tempdir_in(cache()).unwrap();
        let plugin = directory.path().join("node_modules").join(openclaw::PLUGIN);
        std::fs::create_dir_all(plugin.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&host, directory.path().join("node_modules/openclaw")).unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(installed(openclaw::PLUGIN, version)).arg(&plugin).status();
        assert!(copied.unwrap().success());
        let found = agree(kept.node().as_os_str(), &[host, plugin], Scope::Whole);
        let of_host = |it: &&Finding| it.specifier.starts_with("openclaw/");
        assert_eq!(found.iter().filter(of_host).count(), missing, "{version}");
    }
}

fn cache() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci");
    std::env::var_os("CUTOVER_TEST_CACHE").map_or_else(default, PathBuf::from)
}

/// Installs a program without running anything of it, unless it is there.
fn installed(name: &str, version: &str) -> PathBuf {
    let project = cache().join("programs").join(format!("{}@{version}", name.replace('/', "+")));
    if !project.join("node_modules/.package-lock.json").exists() {
        std::fs::create_dir_all(&project).unwrap();
        std::fs::write(project.join("package.json"), "{\"private\":true}\n").unwrap();
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--ignore-scripts",
            "--omit=dev",
            "--no-fund",
            "--no-audit",
            "--prefer-offline",
            "--prefix",
        ]);
        let status =
            npm.arg(&project).arg(format!("{name}@{version}")).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "npm installs {name}@{version}: {status}");
    }
    project.join("node_modules").join(name)
}

fn interpreter(node: &OsStr) -> Interpreter {
    let output = Command::new(node).arg("--version").output().expect("node is on PATH");
    let version = String::from_utf8(output.stdout).unwrap();
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(|number| number.parse().unwrap());
    Interpreter { major: numbers.next().unwrap(), minor: numbers.next().unwrap() }
}

/// What node says of each tree.
fn asked(node: &OsStr, trees: &[(String, PathBuf, Vec<String>)]) -> Vec<BTreeSet<Fault>> {
    let questions = trees.iter().map(|(_, root, entries)| serde_json::to_string(&(root, entries)).unwrap());
    answered(node, questions.collect())
}

fn answered(node: &OsStr, questions: Vec<String>) -> Vec<BTreeSet<Fault>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/oracle.cjs");
    let mut node = Command::new(node)
        .args(["--expose-internals", "--experimental-vm-modules", "--no-warnings"])
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    input.write_all(questions.join("\n").as_bytes()).unwrap();
    drop(input);
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "node ends with {}", output.status);
    let read = |line: &str| {
        let faults: Vec<Fault> = serde_json::from_str(line).unwrap();
        faults.into_iter().map(without_wording).collect()
    };
    let answers: Vec<BTreeSet<Fault>> = String::from_utf8(output.stdout).unwrap().lines().map(read).collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// Checks an installed package with all that leads out of it, and lets node link every module that was read, and look up
/// every specifier that we did not find.
fn agree(node: &OsStr, packages: &[PathBuf], scope: Scope) -> Vec<Finding> {
    let roots: Vec<PathBuf> = packages.iter().map(|package| package.canonicalize().unwrap()).collect();
    let root = roots[0].clone();
    let trees = Trees {
        roots: roots.into_iter().map(|directory| Root { directory, entries: Vec::new(), scope }).collect(),
        aliases: Vec::new(),
        interpreter: interpreter(node),
        builtins: builtins(node),
        limits: Limits { threads: 2, ..Limits::default() },
    };
    let checked = check(&trees, &mut Cache::default()).unwrap();
    let hard: Vec<_> = checked.findings.iter().filter(|it| it.weight == Weight::Hard).collect();
    assert!(hard.is_empty(), "a program that is published can be loaded: {hard:?}");
    let ours =
        checked.findings.iter().filter(|it| !it.specifier.is_empty() && it.kind != Kind::UndefinedName);
    let ours: Vec<&Finding> = ours.collect();
    let rule = |it: &Finding| if it.text.contains("\nRequire stack:") { "require" } else { "import" };
    let questions: Vec<_> =
        ours.iter().filter(|it| it.name.is_none()).map(|it| (&it.file, &it.specifier, rule(it))).collect();
    let line = serde_json::to_string(&(&root, &checked.files, questions)).unwrap();
    let theirs = answered(node, vec![line]).remove(0);
    let ours: BTreeSet<Fault> = ours.into_iter().map(|it| without_wording(fault(&root, it))).collect();
    // Node says once, with a name that it does not know, that a module is not linked, in the words of the first fault that
    // it met, which may be of another module that it imports.
    let refused: Vec<&Fault> = theirs.iter().filter(|it| it.name.as_deref() == Some("?")).collect();
    let is_told = |it: &Fault| {
        if refused.contains(&it) {
            ours.iter().any(|ours| ours.name.is_some() && ours.text == it.text)
        } else {
            it.name.is_some() && refused.iter().any(|refused| refused.file == it.file)
        }
    };
    let differences: Vec<_> = theirs.symmetric_difference(&ours).filter(|it| !is_told(it)).collect();
    println!("{packages:?}: {} files, {} findings", checked.files.len(), ours.len());
    let told: Vec<String> = differences.iter().map(|it| format!("{it:?}")).collect();
    assert!(differences.is_empty(), "{packages:?}:\n{}", told.join("\n"));
    checked.findings
}

fn found(root: &Path, entries: &[String], interpreter: Interpreter, builtins: &Builtins) -> BTreeSet<Fault> {
    let trees = Trees {
        roots: vec![Root {
            directory: root.to_owned(),
            entries: entries.iter().map(Into::into).collect(),
            scope: Scope::Reachable,
        }],
        aliases: Vec::new(),
        interpreter,
        builtins: builtins.clone(),
        limits: Limits::default(),
    };
    let checked = check(&trees, &mut Cache::default()).unwrap();
    let said = checked.findings.iter().filter(|finding| finding.kind != Kind::UndefinedName);
    said.map(|finding| without_wording(fault(root, finding))).collect()
}

fn fault(root: &Path, finding: &Finding) -> Fault {
    Fault {
        file: relative(root, &finding.file),
        specifier: finding.specifier.clone(),
        name: finding.name.clone(),
        text: finding.text.lines().next().unwrap().to_owned(),
    }
}

/// A path as it is written from a directory.
fn relative(root: &Path, file: &Path) -> String {
    let common = root.ancestors().find(|it| file.starts_with(it)).unwrap();
    let up = root.strip_prefix(common).unwrap().components().map(|_| "..");
    let down = file.strip_prefix(common).unwrap().components().map(|it| it.as_os_str().to_str().unwrap());
    up.chain(down).collect::<Vec<_>>().join("/")
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
