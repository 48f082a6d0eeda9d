//! What a release says of itself: the part about its own version in the `CHANGELOG.md` beside its code. It is for a person
//! to read, from whoever made the release: bounded, without what a terminal would obey, and nothing is decided by it.

use rustix::fs::OFlags;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const NAME: &str = "CHANGELOG.md";
/// So much of it is looked through at most (bytes). OpenClaw's had 1.9 MB in 2026.5.4.
const READ_MAX: u64 = 4 << 20;
/// So much is told of it at most (bytes).
const TOLD_MAX: usize = 8 << 10;

/// The notes of a version, from the directory of its package. One that has none, or none that can be read, has none.
pub(super) fn notes(package: &Path, version: &str) -> Option<String> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(package.join(NAME)).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    own(BufReader::new(file.take(READ_MAX)), version)
}

/// What stands below the heading of this version, up to the next version or to a heading of the same rank.
fn own(text: impl BufRead, version: &str) -> Option<String> {
    let mut lines =
        text.split(b'\n').map_while(Result::ok).map(|line| plain(&String::from_utf8_lossy(&line)));
    let is_own = |(_, title): &(usize, &str)| named(title) == bare(version);
    let rank = lines.find_map(|line| Some(heading(&line).filter(is_own)?.0))?;
    let ends =
        |line: &String| heading(line).is_some_and(|(other, title)| other <= rank || is_version(named(title)));
    let mut told = String::new();
    for line in lines.take_while(|line| !ends(line)) {
        if told.len() + line.len() > TOLD_MAX {
            let room = TOLD_MAX - told.len();
            let end = line.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or(0);
            // A line is cut only where there is no other.
            let part = if told.trim().is_empty() { &line[..end] } else { "" };
            return Some(format!(
                "{}\n… the rest is in {NAME} of the release",
                format!("{told}{part}").trim()
            ));
        }
        told.push_str(&line);
        told.push('\n');
    }
    Some(told.trim().to_owned()).filter(|told| !told.is_empty())
}

/// Rank and title of a heading; a version has one of the first three ranks.
fn heading(line: &str) -> Option<(usize, &str)> {
    let title = line.trim_start_matches('#');
    let rank = line.len() - title.len();
    ((1..=3).contains(&rank) && title.starts_with(' ')).then(|| (rank, title.trim()))
}

/// What a title begins with: `1.2.3` of `1.2.3`, of `[1.2.3] - 2026-01-01` and of `v1.2.3 (2026-01-01)`.
fn named(title: &str) -> &str {
    let title = title.trim_start_matches('[');
    let end = title.find(|c: char| !c.is_ascii_alphanumeric() && !".-+_".contains(c));
    bare(&title[..end.unwrap_or(title.len())])
}

fn bare(version: &str) -> &str {
    version.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(version)
}

fn is_version(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.split('.').count() >= 3
}

/// Without what moves a cursor or turns the direction of writing.
fn plain(line: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line = line.trim_end().replace('\t', "    ");
    line.chars().filter(|c| !c.is_control() && !turns(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, version: &str) -> Option<String> {
        own(text.as_bytes(), version)
    }

    #[test]
    fn the_part_about_a_version_is_told_and_no_other() {
        let text = "# Changelog\n\n## Unreleased\n- no\n## [1.2.3] - 2026-01-01\n\n### Fixes\n\n- one\n- two\n\n## 1.2.2\n- old\n";
        assert_eq!(of(text, "1.2.3").as_deref(), Some("### Fixes\n\n- one\n- two"));
        assert_eq!(of(text, "1.2.2").as_deref(), Some("- old"));
        for other in ["1.2", "2.3", "1.2.3-1", "1.2.30", "Unreleased-1", ""] {
            assert_eq!(of(text, other), None, "{other}");
        }
    }

    #[test]
    fn headings_are_known_as_the_field_writes_them() {
        for title in [
            "# 1.2.3",
            "## v1.2.3",
            "### [1.2.3](https://example.com/compare/v1.2.2...v1.2.3) (2026-01-01)",
            "## [v1.2.3]",
        ] {
            let text = format!("{title}\n\n- one\n\n### [1.2.2] (2025-01-01)\n- old\n");
            assert_eq!(of(&text, "1.2.3").as_deref(), Some("- one"), "{title}");
            assert_eq!(of(&text, "v1.2.3").as_deref(), Some("- one"), "{title}");
        }
        for title in ["#1.2.3", "#### 1.2.3", "## 1.2.3-rc.1", "1.2.3", "## about 1.2.3"] {
            assert_eq!(of(&format!("{title}\n- one\n"), "1.2.3"), None, "{title}");
        }
        assert_eq!(of("## 1.2.3\n\n## 1.2.2\n- old\n", "1.2.3"), None, "a heading alone says nothing");
    }

    #[test]
    fn what_is_told_is_bounded_and_orders_nothing() {
        let told = of("## 1.2.3\n- \u{1b}[31mred\u{7}\u{202e}\ttab\r\n", "1.2.3").unwrap();
        assert_eq!(told, "- [31mred    tab");
        let rest = "\n… the rest is in CHANGELOG.md of the release";
        let told = of(&format!("## 1.2.3\n{}", "- ein Strich und ß\n".repeat(2000)), "1.2.3").unwrap();
        assert!(told.len() <= TOLD_MAX + rest.len() && told.ends_with(&format!("ß{rest}")), "{told}");
        let told = of(&format!("## 1.2.3\n{}", "ß".repeat(TOLD_MAX)), "1.2.3").unwrap();
        assert_eq!(told, format!("{}{rest}", "ß".repeat(TOLD_MAX / 2)));
    }

    #[test]
    fn nothing_but_a_file_of_the_release_itself_is_read() {
        let ground = tempfile::tempdir().unwrap();
        let package = ground.path().join("package");
        std::fs::create_dir(&package).unwrap();
        assert_eq!(notes(&package, "1.0.0"), None);
        std::fs::write(ground.path().join("secret"), "## 1.0.0\n- secret\n").unwrap();
        std::os::unix::fs::symlink("../secret", package.join(NAME)).unwrap();
        assert_eq!(notes(&package, "1.0.0"), None, "a link leads elsewhere");
        std::fs::remove_file(package.join(NAME)).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, package.join(NAME), rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(notes(&package, "1.0.0"), None, "a pipe has nothing to tell and is not waited for");
        std::fs::remove_file(package.join(NAME)).unwrap();
        std::fs::write(package.join(NAME), b"## 1.0.0\n- \xff\n").unwrap();
        assert_eq!(notes(&package, "1.0.0").as_deref(), Some("- \u{fffd}"));
    }
}
