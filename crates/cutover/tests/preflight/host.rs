//! Space, rights, ports, other supervisors, memory, the version.

use crate::world::{World, is_quiet, node, only};
use cutover::preflight::{Host, Rehearsal, Scope, Service, Told, UnitDirectory, Use, host};
use cutover::store::{Identity, Need};
use cutover::supervisor::process;
use cutover_core::Level;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn place(name: &str, path: PathBuf, need: Need) -> Use {
    Use { name: name.into(), path, need, files: 1 }
}

#[test]
fn nothing_asked_is_nothing_found() {
    assert_eq!(host(&Host::default()), []);
}

#[test]
fn r67_each_file_system_is_told_once_with_its_numbers_and_refused_where_they_do_not_fit() {
    let world = World::new();
    let store = place("store", world.path("not/yet/there"), Need::Measured(1000));
    let cache = place("npm cache", world.path("scratch"), Need::AtLeast(500));
    let proc = place("elsewhere", "/proc".into(), Need::Unknown);
    let findings = host(&Host { uses: vec![store.clone(), cache, proc], ..Host::default() });
    is_quiet(&findings);
    assert_eq!(findings.len(), 2, "one for each file system: {findings:#?}");
    let together = findings.iter().find(|finding| finding.text.contains("npm cache")).unwrap();
    assert!(together.text.contains("at least 1500 bytes needed") && together.text.contains(" free"));
    assert!(together.text.contains("not/yet/there"));

    let huge = place("snapshots", world.path("scratch"), Need::Measured(u64::MAX / 2));
    let findings = host(&Host { uses: vec![store, huge], ..Host::default() });
    let block = only(&findings, "space", Level::Block);
    assert!(block.text.contains("8.0 EiB needed") && block.text.contains("snapshots"), "{block}");
    assert!(!world.path("not").exists(), "nothing is made");
}

#[test]
fn r68_what_the_services_user_may_not_write_is_named_with_its_uid() {
    let world = World::new();
    let own = rustix::process::geteuid();
    // Root may write everywhere: somebody else is asked for.
    let identity = own.is_root().then(|| Identity { uid: 4242, gid: 4343, groups: vec![4343] });
    let uid = identity.as_ref().map_or(own.as_raw(), |identity| identity.uid);
    for (name, mode) in [("closed", 0o555), ("open", 0o777)] {
        fs::create_dir(world.path(name)).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(world.path("open/file"), "").unwrap();
    fs::set_permissions(world.path("open/file"), fs::Permissions::from_mode(0o444)).unwrap();
    let ask = |path: &str| {
        host(&Host { identity: identity.clone(), writable: vec![world.path(path)], ..Host::default() })
    };
    assert_eq!(ask("open"), []);
    assert_eq!(ask("open/not-yet"), []);
    for path in ["closed", "closed/not/yet", "open/file"] {
        let findings = ask(path);
        let text = &only(&findings, "access", Level::Block).text;
        assert!(text.contains(&format!("uid {uid}")), "{text}");
        assert!(text.contains(&*world.path(path).to_string_lossy()), "{text}");
    }
    fs::set_permissions(world.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn state_that_others_own_is_named_with_their_group_and_what_the_services_group_may_write_is_not() {
    let world = World::new();
    if !rustix::process::geteuid().is_root() {
        // Nobody else can give files away.
        return;
    }
    let identity = Identity { uid: 4242, gid: 4343, groups: vec![4343, 4444] };
    let file = |name: &str, uid: u32, gid: u32, mode: u32| {
        let path = world.path("state").join(name);
        fs::create_dir_all(world.path("state")).unwrap();
        fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let ask = || {
        host(&Host { identity: Some(identity.clone()), state: vec![world.path("state")], ..Host::default() })
    };
    file("own", 4242, 1, 0o400);
    file("shared", 1, 4444, 0o660);
    file("anybodys", 1, 1, 0o666);
    assert_eq!(ask(), []);
    file("other-group", 1, 4545, 0o660);
    file("others", 1, 4343, 0o640);
    let findings = ask();
    let warn = only(&findings, "group", Level::Warn);
    assert!(
        warn.text.starts_with("2 entries of the state are not writable by uid 4242 with groups 4343, 4444: ")
    );
    assert!(
        warn.text.contains("other-group (uid 1, gid 4545)") && warn.text.contains("others (uid 1, gid 4343)")
    );
    assert!(warn.advice.as_ref().unwrap().contains("4545"));
}

#[test]
fn a_port_that_is_held_by_somebody_else_is_blocked_with_pid_and_command() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let own = process::own().unwrap();
    let findings = host(&Host { address: Some(address), ..Host::default() });
    let text = &only(&findings, "port", Level::Block).text;
    let command = fs::read_to_string("/proc/self/comm").unwrap();
    assert!(text.contains(&format!("pid {}", own.pid)) && text.contains(&address.to_string()), "{text}");
    assert!(text.contains(command.trim()), "{text}");
    let sibling = Host { address: Some(address), siblings: vec![own.clone()], ..Host::default() };
    only(&host(&sibling), "port", Level::Block);
    assert_eq!(host(&Host { address: Some(address), ours: vec![own], ..Host::default() }), []);
    let beside = "127.0.0.2".parse().unwrap();
    let elsewhere = std::net::SocketAddr::new(beside, address.port());
    assert_eq!(host(&Host { address: Some(elsewhere), ..Host::default() }), [], "another address is free");
    drop(listener);
    assert_eq!(host(&Host { address: Some(address), ..Host::default() }), []);
}

/// A service with a package of its own: processes are looked for on the whole machine, where other tests run.
fn service(world: &World, name: &str) -> Service {
    let store = world.path("store");
    let package = format!("@toy/{name}{}", std::process::id());
    let package_root = store.join("generations/0002/core/node_modules").join(&package);
    let units = vec![
        UnitDirectory { path: world.path("system"), scope: Scope::System },
        UnitDirectory { path: world.path("user"), scope: Scope::User },
        UnitDirectory { path: world.path("none"), scope: Scope::System },
    ];
    Service { package: Some(package), entry: package_root.join("app.mjs"), package_root, store, units }
}

fn asked(service: Service) -> Host {
    Host { service: Some(service), ..Host::default() }
}

#[test]
fn a_unit_that_runs_the_same_service_is_named_with_what_to_do() {
    let world = World::new();
    let service = service(&world, "unit");
    let package = service.package.as_ref().unwrap();
    for name in ["system", "user", "user/default.target.wants"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    let unit = |line: &str| format!("[Unit]\nDescription=x\n\n[Service]\nExecStart={line}\n");
    fs::write(world.path("system/cutover.service"), unit(&format!("/usr/bin/cutover serve {package}")))
        .unwrap();
    fs::write(world.path("system/other.service"), unit("/usr/bin/node /srv/other/app.mjs")).unwrap();
    assert_eq!(host(&asked(service.clone())), []);

    let line = format!("/usr/bin/node \\\n  /usr/lib/node_modules/{package}/app.mjs --token secret");
    fs::write(world.path("user/toy.service"), unit(&line)).unwrap();
    std::os::unix::fs::symlink("../toy.service", world.path("user/default.target.wants/toy.service"))
        .unwrap();
    let findings = host(&asked(service.clone()));
    let found = only(&findings, "supervisor", Level::Warn);
    assert!(found.text.contains("user/toy.service is enabled"), "{found}");
    assert!(found.text.ends_with("app.mjs") && !found.text.contains("secret"), "{found}");
    assert!(found.advice.as_ref().unwrap().contains("systemctl --user disable --now toy.service"));
}

/// Starts a copy of the app somewhere and waits until it has said that it runs.
fn started(directory: &Path, script: &str) -> Running {
    fs::create_dir_all(directory).unwrap();
    let entry = directory.join("app.mjs");
    fs::write(&entry, format!("{script}\nconsole.log('runs');\nsetInterval(() => {{}}, 1000);\n")).unwrap();
    let child =
        Command::new(node()).arg("app.mjs").current_dir(directory).stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "runs\n");
    running
}

#[test]
fn a_process_of_the_same_service_outside_of_our_hands_is_named() {
    let world = World::new();
    let service = service(&world, "rival");
    let package = service.package.clone().unwrap();
    let title = format!("process.title = '{}-gateway';", package.trim_start_matches("@toy/"));
    let foreign = started(&world.path("opt/node_modules").join(&package), "");
    let titled = started(&world.path("srv"), &title);
    let ours = started(&service.package_root, "");
    let _unrelated = started(&world.path("elsewhere"), "");
    let of_ours = process::identify(ours.0.id()).unwrap().unwrap();
    let findings = host(&Host { ours: vec![of_ours], ..asked(service.clone()) });
    assert_eq!(findings.len(), 2, "{findings:#?}");
    for running in [&foreign, &titled] {
        let pid = format!("pid {} ", running.0.id());
        assert!(
            findings.iter().any(|found| found.level == Level::Warn && found.text.starts_with(&pid)),
            "{pid}"
        );
    }
    let of_the_sibling = process::identify(foreign.0.id()).unwrap().unwrap();
    let known = Host {
        ours: vec![process::identify(ours.0.id()).unwrap().unwrap()],
        siblings: vec![of_the_sibling],
        ..asked(service.clone())
    };
    let found = host(&known);
    let told = &only(&found, "supervisor", Level::Warn).text;
    assert!(
        told.starts_with(&format!("pid {} ", titled.0.id())),
        "what the same daemon runs is no rival: {told}"
    );

    let findings = host(&asked(service.clone()));
    let pid = format!("pid {} ", ours.0.id());
    assert!(findings.iter().any(|found| found.text.starts_with(&pid)), "a leftover generation is one too");
}

#[test]
fn memory_for_a_rehearsal_is_told_in_numbers() {
    let running = vec![process::own().unwrap()];
    let findings = host(&Host { rehearsal: Some(Rehearsal { running }), ..Host::default() });
    assert!(findings[0].text.contains("1.5 times") && findings[0].kind == "memory", "{findings:#?}");
    let findings = host(&Host { rehearsal: Some(Rehearsal { running: vec![] }), ..Host::default() });
    only(&findings, "memory", Level::Note);
}

#[test]
fn a_version_that_cannot_be_read_from_what_runs_is_blocked() {
    let ask = |answer: Result<&str, &str>| {
        let answer = answer.map(str::to_owned).map_err(str::to_owned);
        host(&Host { version: Some(Told { installed: "1.0.0".into(), answer }), ..Host::default() })
    };
    only(&ask(Ok("1.0.0")), "version", Level::Note);
    only(&ask(Ok("0.9.0")), "version", Level::Warn);
    assert!(only(&ask(Err("status 404")), "version", Level::Block).text.contains("status 404"));
}
