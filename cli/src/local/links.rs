//! `muster links` and `muster env`: Slurm's names for this program, and how a shell finds them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Parser;

use super::daemons;
use super::layout::Layout;

/// Make links with Slurm's names to this program
#[derive(Debug, Parser)]
#[command(name = "muster links")]
struct LinksOptions {
    /// Where the links go
    dir: PathBuf,
}

/// Print what a shell needs to use a cluster started with `muster up`
#[derive(Debug, Parser)]
#[command(name = "muster env", after_help = "Use it as: eval \"$(muster env --dir DIR)\"")]
struct EnvOptions {
    /// The cluster's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// The command `muster links`.
#[must_use]
pub fn links(words: &[String]) -> i32 {
    match super::read::<LinksOptions>("links", words) {
        Ok(options) => super::finish("links", make(&options.dir)),
        Err(code) => code,
    }
}

/// The command `muster env`.
#[must_use]
pub fn env(words: &[String]) -> i32 {
    match super::read::<EnvOptions>("env", words) {
        Ok(options) => super::finish("env", print_env(&options)),
        Err(code) => code,
    }
}

fn print_env(options: &EnvOptions) -> anyhow::Result<()> {
    let layout = Layout::find(&options.dir)?;
    if !layout.config().exists() {
        bail!("there is no cluster in {}: start one with `muster up`", layout.dir().display());
    }
    make(&layout.bin())?;
    println!("export PATH={}:\"$PATH\"", quoted(&layout.bin().display().to_string()));
    let config = layout.config().display().to_string();
    println!("export {}={}", muster_config::CONFIG_VARIABLE, quoted(&config));
    Ok(())
}

/// Makes or mends the links in `dir`. A file that is not a link of ours is left alone and named.
pub(super) fn make(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let program = daemons::program()?;
    let slurm = crate::personality::SLURM.iter().map(|personality| personality.name);
    for name in slurm.chain(["muster"]) {
        let link = dir.join(name);
        match fs::read_link(&link) {
            Ok(target) if target == program => continue,
            Ok(_) => {
                fs::remove_file(&link).with_context(|| format!("replace {}", link.display()))?
            }
            Err(_) if link.exists() => bail!("{} is in the way: it is no link", link.display()),
            Err(_) => {}
        }
        symlink(&program, &link).with_context(|| format!("make the link {}", link.display()))?;
    }
    Ok(())
}

/// A word that a POSIX shell reads back as it is.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        let link = dir.path().join("muster");
        fs::remove_file(&link).unwrap();
        symlink("/nonexistent", &link).unwrap();
        make(dir.path()).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), std::env::current_exe().unwrap());
    }

    #[test]
    fn a_file_of_somebody_else_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("muster"), "mine").unwrap();
        assert!(make(dir.path()).unwrap_err().to_string().contains("in the way"));
        assert_eq!(fs::read_to_string(dir.path().join("muster")).unwrap(), "mine");
    }

    #[test]
    fn a_shell_reads_quoted_words_back() {
        assert_eq!(quoted("/tmp/a-b_c"), "/tmp/a-b_c");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
