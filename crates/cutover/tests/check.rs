//! `cutover check`: a tree of packages looked at by the program, as a person calls it.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover_testkit::openclaw::{LATEST, PLUGIN, Runtime};
use cutover_testkit::slow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

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

/// A plugin beside the host, with such fields in its manifest.
fn plugin(directory: &tempfile::TempDir, fields: &str) -> PathBuf {
    let plugin = directory.path().join("plugin");
    let manifest = format!(r#"{{"name":"plugin","version":"1.0.0","type":"module",{fields}}}"#);
    write(&plugin.join("package.json"), &manifest);
    plugin
}

#[test]
fn r78110_a_plugin_that_asks_the_target_for_a_name_it_lacks_is_blocked_however_well_the_host_is() {
    let (directory, package) = installation(GOOD);
    let plugin = plugin(&directory, r#""main":"index.js""#);
    write(&plugin.join("index.js"), "import { format } from 'host/sdk';\nformat();\n");
    assert_eq!(check(&[&package, Path::new("--plugin"), &plugin]).0, Some(0));
    write(&plugin.join("index.js"), "import { formatLine } from 'host/sdk';\nformatLine();\n");
    let (code, told) = check(&[&package, Path::new("--plugin"), &plugin]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("'host/sdk' does not provide an export named 'formatLine'"), "{told}");
}

#[test]
fn a_plugin_s_files_are_those_that_its_manifest_names_for_its_host() {
    let (directory, package) = installation(GOOD);
    let named =
        r#""extensions":["./index.ts"],"runtime":["./dist/index.js"],"page":{"script":"./dist/page.js"}"#;
    let plugin = plugin(&directory, &format!(r#""host":{{{named}}}"#));
    write(&plugin.join("dist/index.js"), "import './gone.js';\n");
    write(&plugin.join("dist/page.js"), "import './lost.js';\n");
    let (code, told) = check(&[&package, Path::new("--plugin"), &plugin]);
    assert_eq!(code, Some(3), "{told}");
    let levels =
        |name: &str| told.lines().filter(|line| line.contains(name)).map(|line| &line[..5]).collect();
    let (gone, lost): (Vec<&str>, Vec<&str>) = (levels("gone.js'"), levels("lost.js'"));
    assert_eq!((gone, lost), (vec!["block"], vec!["warn "]), "{told}");
}

#[test]
fn a_plugin_that_does_not_fit_is_blocked_wherever_it_names_what_the_host_lacks() {
    let (directory, package) = installation(GOOD);
    let plugin = plugin(&directory, r#""main":"index.js""#);
    write(&plugin.join("index.js"), "export const load = (name) => import(`./${name}.js`);\n");
    write(&plugin.join("later.js"), "import { format } from 'host/sdk';\nformat();\n");
    assert_eq!(check(&[&package, Path::new("--plugin"), &plugin]).0, Some(0));
    write(&plugin.join("later.js"), "import { formatLine } from 'host/sdk';\nformatLine();\n");
    let (code, told) = check(&[&package, Path::new("--plugin"), &plugin]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("later.js:1: SyntaxError: The requested module 'host/sdk'"), "{told}");
}

#[test]
fn a_file_that_is_too_large_to_be_read_blocks_nothing() {
    let (_directory, package) = installation(&format!("import './large.js';\n{GOOD}"));
    let file = std::fs::File::create(package.join("large.js")).unwrap();
    file.set_len(40 << 20).unwrap();
    let (_before, before) = installation(GOOD);
    for words in [vec![package.as_path()], vec![&package, Path::new("--against"), &before]] {
        let (code, told) = check(&words);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("what it imports is not known"), "{told}");
    }
}

/// The gateway and its plugin from npm, as `check` tells of them: 0 where they fit, 3 where they do not.
#[test]
fn the_latest_gateways_and_their_plugins_are_blocked_only_where_they_do_not_fit() {
    let name = "the_latest_gateways_and_their_plugins_are_blocked_only_where_they_do_not_fit";
    if !slow::is_asked_for("real", name) {
        return;
    }
    let cache = std::env::var_os("CUTOVER_TEST_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci"), PathBuf::from);
    let limit = Duration::from_secs(600);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = runtime.block_on(Runtime::kept_in(&cache, limit)).unwrap();
    let kept = tempfile::tempdir().unwrap();
    let kept = kept.path().join("cache");
    let host = |version: &str| {
        runtime.block_on(node.gateway(version, &cache.join("openclaw").join(version), limit)).unwrap()
    };
    let plugin = |version: &str| {
        let package = format!("{PLUGIN}@{version}");
        let project = cache.join("programs").join(package.replace('/', "+"));
        runtime.block_on(node.packages(&[&package], &project, limit)).unwrap().join(PLUGIN)
    };
    let [older, newer] = LATEST;
    let flag = Path::new;
    let (interpreter, cached) = (node.node(), ["--cache".as_ref(), kept.as_path()]);
    let looked = |target: &str, with: &str, against: Option<&str>| {
        let (target, with, against) = (host(target), plugin(with), against.map(host));
        let mut words = vec![target.as_path(), flag("--plugin"), &with, flag("--node"), &interpreter];
        words.extend(cached);
        words.extend(against.iter().flat_map(|against| [flag("--against"), against.as_path()]));
        let (code, told) = check(&words);
        println!("{words:?}\n{told}");
        (code, told)
    };
    for (target, against) in [(newer, older), (older, newer)] {
        let (code, told) = looked(target, older, Some(against));
        assert_eq!(code, Some(0), "{told}");
    }
    let (code, told) = looked(older, newer, None);
    assert_eq!(code, Some(3), "{told}");
    let text = "SyntaxError: The requested module 'openclaw/plugin-sdk/channel-outbound' does not provide an export \
                named 'createLivePreviewLifecycle'";
    assert!(told.contains(text), "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("block (")).count(), 2, "{told}");
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
fn a_configuration_that_a_daemon_would_not_begin_with_or_not_take_back_is_told_by_the_check() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().canonicalize().unwrap().join("claw.json");
    let entry = |path: &Path| format!("{{ path = \"{}\", kind = \"files\" }}", path.display());
    let told = |path: &Path, more: &str, by: &str| {
        let state = entry(&directory.path().join("claw"));
        let gateway = "listen = \"127.0.0.1:8081\"\nupdate_button = \"openclaw\"";
        let by = by.replace("\"PATH\"", &format!("\"{}\"", path.display()));
        configured(&format!("{gateway}\nstate = [{state}{more}]\n{by}"))
    };
    let in_env = "env = { OPENCLAW_CONFIG_PATH = \"PATH\" }";
    let secrets = directory.path().join("web.env");
    write(&secrets, &format!("OPENCLAW_CONFIG_PATH={}\n", file.display()));
    for by in [in_env, &format!("env_file = \"{}\"", secrets.display())] {
        let (code, said) = told(&file, "", by);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("service.web.state: OPENCLAW_CONFIG_PATH is") && said.contains(&entry(&file)),
            "{said}"
        );
        let (code, said) = told(&file, &format!(", {}", entry(&file)), by);
        assert_eq!((code, said.contains("not covered")), (Some(0), false), "{said}");
    }
    let long = file.with_file_name("x".repeat(200));
    let (code, said) = told(&long, "", in_env);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("note: service.web.state: the configuration is not covered"), "{said}");
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
