//! The store against real file systems: directories of releases, sealing, the pointer, pruning, crashes.

#![allow(clippy::unwrap_used, reason = "tests outside of `#[test]` functions too")]

use cutover::store::{
    Directory, Error, Identity, Limits, Npm, Phase, Resolved, Scripts, Source, Store, Unfit, Wanted,
};
use cutover_core::Generation;
use cutover_testkit::sealed::open_up;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A store and a directory of releases beside it.
struct Yard {
    dir: tempfile::TempDir,
    store: Store,
}

impl Yard {
    fn new() -> Yard {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state/services/web"));
        fs::create_dir(dir.path().join("releases")).unwrap();
        Yard { dir, store }
    }

    fn releases(&self) -> PathBuf {
        self.dir.path().join("releases")
    }

    fn source(&self) -> Source {
        Source::Directory(Directory { dir: self.releases() })
    }

    /// Writes a small release: a program, a page, a link, an empty directory.
    fn release(&self, version: &str) -> PathBuf {
        let dir = self.releases().join(version);
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::create_dir_all(dir.join("share/empty")).unwrap();
        fs::write(dir.join("bin/server"), format!("#!/bin/sh\necho {version}\n")).unwrap();
        fs::set_permissions(dir.join("bin/server"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("share/page.html"), format!("<p>{version}</p>")).unwrap();
        symlink("../share/page.html", dir.join("bin/page")).unwrap();
        dir
    }

    async fn resolve(&self, version: &str) -> Resolved {
        self.store.resolve(&self.source(), &Wanted::Version(version.into())).await.unwrap()
    }

    async fn stage(&self, version: &str) -> Generation {
        self.release(version);
        let resolved = self.resolve(version).await;
        self.store.stage(&self.source(), &resolved, |_| ()).await.unwrap()
    }

    async fn refusal(&self, version: &str) -> Error {
        let resolved = self.resolve(version).await;
        self.store.stage(&self.source(), &resolved, |_| ()).await.unwrap_err()
    }

    fn staging(&self) -> Vec<PathBuf> {
        entries(&self.store.dir().join("staging"))
    }

    fn numbers(&self) -> Vec<u32> {
        self.store.generations().unwrap().iter().map(|record| record.generation.0).collect()
    }
}

impl Drop for Yard {
    /// A plain user cannot remove what is sealed.
    fn drop(&mut self) {
        open_up(self.dir.path());
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

/// Changes a sealed file as root or its owner can.
fn overwrite(path: &Path, content: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn changed(result: Result<(), Error>) -> [Vec<PathBuf>; 3] {
    match result {
        Err(Error::Changed { changed, .. }) => {
            [changed.changed.first, changed.missing.first, changed.extra.first]
        }
        other => panic!("not told as a change: {other:?}"),
    }
}

#[tokio::test]
async fn a_version_is_a_subdirectory_and_a_link_is_a_channel() {
    let yard = Yard::new();
    yard.release("1.0");
    yard.release("2.0");
    yard.release(".hidden");
    symlink("1.0", yard.releases().join("stable")).unwrap();
    symlink("stable", yard.releases().join("latest")).unwrap();
    symlink("../../etc", yard.releases().join("out")).unwrap();
    symlink(".hidden", yard.releases().join("dotted")).unwrap();
    symlink("3.0", yard.releases().join("dangling")).unwrap();
    fs::write(yard.releases().join("README"), "no release").unwrap();

    let source = yard.source();
    let ask = async |wanted| yard.store.resolve(&source, &wanted).await;
    let named = ask(Wanted::Version("1.0".into())).await.unwrap();
    let followed = ask(Wanted::Channel("latest".into())).await.unwrap();
    assert_eq!(named, followed);
    assert_eq!(named.release.version, "1.0");
    assert!(named.release.digest.starts_with("sha512-"), "{}", named.release.digest);
    assert!(named.published.is_some());
    assert_ne!(ask(Wanted::Version("2.0".into())).await.unwrap().release.digest, named.release.digest);

    for version in ["3.0", "latest", "README"] {
        let error = ask(Wanted::Version(version.into())).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{version}: {error}");
    }
    for channel in ["1.0", "out", "dotted", "dangling", "beta"] {
        let error = ask(Wanted::Channel(channel.into())).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{channel}: {error}");
    }
    for path in [".hidden", "..", "../releases/1.0", ""] {
        let error = ask(Wanted::Version(path.into())).await.unwrap_err();
        assert!(matches!(error, Error::NotExact { .. }), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_channel_that_moves_after_it_was_resolved_changes_nothing() {
    let yard = Yard::new();
    yard.release("1.0");
    yard.release("2.0");
    let link = yard.releases().join("latest");
    symlink("1.0", &link).unwrap();
    let resolved = yard.store.resolve(&yard.source(), &Wanted::Channel("latest".into())).await.unwrap();
    fs::remove_file(&link).unwrap();
    symlink("2.0", &link).unwrap();
    let generation = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap();
    let record = yard.store.record(generation).unwrap();
    assert_eq!(record.release, resolved.release);
    let page = fs::read_to_string(yard.store.root(generation).unwrap().join("share/page.html")).unwrap();
    assert_eq!(page, "<p>1.0</p>");
}

#[tokio::test]
async fn a_generation_shares_nothing_with_its_source_and_is_read_only() {
    let yard = Yard::new();
    let from = yard.release("1.0");
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    fs::File::options().write(true).open(from.join("bin/server")).unwrap().set_times(old).unwrap();
    let resolved = yard.resolve("1.0").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let progress = move |progress| listener.lock().unwrap().push(progress);
    let generation = yard.store.stage(&yard.source(), &resolved, progress).await.unwrap();

    let root = yard.store.root(generation).unwrap();
    let (before, after) = (from.join("bin/server"), root.join("bin/server"));
    let (before, after) = (fs::metadata(before).unwrap(), fs::metadata(after).unwrap());
    assert_eq!(after.nlink(), 1);
    assert_ne!((before.dev(), before.ino()), (after.dev(), after.ino()));
    assert_eq!(after.mode() & 0o7777, 0o555);
    assert_eq!(after.mtime(), 1_000_000_000);
    assert_eq!(fs::read_link(root.join("bin/page")).unwrap(), Path::new("../share/page.html"));
    assert!(root.join("share/empty").is_dir());
    let dir = yard.store.generation_dir(generation);
    for path in [dir.clone(), dir.join("core"), dir.join("core/bin"), dir.join("manifest")] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o222, 0, "{}", path.display());
    }
    assert_eq!(yard.staging(), [] as [PathBuf; 0]);
    yard.store.verify(generation).unwrap();

    let record = yard.store.record(generation).unwrap();
    assert_eq!((record.files, record.package_root.as_path()), (3, Path::new("core")));
    assert_eq!(Some(record.bytes), resolved.unpacked_bytes);
    let phases: BTreeSet<String> =
        told.lock().unwrap().iter().map(|told| format!("{:?}", told.phase)).collect();
    assert_eq!(phases, BTreeSet::from(["Copy".into(), "Hash".into(), "Seal".into()]));
    let copied = told.lock().unwrap().iter().rfind(|told| told.phase == Phase::Copy).copied().unwrap();
    assert_eq!(Some(copied.done), copied.total);
}

#[tokio::test]
async fn r16_one_changed_byte_is_named_even_if_its_time_was_set_back() {
    let yard = Yard::new();
    let generation = yard.stage("1.0").await;
    yard.store.compare(generation).unwrap();
    let before = yard.store.fingerprint(generation).unwrap();
    assert_eq!(before, yard.store.fingerprint(generation).unwrap());

    let path = yard.store.root(generation).unwrap().join("share/page.html");
    let times = fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
    overwrite(&path, "<p>1.1</p>");
    fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();

    assert_ne!(before, yard.store.fingerprint(generation).unwrap());
    let named = [vec![PathBuf::from("core/share/page.html")], vec![], vec![]];
    assert_eq!(changed(yard.store.compare(generation)), named);
    assert_eq!(changed(yard.store.verify(generation)), named);
}

#[tokio::test]
async fn missing_extra_and_replaced_entries_are_told_apart() {
    let yard = Yard::new();
    let generation = yard.stage("1.0").await;
    let root = yard.store.root(generation).unwrap();
    open_up(&root);
    fs::remove_file(root.join("bin/server")).unwrap();
    fs::write(root.join("share/empty/new"), "").unwrap();
    fs::remove_file(root.join("bin/page")).unwrap();
    symlink("../share/other.html", root.join("bin/page")).unwrap();
    let [other, missing, extra] = changed(yard.store.compare(generation));
    assert_eq!(other, [Path::new("core/bin/page")]);
    assert_eq!(missing, [Path::new("core/bin/server")]);
    assert_eq!(extra, [Path::new("core/share/empty/new")]);
    let error = yard.store.compare(generation).unwrap_err().to_string();
    assert!(error.contains("1 changed (core/bin/page), 1 missing (core/bin/server), 1 extra"), "{error}");
}

#[tokio::test]
async fn a_touched_or_restored_file_with_the_same_bytes_is_no_change() {
    let yard = Yard::new();
    let generation = yard.stage("1.0").await;
    let root = yard.store.root(generation).unwrap();
    open_up(&root);
    let (page, copy) = (root.join("share/page.html"), root.join("share/copy"));
    fs::copy(&page, &copy).unwrap();
    fs::rename(&copy, &page).unwrap();
    yard.store.compare(generation).unwrap();
}

#[tokio::test]
async fn a_changed_manifest_is_damage_and_not_a_new_truth() {
    let yard = Yard::new();
    let generation = yard.stage("1.0").await;
    let manifest = yard.store.generation_dir(generation).join("manifest");
    overwrite(&manifest, "");
    let error = yard.store.verify(generation).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_generation_is_replaced_by_staging_the_same_release_again() {
    let yard = Yard::new();
    yard.release("1.0");
    let resolved = yard.resolve("1.0").await;
    let first = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap();
    overwrite(&yard.store.root(first).unwrap().join("share/page.html"), "x");
    let second = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap();
    assert_eq!((first, second), (Generation(1), Generation(2)));
    yard.store.verify(second).unwrap();
    yard.store.verify(first).unwrap_err();
}

#[tokio::test]
async fn r17_only_a_sealed_generation_is_switched_to() {
    let yard = Yard::new();
    assert_eq!(yard.store.current().unwrap(), None);
    let (one, two) = (yard.stage("1.0").await, yard.stage("2.0").await);
    yard.store.switch(one).unwrap();
    yard.store.switch(one).unwrap();
    assert_eq!(yard.store.current().unwrap(), Some(one));

    let missing = yard.store.switch(Generation(9)).unwrap_err();
    assert!(matches!(missing, Error::Unsealed { generation: Generation(9) }), "{missing}");
    let half = yard.store.generation_dir(Generation(8));
    fs::create_dir_all(half.join("core")).unwrap();
    assert!(matches!(yard.store.switch(Generation(8)).unwrap_err(), Error::Unsealed { .. }));
    fs::copy(yard.store.generation_dir(two).join("generation.json"), half.join("generation.json")).unwrap();
    assert!(matches!(yard.store.switch(Generation(8)).unwrap_err(), Error::Damaged { .. }));
    assert_eq!(yard.store.current().unwrap(), Some(one));
    assert_eq!(yard.numbers(), [1, 2]);

    let interrupted = yard.store.dir().join("staging/interrupted.partial");
    fs::create_dir(&interrupted).unwrap();
    symlink("generations/0002", interrupted.join("current")).unwrap();
    assert_eq!(yard.store.current().unwrap(), Some(one), "a link that was never renamed is no pointer");
    assert_eq!(yard.store.reclaim().unwrap(), 1);
    yard.store.switch(two).unwrap();
    let link = fs::read_link(yard.store.dir().join("current")).unwrap();
    assert_eq!(link, Path::new("generations/0002"), "relative, so that the state directory can move");
}

#[tokio::test]
async fn a_pointer_that_names_no_generation_is_told_and_not_taken_for_none() {
    let yard = Yard::new();
    let one = yard.stage("1.0").await;
    let pointer = yard.store.dir().join("current");
    for target in ["current", "generations/1", "/", "generations/0001/core"] {
        symlink(target, &pointer).unwrap();
        assert!(matches!(yard.store.current().unwrap_err(), Error::Damaged { .. }), "{target}");
        yard.store.switch(one).unwrap();
        assert_eq!(yard.store.current().unwrap(), Some(one), "{target}");
        fs::remove_file(&pointer).unwrap();
    }
    symlink("generations/0007", &pointer).unwrap();
    assert!(matches!(yard.store.current().unwrap_err(), Error::Unsealed { .. }));
}

#[tokio::test]
async fn r19_the_directory_to_start_from_does_not_move_with_the_pointer() {
    let yard = Yard::new();
    let (one, two) = (yard.stage("1.0").await, yard.stage("2.0").await);
    yard.store.switch(one).unwrap();
    let root = yard.store.root(one).unwrap();
    yard.store.switch(two).unwrap();
    assert!(fs::read_to_string(root.join("share/page.html")).unwrap().contains("1.0"));
    assert!(!root.to_str().unwrap().contains("current"));
}

#[tokio::test]
async fn r15_pruning_spares_the_current_generation_and_the_protected() {
    let yard = Yard::new();
    for version in ["1", "2", "3", "4", "5"] {
        yard.stage(version).await;
    }
    yard.store.switch(Generation(3)).unwrap();
    let protected = BTreeSet::from([Generation(1)]);
    assert_eq!(yard.store.prune(2, &protected).unwrap(), [Generation(2), Generation(4)]);
    assert_eq!(yard.numbers(), [1, 3, 5]);
    assert_eq!(yard.store.prune(0, &BTreeSet::new()).unwrap(), [Generation(1), Generation(5)]);
    assert_eq!(yard.store.current().unwrap(), Some(Generation(3)));
    yard.store.verify(Generation(3)).unwrap();
    assert_eq!(yard.staging(), [] as [PathBuf; 0]);
    assert_eq!(yard.stage("6").await, Generation(6), "a number is never used twice");
}

#[tokio::test]
async fn r20_leftovers_of_dead_runs_never_stand_in_the_way() {
    let yard = Yard::new();
    let staging = yard.store.dir().join("staging");
    for name in ["0001.partial", "1.0.partial", "dead.partial"] {
        let dir = staging.join(name).join("core/node_modules/web");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("half"), "").unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    }
    fs::write(staging.join("dead.lock"), "").unwrap();
    fs::write(staging.join("alone.lock"), "").unwrap();
    let generation = yard.stage("1.0").await;
    yard.store.verify(generation).unwrap();
    assert_eq!(yard.staging(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn r69_ten_failed_stagings_leave_nothing_behind() {
    let yard = Yard::new();
    yard.release("1.0");
    let mut resolved = yard.resolve("1.0").await;
    resolved.release.digest = "sha512-other".into();
    for _ in 0..10 {
        let error = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap_err();
        assert!(matches!(error, Error::BadIntegrity { .. }), "{error}");
    }
    assert_eq!(yard.staging(), [] as [PathBuf; 0]);
    assert_eq!(yard.numbers(), [] as [u32; 0]);
}

#[tokio::test]
async fn what_may_not_be_in_a_generation_is_refused_by_name() {
    let yard = Yard::new();
    let refused = async |version: &str, why: Unfit, at: &str| match yard.refusal(version).await {
        Error::Unfit { path, why: told } => {
            assert_eq!((path, told), (yard.releases().join(version).join(at), why));
        }
        other => panic!("{version}: {other}"),
    };
    symlink("/etc/passwd", yard.release("absolute").join("bin/x")).unwrap();
    refused("absolute", Unfit::AbsoluteLink, "bin/x").await;
    symlink("../../x", yard.release("escaping").join("bin/x")).unwrap();
    refused("escaping", Unfit::EscapingLink, "bin/x").await;
    symlink("bin/page/../../..", yard.release("roundabout").join("x")).unwrap();
    refused("roundabout", Unfit::EscapingLink, "x").await;
    let setuid = yard.release("setuid").join("bin/server");
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    refused("setuid", Unfit::Setuid, "bin/server").await;
    assert_eq!(yard.numbers(), [] as [u32; 0]);

    let pipe = yard.release("pipe").join("share/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = yard.store.resolve(&yard.source(), &Wanted::Version("pipe".into())).await.unwrap_err();
    assert!(error.to_string().contains("share/pipe"), "{error}");
}

#[tokio::test]
async fn under_root_a_release_stays_readable_to_the_group_of_its_owner_and_to_nobody_else() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: giving files to another user needs root");
        return;
    }
    let yard = Yard::new();
    let page = yard.release("1.0").join("share/page.html");
    std::os::unix::fs::chown(&page, Some(65534), Some(65533)).unwrap();
    fs::set_permissions(&page, fs::Permissions::from_mode(0o600)).unwrap();
    let resolved = yard.resolve("1.0").await;
    let generation = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap();
    let sealed = fs::metadata(yard.store.root(generation).unwrap().join("share/page.html")).unwrap();
    assert_eq!((sealed.uid(), sealed.gid(), sealed.mode() & 0o777), (0, 65533, 0o440));
}

#[tokio::test]
async fn a_release_that_changed_after_it_was_resolved_is_refused() {
    let yard = Yard::new();
    let dir = yard.release("1.0");
    let resolved = yard.resolve("1.0").await;
    fs::write(dir.join("share/page.html"), "<p>1.1</p>").unwrap();
    let error = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap_err();
    assert!(matches!(error, Error::BadIntegrity { .. }), "{error}");
}

#[tokio::test]
async fn r68_a_store_that_may_not_be_written_is_refused_before_the_first_byte() {
    let yard = Yard::new();
    if !rustix::process::geteuid().is_root() {
        yard.release("1.0");
        let resolved = yard.resolve("1.0").await;
        let staging = yard.store.dir().join("staging");
        fs::create_dir_all(&staging).unwrap();
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o555)).unwrap();
        let error = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap_err();
        assert!(matches!(&error, Error::Denied { path, .. } if *path == staging), "{error}");
        return;
    }
    let cache = yard.dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(yard.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let source = Source::Npm(Npm {
        package: "toy".into(),
        plugins: Vec::new(),
        linked: Vec::new(),
        registry: None,
        npm: vec!["npm".into()],
        node: None,
        env: Vec::new(),
        identity: Some(Identity { uid: 65534, gid: 65534, groups: Vec::new() }),
        scripts: Scripts::Off,
        cache: cache.clone(),
        limits: Limits::default(),
    });
    let error = yard.store.check_access(&source).unwrap_err();
    assert!(matches!(&error, Error::Denied { path, uid: 65534 } if *path == cache), "{error}");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    yard.store.check_access(&source).unwrap();
    fs::set_permissions(yard.store.dir(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = yard.store.check_access(&source).unwrap_err();
    assert!(matches!(&error, Error::Denied { path, uid: 65534 } if path.ends_with("staging")), "{error}");
}

/// A file system of its own, unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(dir: &Path, size: &str) -> Option<Tmpfs> {
        fs::create_dir_all(dir).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir);
        let mounted =
            rustix::process::geteuid().is_root() && mount.status().is_ok_and(|status| status.success());
        mounted.then(|| Tmpfs(dir.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn r67_a_disk_that_is_too_small_is_refused_with_numbers_and_a_full_one_is_survived() {
    let yard = Yard::new();
    let Some(_small) = Tmpfs::mount(yard.store.dir(), "2m") else {
        println!("skipped: mounting a small tmpfs needs root and permission to mount");
        return;
    };
    let first = yard.stage("1.0").await;
    yard.store.switch(first).unwrap();
    let big = yard.release("2.0");
    fs::write(big.join("share/big"), vec![7; 3 << 20]).unwrap();
    let mut resolved = yard.resolve("2.0").await;
    let space = yard.store.space(&yard.source(), &resolved).unwrap();
    assert!(space.need.known_bytes().unwrap() > 3 << 20 && space.free < 2 << 20, "{space:?}");
    let early = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap_err();
    assert!(matches!(early, Error::NoSpace { .. }), "{early}");
    assert!(early.to_string().contains(&space.need.to_string()), "{early}");

    resolved.unpacked_bytes = None;
    let late = yard.store.stage(&yard.source(), &resolved, |_| ()).await.unwrap_err();
    assert!(matches!(&late, Error::NoSpace { path, .. } if path.ends_with("share/big")), "{late}");
    assert!(late.to_string().contains("an unknown number of bytes"), "{late}");
    assert_eq!(yard.staging(), [] as [PathBuf; 0]);
    assert_eq!(yard.store.current().unwrap(), Some(first));
    yard.store.verify(first).unwrap();
    assert_eq!(yard.stage("3.0").await.0, 2, "what was used is free again");
}

#[tokio::test]
async fn a_staging_that_is_dropped_leaves_nothing_selectable_and_is_reclaimed() {
    let yard = Yard::new();
    let dir = yard.release("1.0");
    for number in 0..500 {
        fs::write(dir.join(format!("share/{number}")), vec![1; 4096]).unwrap();
    }
    let resolved = yard.resolve("1.0").await;
    let source = yard.source();
    let (sender, begun) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let progress = move |_| {
        if let Some(sender) = sender.lock().unwrap().take() {
            sender.send(()).unwrap();
        }
    };
    tokio::select! {
        _ = yard.store.stage(&source, &resolved, progress) => panic!("it was to be dropped"),
        told = begun => told.unwrap(),
    }
    until("the dropped work has ended and is reclaimed", || {
        yard.store.reclaim().unwrap();
        yard.staging().is_empty()
    });
    assert_eq!(yard.numbers(), [] as [u32; 0]);
}

/// Starts this test binary again for one ignored test that works on `yard`.
fn again(test: &str, yard: &Yard) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("STORE_YARD", yard.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn given_yard() -> (Store, Source) {
    let dir = PathBuf::from(std::env::var_os("STORE_YARD").expect("the parent test names the yard"));
    let source = Source::Directory(Directory { dir: dir.join("releases") });
    (Store::open(&dir.join("state/services/web")), source)
}

#[test]
#[ignore = "killed by r17_the_pointer_is_old_or_new_whenever_its_writer_dies"]
fn switches_to_and_fro() {
    let (store, _) = given_yard();
    for number in (1..=2).cycle() {
        store.switch(Generation(number)).unwrap();
    }
}

#[tokio::test]
async fn r17_the_pointer_is_old_or_new_whenever_its_writer_dies() {
    let yard = Yard::new();
    yard.stage("1.0").await;
    yard.stage("2.0").await;
    yard.store.switch(Generation(2)).unwrap();
    for _ in 0..8 {
        let before = yard.store.current().unwrap().unwrap();
        let child = again("switches_to_and_fro", &yard);
        let mut seen = BTreeSet::from([before]);
        until("the pointer has moved", || {
            seen.insert(yard.store.current().unwrap().expect("the pointer is never missing"));
            seen.len() == 2
        });
        kill(child);
        assert!(yard.store.current().unwrap().is_some());
    }
    yard.store.reclaim().unwrap();
    let left: Vec<PathBuf> = entries(yard.store.dir());
    assert_eq!(left.len(), 3, "generations, staging, current and nothing else: {left:?}");
}

#[tokio::test]
#[ignore = "killed by r22_a_staging_that_is_killed_is_never_selectable"]
async fn stages_once() {
    let (store, source) = given_yard();
    let resolved = store.resolve(&source, &Wanted::Version("1.0".into())).await.unwrap();
    store.stage(&source, &resolved, |_| ()).await.unwrap();
}

#[tokio::test]
async fn r22_a_staging_that_is_killed_is_never_selectable() {
    let yard = Yard::new();
    let dir = yard.release("1.0");
    for number in 0..2000 {
        fs::write(dir.join(format!("share/{number}")), vec![1; 4096]).unwrap();
    }
    for round in 1..=3 {
        let child = again("stages_once", &yard);
        let wanted = round * 500;
        until("files are being copied", || {
            let partial = yard.staging().into_iter().find(|path| path.extension().unwrap() == "partial");
            partial.is_some_and(|path| entries(&path.join("core/share")).len() >= wanted)
        });
        kill(child);
        assert_eq!(yard.numbers(), [] as [u32; 0], "round {round}");
        assert_ne!(yard.staging(), [] as [PathBuf; 0], "round {round}");
        yard.store.reclaim().unwrap();
        assert_eq!(yard.staging(), [] as [PathBuf; 0], "round {round}");
    }
    let generation = yard.stage("2.0").await;
    yard.store.verify(generation).unwrap();
}

#[tokio::test]
async fn a_staging_that_is_alive_is_not_reclaimed_by_another_process() {
    let yard = Yard::new();
    let dir = yard.release("1.0");
    for number in 0..2000 {
        fs::write(dir.join(format!("share/{number}")), vec![1; 4096]).unwrap();
    }
    let mut child = again("stages_once", &yard);
    until("the staging has ended", || {
        yard.store.reclaim().unwrap();
        child.try_wait().unwrap().is_some()
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(yard.numbers(), [1]);
    yard.store.verify(Generation(1)).unwrap();
}
