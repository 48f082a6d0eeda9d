//! SIGUSR1: what is granted, what is refused, and that a refusal leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use cutover_intent::{Intent, RunId, identity, issue, prepare_directory};
use running::{Area, Running, until};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::path::PathBuf;

/// A gateway with an intent directory that belongs to it.
fn start(area: &Area) -> (Running, PathBuf) {
    let directory = area.path("intents");
    prepare_directory(&directory, None).unwrap();
    let file = directory.join("sample.json");
    let gateway = area.start_with(|command| command.env(cutover_intent::FILE_VARIABLE, &file));
    (gateway, file)
}

fn intent_for(pid: u32) -> Intent {
    let instance = identity::instance(pid).unwrap();
    Intent::from_now(RunId("run-1".into()), "nonce".into(), "sample".into(), instance)
}

#[test]
fn r03_a_stray_sigusr1_is_refused_and_a_later_legitimate_one_works() {
    let area = Area::with(Knobs::default());
    let (mut gateway, file) = start(&area);
    gateway.signal(Signal::USR1);
    gateway.line("SIGUSR1 restart ignored (not authorized): no restart intent");
    assert_eq!(gateway.get("/readyz").status, 200);

    issue(&file, &intent_for(gateway.pid()), None).unwrap();
    gateway.signal(Signal::USR1);
    assert_eq!(gateway.exit_code(), Some(0));
    gateway.line("authorized by the intent of run run-1");
    assert!(!file.exists(), "an intent is good once");
}

#[test]
fn an_intent_for_another_process_is_refused() {
    let area = Area::with(Knobs::default());
    let (mut gateway, file) = start(&area);
    issue(&file, &intent_for(std::process::id()), None).unwrap();
    gateway.signal(Signal::USR1);
    gateway.line("(not authorized): restart intent is meant for pid");
    assert!(gateway.is_alive());
}

#[test]
fn without_an_intent_file_only_the_policy_can_allow_a_restart() {
    let area = Area::with(Knobs::default());
    let refusing = area.start();
    refusing.signal(Signal::USR1);
    refusing.line("SIGUSR1 restart ignored (not authorized)");
    assert_eq!(refusing.json("/version")["signals"]["usr1"], 1);

    let area = Area::with(Knobs { allow_external: true, ..Knobs::default() });
    let mut allowing = area.start();
    allowing.signal(Signal::USR1);
    assert_eq!(allowing.exit_code(), Some(0));
}

#[test]
fn a_service_that_ignores_sigusr1_leaves_even_a_valid_intent_alone() {
    let area = Area::with(Knobs { ignore_usr1: true, ..Knobs::default() });
    let (mut gateway, file) = start(&area);
    issue(&file, &intent_for(gateway.pid()), None).unwrap();
    gateway.signal(Signal::USR1);
    gateway.line("SIGUSR1 ignored");
    until("the signal is counted", || gateway.json("/version")["signals"]["usr1"] == 1);
    assert!(gateway.is_alive() && file.exists());
}
