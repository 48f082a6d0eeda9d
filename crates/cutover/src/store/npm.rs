//! The npm registry as a source, through the real npm as a child process: so that its configuration, its
//! credentials and its policies hold here too.

mod call;
mod environment;

use super::source::{Npm, Resolved, Scripts, Wanted};
use super::stage::{CORE, Listener, Phase, Progress};
use super::workspace::{Workspace, create_dir};
use super::{Error, Result, Store};
use call::{Call, Failure};
use cutover_core::{Plugin, Release};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What `npm view` answers for one version.
#[derive(Deserialize)]
struct View {
    name: String,
    version: String,
    dist: Dist,
    #[serde(default)]
    time: BTreeMap<String, serde_json::Value>,
    /// Anything may stand there.
    #[serde(default)]
    homepage: serde_json::Value,
    #[serde(default, rename = "dist-tags")]
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dist {
    integrity: Option<String>,
    unpacked_size: Option<u64>,
    file_count: Option<u64>,
}

pub(super) async fn resolve(store: &Store, npm: &Npm, wanted: &Wanted) -> Result<Resolved> {
    store.check_access(&super::Source::Npm(npm.clone()))?;
    let mut resolved = resolve_one(store, npm, wanted).await?;
    let own = resolved.release.version.clone();
    for plugin in &npm.plugins {
        let of = Npm { package: plugin.package.clone(), plugins: Vec::new(), ..npm.clone() };
        let wanted = match &plugin.wanted {
            Wanted::Version(version) => Wanted::Version(version.replace("{version}", &own)),
            channel @ Wanted::Channel(_) => channel.clone(),
        };
        match resolve_one(store, &of, &wanted).await {
            Ok(found) => {
                let Release { package, version, digest, .. } = found.release;
                resolved.release.plugins.push(Plugin { package, version, digest });
                resolved.unpacked_bytes = sum(resolved.unpacked_bytes, found.unpacked_bytes);
                resolved.files = sum(resolved.files, found.files);
            }
            Err(Error::NotFound { said, .. }) if plugin.may_lack => {
                tracing::warn!(plugin = plugin.package, wanted = wanted.word(), said, "goes without");
            }
            Err(error) => return Err(error),
        }
    }
    resolved.release.plugins.sort();
    // A registry tells nothing of the kind; the package itself may, once it was fetched.
    let fetched = store.generations()?.into_iter().rev().find(|record| record.release == resolved.release);
    resolved.notes = fetched.and_then(|record| store.notes(&record));
    Ok(resolved)
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one? + other.unwrap_or(0))
}

async fn resolve_one(store: &Store, npm: &Npm, wanted: &Wanted) -> Result<Resolved> {
    check_words(npm, wanted)?;
    let workspace = Workspace::begin(store)?;
    let view = view(npm, wanted, &workspace).await;
    workspace.discard();
    exact(npm, wanted, &view?)
}

/// A range, an alias or an address would let the registry, or the caller's words, choose something else.
fn check_words(npm: &Npm, wanted: &Wanted) -> Result<()> {
    let refused = |wanted: &str, expected| Err(Error::NotExact { wanted: wanted.to_owned(), expected });
    if !is_package_name(&npm.package) {
        return refused(&npm.package, "a package name");
    }
    match wanted {
        Wanted::Version(version) if !is_exact_version(version) => refused(version, "an exact version"),
        Wanted::Channel(channel) if !is_tag(channel) => refused(channel, "the name of a dist-tag"),
        _ => Ok(()),
    }
}

/// An address that a person may be led to: the registry's word, so nothing but a plain `https` one.
fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    !rest.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\`".contains(&byte))
}

/// A moment as everybody who is told of it can read it: the registry's word for it may be any that ISO 8601 has.
fn moment(text: &str) -> Option<String> {
    text.parse::<jiff::Timestamp>().ok().map(|at| at.to_string())
}

fn is_word(word: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    word.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') && word.bytes().all(known)
}

/// Whether a word can only be the name of a package: no address, no path, no option.
pub(crate) fn is_package_name(name: &str) -> bool {
    match name.strip_prefix('@').map(|rest| rest.split_once('/')) {
        None => is_word(name),
        Some(Some((scope, name))) => is_word(scope) && is_word(name),
        Some(None) => false,
    }
}

/// `1.2.3`, `1.2.3-rc.1`, `1.2.3+build`: three numbers, so neither a range nor a tag.
fn is_exact_version(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
    numbers.len() == 3 && numbers.iter().all(is_number) && version.bytes().all(known)
}

/// npm itself refuses tags that read as a version or range (`1`, `v1.2`, `x`).
fn is_tag(tag: &str) -> bool {
    let after_v = tag.trim_start_matches(['v', 'V']);
    is_word(tag)
        && !after_v.starts_with(|first: char| first.is_ascii_digit())
        && !tag.eq_ignore_ascii_case("x")
}

async fn view(npm: &Npm, wanted: &Wanted, workspace: &Workspace) -> Result<View> {
    let spec = format!("{}@{}", npm.package, wanted.word());
    let call = Call { npm, workspace, doing: format!("view {spec}") };
    let timeout = format!("--fetch-timeout={}", npm.limits.answer.as_millis());
    let arguments = [
        "view",
        &spec,
        "name",
        "version",
        "dist",
        "time",
        "dist-tags",
        "homepage",
        "--fetch-retries=0",
        &timeout,
    ];
    let home = workspace.dir.join("home");
    create_dir(&home, 0o700)?;
    give(npm, &home)?;
    let mut pause = npm.limits.backoff;
    for attempt in 1.. {
        let limit = npm.limits.answer;
        let failure = match call.run(&arguments, &workspace.dir, &home, limit, limit, || ()).await {
            Ok(Ok(stdout)) => match serde_json::from_slice(&stdout) {
                Ok(view) => return Ok(view),
                Err(error) => Failure::unreadable(&error),
            },
            Ok(Err(failure)) => failure,
            Err(Error::TimedOut { limit, .. }) => Failure::silence(limit),
            Err(other) => return Err(other),
        };
        if attempt >= npm.limits.attempts || !failure.is_transient() {
            return Err(failure.into_error(&call, wanted.word(), attempt));
        }
        tracing::debug!(doing = %call.doing, attempt, said = %failure.said(), "npm is asked again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    unreachable!("the loop returns at the last attempt at the latest")
}

fn exact(npm: &Npm, wanted: &Wanted, view: &View) -> Result<Resolved> {
    let not_found = |said: String| Error::NotFound {
        package: npm.package.clone(),
        wanted: wanted.word().to_owned(),
        said,
    };
    if view.name != npm.package {
        return Err(not_found(format!("the registry answered with {}", view.name)));
    }
    match wanted {
        Wanted::Version(version) if *version != view.version => {
            return Err(not_found(format!("the registry answered with version {}", view.version)));
        }
        Wanted::Channel(channel) if view.tags.get(channel) != Some(&view.version) => {
            return Err(not_found("the registry has no such dist-tag".to_owned()));
        }
        _ => (),
    }
    let integrity = view.dist.integrity.as_deref().unwrap_or_default();
    let Some(digest) = integrity.split_whitespace().find(|one| one.starts_with("sha512-")) else {
        return Err(Error::BadIntegrity {
            package: format!("{}@{}", npm.package, view.version),
            said: "the registry states no sha512".to_owned(),
        });
    };
    Ok(Resolved {
        release: Release {
            package: npm.package.clone(),
            version: view.version.clone(),
            digest: digest.to_owned(),
            plugins: Vec::new(),
        },
        published: view.time.get(&view.version).and_then(|at| moment(at.as_str()?)),
        notes: None,
        homepage: view.homepage.as_str().filter(|page| is_address(page)).map(str::to_owned),
        unpacked_bytes: view.dist.unpacked_size,
        files: view.dist.file_count,
    })
}

/// Installs a release and its dependencies into the workspace. What is installed is not to be trusted before
/// [`lockfile::check`](super::lockfile::check).
pub(super) async fn install(
    npm: &Npm,
    release: &Release,
    workspace: &Workspace,
    listener: &Listener,
) -> Result<()> {
    let (core, home) = (workspace.dir.join(CORE), workspace.dir.join("home"));
    create_dir(&core, 0o755)?;
    create_dir(&home, 0o700)?;
    let project = core.join("package.json");
    let plugins = release.plugins.iter().map(|plugin| (&plugin.package, &plugin.version));
    let dependencies: BTreeMap<_, _> = plugins.chain([(&release.package, &release.version)]).collect();
    let mut text = json!({"name": "cutover-generation", "private": true, "dependencies": dependencies});
    if npm.scripts == Scripts::Own {
        // Newer npm wants it written down; older ones do not look.
        text["allowScripts"] = json!({ &release.package: true });
    }
    fs::write(&project, format!("{text:#}\n")).map_err(Error::write(&project))?;
    for path in [&home, &project, &core] {
        give(npm, path)?;
    }
    let call = Call { npm, workspace, doing: format!("install {}@{}", release.package, release.version) };
    let scripts = match npm.scripts {
        Scripts::Off | Scripts::Own => "--ignore-scripts",
        Scripts::On => "--ignore-scripts=false",
    };
    let retries = format!("--fetch-retries={}", npm.limits.attempts.saturating_sub(1));
    let pause = format!("--fetch-retry-mintimeout={}", npm.limits.backoff.as_millis());
    let pause_max = format!("--fetch-retry-maxtimeout={}", npm.limits.answer.as_millis());
    let arguments = [
        "install",
        scripts,
        &retries,
        &pause,
        &pause_max,
        "--omit=dev",
        "--audit=false",
        "--fund=false",
        "--global=false",
        "--dry-run=false",
        "--package-lock=true",
        "--package-lock-only=false",
        "--lockfile-version=3",
        "--install-strategy=hoisted",
    ];
    let watch = |seen: &mut Seen| {
        let now = Seen::at(&core.join("node_modules"));
        if now != *seen {
            listener(Progress { phase: Phase::Install, done: now.filled, total: Some(now.packages) });
            *seen = now;
        }
    };
    listener(Progress { phase: Phase::Install, done: 0, total: None });
    let limits = &npm.limits;
    let mut seen = Seen::default();
    call.run(&arguments, &core, &home, limits.install, limits.idle, || watch(&mut seen))
        .await?
        .map_err(|failure| failure.into_error(&call, &release.version, limits.attempts))?;
    if npm.scripts == Scripts::Own {
        // What every npm understands as the scripts of one package, and of no other.
        let doing = format!("run the scripts of {}@{}", release.package, release.version);
        let call = Call { npm, workspace, doing };
        let arguments = ["rebuild", "--ignore-scripts=false", "--global=false", &release.package];
        call.run(&arguments, &core, &home, limits.install, limits.idle, || ())
            .await?
            .map_err(|failure| failure.into_error(&call, &release.version, limits.attempts))?;
    }
    super::workspace::remove(&home)
}

/// npm makes all directories first and fills them as tarballs arrive.
#[derive(Default, PartialEq, Eq)]
struct Seen {
    packages: u64,
    filled: u64,
}

impl Seen {
    /// Counts top-level and scoped packages only: cheap enough to repeat.
    fn at(modules: &Path) -> Seen {
        let mut seen = Seen::default();
        let Ok(entries) = fs::read_dir(modules) else { return seen };
        for entry in entries.flatten() {
            let inner = match entry.file_name().as_bytes() {
                [b'.', ..] => continue,
                [b'@', ..] => Seen::at(&entry.path()),
                _ => Seen { packages: 1, filled: entry.path().join("package.json").exists().into() },
            };
            seen.packages += inner.packages;
            seen.filled += inner.filled;
        }
        seen
    }
}

/// Lets npm's user write there.
fn give(npm: &Npm, path: &Path) -> Result<()> {
    let Some(identity) = &npm.identity else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(identity.uid), Some(identity.gid)).map_err(Error::write(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_never_an_exact_version() {
        for exact in ["1.2.3", "2026.5.3-1", "1.0.0-rc.1", "1.0.0+build.5"] {
            assert!(is_exact_version(exact), "{exact}");
        }
        for range in
            ["1", "1.2", "1.x", "^1.2.3", ">=1.2.3", "1.2.3 || 2.0.0", "*", "", "latest", "1.2.*", "1.2.3 "]
        {
            assert!(!is_exact_version(range), "{range}");
        }
    }

    #[test]
    fn a_moment_is_told_in_the_one_way_that_everybody_reads() {
        for (word, told) in [
            ("2026-05-03T10:00:00.000Z", Some("2026-05-03T10:00:00Z")),
            ("20260503T100000Z", Some("2026-05-03T10:00:00Z")),
            ("2026-05-03 12:00:00.5+02:00", Some("2026-05-03T10:00:00.5Z")),
            ("2026-05-03", None),
            ("yesterday", None),
        ] {
            assert_eq!(moment(word).as_deref(), told, "{word}");
        }
    }

    #[test]
    fn neither_an_address_nor_an_option_is_a_package_or_tag() {
        for name in ["openclaw", "@openclaw/discord", "a.b-c_d"] {
            assert!(is_package_name(name), "{name}");
        }
        for name in ["", "-g", "../x", "/x", "a/b", "@a", "@a/b/c", "a@npm:b", "git+ssh://x", "a b"] {
            assert!(!is_package_name(name), "{name}");
        }
        for tag in ["latest", "next-9", "beta"] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in ["1", "v1.2", "x", ">1", "^1", "file:x", "a/b", ""] {
            assert!(!is_tag(tag), "{tag}");
        }
    }
}
