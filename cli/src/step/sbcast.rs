//! `sbcast`: a file for every node of a job. It is a step of one task per node, as the user, that
//! writes what it is fed: nothing but the user's own rights makes the file.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use muster_proto::v1::StepShape;

use super::agents::Agents;
use super::options::Bad;
use super::srun::{Stop, config, runtime, step};
use super::wish::{Source, Wish};
use super::{job, signals};
use crate::exit;
use crate::getopt::{self, Spec, Takes, both, long};

const PROGRAM: &str = "sbcast";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("compress", 'C', Takes::MaybeValue),
        both("force", 'f', Takes::Nothing),
        both("fanout", 'F', Takes::Value),
        both("help", 'h', Takes::Nothing),
        both("jobid", 'j', Takes::Value),
        both("preserve", 'p', Takes::Nothing),
        both("size", 's', Takes::Value),
        both("timeout", 't', Takes::Value),
        long("usage", Takes::Nothing),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
    ],
};

const HELP: &str = "\
Usage: sbcast [OPTIONS] SOURCE DEST
  -f, --force         replace a file that is there
  -j, --jobid=JOB     the nodes of this job, instead of the one around
  -p, --preserve      keep mode and times
  -V, --version       the version
Accepted, and without meaning here: -C, -F, -s, -t
";

/// Written beside its place and moved there whole.
const WRITE: &str = r#"
dest=$1 mode=$2 force=$3 time=$4
[ "$5" != by-node ] || dest="${dest}_$SLURMD_NODENAME"
if [ "$force" != 1 ] && [ -e "$dest" ]; then
    echo "sbcast: error: $dest: File exists" >&2
    exit 1
fi
part="$dest.sbcast.$$"
umask 077
cat > "$part" && chmod "$mode" "$part" || { rm -f "$part"; exit 1; }
[ -z "$time" ] || touch -d "@$time" "$part"
mv -f "$part" "$dest" || { rm -f "$part"; exit 1; }
"#;

/// The command.
#[must_use]
pub fn sbcast(words: &[String]) -> i32 {
    match begin(words) {
        Ok(code) => code,
        Err(stop) => stop.say(PROGRAM),
    }
}

fn begin(words: &[String]) -> Result<i32, Stop> {
    let parsed = getopt::parse(&SPEC, words).map_err(|usage| Stop::Bad(Bad::Usage(usage)))?;
    if parsed.has("help") || parsed.has("usage") {
        exit::print(HELP);
        return Ok(exit::OK);
    }
    if parsed.has("version") {
        exit::print(&format!("{}\n", crate::query::VERSION));
        return Ok(exit::OK);
    }
    let [source, dest] = parsed.operands.as_slice() else {
        return Err(Stop::refused(None, "Need two file names, have a SOURCE and a DEST"));
    };
    let own = std::env::var("SLURM_JOB_ID").ok();
    let id = parsed.last("jobid").map(str::to_owned).or_else(|| own.clone());
    let id = id.ok_or_else(|| Stop::refused(None, "Need a job id to run this command"))?;
    let pick = id.split('.').next().and_then(job::named);
    let pick = pick.ok_or_else(|| Stop::refused(None, format!("Invalid job id: {id}")))?;
    let cwd = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let cannot = |e: std::io::Error| Stop::refused(None, format!("Can't open `{source}`: {e}"));
    let path = cwd.join(source);
    let meta = std::fs::metadata(&path).map_err(cannot)?;
    if !meta.is_file() {
        return Err(Stop::refused(None, format!("`{source}` is no file")));
    }
    let time = parsed.has("preserve").then(|| meta.mtime());
    let mode = meta.mode() & 0o7777;
    let wish = copying(&path, dest, mode, parsed.has("force"), time, &cwd);
    let config = config()?;
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut signals =
            signals::all().map_err(|e| Stop::refused(None, format!("cannot take signals: {e}")))?;
        let inside = own.is_some_and(|own| own == id);
        let home = job::home(&config, &pick, inside).await?;
        let agents = Agents::new(config);
        step(&agents, home.job, &home.head, wish, words, &mut signals).await
    });
    runtime.shutdown_background();
    code
}

/// A step that writes a file on each of its nodes.
pub(super) fn copying(
    source: &Path,
    dest: &str,
    mode: u32,
    force: bool,
    time: Option<i64>,
    workdir: &Path,
) -> Wish {
    let time = time.map_or_else(String::new, |time| time.to_string());
    let (mode, force) = (format!("{mode:o}"), u8::from(force).to_string());
    let arguments = ["/bin/sh", "-c", WRITE, "sbcast", dest, &mode, &force, &time];
    Wish {
        shape: StepShape {
            tasks_per_node: 1,
            cpus_per_task: 1,
            overlap: true,
            gres_given: true,
            ..StepShape::default()
        },
        name: PROGRAM.to_owned(),
        command: arguments.map(str::to_owned).to_vec(),
        stdin: Source::File(source.to_string_lossy().replace('%', "%%")),
        workdir: workdir.to_owned(),
        distribution: "block".to_owned(),
        kill_on_bad_exit: false,
        ..Wish::default()
    }
}
