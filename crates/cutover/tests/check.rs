//! `cutover check`: a tree of packages looked at by the program, as a person calls it.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An installation with one package, `host`, whose entry imports from a chunk of its own.
fn installation(chunk: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let package = directory.path().join("node_modules/host");
    let manifest = r#"{"name":"host","version":"1.0.0","type":"module","main":"index.js",
        "exports":{".":"./index.js","./sdk":"./sdk.js"}}"#;
    write(&package.join("package.json"), manifest);
    write(&package.join("index.js"), "import { serve } from './chunk-AbCd1234.js';\n\nserve();\n");
    write(&package.join("sdk.js"), "export const format = () => 1;\n");
    write(&package.join("chunk-AbCd1234.js"), chunk);
    (directory, package)
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn check(words: &[&Path]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    let Output { status, stdout, stderr } = command.arg("check").args(words).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

const GOOD: &str = "export const serve = () => {};\n";

#[test]
fn a_whole_tree_has_nothing_against_it() {
    let (_directory, package) = installation(GOOD);
    let (code, told) = check(&[&package]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("0 would keep it from working") && told.contains("3 modules"), "{told}");
}

#[test]
fn a_name_that_is_gone_is_told_in_node_s_own_words_with_file_and_line() {
    let (_directory, package) = installation("export const served = () => {};\n");
    let (code, told) = check(&[&package, Path::new("--explain")]);
    assert_eq!(code, Some(3), "{told}");
    let place = format!("{}:1", package.canonicalize().unwrap().join("index.js").display());
    assert!(told.contains(&place), "{told}");
    assert!(told.contains("'./chunk-AbCd1234.js' does not provide an export named 'serve'"), "{told}");
    assert!(told.contains("it would not start"), "{told}");
}

#[test]
fn what_the_running_version_lacks_as_well_keeps_nobody_from_updating() {
    let (_directory, package) = installation("export const served = () => {};\n");
    let (_other, same) = installation("export const served = () => {};\n");
    let (code, told) = check(&[&package, Path::new("--against"), &same]);
    assert_eq!(code, Some(0), "{told}");
    let (_good, good) = installation(GOOD);
    assert_eq!(check(&[&package, Path::new("--against"), &good]).0, Some(3));
}

#[test]
fn r78110_a_plugin_that_asks_the_target_for_a_name_it_lacks_is_blocked_however_well_the_host_is() {
    let (directory, package) = installation(GOOD);
    let plugin = directory.path().join("plugin");
    let manifest = r#"{"name":"plugin","version":"1.0.0","type":"module","main":"index.js"}"#;
    write(&plugin.join("package.json"), manifest);
    write(&plugin.join("index.js"), "import { format } from 'host/sdk';\nformat();\n");
    assert_eq!(check(&[&package, Path::new("--plugin"), &plugin]).0, Some(0));
    write(&plugin.join("index.js"), "import { formatLine } from 'host/sdk';\nformatLine();\n");
    let (code, told) = check(&[&package, Path::new("--plugin"), &plugin]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("'host/sdk' does not provide an export named 'formatLine'"), "{told}");
}

#[test]
fn a_directory_that_is_no_package_is_a_usage_error_that_says_which_to_name() {
    let (directory, _package) = installation(GOOD);
    let (code, told) = check(&[directory.path()]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("name the package's own directory"), "{told}");
    let (code, told) = check(&[Path::new("/nowhere")]);
    assert_eq!((code, told.contains("/nowhere is not a directory")), (Some(2), true), "{told}");
}

fn configured(lines: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cutover.toml");
    let text = format!(
        "[service.web]\nsource = {{ directory = \"/srv/releases\" }}\ncommand = [\"{{root}}/bin/server\"]\nport = 8080\n\
         probe = {{ ready = \"/readyz\", version = {{ http = \"/version\" }} }}\n{lines}\n"
    );
    write(&path, &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    let output = command.args(["config", "check", "--config"]).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_user_or_group_that_this_machine_does_not_have_is_refused_with_its_key() {
    let (code, told) = configured("");
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = configured("user = \"root\"\ngroup = \"nosuchgroup\"");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("service.web.group: no group nosuchgroup in /etc/group"), "{told}");
    let (code, told) = configured("user = \"nosuchuser\"");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("service.web.user: no user nosuchuser in /etc/passwd"), "{told}");
    // Whether it may be taken on is seen by whoever serves.
    let (code, told) = configured("user = \"4242\"\ngroup = \"4343\"");
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn as_root_native_modules_are_loaded_as_the_tree_s_owner_or_as_nobody() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can load a module as somebody else");
        return;
    }
    let (directory, package) = installation(GOOD);
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), passable).unwrap();
    let nobody = Command::new("id").args(["-u", "nobody"]).output().unwrap().stdout;
    let nobody: u32 = String::from_utf8(nobody).unwrap().trim().parse().unwrap();
    for (owner, expected) in [(0, nobody), (4242, 4242)] {
        std::os::unix::fs::chown(&package, Some(owner), Some(owner)).unwrap();
        let code = format!(
            "#include <stdlib.h>\n#include <unistd.h>
            __attribute__((constructor)) static void who(void) {{ if (getuid() != {expected}) abort(); }}
            void *napi_register_module_v1(void *env, void *exports) {{ return exports; }}\n"
        );
        let source = directory.path().join("module.c");
        std::fs::write(&source, code).unwrap();
        let module = package.join("own.node");
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(&source).status();
        assert!(cc.unwrap().success());
        let (code, told) = check(&[&package]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("1 native module loads"), "{told}");
    }
}
