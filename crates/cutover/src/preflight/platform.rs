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
        let path = format!("{package}/{}", inner.display()).to_ascii_lowercase();
        // `x86_64` is the one word that holds a separator.
        let path = path.replace("x86_64", "x64");
        let words: Vec<&str> = path.split(['/', '-', '_', '.', '@', '+']).collect();
        let is_foreign = |families: &[&[&str]], own: &str| {
            let own = families.iter().find(|family| family.contains(&own));
            let is_own = |word: &str| own.is_some_and(|family| family.contains(&word));
            let is_known = |word: &str| families.iter().any(|family| family.contains(&word));
            words.iter().any(|word| is_known(word)) && !words.iter().any(|word| is_own(word))
        };
        let abi = words.iter().find_map(|word| word.strip_prefix("abi").filter(|n| n.parse::<u32>().is_ok()));
        is_foreign(&SYSTEMS, &self.os)
            || is_foreign(&PROCESSORS, &self.cpu)
            || is_foreign(&LIBRARIES, &self.libc)
            || words.contains(&"electron")
            || abi.is_some_and(|abi| self.abi.as_deref().is_some_and(|own| own != abi))
    }
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
        ];
        for path in others {
            assert!(here().is_for_another(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn npms_lists_allow_and_exclude() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let allowed = |os: &[&str], cpu: &[&str]| here().is_allowed(&words(os), &words(cpu), &[]);
        assert!(allowed(&[], &[]) && allowed(&["linux", "darwin"], &["x64"]) && allowed(&["!win32"], &[]));
        assert!(!allowed(&["darwin"], &[]) && !allowed(&["!linux"], &[]) && !allowed(&[], &["arm64"]));
    }
}
