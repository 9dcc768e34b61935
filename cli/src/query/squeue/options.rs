//! What was asked of `squeue`: arguments before `SQUEUE_*` before defaults.

use muster_proto::v1::Job;

use super::super::layout::{self, Layout};
use super::super::pick::{self, Pick};
use super::super::sizes::Units;
use super::super::states::{self, Wanted};
use super::super::surroundings::Surroundings;
use super::super::{Output, VERSION};
use super::fields::FIELDS;
use super::{PROGRAM, hosts, steps};
use crate::getopt::{self, Opt, Parsed, Spec, Takes, alias, both, long};

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("account", 'A', Takes::Value),
        both("all", 'a', Takes::Nothing),
        both("array", 'r', Takes::Nothing),
        long("array-unique", Takes::Nothing),
        both("clusters", 'M', Takes::Value),
        alias("clusters", "cluster", Takes::Value),
        long("expand-patterns", Takes::Nothing),
        long("federation", Takes::Nothing),
        both("format", 'o', Takes::Value),
        both("Format", 'O', Takes::Value),
        long("help", Takes::Nothing),
        long("hide", Takes::Nothing),
        both("iterate", 'i', Takes::Value),
        both("jobs", 'j', Takes::MaybeValue),
        long("json", Takes::MaybeValue),
        both("licenses", 'L', Takes::Value),
        long("local", Takes::Nothing),
        both("long", 'l', Takes::Nothing),
        long("me", Takes::Nothing),
        both("name", 'n', Takes::Value),
        alias("name", "names", Takes::Value),
        long("noconvert", Takes::Nothing),
        both("nodelist", 'w', Takes::Value),
        alias("nodelist", "nodes", Takes::Value),
        both("noheader", 'h', Takes::Nothing),
        long("only-job-state", Takes::Nothing),
        both("partition", 'p', Takes::Value),
        both("priority", 'P', Takes::Nothing),
        both("qos", 'q', Takes::Value),
        both("reservation", 'R', Takes::Value),
        long("sibling", Takes::Nothing),
        both("sort", 'S', Takes::Value),
        long("start", Takes::Nothing),
        both("states", 't', Takes::Value),
        alias("states", "state", Takes::Value),
        both("steps", 's', Takes::MaybeValue),
        long("usage", Takes::Nothing),
        both("user", 'u', Takes::Value),
        alias("user", "users", Takes::Value),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        Opt { id: "help", long: "", short: Some('?'), takes: Takes::Nothing },
    ],
};

const USAGE: &str = "Usage: squeue [-aAhijlLMnopqrRsStuvwP] [--json] [--me] [--start]\n";

const HELP: &str = "\
Usage: squeue [OPTIONS]
  -A, --account=NAME,..       jobs of these accounts
  -a, --all                   jobs of every partition (always so)
  -r, --array                 one line per array task
      --clusters=NAME  (-M)   this cluster, or all
  -h, --noheader              no header line
  -i, --iterate=SECONDS       print again and again
  -j, --jobs=ID,..            these jobs: 12, 12_4, 12_[1-3]
      --json                  the jobs as a JSON document
  -L, --licenses=NAME,..      jobs that asked for these licenses
  -l, --long                  the long layout
      --me                    my jobs
  -n, --name=NAME,..          jobs of these names
      --noconvert             sizes in the unit they are kept in
  -w, --nodelist=HOSTLIST     jobs on these nodes
  -o, --format=FORMAT         columns by letter: %[[.]width]letter
  -O, --Format=FIELD,..       columns by name: Field[:[.]width|:suffix]
      --only-job-state        ids and states alone
  -p, --partition=NAME,..     jobs of these partitions
  -q, --qos=NAME,..           jobs of these QOS
  -R, --reservation=NAME      jobs in this reservation
  -S, --sort=LETTERS          order by these letters, each with + or -
      --start                 when waiting jobs are expected to start
  -t, --states=STATE,..       jobs in these states, or all
  -s, --steps[=ID,..]         steps
  -u, --user=NAME,..          jobs of these users
  -V, --version               the version
";

const DEFAULT: &str = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R";
const LONG: &str = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R";
const START: &str = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R";
const STATE_ONLY: &str = "%.18i %.2t";
const STEPS: &str = "%.15i %.8j %.9P %.8u %.9M %N";

/// Columns of jobs or of steps.
pub(super) enum Shape {
    Jobs(Layout),
    Steps(Layout),
}

/// What is to be shown.
pub(super) struct Options {
    pub(super) jobs: Option<Vec<Pick>>,
    steps: Vec<Pick>,
    /// Empty: users nobody has were asked for.
    pub(super) users: Option<Vec<u32>>,
    /// None: all that have not ended.
    pub(super) states: Option<Wanted>,
    pub(super) names: Option<Vec<String>>,
    pub(super) partitions: Option<Vec<String>>,
    pub(super) accounts: Option<Vec<String>>,
    pub(super) qos: Option<Vec<String>>,
    pub(super) reservations: Option<Vec<String>>,
    pub(super) licenses: Option<Vec<String>>,
    pub(super) nodes: Option<Vec<String>>,
    pub(super) clusters: Option<Vec<String>>,
    pub(super) shape: Shape,
    /// Letters; true: descending.
    pub(super) sort: Vec<(char, bool)>,
    pub(super) units: Units,
    pub(super) json: bool,
    pub(super) no_header: bool,
    /// A line with the time above the header.
    pub(super) dated: bool,
    /// Starts of jobs that have no promised one are wanted too.
    pub(super) estimates: bool,
    pub(super) one_line_per_task: bool,
    pub(super) every: Option<u64>,
    /// Lines for stderr that do not end the command.
    pub(super) notices: String,
}

impl Options {
    /// Whether a column needs what the controller sends on request only.
    pub(super) fn needs_details(&self) -> bool {
        match &self.shape {
            _ if self.json => true,
            Shape::Jobs(layout) => layout.columns.iter().any(|c| FIELDS[c.field].details),
            Shape::Steps(_) => false,
        }
    }

    /// Whether nothing that is shown or sorted by needs how a job is launched.
    pub(super) fn is_brief(&self) -> bool {
        let sorts = |(code, _): &(char, bool)| FIELDS.iter().any(|f| f.code == *code && f.details);
        let jobs = matches!(self.shape, Shape::Jobs(_));
        jobs && !self.needs_details() && !self.sort.iter().any(sorts)
    }

    /// Whether the cluster's name is shown or must be checked.
    pub(super) fn needs_cluster(&self) -> bool {
        let shown = match &self.shape {
            Shape::Jobs(layout) => {
                let field = FIELDS.iter().position(|f| f.name == "Cluster");
                field.is_some_and(|field| layout.shows(field))
            }
            Shape::Steps(_) => false,
        };
        self.json || self.clusters.is_some() || shown
    }

    /// Whether `-s` asked for this job's batch step.
    pub(super) fn shows_step(&self, job: &Job, name: &str) -> bool {
        self.steps.is_empty()
            || self
                .steps
                .iter()
                .any(|p| p.names(job) && p.step.as_deref().is_none_or(|step| step == name))
    }
}

/// Either what to show, or a text that answers by itself.
pub(super) enum Ask {
    Text(String),
    Queue(Box<Options>),
}

/// Reads the command line.
///
/// # Errors
/// What to say when it cannot be read.
pub(super) fn read(args: &[String], here: &Surroundings) -> Result<Ask, Output> {
    let parsed = getopt::parse(&SPEC, args).map_err(|fault| Output::usage(&fault))?;
    for (id, text) in [("help", HELP), ("usage", USAGE)] {
        if parsed.has(id) {
            return Ok(Ask::Text(text.to_owned()));
        }
    }
    if parsed.has("version") {
        return Ok(Ask::Text(format!("{VERSION}\n")));
    }
    let error = |text: String| Output::error(PROGRAM, &text);
    let given = |id: &'static str, variable: &str| {
        parsed.last(id).or_else(|| here.variable(variable)).map(pick::words)
    };
    let (jobs, step_picks) = job_lists(&parsed).map_err(error)?;
    let mut notices = String::new();
    let users = user_list(&parsed, here, &mut notices);
    let states = state_list(&parsed, here)?;
    let shape = shape(&parsed, here)?;
    let nodes = match parsed.last("nodelist") {
        Some(text) => Some(hosts(text).map_err(error)?),
        None => None,
    };
    let every = match parsed.last("iterate") {
        Some(text) => Some(
            seconds(text)
                .ok_or_else(|| error(format!("--iterate={text} must be a positive number")))?,
        ),
        None => None,
    };
    let sort_text = parsed.last("sort").or_else(|| here.variable("SQUEUE_SORT"));
    let default_sort = if parsed.has("start") { "S" } else { "P,t,-p" };
    Ok(Ask::Queue(Box::new(Options {
        jobs,
        steps: step_picks,
        users,
        states: if parsed.has("start") { Some(Wanted::These(vec!["PENDING"])) } else { states },
        names: given("name", "SQUEUE_NAMES"),
        partitions: given("partition", "SQUEUE_PARTITION"),
        accounts: given("account", "SQUEUE_ACCOUNT"),
        qos: given("qos", "SQUEUE_QOS"),
        reservations: given("reservation", "SQUEUE_RESERVATION"),
        licenses: given("licenses", "SQUEUE_LICENSES"),
        nodes,
        clusters: given("clusters", "SLURM_CLUSTERS"),
        shape,
        sort: sort_letters(sort_text.unwrap_or(default_sort)),
        units: if parsed.has("noconvert") { Units::Keep } else { Units::Exact },
        json: parsed.has("json"),
        no_header: parsed.has("noheader"),
        dated: parsed.has("long") || parsed.has("iterate"),
        estimates: parsed.has("start"),
        one_line_per_task: parsed.has("array") || here.variable("SQUEUE_ARRAY").is_some(),
        every,
        notices,
    })))
}

fn seconds(text: &str) -> Option<u64> {
    text.parse().ok().filter(|s| *s > 0)
}

/// `-j` and `-s` take their list as the next word too, since their value is optional.
fn job_lists(parsed: &Parsed) -> Result<(Option<Vec<Pick>>, Vec<Pick>), String> {
    let mut jobs: Option<Vec<Pick>> = None;
    let mut step_picks = Vec::new();
    let mut operands = parsed.operands.iter();
    let invalid = |text: String| format!("Invalid job id: {text}");
    for option in &parsed.options {
        let (is_jobs, is_steps) = (option.id == "jobs", option.id == "steps");
        if !is_jobs && !is_steps {
            continue;
        }
        let bare = option.value.is_none();
        // With `-s -j 5` the word belongs to -j.
        let leave = is_steps && parsed.has("jobs");
        let text = match &option.value {
            Some(text) => Some(text),
            None if leave => None,
            None => operands.next(),
        };
        match text {
            Some(text) if is_jobs => {
                jobs.get_or_insert_default().extend(Pick::list(text).map_err(invalid)?);
            }
            Some(text) => step_picks.extend(Pick::list(text).map_err(invalid)?),
            None if is_jobs && bare => {}
            None => {}
        }
    }
    match operands.next() {
        Some(word) => Err(format!("Unrecognized option: {word}")),
        None => Ok((jobs, step_picks)),
    }
}

fn user_list(parsed: &Parsed, here: &Surroundings, notices: &mut String) -> Option<Vec<u32>> {
    let mut uids = parsed.has("me").then(|| vec![here.uid]);
    if let Some(text) = parsed.last("user").or_else(|| here.variable("SQUEUE_USERS")) {
        let (known, unknown) = pick::users(text, here);
        for name in unknown {
            notices.push_str(&format!("{PROGRAM}: error: Invalid user: {name}\n"));
        }
        uids.get_or_insert_default().extend(known);
    }
    uids
}

fn state_list(parsed: &Parsed, here: &Surroundings) -> Result<Option<Wanted>, Output> {
    let Some(text) = parsed.last("states").or_else(|| here.variable("SQUEUE_STATES")) else {
        return Ok(None);
    };
    Wanted::parse(text).map(Some).map_err(|word| {
        let mut output = Output::error(PROGRAM, &format!("Invalid job state specified: {word}"));
        let valid = states::valid_job_states();
        output.err.push_str(&format!("{PROGRAM}: error: Valid job states include: {valid}\n"));
        output
    })
}

fn shape(parsed: &Parsed, here: &Surroundings) -> Result<Shape, Output> {
    let steps = parsed.has("steps");
    // The one that stands last wins.
    let given = parsed.options.iter().rev().find(|o| matches!(o.id, "format" | "Format"));
    let chosen = given.and_then(|o| Some((o.id == "Format", o.value.as_deref()?)));
    let (by_name, text) = match chosen {
        Some(chosen) => chosen,
        None if steps => (false, STEPS),
        None if parsed.has("start") => (false, START),
        None if parsed.has("long") => (false, LONG),
        None => match (here.variable("SQUEUE_FORMAT"), here.variable("SQUEUE_FORMAT2")) {
            (Some(text), _) => (false, text),
            (None, Some(text)) => (true, text),
            (None, None) if parsed.has("only-job-state") => (false, STATE_ONLY),
            (None, None) => (false, DEFAULT),
        },
    };
    let layout = if steps { step_layout(by_name, text) } else { job_layout(by_name, text) };
    if layout.unknown.is_empty() {
        return Ok(if steps { Shape::Steps(layout) } else { Shape::Jobs(layout) });
    }
    let kind = if steps { "job step" } else { "job" };
    let text = format!("Invalid {kind} format specification: {}", layout.unknown.join(","));
    // Slurm's exit code here is 0, and tools rely on it when they probe for columns.
    Err(Output { code: 0, ..Output::error(PROGRAM, &text) })
}

fn job_layout(by_name: bool, text: &str) -> Layout {
    if by_name {
        return layout::names(text, |name| {
            FIELDS.iter().position(|f| f.name.eq_ignore_ascii_case(name))
        });
    }
    let mut all: Vec<usize> = (0..FIELDS.len()).filter(|at| FIELDS[*at].code != ' ').collect();
    all.sort_by_key(|at| (FIELDS[*at].code.to_ascii_lowercase(), FIELDS[*at].code));
    layout::letters(text, &all, |c| FIELDS.iter().position(|f| f.code == c && c != ' '))
}

fn step_layout(by_name: bool, text: &str) -> Layout {
    let fields = steps::FIELDS;
    if by_name {
        return layout::names(text, |name| {
            fields.iter().position(|f| f.name.eq_ignore_ascii_case(name))
        });
    }
    let all: Vec<usize> = (0..fields.len()).filter(|at| fields[*at].code != ' ').collect();
    layout::letters(text, &all, |c| fields.iter().position(|f| f.code == c && c != ' '))
}

/// `P,t,-p`: letters with signs, with or without commas.
fn sort_letters(text: &str) -> Vec<(char, bool)> {
    let mut order = Vec::new();
    let mut down = false;
    for c in text.chars() {
        match c {
            '-' => down = true,
            '+' | ',' | ' ' | '%' => down = false,
            letter => {
                order.push((letter, down));
                down = false;
            }
        }
    }
    order
}
