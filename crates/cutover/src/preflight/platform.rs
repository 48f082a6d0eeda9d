//! For which machine something was made, told by words.
//!
//! Knows the words that npm and the builders of native modules use. Must not know any package.

use std::path::Path;

/// What the service's interpreter runs on, in node's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    /// `process.platform`.
    pub os: String,
    /// `process.arch`.
    pub cpu: String,
    /// `glibc` or `musl`.
    pub libc: String,
    /// `process.versions.modules`, where it is known.
    pub abi: Option<String>,
}

/// Words for one thing, node's own first.
const SYSTEMS: [&[&str]; 9] = [
    &["linux"],
    &["win32", "windows", "win", "win64"],
    &["darwin", "macos", "mac", "osx"],
    &["freebsd"],
    &["openbsd"],
    &["netbsd"],
    &["sunos", "solaris"],
    &["android", "ohos", "openharmony"],
    &["aix"],
];
const PROCESSORS: [&[&str]; 10] = [
    &["x64", "x86_64", "amd64"],
    &["arm64", "aarch64", "armv8"],
    &["ia32", "x86", "i686", "i386"],
    &["arm", "armhf", "armv6", "armv7", "armv7l", "armv7a"],
    &["loong64", "loongarch64"],
    &["riscv64", "riscv64d", "riscv64gc"],
    &["ppc64", "ppc64le", "powerpc64le"],
    &["s390x"],
    &["mips", "mipsel", "mips64", "mips64el"],
    &["wasm32", "wasm"],
];
const LIBRARIES: [&[&str]; 2] = [&["glibc", "gnu", "gnueabihf"], &["musl", "musleabihf"]];

impl Platform {
    /// Of this machine, for want of the interpreter's own word.
    pub(super) fn own() -> Self {
        let cpu = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            "x86" => "ia32",
            other => other,
        };
        Self { os: "linux".into(), cpu: cpu.into(), libc: "glibc".into(), abi: None }
    }

    /// Whether npm would install a package with these lists here. An empty list allows all, `!` excludes.
    pub(super) fn is_allowed(&self, os: &[String], cpu: &[String], libc: &[String]) -> bool {
        allows(os, &self.os) && allows(cpu, &self.cpu) && allows(libc, &self.libc)
    }

    /// Whether a module's path says that it was built for something else. Words of the path below the last
    /// `node_modules` count, and only where none of them means this platform.
    pub(super) fn is_for_another(&self, relative: &Path) -> bool {
        let (package, inner) = super::tree::in_package(relative);
        let inner = plain(&inner.display().to_string());
        let package = plain(&package);
        let words: Vec<&str> = words(&package).chain(words(&inner)).collect();
        let is_foreign = |families: &[&[&str]], own: &str| {
            let own = families.iter().find(|family| family.contains(&own));
            let is_own = |word: &str| own.is_some_and(|family| family.contains(&word));
            let is_known = |word: &str| families.iter().any(|family| family.contains(&word));
            words.iter().any(|word| is_known(word)) && !words.iter().any(|word| is_own(word))
        };
        let below: Vec<&str> = self::words(&inner).collect();
        let is_foreign_abi = |own: &str| {
            let mut told =
                below.iter().filter_map(|word| number(word, "abi")).chain(node_abis(&below)).peekable();
            told.peek().is_some() && !told.any(|abi| abi == own)
        };
        is_foreign(&SYSTEMS, &self.os)
            || is_foreign(&PROCESSORS, &self.cpu)
            || is_foreign(&LIBRARIES, &self.libc)
            || words.contains(&"electron")
            || self.abi.as_deref().is_some_and(is_foreign_abi)
    }
}

/// What a module is called beside what its file's name says of machines: variants of one module have the same. Empty where
/// the name says of nothing else.
pub(super) fn called(module: &Path) -> String {
    let name = plain(&module.file_stem().unwrap_or_default().to_string_lossy());
    let families = SYSTEMS.iter().chain(&PROCESSORS).chain(&LIBRARIES);
    let machines: Vec<&str> = families.flat_map(|family| family.iter().copied()).collect();
    let is_own = |word: &&str| {
        let is_version = ["abi", "v", "armv"].iter().any(|prefix| number(word, prefix).is_some());
        !(is_version || machines.contains(word) || ["node", "napi", "electron", ""].contains(word))
    };
    words(&name).filter(is_own).collect::<Vec<_>>().join("-")
}

/// `x86_64` is the one word that holds a separator.
fn plain(path: &str) -> String {
    path.to_ascii_lowercase().replace("x86_64", "x64")
}

fn words(path: &str) -> impl Iterator<Item = &str> {
    path.split(['/', '-', '_', '.', '@', '+'])
}

/// The number of a word such as `abi115`.
fn number<'a>(word: &'a str, prefix: &str) -> Option<&'a str> {
    word.strip_prefix(prefix).filter(|number| number.parse::<u32>().is_ok())
}

/// The numbers in `node-v115`, as node-pre-gyp names directories.
fn node_abis<'a>(words: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    words.windows(2).filter(|pair| pair[0] == "node").filter_map(|pair| number(pair[1], "v"))
}

fn allows(list: &[String], own: &str) -> bool {
    let excludes = |word: &String| word.strip_prefix('!') == Some(own);
    let mut wanted = list.iter().filter(|word| !word.starts_with('!')).peekable();
    let is_wanted = wanted.peek().is_none() || wanted.any(|word| word == own || word == "any");
    is_wanted && !list.iter().any(excludes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Platform {
        Platform { os: "linux".into(), cpu: "x64".into(), libc: "glibc".into(), abi: Some("115".into()) }
    }

    #[test]
    fn modules_for_other_machines_are_told_by_their_paths() {
        let own = [
            "node_modules/koffi/build/koffi/linux_x64/koffi.node",
            "node_modules/@napi-rs/canvas-linux-x64-gnu/skia.linux-x64-gnu.node",
            "node_modules/a/build/Release/binding.node",
            "node_modules/windows-tool/node_modules/b/prebuilds/linux-x64/b.node",
            "node_modules/a/prebuilds/linux-x64/node.abi115.node",
            "node_modules/a/lib/linux-x86_64/a.node",
            "node_modules/a/lib/binding/node-v115-linux-x64/a.node",
            "node_modules/node-v8-tools/build/Release/a.node",
            "build/Release/own.node",
        ];
        for path in own {
            assert!(!here().is_for_another(Path::new(path)), "{path}");
        }
        let others = [
            "node_modules/koffi/build/koffi/musl_x64/koffi.node",
            "node_modules/koffi/build/koffi/linux_ia32/koffi.node",
            "node_modules/koffi/build/koffi/linux_riscv64d/koffi.node",
            "node_modules/tree-sitter-bash/prebuilds/win32-x64/tree-sitter-bash.node",
            "node_modules/@s/clip-darwin-universal/clip.darwin-universal.node",
            "node_modules/a/prebuilds/linux-x64/node.abi108.node",
            "node_modules/a/prebuilds/linux-x64/electron.napi.node",
            "node_modules/a-linux-x64-musl/a.node",
            "node_modules/a/lib/binding/node-v108-linux-x64-glibc/a.node",
            "node_modules/a/lib/binding/node-v115-linux-x64-musl/a.node",
            "node_modules/a/prebuilds/linux-x64/node.abi115.musl.node",
        ];
        for path in others {
            assert!(here().is_for_another(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn variants_of_one_module_are_called_the_same() {
        let called = |path: &str| super::called(Path::new(path));
        assert_eq!(called("lib/binding/node-v108-linux-x64/leveldown.node"), "leveldown");
        assert_eq!(called("skia.linux-x64-gnu.node"), called("skia.linux-x64-musl.node"));
        assert_eq!(called("prebuilds/linux-x64/node.napi.glibc.node"), "");
        assert_eq!(called("prebuilds/linux-arm/node.abi115.armv7.node"), "");
        assert_ne!(called("build/Release/pty.node"), called("build/Release/conpty.node"));
    }

    #[test]
    fn npms_lists_allow_and_exclude() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let allowed = |os: &[&str], cpu: &[&str]| here().is_allowed(&words(os), &words(cpu), &[]);
        assert!(allowed(&[], &[]) && allowed(&["linux", "darwin"], &["x64"]) && allowed(&["!win32"], &[]));
        assert!(!allowed(&["darwin"], &[]) && !allowed(&["!linux"], &[]) && !allowed(&[], &["arm64"]));
    }
}
