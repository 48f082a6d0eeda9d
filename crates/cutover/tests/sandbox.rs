//! The sandbox on reality: real namespaces, real mounts, commands that try to get out. Every promise is kept for root and
//! for an ordinary user.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::sandbox::{Cover, Ended, Error, Exit, Outcome, Sandbox};
use cutover::store::Identity;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

/// As whom the daemon runs, and the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// As whoever runs the test.
    Oneself,
    /// A daemon of root's, a command of somebody else's.
    Another,
    /// A daemon without root.
    Ordinary,
}

/// All that this machine's user can try.
fn everybody() -> Vec<Who> {
    let is_root = rustix::process::geteuid().is_root();
    if is_root { vec![Who::Oneself, Who::Another, Who::Ordinary] } else { vec![Who::Oneself] }
}

struct World {
    directory: tempfile::TempDir,
    who: Who,
}

impl World {
    /// A directory with `live` (state of the command's user) and `copy` (of that state).
    fn new(who: Who) -> World {
        let directory = tempfile::Builder::new().prefix("cutover-sandbox-").tempdir_in("/tmp").unwrap();
        let world = World { directory, who };
        world.open_to_all(world.directory.path());
        for name in ["live", "copy", "home"] {
            fs::create_dir(world.path(name)).unwrap();
            world.give(&world.path(name));
        }
        for name in ["live", "copy"] {
            fs::write(world.path(name).join("file"), name).unwrap();
            world.give(&world.path(name).join("file"));
        }
        world
    }

    fn open_to_all(&self, path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn give(&self, path: &Path) {
        if self.who != Who::Oneself {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A shell that runs a script in a house: `/tmp` and the home are private, `live` is covered.
    fn sandbox(&self, script: &str) -> Sandbox {
        Sandbox {
            program: "/bin/bash".into(),
            args: vec!["-c".into(), script.into(), "-".into(), self.directory.path().display().to_string()],
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: "/".into(),
            identity: (self.who == Who::Another).then(|| Identity {
                uid: NOBODY,
                gid: NOBODY,
                groups: vec![NOBODY],
            }),
            private: vec![
                "/tmp".into(),
                "/var/tmp".into(),
                "/run".into(),
                self.path("home"),
                "/nowhere".into(),
            ],
            visible: Vec::new(),
            writable: Vec::new(),
            covers: vec![Cover { copy: self.path("copy"), live: self.path("live") }],
            private_max: 16 << 20,
            file_max: 1 << 20,
            said_max: 64 << 10,
        }
    }

    /// This program, as the daemon would be: a daemon without root is one that root gives up being.
    fn executable(&self) -> PathBuf {
        let own = PathBuf::from(env!("CARGO_BIN_EXE_cutover"));
        if self.who != Who::Ordinary {
            return own;
        }
        self.script(&format!(
            "exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {} \"$@\"",
            own.display()
        ))
    }

    fn script(&self, text: &str) -> PathBuf {
        let path = self.path("executable");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        self.open_to_all(&path);
        path
    }

    fn run(&self, sandbox: &Sandbox) -> Ended {
        self.run_for(sandbox, LIMIT)
    }

    fn run_for(&self, sandbox: &Sandbox, limit: Duration) -> Ended {
        match sandbox.run(&self.executable(), limit, None).unwrap() {
            Outcome::Ended(ended) => ended,
            Outcome::NoIsolation { why } => panic!("this machine gives {:?} no isolation: {why}", self.who),
        }
    }

    /// What a script says that must succeed.
    fn said(&self, script: &str) -> String {
        let ended = self.run(&self.sandbox(script));
        assert_eq!(ended.exit, Exit::Code(0), "{:?}: {} {}", self.who, ended.stdout, ended.stderr);
        ended.stdout.text()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

#[test]
fn a_candidate_that_dials_out_reaches_nobody_and_has_a_loopback_of_its_own() {
    for who in everybody() {
        let world = World::new(who);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = UnixListener::bind(world.path("socket")).unwrap();
        sockets.set_nonblocking(true).unwrap();
        let said = world.said(&format!(
            "(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>&1 && echo REACHED\n(exec 3<>/dev/tcp/192.0.2.1/80) 2>&1 && echo REACHED\n\
             test -e $1/socket && echo SOCKET\ncat /proc/net/fib_trie; ls -d /proc/sys/net/ipv4/conf/*"
        ));
        assert!(said.contains("refused") && said.contains("unreachable"), "{who:?}: {said}");
        assert!(!said.contains("REACHED") && !said.contains("SOCKET"), "{who:?}: {said}");
        let interfaces = said.lines().filter_map(|line| line.strip_prefix("/proc/sys/net/ipv4/conf/"));
        assert_eq!(interfaces.collect::<Vec<_>>(), ["all", "default", "lo"], "{who:?}: {said}");
        assert!(said.contains("127.0.0.1"), "the loopback is down: {said}");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(sockets.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_socket_of_the_machine_is_reached_by_no_path_and_pairs_are_still_made() {
    for who in everybody() {
        let world = World::new(who);
        let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        world.open_to_all(beside.path());
        let (stream, datagrams) = (beside.path().join("stream"), beside.path().join("datagrams"));
        let listener = UnixListener::bind(&stream).unwrap();
        let receiver = UnixDatagram::bind(&datagrams).unwrap();
        for path in [&stream, &datagrams] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        listener.set_nonblocking(true).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let script = r#"use Socket;
            my ($stream, $datagrams) = map { pack_sockaddr_un($_) } @ARGV;
            my ($s, $a, $b, $c, $d, $i);
            print socket($s, AF_UNIX, SOCK_STREAM, 0) && connect($s, $stream) ? "REACHED\n" : "stream: $!\n";
            print socketpair($a, $b, AF_UNIX, SOCK_DGRAM, 0) && send($a, "x", 0, $datagrams) ? "REACHED\n" : "datagrams: $!\n";
            print socketpair($c, $d, AF_UNIX, SOCK_STREAM, 0) ? "pair\n" : "no pair: $!\n";
            print socket($i, AF_INET, SOCK_STREAM, 0) ? "loopback\n" : "no loopback: $!\n";"#;
        let paths = [stream, datagrams].map(|path| path.display().to_string());
        let sandbox = Sandbox {
            program: "/usr/bin/perl".into(),
            args: [["-e".to_owned(), script.to_owned()], paths].concat(),
            private: Vec::new(),
            ..world.sandbox("")
        };
        let ended = world.run(&sandbox);
        let denied = "Operation not permitted";
        let expected = format!("stream: {denied}\ndatagrams: {denied}\npair\nloopback\n");
        assert_eq!(ended.stdout.text(), expected, "{who:?}: {}", ended.stderr);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_candidate_writes_to_the_copy_at_the_live_path_and_to_nothing_else() {
    for who in everybody() {
        let world = World::new(who);
        let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(beside.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(beside.path().join("file"), "untouched").unwrap();
        fs::set_permissions(beside.path().join("file"), fs::Permissions::from_mode(0o666)).unwrap();
        // Without empty directories, which could hide what is asked.
        let bare = Sandbox {
            private: Vec::new(),
            ..world.sandbox(&format!(
                "cat {beside}/file; echo x > {beside}/file || echo x > {beside}/more || echo x > $1/mine || echo kept",
                beside = beside.path().display()
            ))
        };
        let ended = world.run(&bare);
        assert_eq!(ended.stdout.text(), "untouchedkept\n", "{who:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.text().matches("Read-only file system").count(), 3, "{}", ended.stderr);
        let said = world.said(&format!(
            "cat $1/live/file; echo new > $1/live/file; echo more > $1/live/more\n\
             echo mine > $1/home/mine && echo mine > /tmp/mine && echo mine > /dev/shm/mine && cat $1/home/mine\n\
             ls -A $1; ls /tmp; echo lost > /dev/null; head -c4 /dev/urandom | wc -c; {fine}",
            fine = if who == Who::Ordinary { "echo fine" } else { "echo fine > /dev/stdout" },
        ));
        let name = world.directory.path().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(said, format!("copymine\nhome\nlive\n{name}\nmine\n4\nfine\n"), "{who:?}");
        assert_eq!(world.read("live/file"), "live");
        assert!(!world.path("live/more").exists() && !world.path("home/mine").exists());
        assert_eq!((world.read("copy/file").as_str(), world.read("copy/more").as_str()), ("new\n", "more\n"));
        assert_eq!(fs::read_to_string(beside.path().join("file")).unwrap(), "untouched");
        assert!(!beside.path().join("more").exists());
        assert!(!Path::new("/tmp/mine").exists() && !Path::new("/dev/shm/mine").exists());
    }
}

#[test]
fn what_is_given_is_written_to_and_what_is_visible_is_seen_and_not_written_to() {
    for who in everybody() {
        let world = World::new(who);
        for name in ["given", "seen"] {
            fs::create_dir_all(world.path(name).join("below")).unwrap();
            fs::write(world.path(name).join("below/file"), name).unwrap();
            world.give(&world.path(name).join("below"));
            world.give(&world.path(name).join("below/file"));
        }
        let sandbox = Sandbox {
            visible: vec![world.path("seen")],
            writable: vec![world.path("given")],
            ..world.sandbox(
                "cat $1/seen/below/file; echo x 2>/dev/null > $1/seen/below/file && echo WRITTEN; echo y > $1/given/below/file",
            )
        };
        let ended = world.run(&sandbox);
        assert_eq!(
            (ended.exit, ended.stdout.text().as_str()),
            (Exit::Code(0), "seen"),
            "{who:?}: {}",
            ended.stderr
        );
        assert_eq!(
            (world.read("seen/below/file"), world.read("given/below/file")),
            ("seen".into(), "y\n".into())
        );
    }
}

#[test]
fn beside_the_copy_of_a_database_its_own_companions_are_seen_and_not_those_of_the_original() {
    for who in everybody() {
        let world = World::new(who);
        for name in ["live/app.db", "live/app.db-wal", "live/other", "copy/app.db"] {
            fs::write(world.path(name), name).unwrap();
            world.give(&world.path(name));
        }
        let sandbox = Sandbox {
            private: Vec::new(),
            covers: vec![Cover { copy: world.path("copy/app.db"), live: world.path("live/app.db") }],
            ..world.sandbox(
                "cd $1/live && ls && cat app.db other && echo w > app.db-wal && echo d > app.db && ls\n\
                 echo x 2>/dev/null > other && echo WRITTEN; true",
            )
        };
        let ended = world.run(&sandbox);
        let expected = "app.db\nfile\nother\ncopy/app.dblive/otherapp.db\napp.db-wal\nfile\nother\n";
        assert_eq!(
            (ended.exit, ended.stdout.text().as_str()),
            (Exit::Code(0), expected),
            "{who:?}: {}",
            ended.stderr
        );
        assert_eq!(world.read("copy/app.db"), "d\n");
        assert_eq!(
            (world.read("live/app.db"), world.read("live/app.db-wal")),
            ("live/app.db".into(), "live/app.db-wal".into())
        );
    }
}

#[test]
fn beside_a_covered_file_a_directory_that_its_user_may_not_write_to_stays_so() {
    for who in everybody() {
        let world = World::new(who);
        for (name, mode) in [("live", 0o555), ("home", 0o500)] {
            fs::write(world.path(name).join("app.db"), name).unwrap();
            fs::write(world.path(name).join("other"), "other").unwrap();
            fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        if who == Who::Ordinary {
            chown(world.path("live"), Some(0), Some(0)).unwrap();
        }
        let covers = ["live", "home"]
            .map(|name| Cover { copy: world.path("copy/file"), live: world.path(name).join("app.db") });
        let sandbox = Sandbox {
            private: Vec::new(),
            covers: covers.to_vec(),
            ..world
                .sandbox("cd $1; cat live/app.db home/app.db live/other home/other; stat -c ' %a' live home")
        };
        let ended = world.run(&sandbox);
        assert_eq!(ended.stdout.text(), "copycopyotherother 555\n 500\n", "{who:?}: {}", ended.stderr);
    }
}

#[test]
fn a_step_of_our_own_that_is_not_allowed_is_no_missing_isolation() {
    let world = World::new(Who::Oneself);
    // Nothing can be made for a user that this user namespace does not know.
    let script = format!("exec unshare -Ur {} \"$@\"", env!("CARGO_BIN_EXE_cutover"));
    let identity = Some(Identity { uid: NOBODY, gid: NOBODY, groups: Vec::new() });
    let sandbox = Sandbox { identity, private: Vec::new(), ..world.sandbox("") };
    let error = sandbox.run(&world.script(&script), LIMIT, None).unwrap_err();
    assert!(matches!(&error, Error::House { why } if why.starts_with("emptying /dev/shm")), "{error:?}");
}

/// Whether a process with this word in its command line lives.
fn lives(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn a_child_that_makes_itself_independent_is_gone_when_the_answer_comes() {
    for who in everybody() {
        let world = World::new(who);
        let mark = format!("mark-{}-{who:?}", std::process::id());
        let said = world.said(&format!(
            "setsid bash -c 'exec -a {mark} sleep 600' </dev/null >/dev/null 2>&1 &\n\
             until grep -qs {mark} /proc/[0-9]*/cmdline; do :; done; echo $$"
        ));
        assert!(said.trim().parse::<u32>().unwrap() < 10, "not in a space of its own: {said}");
        assert!(!lives(&mark), "{who:?}");
    }
}

/// The process with this word among its own, and with it in the last place.
fn named(word: &str) -> Option<u32> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line.starts_with(word.as_bytes()) {
                return entry.file_name().to_str()?.parse().ok();
            }
        }
        std::thread::yield_now();
    }
    None
}

fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn whichever_half_is_killed_everything_ends_and_that_is_no_success() {
    for (half, generations) in [("outside", 2), ("inside", 1)] {
        let world = World::new(Who::Oneself);
        let mark = format!("{half}-{}", std::process::id());
        let sandbox = world.sandbox(&format!("exec -a {mark} sleep 600"));
        std::thread::scope(|scope| {
            let running = scope.spawn(|| sandbox.run(&world.executable(), LIMIT, None));
            let command = named(&mark).expect("the command does not run");
            let killed = (0..generations).fold(command, |pid, _| parent(pid));
            let words = fs::read_to_string(format!("/proc/{killed}/cmdline")).unwrap();
            assert!(words.ends_with(&format!("sandbox\0{half}\0")), "{words}");
            let killed = rustix::process::Pid::from_raw(i32::try_from(killed).unwrap()).unwrap();
            rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
            let error = running.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Silent | Error::House { .. }), "{error:?}");
            assert!(!lives(&mark), "{half}");
        });
    }
}

#[test]
fn a_hanging_candidate_ends_at_the_limit_with_what_it_said_until_then() {
    for who in everybody() {
        let world = World::new(who);
        let mark = format!("hangs-{}-{who:?}", std::process::id());
        let begun = Instant::now();
        let script = format!("trap '' TERM INT; echo begun; sleep 600 & exec -a {mark} sleep 600");
        let ended = world.run_for(&world.sandbox(&script), Duration::from_secs(2));
        assert_eq!((ended.exit, ended.stdout.text().as_str()), (Exit::Limit, "begun\n"), "{who:?}");
        assert!(!lives(&mark), "{who:?}");
        assert!(begun.elapsed() < LIMIT);
    }
}

#[test]
fn however_much_it_says_only_so_much_is_kept_and_it_is_not_kept_waiting() {
    for who in everybody() {
        let world = World::new(who);
        let script = "echo first; head -c 10000000 /dev/zero; echo last; echo wrong >&2; kill -9 $$";
        let ended = world.run(&world.sandbox(script));
        assert_eq!(ended.exit, Exit::Signal(9));
        let text = ended.stdout.text();
        assert!(text.starts_with("first\n") && text.ends_with("last\n"), "{who:?}");
        assert!(ended.stdout.dropped > 9_900_000 && text.len() < 70_000, "{}", ended.stdout.dropped);
        assert_eq!(ended.stderr.text(), "wrong\n");
    }
}

#[test]
fn it_can_take_no_more_of_the_machine_than_it_is_given_and_memory_is_taken_from_it_first() {
    for who in everybody() {
        let world = World::new(who);
        let said = world.said(
            "ulimit -Hc; ulimit -Ht; cat /proc/self/oom_score_adj\n\
             head -c 1048576 /dev/zero > /tmp/file && echo fits; (trap '' XFSZ; echo more >> /tmp/file) 2>&1; true",
        );
        assert!(
            said.starts_with("0\n60\n1000\nfits\n") && said.contains("File too large"),
            "{who:?}: {said}"
        );
    }
}

#[test]
fn it_runs_as_the_services_user_and_can_gain_nothing_and_undo_nothing() {
    for who in everybody() {
        let world = World::new(who);
        let said = world.said(
            "id -u; id -g; grep -E '^(NoNewPrivs|CapEff|CapBnd)' /proc/self/status\n\
             mount -o remount,rw,bind / 2>/dev/null && echo UNDONE\numount /tmp 2>/dev/null && echo UNDONE\n\
             unshare -Urm mount -o remount,rw,bind / 2>/dev/null && echo UNDONE\n\
             echo x 2>/dev/null > /proc/sys/kernel/domainname && echo UNDONE; ls /dev | tr '\\n' ' '",
        );
        let own = rustix::process::geteuid().as_raw();
        let expected = if who == Who::Oneself { own } else { NOBODY };
        assert!(said.starts_with(&format!("{expected}\n")), "{who:?}: {said}");
        assert!(said.contains("NoNewPrivs:\t1") && !said.contains("UNDONE"), "{who:?}: {said}");
        let powers = said.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        let powers = u64::from_str_radix(powers, 16).unwrap();
        let furnishing = (1 << 21) | (1 << 12) | (1 << 8);
        assert_eq!(powers & furnishing, 0, "{who:?}: {said}");
        assert!(expected == 0 || powers == 0, "{who:?}: {said}");
        assert!(said.ends_with("fd full null random shm stderr stdin stdout urandom zero "), "{said}");
    }
}

#[test]
fn no_mount_has_devices_or_privileges_and_the_machines_processes_are_told_of_nowhere() {
    let world = World::new(Who::Oneself);
    let (all, one) = (world.path("processes"), world.path("version"));
    fs::create_dir(&all).unwrap();
    fs::write(&one, "").unwrap();
    let script = format!(
        "exec unshare -Urm sh -c 'mount --rbind /proc {} && mount --bind /proc/version {} && exec {} \"$@\"' sh \"$@\"",
        all.display(),
        one.display(),
        env!("CARGO_BIN_EXE_cutover")
    );
    let sandbox = Sandbox {
        private: Vec::new(),
        ..world.sandbox(
            "ls -A $1/processes; cat $1/version; cat /proc/self/mountinfo; : > /dev/null && echo fine",
        )
    };
    let Outcome::Ended(ended) = sandbox.run(&world.script(&script), LIMIT, None).unwrap() else {
        panic!("this machine gives no isolation");
    };
    let said = ended.stdout.text();
    let mounts: Vec<&str> = said.lines().take_while(|line| *line != "fine").collect();
    let is_table = mounts.len() > 5 && mounts.iter().all(|line| line.contains(" - "));
    assert!(said.ends_with("fine\n") && is_table, "{said} {}", ended.stderr);
    let open = mounts.iter().filter(|mount| {
        let fields: Vec<&str> = mount.split(' ').collect();
        let options: Vec<&str> = fields[5].split(',').collect();
        // What lies under another is reached by no path, and was not changed.
        let is_reached = fields[4] == "/" || fields[4].starts_with(world.directory.path().to_str().unwrap());
        is_reached && !(options.contains(&"nosuid") && options.contains(&"nodev") && options.contains(&"ro"))
    });
    assert_eq!(open.filter(|mount| !mount.contains("/live ")).collect::<Vec<_>>(), [&""; 0], "{said}");
}

#[test]
fn a_kernel_that_refuses_is_an_outcome_and_nothing_is_run() {
    let world = World::new(Who::Oneself);
    // In a user namespace that may have none below it, as root of which the right to make others is given up.
    let script = format!(
        "exec unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-sys_admin --inh-caps=-all {} \"$@\"' sh \"$@\"",
        env!("CARGO_BIN_EXE_cutover")
    );
    let sandbox = Sandbox {
        private: Vec::new(),
        writable: vec![world.path("home")],
        ..world.sandbox("echo ran > $1/home/ran")
    };
    match sandbox.run(&world.script(&script), LIMIT, None).unwrap() {
        Outcome::NoIsolation { why } => {
            assert!(why.starts_with("leaving the machine's namespaces: "), "{why}")
        }
        Outcome::Ended(ended) => panic!("it ran: {ended:?}"),
    }
    assert!(!world.path("home/ran").exists());
}

#[test]
fn what_cannot_be_laid_or_executed_is_an_error_that_names_it() {
    let world = World::new(Who::Oneself);
    let run = |sandbox: &Sandbox| sandbox.run(&world.executable(), LIMIT, None).unwrap_err();
    let missing = Sandbox { program: world.path("nothing"), ..world.sandbox("") };
    assert!(matches!(run(&missing), Error::NotExecuted { path, source }
        if path == world.path("nothing") && source.kind() == ErrorKind::NotFound));
    let gone = Sandbox { visible: vec![world.path("gone")], ..world.sandbox("") };
    let told = run(&gone).to_string();
    assert!(told.contains("gone") && told.contains("No such file"), "{told}");
    let relative = Sandbox { writable: vec!["here".into()], ..world.sandbox("") };
    assert!(matches!(run(&relative), Error::Relative { .. }));
    let root = Sandbox { private: vec!["/".into()], ..world.sandbox("") };
    assert!(matches!(run(&root), Error::Root { .. }));
    let silent = world.sandbox("").run(Path::new("/bin/false"), LIMIT, None).unwrap_err();
    assert!(matches!(silent, Error::Silent | Error::Talk(_)), "{silent:?}");
}

#[test]
fn a_command_is_talked_with_until_it_or_its_caller_has_said_enough() {
    for who in everybody() {
        let world = World::new(who);
        let talked = |script: &str, talk: fn(UnixStream) -> Vec<String>| {
            world.sandbox(script).converse(&world.executable(), LIMIT, None, talk).unwrap()
        };
        let asks = |mut caller: UnixStream| {
            caller.write_all(b"name\n").unwrap();
            BufReader::new(caller).lines().map(Result::unwrap).collect()
        };
        let (outcome, said) = talked("read word; echo heard $word; echo more; exit 3", asks);
        assert_eq!(said, ["heard name", "more"], "{who:?}");
        let Outcome::Ended(ended) = outcome else { panic!("{who:?}: {outcome:?}") };
        assert_eq!((ended.exit, ended.stdout.text().as_str()), (Exit::Code(3), ""));
        // A caller that lets go is heard as the end of what it says.
        let (outcome, _) = talked("cat > /dev/null; exit 4", |_| Vec::new());
        assert!(matches!(outcome, Outcome::Ended(Ended { exit: Exit::Code(4), .. })), "{who:?}: {outcome:?}");
    }
}
