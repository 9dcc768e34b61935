//! The one binary. Its name, or its first word, says what it is. (`link.rs`: how it is linked.)

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use muster_cli::personality;

/// Short commands allocate little and quickly; daemons hold many small objects for long. Without huge
/// pages, which a short command would clear for nothing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let raw: Vec<OsString> = std::env::args_os().collect();
    // The shim must not have started a thread before it forks.
    if raw.get(1).is_some_and(|word| word == "shim") {
        return finish(muster_shim::main(&raw[2..]));
    }
    if raw.get(1).is_some_and(|word| word == "pmix-host") {
        return finish(muster_pmix::main());
    }
    let mut words = Vec::new();
    for word in raw {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                eprintln!("muster: error: the argument {word:?} is not UTF-8");
                return ExitCode::from(1);
            }
        }
    }
    let Some((called, args)) = words.split_first() else { return ExitCode::from(1) };
    let name = called.rsplit('/').next().unwrap_or_default();
    finish(match personality::slurm(name) {
        Some(command) => (command.main)(args),
        None => muster(args),
    })
}

/// Exit codes are eight bits wide.
fn finish(code: i32) -> ExitCode {
    ExitCode::from(code.rem_euclid(256) as u8)
}

/// `muster WORD ...`.
fn muster(args: &[String]) -> i32 {
    let Some((word, rest)) = args.split_first() else {
        print!("{}", usage());
        return muster_cli::exit::FAILED;
    };
    if let ("bench", Some("pass")) = (word.as_str(), rest.first().map(String::as_str)) {
        return muster_sim::passes::main(&rest[1..]);
    }
    if let Some(command) = personality::slurm(word).or_else(|| personality::ours(word)) {
        return (command.main)(rest);
    }
    match word.as_str() {
        "controller" => controller(rest),
        "agent" => agent(rest),
        "tokens" => tokens(rest),
        "sim" => muster_sim::main(rest.iter().map(Into::into).collect()),
        "help" | "--help" | "-h" => {
            print!("{}", usage());
            muster_cli::exit::OK
        }
        "version" | "--version" | "-V" => {
            println!("muster {}", env!("CARGO_PKG_VERSION"));
            muster_cli::exit::OK
        }
        unknown => {
            eprintln!("muster: error: unknown command {unknown:?}\n{}", usage());
            muster_cli::exit::FAILED
        }
    }
}

fn usage() -> String {
    let line = |name: &str, about: &str| format!("  {name:<12} {about}\n");
    let list = |table: &[personality::Personality]| -> String {
        table.iter().map(|p| line(p.name, p.about)).collect()
    };
    format!(
        "usage: muster COMMAND ...\n\nSlurm's commands, also as links (muster links DIR):\n{}\n\
         Our own:\n{}\nDaemons, and the simulator:\n{}{}{}{}",
        list(personality::SLURM),
        list(personality::OURS),
        line("controller", "the controller: --config FILE"),
        line("agent", "a node's agent: --config FILE --node NODE"),
        line("tokens", "a submit host's token daemon: --config FILE"),
        line("sim", "replay traces, compare policies, fuzz the scheduler on simulated clusters"),
    )
}

const CONTROLLER: &str = "usage: muster controller --config FILE";
const AGENT: &str = "usage: muster agent --config FILE --node NODE [--print-inventory [--json]]";

const TOKENS: &str = "usage: muster tokens --config FILE";

/// `muster tokens --config FILE`.
fn tokens(words: &[String]) -> i32 {
    match options(words, &["--config"]).as_deref() {
        Some([Some(config)]) => muster_agent::tokens_main(PathBuf::from(config)),
        _ => refuse(words, TOKENS),
    }
}

/// `muster controller --config FILE`.
fn controller(words: &[String]) -> i32 {
    match options(words, &["--config"]).as_deref() {
        Some([Some(config)]) => muster_controller::main(PathBuf::from(config)),
        _ => refuse(words, CONTROLLER),
    }
}

/// `muster agent --config FILE --node NODE`, or a look at what it would register.
fn agent(words: &[String]) -> i32 {
    let flag = |name: &str| words.iter().any(|word| word == name);
    let (look, json) = (flag("--print-inventory"), flag("--json"));
    let rest: Vec<String> = words
        .iter()
        .filter(|word| *word != "--print-inventory" && *word != "--json")
        .cloned()
        .collect();
    match options(&rest, &["--config", "--node"]).as_deref() {
        Some([Some(config), Some(node)]) => {
            let (config, node) = (PathBuf::from(config), node.clone());
            match look {
                true => muster_agent::print_inventory(config, node, json),
                false => muster_agent::main(config, node),
            }
        }
        _ => refuse(words, AGENT),
    }
}

fn refuse(words: &[String], usage: &str) -> i32 {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        muster_cli::exit::print(&format!("{usage}\n"));
        return muster_cli::exit::OK;
    }
    muster_cli::exit::error("muster", usage);
    muster_cli::exit::FAILED
}

/// Values of `--name VALUE` or `--name=VALUE`, in the order of `names`; `None` when a word is not
/// one of them.
fn options(words: &[String], names: &[&str]) -> Option<Vec<Option<String>>> {
    let mut values = vec![None; names.len()];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (word.as_str(), words.next()?.clone()),
        };
        let at = names.iter().position(|known| *known == name)?;
        values[at] = Some(value);
    }
    Some(values)
}
