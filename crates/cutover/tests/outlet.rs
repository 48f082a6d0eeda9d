//! The command line and somebody who stops reading it, as `| head` does.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cutover(words: &[&str], state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(words).arg("--state").arg(state).env("HOME", state).env_remove("CUTOVER_CONFIG");
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs a command whose results nobody reads.
fn unread(words: &[&str], state: &Path) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    cutover(words, state).stdout(writer).output().unwrap()
}

#[track_caller]
fn ended_quietly(output: &Output) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0), "{:?}", output.status);
}

#[test]
fn a_command_whose_reader_has_gone_ends_quietly_with_its_own_exit_code() {
    let ground = tempfile::tempdir().unwrap();
    ended_quietly(&unread(&["config", "schema"], ground.path()));
    let refused = unread(&["show", "no-such-run"], ground.path());
    assert_ne!(refused.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("panicked"));
}

#[test]
fn a_log_that_nobody_reads_any_more_is_not_followed() {
    let ground = tempfile::tempdir().unwrap();
    let service = ground.path().join("services/web");
    fs::create_dir_all(service.join("logs")).unwrap();
    fs::create_dir_all(service.join("instances/1")).unwrap();
    fs::write(service.join("logs/1.log"), "a line\n").unwrap();
    ended_quietly(&unread(&["logs", "web", "-f"], ground.path()));
}

#[test]
fn a_result_that_cannot_be_written_is_told_and_is_no_success() {
    let ground = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = cutover(&["config", "schema"], ground.path()).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("could not be written") && !said.contains("panicked"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
