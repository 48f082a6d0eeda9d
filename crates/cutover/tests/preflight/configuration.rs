//! The target's own validator, really run on a copy of real state, and what its refusal is worth.

use crate::world::{World, only};
use cutover::preflight::{Conditions, Running, Stop, Validation, configuration};
use cutover::sandbox::Sandbox;
use cutover::store::Tally;
use cutover::store::snapshot::{Moment, Seat, Seating, StateKind, StatePath};
use cutover_core::{BootId, Finding, Level};
use cutover_testkit::openclaw::{NEW, OLD, Runtime};
use cutover_testkit::slow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A gateway's validator as it is: it reads its configuration where it always lies, and leaves traces.
const REFUSES: &str = r#"echo "$0" >> "$1/traces"; printf '{"valid":false,"issues":[{"path":"gateway.port","message":"expected number, received string"}]}'; exit 1"#;

struct Gateway {
    world: World,
}

/// 1.0.0, which nobody sits with.
fn running_as(command: Sandbox) -> Running {
    Running { command, version: "1.0.0".into(), seating: Seating::default() }
}

impl Gateway {
    fn new() -> Gateway {
        let world = World::new();
        fs::create_dir(world.path("state")).unwrap();
        fs::write(world.path("state/config.json"), r#"{"gateway":{"port":"abc"}}"#).unwrap();
        Gateway { world }
    }

    fn state(&self) -> PathBuf {
        self.world.path("state")
    }

    fn validator(&self, script: &str) -> Sandbox {
        let state = self.state().display().to_string();
        Sandbox {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into(), "validate".into(), state],
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: "/".into(),
            identity: None,
            private: vec!["/tmp".into(), "/var/tmp".into()],
            visible: Vec::new(),
            writable: Vec::new(),
            covers: Vec::new(),
            private_max: 1 << 20,
            file_max: 1 << 20,
            said_max: 64 << 10,
        }
    }

    fn validation(&self, target: &str, running: Option<&str>) -> Validation {
        Validation {
            target: self.validator(target),
            running: running.map(|script| running_as(self.validator(script))),
            conditions: self.conditions(),
        }
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            executable: env!("CARGO_BIN_EXE_cutover").into(),
            state: vec![StatePath { path: self.state(), kind: StateKind::Files }],
            seating: Seating::default(),
            scratch: self.world.path("scratch"),
            moment: Moment { boot_id: BootId("boot".into()), at: "2026-01-01T00:00:00Z".parse().unwrap() },
            limit: Duration::from_secs(60),
            stop: Stop::never(),
            tally: Tally::default(),
        }
    }

    fn asked(&self, target: &str, running: Option<&str>) -> Vec<Finding> {
        configuration(&self.validation(target, running))
    }

    /// Nothing was changed where it is live, and nothing of the copies is left.
    fn is_untouched(&self) {
        assert!(!self.state().join("traces").exists(), "the live state was written to");
        let left: Vec<_> = fs::read_dir(self.world.path("scratch")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_refusal_names_the_key_path_in_the_programs_own_words_and_leaves_the_live_state_alone() {
    let gateway = Gateway::new();
    let findings = gateway.asked(REFUSES, Some("exit 0"));
    let block = only(&findings, "configuration", Level::Block);
    assert_eq!(
        block.text,
        "the configuration is refused at `gateway.port`: expected number, received string"
    );
    assert!(block.advice.as_ref().unwrap().contains("preflight.validate"));
    gateway.is_untouched();
}

#[test]
fn the_validator_reads_the_real_configuration_at_its_own_place_and_accepts_with_zero() {
    let gateway = Gateway::new();
    let reads = r#"echo trace > "$1/traces" && grep -q '"abc"' "$1/config.json""#;
    let findings = gateway.asked(reads, Some(REFUSES));
    assert!(
        only(&findings, "configuration", Level::Note).text.starts_with("the target accepts"),
        "{findings:?}"
    );
    gateway.is_untouched();
}

#[test]
fn what_the_running_version_refuses_at_the_same_key_is_a_warning_and_what_is_new_blocks() {
    let gateway = Gateway::new();
    let older = "echo '- gateway.port: is no number'; exit 2";
    let findings = gateway.asked(REFUSES, Some(older));
    let warn = only(&findings, "configuration", Level::Warn);
    assert!(
        warn.text.contains("`gateway.port`") && warn.text.ends_with("1.0.0, which runs, refuses it too"),
        "{warn}"
    );

    let both = "echo '- gateway.port: no number'; echo '- gateway.mode: is required' >&2; exit 1";
    let findings = gateway.asked(both, Some(older));
    let of = |level| findings.iter().find(|finding| finding.level == level).unwrap().text.clone();
    assert!(of(Level::Block).contains("`gateway.mode`") && !of(Level::Block).contains("`gateway.port`"));
    assert!(of(Level::Warn).contains("`gateway.port`"));

    let elsewhere = "echo '- gateway.bind: unknown'; exit 1";
    let findings = gateway.asked(REFUSES, Some(elsewhere));
    assert!(only(&findings, "configuration", Level::Block).text.contains("gateway.port"));
    gateway.is_untouched();
}

#[test]
fn a_refusal_without_a_key_says_so_and_gives_the_last_lines() {
    let gateway = Gateway::new();
    let findings = gateway.asked("echo starting; echo boom >&2; exit 3", Some("exit 0"));
    let block = only(&findings, "configuration", Level::Block);
    assert!(
        block.text.contains("(exit code 3) without naming a key") && block.text.contains("boom"),
        "{block}"
    );
    let findings = gateway.asked("echo boom >&2; exit 3", Some("echo boom >&2; exit 1"));
    only(&findings, "configuration", Level::Warn);
    let missing = Sandbox { program: "/nowhere/validator".into(), ..gateway.validator("") };
    let findings = configuration(&Validation { target: missing, ..gateway.validation("", None) });
    assert!(
        only(&findings, "configuration", Level::Block).text.contains("/nowhere/validator"),
        "{findings:?}"
    );
    gateway.is_untouched();
}

#[test]
fn a_refusal_repeats_no_value_of_the_environment_and_no_secret_of_the_configuration() {
    let gateway = Gateway::new();
    fs::write(
        gateway.state().join("config.json"),
        r#"{"port":"abcdefgh","auth":{"botToken":"t0k3n-value"}}"#,
    )
    .unwrap();
    let says = r#"echo "- auth.botToken: bad value t0k3n-value, not $API, in port abcdefgh"; exit 1"#;
    let mut validation = gateway.validation(says, None);
    validation.target.env.insert("API".into(), "sk-12345".into());
    let block = configuration(&validation);
    assert_eq!(
        only(&block, "configuration", Level::Block).text,
        "the configuration is refused at `auth.botToken`: bad value [hidden], not [hidden], in port abcdefgh"
    );
}

#[test]
fn a_validator_that_hangs_or_is_killed_has_said_nothing_for_or_against_either_version() {
    let gateway = Gateway::new();
    let short = |target, running| Validation {
        conditions: Conditions { limit: Duration::from_secs(2), ..gateway.conditions() },
        ..gateway.validation(target, running)
    };
    for (silent, why) in [("sleep 600", "did not end within 2s"), ("kill -9 $$", "ended by signal 9")] {
        let findings = configuration(&short(silent, Some("exit 0")));
        let warn = only(&findings, "configuration", Level::Warn);
        assert!(warn.text.contains("whether the target accepts") && warn.text.contains(why), "{warn}");

        // The same silence on both sides keeps no refusal from being the target's.
        let target = if silent == "sleep 600" { "exit 1" } else { REFUSES };
        let findings = configuration(&short(target, Some(silent)));
        let [block, warn] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((block.level, warn.level), (Level::Block, Level::Warn), "{findings:?}");
        assert!(warn.text.contains("1.0.0, which runs, accepts") && warn.text.contains(why), "{warn}");
    }
    gateway.is_untouched();
}

#[test]
fn an_asking_that_nobody_wants_any_more_ends_at_once_and_its_copy_is_removed() {
    let gateway = Gateway::new();
    let (interest, stop) = Stop::pair().unwrap();
    let validation = Validation {
        conditions: Conditions { stop, ..gateway.conditions() },
        ..gateway.validation("sleep 600", Some("sleep 600"))
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| configuration(&validation));
        while fs::read_dir(gateway.world.path("scratch")).unwrap().next().is_none() {
            std::thread::yield_now();
        }
        drop(interest);
        let findings = asked.join().unwrap();
        assert!(only(&findings, "configuration", Level::Warn).text.contains("given up"), "{findings:?}");
    });
    assert!(begun.elapsed() < validation.conditions.limit);
    gateway.is_untouched();
}

#[test]
fn what_nobody_wants_to_know_any_more_is_not_even_copied_for() {
    let gateway = Gateway::new();
    let (interest, stop) = Stop::pair().unwrap();
    drop(interest);
    // There is no such place: a copy would fail in other words.
    let scratch = gateway.world.path("nowhere");
    let findings = configuration(&Validation {
        conditions: Conditions { stop, scratch, ..gateway.conditions() },
        ..gateway.validation(REFUSES, None)
    });
    assert!(only(&findings, "configuration", Level::Warn).text.ends_with("is not known: given up"));
}

#[test]
fn without_isolation_nobody_is_asked_and_a_warning_says_so() {
    let gateway = Gateway::new();
    let script = format!(
        "#!/bin/sh\nexec unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-sys_admin --inh-caps=-all {} \"$@\"' sh \"$@\"\n",
        env!("CARGO_BIN_EXE_cutover")
    );
    let executable = gateway.world.program("powerless", &script);
    let findings = configuration(&Validation {
        conditions: Conditions { executable, ..gateway.conditions() },
        ..gateway.validation(REFUSES, Some("exit 0"))
    });
    let warn = only(&findings, "configuration", Level::Warn);
    assert!(warn.text.contains("is not known: no isolation (leaving the machine's namespaces: "), "{warn}");
    gateway.is_untouched();
}

#[test]
fn state_that_cannot_be_copied_is_told_as_not_known_and_blocks_nobody() {
    let gateway = Gateway::new();
    let state = vec![StatePath { path: gateway.world.path("nowhere/state"), kind: StateKind::Files }];
    let findings = configuration(&Validation {
        conditions: Conditions { state, ..gateway.conditions() },
        ..gateway.validation("exit 0", None)
    });
    assert!(only(&findings, "configuration", Level::Warn).text.contains("is not known"), "{findings:?}");
}

#[test]
fn a_file_of_the_state_may_be_written_anew_however_large_it_is_and_no_larger_than_twice_that() {
    let gateway = Gateway::new();
    fs::write(gateway.state().join("large"), vec![0; 3 << 20]).unwrap();
    let twice =
        r#"trap '' XFSZ; head -c 6291456 /dev/zero > "$1/large" || exit 1; ! echo more >> "$1/large""#;
    let findings = gateway.asked(twice, None);
    assert!(
        only(&findings, "configuration", Level::Note).text.starts_with("the target accepts"),
        "{findings:?}"
    );
    gateway.is_untouched();
}

#[test]
fn a_database_is_seen_as_its_consistent_copy_and_written_to_there() {
    let gateway = Gateway::new();
    let path = gateway.world.path("state/app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    let state = vec![
        StatePath { path: gateway.state().join("config.json"), kind: StateKind::Files },
        StatePath { path: path.clone(), kind: StateKind::Sqlite },
    ];
    let script = r#"cd "$1" && test ! -e app.db-wal && grep -q abc config.json && test "$(head -c 15 app.db)" = "SQLite format 3" && echo x >> app.db && echo x > app.db-wal"#;
    let findings = configuration(&Validation {
        conditions: Conditions { state, ..gateway.conditions() },
        ..gateway.validation(script, None)
    });
    assert!(
        only(&findings, "configuration", Level::Note).text.starts_with("the target accepts"),
        "{findings:?}"
    );
    let count: i64 = database.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    gateway.is_untouched();
}

const INSTALL: Duration = Duration::from_secs(600);

/// The real OpenClaw with the preset's own validator: what 2026.5.4 has learned, 2026.5.3-1 refuses.
///
/// `CUTOVER_TEST=real cargo test -p cutover --test preflight real -- --nocapture`
#[tokio::test(flavor = "multi_thread")]
async fn the_real_gateway_names_the_key_that_only_the_other_version_knows() {
    if !slow::is_asked_for("real", "the real gateway's validator is asked") {
        return;
    }
    let target = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci");
    let cache = std::env::var_os("CUTOVER_TEST_CACHE").map_or_else(target, PathBuf::from);
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    let mut packages = Vec::new();
    for version in [OLD, NEW] {
        packages
            .push(runtime.gateway(version, &cache.join("openclaw").join(version), INSTALL).await.unwrap());
    }
    let asked = tokio::task::spawn_blocking(move || real(&runtime, &cache, &packages[0], &packages[1])).await;
    asked.unwrap();
}

fn real(runtime: &Runtime, cache: &Path, old: &Path, new: &Path) {
    let preset = include_str!("../../src/config/presets/openclaw.toml").parse::<toml::Table>().unwrap();
    let words = preset["preflight"]["validate"].as_array().unwrap().clone();
    let gateway = Gateway::new();
    fs::create_dir(gateway.world.path("home")).unwrap();
    let validator = |package: &Path| {
        let fill = |word: &toml::Value| {
            let word = word.as_str().unwrap().replace("{root}", &package.to_string_lossy());
            word.replace("{node}", &runtime.node().to_string_lossy())
        };
        let words: Vec<String> = words.iter().map(fill).collect();
        Sandbox {
            program: words[0].clone().into(),
            args: words[1..].to_vec(),
            env: BTreeMap::from([
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("HOME".into(), gateway.world.path("home").display().to_string()),
                ("OPENCLAW_STATE_DIR".into(), gateway.state().display().to_string()),
            ]),
            private: vec!["/tmp".into(), gateway.world.path("home")],
            visible: vec![cache.canonicalize().unwrap()],
            private_max: 64 << 20,
            ..gateway.validator("")
        }
    };
    let asked = |config: &str, target: &Path, running: &Path| {
        fs::write(gateway.state().join("openclaw.json"), config).unwrap();
        let begun = Instant::now();
        let running = Some(Running { version: "the other".to_owned(), ..running_as(validator(running)) });
        let findings =
            configuration(&Validation { target: validator(target), running, ..gateway.validation("", None) });
        println!("{:?}: {findings:#?}", begun.elapsed());
        findings
    };
    let good = r#"{"gateway":{"mode":"local"}}"#;
    only(&asked(good, new, old), "configuration", Level::Note);

    let learned =
        r#"{"gateway":{"mode":"local"},"tools":{"loopDetection":{"postCompactionGuard":{"windowSize":3}}}}"#;
    only(&asked(learned, new, old), "configuration", Level::Note);
    let findings = asked(learned, old, new);
    let block = only(&findings, "configuration", Level::Block);
    assert!(block.text.contains("refused at `tools.loopDetection.postCompactionGuard`: "), "{block}");

    let wrong = r#"{"gateway":{"mode":"local","port":"abc"}}"#;
    let findings = asked(wrong, new, old);
    let warn = only(&findings, "configuration", Level::Warn);
    assert!(warn.text.contains("`gateway.port`") && warn.text.contains("expected number"), "{warn}");
    let state: Vec<_> =
        fs::read_dir(gateway.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(state.len(), 2, "the live state was written to: {state:?}");
}

#[test]
fn each_version_sees_its_own_plugin_in_its_own_copy_and_the_live_state_is_left_alone() {
    let gateway = Gateway::new();
    let generations = gateway.world.path("generations");
    let seat = Seat { project: gateway.state().join("npm/one"), package: "@toy/extra".into() };
    let seating = |number: &str| Seating {
        seats: vec![(seat.clone(), Some(generations.join(number)))],
        generations: generations.clone(),
    };
    // What it would refuse is where the link leads.
    let script = r#"seen=$(readlink "$1/npm/one/node_modules/@toy/extra"); printf '{"valid":false,"issues":[{"path":"%s","message":"seen"}]}' "${seen##*/}"; exit 1"#;
    let validation = gateway.validation(script, Some(script));
    let running = validation.running.map(|running| Running { seating: seating("0001"), ..running });
    let conditions = Conditions { seating: seating("0002"), ..validation.conditions };
    let findings = configuration(&Validation { running, conditions, ..gateway.validation(script, None) });
    let told = only(&findings, "configuration", Level::Block);
    assert!(told.text.contains("`0002`: seen"), "{}", told.text);
    assert!(!gateway.state().join("npm").exists());
}
