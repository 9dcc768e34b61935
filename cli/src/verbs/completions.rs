//! `muster completions SHELL`: a completion script for `muster` and its commands.

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use crate::exit;
use crate::getopt::Takes;
use crate::personality;
use crate::submit::options::ROWS;

/// The command.
#[must_use]
pub fn completions(args: &[String]) -> i32 {
    let Some(shell) = args.first().and_then(|word| word.parse::<Shell>().ok()) else {
        exit::error("muster completions", "name a shell: bash, zsh, fish, elvish or powershell");
        return exit::FAILED;
    };
    exit::print(&script(shell));
    exit::OK
}

fn script(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut tree(), "muster", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// All that `muster` knows, as clap wants it. Built for this command alone: no other needs it.
fn tree() -> Command {
    let mut tree = Command::new("muster").version(env!("CARGO_PKG_VERSION"));
    for command in personality::SLURM.iter().chain(personality::OURS) {
        let mut sub = Command::new(command.name).about(command.about).disable_help_flag(true);
        if command.name == "sbatch" {
            sub = sub.disable_version_flag(true).args(sbatch());
        }
        tree = tree.subcommand(sub);
    }
    for daemon in ["controller", "agent", "sim"] {
        tree = tree.subcommand(Command::new(daemon));
    }
    tree
}

fn sbatch() -> impl Iterator<Item = Arg> {
    ROWS.iter().map(|row| {
        let action = match row.opt.takes {
            Takes::Nothing => ArgAction::SetTrue,
            Takes::Value | Takes::MaybeValue => ArgAction::Set,
        };
        let arg = Arg::new(row.opt.long).long(row.opt.long).action(action).help(row.note);
        match row.opt.short {
            Some(letter) => arg.short(letter),
            None => arg,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for word in ["sbatch", "scancel", "why", "gpus-per-node"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
