//! Measures a check of one package and what leads out of it: `measure DIR [CACHE]`.
//!
//! Prints wall and CPU time of parsing alone, of the first check, and of a second one that finds everything in the
//! cache, with their ratios, and the most memory that was in use.

use cutover_imports::{
    Builtins, Cache, Checked, Interpreter, Limits, Parsed, Root, Scope, Trees, check, parse_only,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("measure DIR [CACHE]")?);
    let file = arguments.next().map(PathBuf::from);
    let threads = std::thread::available_parallelism()?.get();
    let trees = Trees {
        roots: vec![Root { directory, entries: Vec::new(), scope: Scope::Whole }],
        aliases: Vec::new(),
        builtins: Builtins::default(),
        interpreter: Interpreter::default(),
        limits: Limits { threads, ..Limits::default() },
    };
    let mut cache = match &file {
        Some(file) => Cache::load(file)?,
        None => Cache::default(),
    };
    let remembered = cache.len();
    let (_, _) = measured(|| check(&trees, &mut Cache::default()))?;
    let (first, checked) = measured(|| check(&trees, &mut cache))?;
    let (floor, parsed) = measured(|| Ok::<Parsed, Box<dyn Error>>(parse_only(&checked.files, threads)))?;
    let (again, _) = measured(|| check(&trees, &mut cache))?;
    println!("remembered {remembered} modules, threads {threads}");
    say("parsing alone", &floor, &floor);
    println!("  {} files, {} bytes, {} programs", parsed.files, parsed.bytes, parsed.programs);
    say("check", &first, &floor);
    tell(&checked);
    say("check again", &again, &floor);
    println!("  {:.2} of the first", again.cpu.as_secs_f64() / first.cpu.as_secs_f64());
    println!("peak memory {} KiB", peak_kib()?);
    if let Some(file) = &file {
        cache.save(file)?;
    }
    Ok(())
}

fn say(what: &str, cost: &Cost, floor: &Cost) {
    let ratio = cost.cpu.as_secs_f64() / floor.cpu.as_secs_f64();
    println!(
        "{what}: wall {:.3} s, CPU {:.3} s, {ratio:.2} of parsing alone",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64()
    );
}

fn tell(checked: &Checked) {
    println!("  {} modules, {} imports, {} names", checked.modules, checked.imports, checked.names);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for finding in &checked.findings {
        let kind = format!("{:?}, {:?}, {:?}", finding.weight, finding.reach, finding.kind);
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.iter().for_each(|(kind, count)| println!("  {count} × {kind}"));
}

fn measured<T, E: Into<Box<dyn Error>>>(
    run: impl FnOnce() -> Result<T, E>,
) -> Result<(Cost, T), Box<dyn Error>> {
    let (wall, cpu) = (Instant::now(), cpu()?);
    let done = run().map_err(Into::into)?;
    Ok((Cost { wall: wall.elapsed(), cpu: self::cpu()? - cpu }, done))
}

/// The CPU time of all threads so far.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
