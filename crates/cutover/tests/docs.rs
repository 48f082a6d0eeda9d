//! The documentation is true: what is generated is compared with the program, what is shown is run, what is cited exists.
//! `UPDATE=1` writes the generated pages anew.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::config::{ServiceSettings, parse};
use cutover::demo::free_address;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");

/// Defaults that the schema's descriptions do not state; the same test checks them.
const DEFAULTS: [(&str, &str); 1] = [("policy.rollback", "auto")];

/// In place of a default.
const REQUIRED: &str = "(required)";

const LEAST: &str = r#"
[service.web]
source = { directory = "/srv/releases" }
command = ["{root}/bin/server", "--port", "{port}"]
listen = "127.0.0.1:8080"
probe = { ready = "/readyz", version = { http = "/version" } }
"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares a generated page with what stands there, or writes it.
fn is_current(name: &str, generated: &str) {
    let path = repository().join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, generated).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(generated.lines()).find(|(written, generated)| written != generated);
    assert!(
        written == generated,
        "{name} is not what the program says; run `UPDATE=1 cargo test -p cutover --test docs`. First difference: {differs:?}"
    );
}

fn help(words: &[String]) -> String {
    let mut command = Command::new(CUTOVER);
    command.args(words).arg("--help").env("COLUMNS", "100").stdin(Stdio::null());
    for variable in ["CUTOVER_CONFIG", "CUTOVER_STATE", "CUTOVER_RUNTIME"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn describe(words: &[String], page: &mut String) {
    let help = help(words);
    let title = if words.is_empty() { String::new() } else { format!(" {}", words.join(" ")) };
    let _ = write!(page, "\n## `cutover{title}`\n\n```text\n{help}\n```\n");
    for name in commands(&help) {
        describe(&[words, &[name]].concat(), page);
    }
}

#[test]
fn the_command_line_reference_is_what_the_program_says() {
    let mut page = String::from(
        "# Command line\n\nWhat `--help` says for every command. Generated; `UPDATE=1 cargo test -p cutover --test docs` writes it anew.\n",
    );
    describe(&[], &mut page);
    assert!(page.contains("`cutover config check`"), "commands of commands are described too");
    is_current("docs/cli.md", &page);
}

fn schema() -> Value {
    let output = Command::new(CUTOVER).args(["config", "schema"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One table of the configuration.
struct Table {
    /// Its path, `service.NAME.policy`.
    path: String,
    kind: TableKind,
    meaning: String,
    keys: Vec<Key>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TableKind {
    Plain,
    /// Any number of them, each in double brackets.
    Listed,
}

/// One key of a table.
struct Key {
    name: String,
    kind: String,
    default: Option<String>,
    meaning: String,
}

/// Adds the tables below a definition: its own keys first, then the tables in it.
fn add_tables(schema: &Value, definition: &Value, mut table: Table, found: &mut Vec<Table>) {
    let empty = Map::new();
    let required: BTreeSet<&str> =
        definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut below = Vec::new();
    for (name, property) in definition["properties"].as_object().unwrap_or(&empty) {
        let path = if table.path.is_empty() { name.clone() } else { format!("{}.{name}", table.path) };
        let target = resolved(schema, property);
        let meaning = property["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
        let is_required = required.contains(name.as_str());
        if let Some((definition, suffix, kind)) = table_at(schema, target) {
            let note = if is_required && !meaning.contains("Required") { " Required." } else { "" };
            let meaning = format!("{meaning}{note}");
            below.push((
                definition,
                Table { path: format!("{path}{suffix}"), kind, meaning, keys: Vec::new() },
            ));
            continue;
        }
        let default = match DEFAULTS.iter().find(|(key, _)| path.ends_with(key)) {
            Some((_, default)) => Some((*default).to_owned()),
            None if is_required => Some(REQUIRED.to_owned()),
            None => stated_default(meaning),
        };
        table.keys.push(Key {
            name: name.clone(),
            kind: kind(schema, target),
            default,
            meaning: meaning.to_owned(),
        });
    }
    if !table.path.is_empty() {
        found.push(table);
    }
    for (definition, table) in below {
        add_tables(schema, definition, table, found);
    }
}

/// The table that a property is, if it is one.
fn table_at<'a>(schema: &'a Value, target: &'a Value) -> Option<(&'a Value, &'static str, TableKind)> {
    if target["properties"].is_object() {
        return Some((target, "", TableKind::Plain));
    }
    let named = resolved(schema, &target["additionalProperties"]);
    if named["properties"].is_object() {
        return Some((named, ".NAME", TableKind::Plain));
    }
    let listed = resolved(schema, &target["items"]);
    listed["properties"].is_object().then_some((listed, "", TableKind::Listed))
}

fn resolved<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let either = property["anyOf"].as_array();
    let given = either.and_then(|either| either.iter().find(|one| one["type"] != "null")).unwrap_or(property);
    match given["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        Some(name) => &schema["$defs"][name],
        None => given,
    }
}

/// What may be written.
fn kind(schema: &Value, target: &Value) -> String {
    if let Some(choices) = target["oneOf"].as_array() {
        let words =
            choices.iter().filter_map(|choice| choice["const"].as_str()).map(|word| format!("`\"{word}\"`"));
        return words.collect::<Vec<_>>().join(", ");
    }
    if let Some(either) = target["anyOf"].as_array() {
        return either.iter().map(|one| kind(schema, one)).collect::<Vec<_>>().join(" or ");
    }
    let named = target["description"].as_str().unwrap_or_default();
    match target["type"].as_str().or(target["type"][0].as_str()) {
        Some("array") => format!("list of {}s", kind(schema, resolved(schema, &target["items"]))),
        Some("object") => "table of strings".into(),
        Some("string") if named.starts_with("A duration") => "duration".into(),
        Some("string") if named.starts_with("A size") => "size".into(),
        Some(word) => word.into(),
        None => panic!("a key of no type: {target}"),
    }
}

/// A default that a description states as `(5s)`, `(default 5s)`, `default "x"` or ``default `x` ``.
fn stated_default(description: &str) -> Option<String> {
    let text = match description.split_once("default ").or(description.split_once("default: ")) {
        Some((_, text)) => text,
        None => description.strip_suffix(").")?.rsplit_once('(')?.1,
    };
    let quoted = |mark: char| text.strip_prefix(mark).and_then(|rest| rest.split(mark).next());
    let word = quoted('"').or(quoted('`'));
    let plain = || text.split([',', ';', ')']).next().unwrap_or_default();
    let default = word.unwrap_or_else(plain).trim_end_matches('.').trim();
    let is_literal = !default.is_empty() && !default.contains(' ') && !default.contains('[');
    is_literal.then(|| default.to_owned())
}

fn all_tables() -> Vec<Table> {
    let schema = schema();
    let mut found = Vec::new();
    let root =
        Table { path: String::new(), kind: TableKind::Plain, meaning: String::new(), keys: Vec::new() };
    add_tables(&schema, &schema, root, &mut found);
    let policy = found.iter().find(|table| table.path == "service.NAME.policy").expect("there is a policy");
    assert!(policy.keys.iter().any(|key| key.name == "soak" && key.default.as_deref() == Some("30s")));
    found
}

/// A text as it may stand in a table: in one line, without a bar that would end its cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

const PREFACE: &str = r#"# Configuration

TOML. Every key that the file may have; unknown keys are errors that name the line and the nearest valid key.
Generated; `UPDATE=1 cargo test -p cutover --test docs` writes it anew. `cutover config check` reads a file and says
everything that is wrong with it at once, `cutover config schema` prints the JSON Schema.

The file is, in this order: `--config`, `CUTOVER_CONFIG`, `$XDG_CONFIG_HOME/cutover/cutover.toml` (for root
`/etc/cutover/cutover.toml`). Services may be spread over `conf.d/*.toml` beside it; `[daemon]` stands in the main file alone. A
changed file is taken up when the daemon is restarted; services go on meanwhile.

State lies in `--state`, `CUTOVER_STATE`, `daemon.state`, or `$XDG_STATE_HOME/cutover` (for root `/var/lib/cutover`). Sockets lie in
`--runtime`, `CUTOVER_RUNTIME`, `daemon.runtime`, in `run` below a state directory that was named, or in `$XDG_RUNTIME_DIR/cutover`
(for root `/run/cutover`; without that variable `run` below the state). A command that does not find the daemon looks in another
place than the daemon was told: a shell of `cron` or `su` often lacks the variable. `CUTOVER_LOG=debug` has daemon and fronts tell more
on standard error.

A service's environment is made of the daemon's `PATH`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR`, `HOME` and `USER` (these two of the
service's user, if it has one), then `env_file`, then `env`; and `CUTOVER_NONCE` and `CUTOVER_INTENT_FILE`, by which a start and
[the permission to restart](security.md#the-permission-to-restart) are known.

Durations are written `"250ms"`, `"30s"`, `"1m30s"`, `"10min"`, `"1h"`; sizes `"64KiB"`, `"10MiB"`, `"2GiB"`.
`{root}`, `{port}`, `{node}`, `{home}` and `{env:NAME}` stand for the sealed release's directory, the service's own port,
the configured `node`, the home of the service's user and a variable of the service's environment.

`preset = "openclaw"` says everything that is known of that service; what the file says itself goes before it, tables key
by key, lists as a whole. `cutover config show` prints what is in effect, secrets hidden.

Rules between keys:

- `source` names exactly one of `directory` and `npm`; `probe.version` exactly one of `http` and `openclaw`; at least one of
  `probe.live` and `probe.ready` is there.
- Without `listen`, `port` is a number. With `port = "auto"`, `{port}` appears in `command` or `env`.
- A word of `command` begins with `{root}/`, or `entry` is named: that file proves which code runs.
- The program of `command` is no script: its process would be the interpreter, which proves nothing. Write the interpreter
  first. `config check` and `serve` refuse it; below `{root}` the preflight does, before anything stops.
- `strategy = "signal"` and `state` exclude each other.
- An OpenClaw gateway takes no `strategy = "signal"`; and where `listen` is reached from other machines, `forwarded` is
  `"x-forwarded-remote"`. Its `OPENCLAW_CONFIG_PATH` lies in a declared `state`, whether `env` or `env_file` names it: `config check`,
  as far as its account can read both, and `serve` refuse another.
"#;

/// Commands that are told without flags, and why that is right.
const FLAGLESS: [(&str, &str, &str); 11] = [
    ("src/front_process.rs", "cutover front", "nobody types it"),
    ("src/cli/adopt/takeover.rs", "cutover adopt openclaw", "says who wrote the file"),
    ("src/config/file.rs", "cutover config schema", "is the same with any flags"),
    ("src/api/rpc.rs", "cutover config schema", "is the same with any flags"),
    ("src/cli/orders.rs", "cutover config schema", "is the same with any flags"),
    ("src/config/layout.rs", "cutover status", "there is no layout yet"),
    (
        "src/journal.rs",
        "cutover serve",
        "the journal knows no flags, and its callers look whether it is there",
    ),
    ("src/api/http.rs", "cutover open", "told to whoever has no valid token: no path leaves"),
    ("src/api/guard.rs", "cutover open", "told to whoever has no token: no path leaves"),
    ("src/predecessor/error.rs", "cutover", "told by `adopt`, which was just typed"),
    ("src/predecessor/record.rs", "cutover adopt openclaw", "of records that were begun before they held it"),
];

#[test]
fn commands_that_are_told_are_made_where_their_flags_are_known() {
    let begins = ["`cutover ", "\"cutover "];
    let mut met = BTreeSet::new();
    let mut found = Vec::new();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in walkdir::WalkDir::new(home.join("src")).into_iter().flatten() {
        let path = entry.path().strip_prefix(home).unwrap().display().to_string();
        if !path.ends_with(".rs") || path.starts_with("src/demo") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in shipped.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let told = begins.iter().filter_map(|begin| Some(line.split_once(begin)?.1)).next();
            let Some(told) = told else { continue };
            let told = format!("cutover {told}");
            match FLAGLESS.iter().position(|(file, begin, _)| *file == path && told.starts_with(begin)) {
                Some(at) => drop(met.insert(at)),
                None => found.push(format!("{path}: {}", line.trim())),
            }
        }
    }
    assert!(found.is_empty(), "`Layout::command` makes them: {found:#?}");
    assert_eq!(met.len(), FLAGLESS.len(), "each exception is one: {met:?}");
}

#[test]
fn the_configuration_reference_is_the_schema() {
    let mut page = String::from(PREFACE);
    for table in all_tables() {
        let (open, close) = if table.kind == TableKind::Listed { ("[[", "]]") } else { ("[", "]") };
        let (path, meaning) = (&table.path, &table.meaning);
        let _ = write!(page, "\n## `{open}{path}{close}`\n\n{meaning}\n");
        page.push_str("\n| key | value | default | |\n|---|---|---|---|\n");
        for key in table.keys {
            let default = match key.default.as_deref() {
                None => String::new(),
                Some(REQUIRED) => "*required*".to_owned(),
                Some(default) => format!("`{default}`"),
            };
            let _ = writeln!(page, "| `{}` | {} | {default} | {} |", key.name, key.kind, cell(&key.meaning));
        }
    }
    let is_whole = |line: &&str| !line.starts_with('|') || line.ends_with('|');
    assert_eq!(page.lines().find(|line| !is_whole(line)), None, "a row of a table is one line");
    is_current("docs/config.md", &page);
}

fn web(text: &str) -> ServiceSettings {
    let settings = parse(Path::new("cutover.toml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    settings.services["web"].clone()
}

/// The keys of a service with a default, by their path in it. What belongs to another kind of source is left out.
fn defaults() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for table in all_tables().into_iter().filter(|table| table.kind == TableKind::Plain) {
        let Some(rest) = table.path.strip_prefix("service.NAME") else { continue };
        for key in table.keys {
            let path = format!("{rest}.{}", key.name).trim_start_matches('.').to_owned();
            match key.default {
                Some(default) if default != REQUIRED && path != "source.scripts" => {
                    found.push((path, default))
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn every_documented_default_is_the_default() {
    let least = web(LEAST);
    let mut written = 0;
    for (path, default) in defaults() {
        let is_bare = default.parse::<u64>().is_ok() || ["true", "false"].contains(&default.as_str());
        let value = if is_bare { default } else { format!("{default:?}") };
        let dotted = format!("\n{path} = {value}\n");
        // Inline tables of the least configuration cannot be added to from outside.
        let text = match path.split_once('.') {
            Some(("source", name)) => {
                LEAST.replace("source = { ", &format!("source = {{ {name} = {value}, "))
            }
            Some(("probe", name)) if name.starts_with("version.") => LEAST
                .replace("version = { ", &format!("version = {{ {} = {value}, ", &name["version.".len()..])),
            Some(("probe", name)) => LEAST.replace("probe = { ", &format!("probe = {{ {name} = {value}, ")),
            _ => format!("{LEAST}{dotted}"),
        };
        assert!(text.contains(&value), "{path} was not written");
        assert!(web(&text) == least, "`{path}` is documented to be {value} unless it is written, and is not");
        written += 1;
    }
    assert!(written >= 20, "only {written} defaults were checked");
}

/// The fenced blocks of a language on a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            found.push(
                lines
                    .by_ref()
                    .take_while(|line| *line != "```")
                    .fold(String::new(), |text, line| text + line + "\n"),
            );
        }
    }
    found
}

fn checked(directory: &Path, name: &str, text: &str) {
    let path = directory.join("shown.toml");
    fs::write(&path, text).unwrap();
    let output = Command::new(CUTOVER)
        .args(["config", "check", "--config"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_configuration_that_is_shown_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let readme = blocks(&page("README.md"), "toml");
    assert_eq!(readme.len(), 2, "a complete file, and state to add to it");
    checked(directory.path(), "README.md, the file", &readme[0]);
    checked(directory.path(), "README.md, with state", &readme.concat());
    checked(directory.path(), "docs/quickstart.md", &blocks(&page("docs/quickstart.md"), "toml").concat());
    for example in fs::read_dir(repository().join("examples")).unwrap() {
        let path = example.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        // Its secrets are whoever's who reads it.
        let secrets = directory.path().join("example.env");
        fs::write(&secrets, "TOKEN=t\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/etc/openclaw/gateway.env", &secrets.display().to_string());
        checked(directory.path(), &path.display().to_string(), &text);
    }
}

#[test]
fn the_unit_has_what_lets_services_outlive_the_daemon_and_the_page_says_so() {
    let unit = page("examples/cutover.service");
    let told = page("docs/systemd.md");
    for line in
        ["KillMode=process", "RuntimeDirectory=cutover", "RuntimeDirectoryPreserve=yes", "Restart=always"]
    {
        assert!(unit.lines().any(|known| known == line), "{line} is not in the unit");
        assert!(told.contains(&format!("`{line}`")), "{line} is not explained");
    }
}

/// Every page, by its path in the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let root = repository();
    let is_ours = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || (name != "target" && name != "node_modules" && !name.starts_with('.'))
    };
    let mut found: Vec<(PathBuf, String)> = walkdir::WalkDir::new(&root)
        .into_iter()
        .filter_entry(is_ours)
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "md"))
        .map(|entry| (entry.path().to_owned(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    found.sort();
    assert!(found.len() > 10, "the pages are there");
    found
}

/// A page without its fenced and indented code.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    prose
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| kept(*c))
        .collect::<String>()
        .replace(' ', "-")
}

fn has_anchor(text: &str, wanted: &str) -> bool {
    prose(text).lines().filter(|line| line.starts_with('#')).any(|heading| anchor(heading) == wanted)
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for (path, text) in pages() {
        let prose = prose(&text);
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let led = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let is_there = led.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&led).is_ok_and(|text| has_anchor(&text, anchor)));
            if !is_there {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(followed > 20, "links are found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// All of a file tree's Rust.
fn rust() -> String {
    let root = repository();
    let mut text = String::new();
    for directory in ["crates", "xtask"] {
        for entry in walkdir::WalkDir::new(root.join(directory)).into_iter().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    text
}

#[test]
fn tests_and_paths_that_are_cited_exist() {
    let (rust, root) = (rust(), repository());
    let mut missing = Vec::new();
    let (mut tests, mut paths) = (0, 0);
    for (page, text) in pages() {
        // A line end inside a name or a path would only hide it.
        for cited in prose(&text).split('`').skip(1).step_by(2) {
            let plain = cited.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let is_test = plain && cited.matches('_').count() >= 3 && !cited.starts_with("package_");
            let is_path =
                cited.starts_with("crates/") || cited.starts_with("docs/") || cited.starts_with("examples/");
            // How to name a test is shown there by names that none has.
            if is_test && !page.ends_with("CONTRIBUTING.md") {
                tests += 1;
                if !rust.contains(&format!("fn {cited}(")) && !has_setting(cited) {
                    missing.push(format!("{}: no test {cited}", page.display()));
                }
            } else if is_path && !cited.contains(['*', ' ', '{']) {
                paths += 1;
                if !root.join(cited).exists() {
                    missing.push(format!("{}: no {cited}", page.display()));
                }
            }
        }
    }
    assert!(tests > 15 && paths > 15, "citations are found: {tests} tests, {paths} paths");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The rooms that are modules of the one binary.
const MODULES: [&str; 14] = [
    "api",
    "cli",
    "conductor",
    "config",
    "demo",
    "journal",
    "notify",
    "predecessor",
    "preflight",
    "probe",
    "rehearsal",
    "sandbox",
    "store",
    "supervisor",
];
/// The rooms that are crates: directory, name in Cargo files, name in Rust.
const CRATES: [(&str, &str, &str); 6] = [
    ("core", "cutover-core", "cutover_core"),
    ("front", "cutover-front", "cutover_front"),
    ("imports", "cutover-imports", "cutover_imports"),
    ("intent", "cutover-intent", "cutover_intent"),
    ("sample-gateway", "sample-gateway", "sample_gateway"),
    ("testkit", "cutover-testkit", "cutover_testkit"),
];

/// The code of a module, without comments.
fn module(name: &str) -> String {
    let source = repository().join("crates/cutover/src");
    let mut text = fs::read_to_string(source.join(format!("{name}.rs"))).unwrap();
    for entry in walkdir::WalkDir::new(source.join(name)).into_iter().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(entry.path()).unwrap());
        }
    }
    assert!(
        !text.contains("use crate::{"),
        "{name}: write one `use` for each room, so that its arrows can be read"
    );
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether a path appears as a whole, and not as the beginning of a longer name.
fn names(text: &str, path: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(path).any(|(at, _)| !text[at + path.len()..].starts_with(goes_on))
}

/// Which rooms each room uses, as ARCHITECTURE.md lists them.
fn arrows() -> String {
    let mut rooms: Vec<(String, Vec<&str>)> = Vec::new();
    for name in MODULES {
        let text = module(name);
        let mut used: Vec<&str> = MODULES
            .into_iter()
            .filter(|other| *other != name && names(&text, &format!("crate::{other}")))
            .chain(
                CRATES
                    .iter()
                    .filter(|(_, _, rust)| text.contains(&format!("{rust}::")))
                    .map(|(room, _, _)| *room),
            )
            .collect();
        used.sort_unstable();
        rooms.push((name.to_owned(), used));
    }
    for (name, _, _) in CRATES {
        let cargo = page(&format!("crates/{name}/Cargo.toml"));
        let needs = cargo.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
        let is_needed =
            |package: &str| needs.lines().any(|line| line.starts_with(&format!("{package}.workspace")));
        let used =
            CRATES.iter().filter(|(_, package, _)| is_needed(package)).map(|(room, _, _)| *room).collect();
        rooms.push((name.to_owned(), used));
    }
    rooms.sort();
    rooms.iter().fold(String::new(), |mut text, (room, used)| {
        let used = if used.is_empty() { "nobody".to_owned() } else { used.join(", ") };
        let _ = writeln!(text, "{room:<14} → {used}");
        text
    })
}

#[test]
fn the_arrows_between_rooms_are_those_on_the_map() {
    let drawn = blocks(&page("ARCHITECTURE.md"), "text").concat();
    let found = arrows();
    assert!(drawn == found, "the map says\n{drawn}\nthe code says\n{found}");
}

/// Names with as many underscores that are no tests: keys of the configuration, knobs of the sample service.
fn has_setting(name: &str) -> bool {
    let schema = schema().to_string();
    let knobs = fs::read_to_string(repository().join("crates/sample-gateway/src/knobs.rs")).unwrap();
    schema.contains(&format!("\"{name}\"")) || knobs.contains(&format!("pub {name}:"))
}

/// A daemon of the quickstart's world, ended with everything that it started.
struct World {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
}

impl World {
    fn cutover(&self) -> Command {
        let mut command = Command::new(CUTOVER);
        command.env("CUTOVER_CONFIG", self.directory.path().join("hello.toml"));
        command.env("CUTOVER_STATE", self.directory.path().join("state"));
        command.env_remove("CUTOVER_RUNTIME").stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.cutover().args(words).output().unwrap()
    }

    fn succeeds(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let daemon = fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default();
        assert!(
            output.status.success(),
            "{words:?}: {text}{}\n{daemon}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn publish(&self, version: &str, server: &str) {
        let directory = self.directory.path().join("releases").join(version);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("server.py"), server).unwrap();
    }

    fn serve(&mut self) {
        let log = fs::File::create(self.directory.path().join("daemon.log")).unwrap();
        let mut command = self.cutover();
        command.args(["serve", "--stop-services"]).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.run(&["generations", "hello"]).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
            // A daemon that is gone needs no signal.
            let _ = kill_process(pid, Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(30) && matches!(daemon.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        cutover_testkit::sealed::open_up(self.directory.path());
    }
}

fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_quickstart_works_as_written() {
    if !Path::new("/usr/bin/python3").exists() {
        eprintln!("skipped: the_quickstart_works_as_written: there is no /usr/bin/python3");
        return;
    }
    let text = page("docs/quickstart.md");
    let (server, config) = (blocks(&text, "python").concat(), blocks(&text, "toml").concat());
    let mut world = World { directory: tempfile::tempdir().unwrap(), daemon: None };
    let releases = world.directory.path().join("releases");
    let address = free_address().unwrap();
    let config = config
        .replace("/srv/hello/releases", &releases.display().to_string())
        .replace("127.0.0.1:8080", &address.to_string())
        .replace("\"5s\"", "\"300ms\"");
    fs::write(world.directory.path().join("hello.toml"), format!("[daemon]\nlisten = \"off\"\n{config}"))
        .unwrap();
    world.publish("1.0.0", &server);
    world.publish("1.1.0", &server.replace("VERSION = \"1.0.0\"", "VERSION = \"1.1.0\""));
    world.publish("1.2.0", &server.replace("VERSION = \"1.0.0\"", "VERSION = \"1.1.0\""));
    symlink("1.0.0", releases.join("latest")).unwrap();
    world.succeeds(&["config", "check"]);
    world.serve();
    assert!(world.succeeds(&["update"]).contains("package_updated_restart_verified"));
    assert!(ask(address).contains("1.0.0"));
    fs::remove_file(releases.join("latest")).unwrap();
    symlink("1.1.0", releases.join("latest")).unwrap();
    assert!(world.succeeds(&["plan"]).contains("1.0.0 (generation 0001) -> 1.1.0"));
    assert!(ask(address).contains("1.0.0"), "a plan switches nothing");
    assert!(world.succeeds(&["update"]).contains("1.1.0 is live and verified"));
    assert!(ask(address).contains("1.1.0"));
    assert!(world.succeeds(&["status"]).contains("serving 1.1.0"));
    assert_eq!(world.succeeds(&["history"]).lines().count(), 2);
    let lied = world.run(&["update", "--to", "1.2.0", "--json"]);
    let report: Value = serde_json::from_slice(&lied.stdout).unwrap();
    let cause = &report["causes"][0]["fault"];
    // Where the kernel isolates nothing it is found after the cut, and taken back.
    let expected = if report.to_string().contains("skipped: no isolation") {
        (4, "wrong_version")
    } else {
        (3, "rehearsal")
    };
    assert_eq!((lied.status.code().unwrap(), cause["code"].as_str().unwrap()), expected, "{report:#}");
    let detail = cause["detail"].as_str().unwrap();
    assert!(detail.contains("Version: expected 1.2.0, observed 1.1.0"), "{detail}");
    assert!(ask(address).contains("1.1.0"));
}
