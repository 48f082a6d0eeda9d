//! A tree that means harm, or that is damaged, is a finding: never a crash, a hang, or memory without end.
#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

mod corpus;

use cutover_imports::{Builtins, Cache, Checked, Interpreter, Kind, Limits, Root, Scope, Trees, check};
use std::fs;
use std::path::Path;

fn checked(root: &Path) -> Checked {
    let limits = Limits { threads: 2, file_bytes_max: 8 << 20 };
    let root = Root { directory: root.to_owned(), entries: vec!["main.mjs".into()], scope: Scope::Whole };
    let trees = Trees {
        roots: vec![root],
        aliases: Vec::new(),
        builtins: Builtins::default(),
        interpreter: Interpreter::default(),
        limits,
    };
    check(&trees, &mut Cache::default()).unwrap()
}

/// Checks a tree whose entry imports one file.
fn file(name: &str, bytes: &[u8]) -> Vec<(Kind, u32)> {
    let root = tempfile::tempdir().unwrap();
    let with = if name.ends_with(".json") { " with { type: \"json\" }" } else { "" };
    fs::write(root.path().join("main.mjs"), format!("import \"./{name}\"{with};\n")).unwrap();
    fs::write(root.path().join(name), bytes).unwrap();
    let found = checked(root.path()).findings;
    assert!(found.iter().all(|it| it.file.ends_with(name)), "{found:?}");
    found.into_iter().map(|it| (it.kind, it.line)).collect()
}

#[test]
fn a_file_that_was_cut_off_is_no_program() {
    let whole = "export const a = { b: [1, 2] };\nexport function f(x) {\n  return `${x}`;\n}\n";
    assert_eq!(file("a.mjs", whole.as_bytes()), []);
    for cut in [20, 28, 45, 60, 70, 71] {
        let found = file("a.mjs", &whole.as_bytes()[..cut]);
        assert!(matches!(found[..], [(Kind::Syntax, line)] if line > 0), "cut at {cut}: {found:?}");
    }
}

#[test]
fn a_file_of_zeros_or_noise_is_no_program() {
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&[0; 4096][..], &noise, b"\x7fELF\x02\x01\x01\0\0", b"\xff\xfe\x00a"] {
        for name in ["a.mjs", "a.cjs", "a.js", "a.json"] {
            let found = file(name, bytes);
            assert!(matches!(found[..], [(Kind::Syntax, _)]), "{name}: {found:?}");
        }
    }
}

#[test]
fn an_empty_file_is_a_module_without_names_and_an_empty_addon_is_none() {
    assert_eq!(file("a.mjs", b""), []);
    assert_eq!(file("a.json", b""), [(Kind::Syntax, 1)]);
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("main.mjs"), "import { a } from './a.mjs'; import './b.cjs';\n").unwrap();
    fs::write(root.path().join("a.mjs"), "").unwrap();
    fs::write(root.path().join("b.cjs"), "require('./c.node');").unwrap();
    fs::write(root.path().join("c.node"), "").unwrap();
    let kinds: Vec<_> = checked(root.path()).findings.into_iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [Kind::Unreadable, Kind::MissingExport]);
}

#[test]
fn nesting_without_end_is_a_finding() {
    const DEEP: usize = 300_000;
    let steps = [
        "(",
        "[",
        "{",
        "!",
        "- ",
        "a=>",
        "a?b:",
        "a=",
        "new ",
        "if(a)",
        "if(a);else ",
        "`${",
        "[a,",
        "a**",
        "a:",
        "function f(){",
        "class A{a(){",
        "({a:",
        "typeof ",
        "async()=>{",
        "for(;;)",
        "while(a)",
        "do ",
        "label:{",
        "import(",
        "f(",
        "(a,",
    ];
    for step in steps {
        for name in ["a.mjs", "a.cjs"] {
            let found = file(name, step.repeat(DEEP).as_bytes());
            assert!(matches!(found[..], [(Kind::OverLimit | Kind::Syntax, _)]), "{step}: {found:?}");
        }
    }
    for (open, close) in [("(", ")"), ("[", "]"), ("f(", ")"), ("{", "}"), ("function f(){", "}")] {
        let text = format!("{}1{}", open.repeat(DEEP), close.repeat(DEEP));
        let found = file("a.mjs", text.as_bytes());
        assert!(matches!(found[..], [(Kind::OverLimit, 1)]), "{open}: {found:?}");
    }
}

#[test]
fn a_chain_that_no_stack_holds_is_a_finding() {
    for step in ["a+", "a.b.", "f()()", "a&&", "a??", "a[0]", "a`b`"] {
        let text = format!("import('./main.mjs');require('./main.mjs');exports.a={}a", step.repeat(500_000));
        let found = file("a.cjs", text.as_bytes());
        assert!(
            found.is_empty() || matches!(found[..], [(Kind::OverLimit | Kind::Syntax, _)]),
            "{step}: {found:?}"
        );
    }
}

#[test]
fn just_below_the_limit_is_read() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("f(", ")"),
        ("{", "}"),
        ("if(a){", "}"),
        ("function f(){", "}"),
        ("a=>(", ")"),
        ("`${", "}`"),
        ("class A{a(){", "}}"),
        ("!(", ")"),
        ("({a:", "})"),
    ] {
        let depth = 16_000;
        let text = format!("import('./main.mjs');{}1{}", open.repeat(depth), close.repeat(depth));
        let found = file("a.mjs", text.as_bytes());
        assert!(!matches!(found[..], [(Kind::Syntax, _)]), "{open}: {found:?}");
    }
}

#[test]
fn a_single_line_without_end_is_read_up_to_the_limit_and_refused_beyond() {
    let line = |bytes: usize| "f(1);".repeat(bytes / 5);
    assert_eq!(file("a.mjs", line(4 << 20).as_bytes()), []);
    assert_eq!(file("a.mjs", line(50 << 20).as_bytes()), [(Kind::OverLimit, 0)]);
}

#[test]
fn links_in_a_circle_are_followed_nowhere() {
    let root = tempfile::tempdir().unwrap();
    let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, root.path().join(path)).unwrap();
    fs::write(
        root.path().join("main.mjs"),
        "import './loop.mjs';\nimport './self/self/self/b.mjs';\nimport './up/main.mjs';\nimport 'pack';",
    )
    .unwrap();
    link("loop.mjs", "loop.mjs");
    link(".", "self");
    link("..", "up");
    link("b.mjs", "a.mjs");
    link("a.mjs", "b.mjs");
    fs::create_dir(root.path().join("node_modules")).unwrap();
    link("pack", "node_modules/pack");
    let lines: Vec<_> = checked(root.path()).findings.into_iter().map(|it| (it.kind, it.line)).collect();
    let missing = |line| (Kind::ModuleNotFound, line);
    assert_eq!(lines, [missing(1), missing(2), missing(3), missing(4)]);
}

#[test]
fn what_is_no_file_is_not_opened() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("main.mjs"), "import './pipe.mjs';\nimport 'pack';").unwrap();
    fs::create_dir_all(root.path().join("node_modules/pack")).unwrap();
    for pipe in ["pipe.mjs", "node_modules/pack/package.json"] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, root.path().join(pipe), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
    }
    let kinds: Vec<_> = checked(root.path()).findings.into_iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [Kind::ModuleNotFound, Kind::InvalidManifest]);
}

#[test]
fn exports_in_a_circle_without_end_are_gone_through_once() {
    let root = tempfile::tempdir().unwrap();
    let many = 400;
    for number in 0..many {
        let stars: String =
            (0..20).map(|step| format!("export * from './{}.mjs';\n", (number * 7 + step) % many)).collect();
        fs::write(root.path().join(format!("{number}.mjs")), stars).unwrap();
    }
    fs::write(root.path().join("main.mjs"), "import { a } from './0.mjs';").unwrap();
    let found = checked(root.path()).findings;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].kind, found[0].name.as_deref()), (Kind::MissingExport, Some("a")));
}

#[test]
fn a_long_chain_of_modules_is_followed_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    let many = 2_000;
    for number in 0..many {
        fs::write(
            root.path().join(format!("{number}.mjs")),
            format!("export * from './{}.mjs';", number + 1),
        )
        .unwrap();
    }
    fs::write(root.path().join(format!("{many}.mjs")), "export const a = 1;").unwrap();
    fs::write(root.path().join("main.mjs"), "import { a } from './0.mjs';\nimport { b } from './0.mjs';")
        .unwrap();
    let found = checked(root.path()).findings;
    assert_eq!(found.iter().map(|it| (it.kind, it.line)).collect::<Vec<_>>(), [(Kind::MissingExport, 2)]);
}

#[test]
fn damaged_bytes_anywhere_are_survived() {
    let seed =
        std::env::var("CUTOVER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_504u64);
    println!("CUTOVER_TEST_SEED={seed}");
    let mut state = seed;
    let mut dice = move |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % end
    };
    let mut found = 0;
    for tree in corpus::trees() {
        let root = tempfile::tempdir().unwrap();
        tree.write(root.path());
        println!("{}", tree.name);
        let paths: Vec<_> =
            tree.files.iter().map(|(path, _)| root.path().join(path)).filter(|path| path.is_file()).collect();
        for _ in 0..25 {
            let path = &paths[dice(paths.len())];
            let whole = fs::read(path).unwrap();
            let mut bytes = whole.clone();
            for _ in 0..=dice(4) {
                damage(&mut bytes, &mut dice);
            }
            fs::write(path, &bytes).unwrap();
            let entries = tree.entries().iter().map(Into::into).collect();
            let root = Root { directory: root.path().to_owned(), entries, scope: Scope::Whole };
            let trees = Trees { roots: vec![root], ..Trees::default() };
            found += check(&trees, &mut Cache::default()).unwrap().findings.len();
            fs::write(path, whole).unwrap();
        }
    }
    assert!(found > 1_000, "{found}");
}

fn damage(bytes: &mut Vec<u8>, dice: &mut impl FnMut(usize) -> usize) {
    if bytes.is_empty() {
        bytes.push(b'{');
    }
    let at = dice(bytes.len());
    match dice(5) {
        0 => bytes[at] = u8::try_from(dice(256)).unwrap(),
        1 => bytes.truncate(at),
        2 => bytes.insert(at, b"(){}[]`'\"/\\.*,;\0\n"[dice(17)]),
        3 => drop(bytes.remove(at)),
        _ => {
            let end = at + dice(bytes.len() - at) + 1;
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}
