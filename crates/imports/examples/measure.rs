//! One piece of work at a time, so that a process that measures it sees nothing else.
//!
//! `measure check CACHE DIR...` checks a package with its plugins, the first directory being the host of the others;
//! `CACHE` is a file, or `-` for none. `measure files DIR...` prints which programs that reads, one a line.
//! `measure parse LIST` parses the files of such a list, and does nothing else.

use cutover_imports::{
    Alias, Builtins, Cache, Checked, Interpreter, Limits, Root, Scope, Trees, check, parse_only,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

const USAGE: &str = "measure check CACHE DIR... | files DIR... | parse LIST";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match words.split_first().ok_or(USAGE)? {
        (mode, rest) if mode == Path::new("check") => {
            let (file, directories) = rest.split_first().ok_or(USAGE)?;
            tell(&checked(file, directories)?);
        }
        (mode, directories) if mode == Path::new("files") => {
            let checked = check(&trees(directories)?, &mut Cache::default())?;
            checked.files.iter().for_each(|file| println!("{}", file.display()));
        }
        (mode, [list]) if mode == Path::new("parse") => {
            let files: Vec<PathBuf> = std::fs::read_to_string(list)?.lines().map(PathBuf::from).collect();
            let parsed = parse_only(&files, threads()?);
            println!("{} files, {} bytes, {} programs", parsed.files, parsed.bytes, parsed.programs);
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn checked(file: &Path, directories: &[PathBuf]) -> Result<Checked, Box<dyn Error>> {
    let trees = trees(directories)?;
    if file == Path::new("-") {
        return Ok(check(&trees, &mut Cache::default())?);
    }
    let mut cache = Cache::load(file)?;
    let remembered = cache.len();
    let checked = check(&trees, &mut cache)?;
    println!("{remembered} modules were remembered");
    cache.save(file)?;
    Ok(checked)
}

fn trees(directories: &[PathBuf]) -> Result<Trees, Box<dyn Error>> {
    let host = directories.first().ok_or(USAGE)?;
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(host.join("package.json"))?)?;
    let package = manifest["name"].as_str().ok_or("the first package has no name")?.to_owned();
    let root =
        |directory: &PathBuf| Root { directory: directory.clone(), entries: Vec::new(), scope: Scope::Whole };
    Ok(Trees {
        roots: directories.iter().map(root).collect(),
        aliases: vec![Alias { package, directory: host.clone() }],
        builtins: Builtins::default(),
        interpreter: Interpreter::default(),
        limits: Limits { threads: threads()?, ..Limits::default() },
    })
}

fn threads() -> Result<usize, Box<dyn Error>> {
    Ok(std::thread::available_parallelism()?.get())
}

fn tell(checked: &Checked) {
    println!("{} modules, {} imports, {} names", checked.modules, checked.imports, checked.names);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for finding in &checked.findings {
        let kind = format!("{:?}, {:?}, {:?}", finding.weight, finding.reach, finding.kind);
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.iter().for_each(|(kind, count)| println!("  {count} × {kind}"));
}
